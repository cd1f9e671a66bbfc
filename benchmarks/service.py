"""The service: seconds to the first picture, many clients, memory over a thousand uploads.

    python -m benchmarks.service --folder DIR [--model FOLDER …] [picture clients memory fifty]

Starts `crosspatch serve` and asks it as a browser (Playwright with the machine's chromium) or a rig
would. Needs the data directory (CROSSPATCH_DATA) for real recordings, and the default models
unless others are given. The parts:

picture
    recordings of about 30 MB, from the end of their upload by a browser until the first sweeps,
    all sweeps and everything are drawn, beside reading alone, and where the time goes; one
    recording at 200 kHz, and a zoom into it;
clients
    20 clients at once for a minute, each giving one file after another and waiting for its cells,
    which must be those that the file gives alone; recordings, then tables of 100 rows;
memory
    a thousand uploads, memory measured whenever nothing is being done;
fifty
    50 recordings chosen at once in a browser.

Every part leaves its numbers in DIR; benchmarks/results/service.md is written from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
from playwright.sync_api import BrowserContext, Error, Page, Request, sync_playwright
from tests.features.made_files import write_small

from benchmarks.whole_set import ARCHIVE, Extras
from crosspatch.prediction.predictor import load_predictor
from crosspatch.recordings.nwb_writer import ElectrodeNotes, SessionNotes, write_nwb
from crosspatch.recordings.opening import open_recording
from crosspatch.service.examples import write_table
from crosspatch.simulation.cells import simulate_cells
from crosspatch.simulation.rig import StimulusSet, record
from crosspatch.simulation.subclasses import simulated_neuron

MIB = 2**20
PATIENCE = 180.0

#: A recording of about 30 MB at the archive's 50 kHz, and one at 200 kHz.
LONG = StimulusSet(step=4.0, repeats=20, offsets=tuple(np.arange(10.0, 410.0, 10.0)), ramps=4)
FAST = StimulusSet(rate=200_000.0)

#: How often clients ask, s.
PAUSE = 0.25

SWEEPS = '[data-plot="sweeps"][data-drawn="yes"]'

# Times in the browser, by its clock, which is this machine's: kept over pages.
WATCH = """
const keep = (name) => { if (!sessionStorage.getItem(name)) sessionStorage.setItem(name, Date.now()); };
const painted = (name) => requestAnimationFrame(() => requestAnimationFrame(() => keep(name)));
const send = XMLHttpRequest.prototype.send;
XMLHttpRequest.prototype.send = function (body) { this.addEventListener("load", () => keep("sent")); send.call(this, body); };
addEventListener("change", (event) => {
  if (event.target.type === "file") { sessionStorage.clear(); keep("chosen"); }
}, true);
addEventListener("DOMContentLoaded", () => {
  const look = () => {
    const live = document.getElementById("live"), finished = live && live.dataset.finished === "yes";
    const all = document.querySelectorAll('[data-plot="sweeps"]').length;
    const drawn = document.querySelectorAll('[data-plot="sweeps"][data-drawn="yes"]').length;
    if (drawn) painted("first");
    if (all && drawn === all) painted("all");
    if (all && finished && !document.querySelector("[data-plot]:not([data-drawn])")) painted("everything");
    if (finished && !live.querySelector("li.file:not([data-state=done])")) painted("finished");
  };
  new MutationObserver(look).observe(document.body, {
    subtree: true, childList: true, attributes: true, attributeFilter: ["data-drawn", "data-finished"],
  });
  look();
});
"""  # noqa: E501


@dataclass
class Server:
    """A running `crosspatch serve`."""

    address: str
    process: subprocess.Popen[bytes]
    folders: list[Path]
    ready: float

    @property
    def root(self) -> psutil.Process:
        """The process that answers."""
        return psutil.Process(self.process.pid)

    def client(self) -> httpx.Client:
        """Asks its interface."""
        return httpx.Client(base_url=f"{self.address}/api/v1", timeout=PATIENCE)

    def processor(self) -> tuple[float, float]:
        """Processor seconds of the process that answers, and of its workers, so far."""
        root = self.root
        own = root.cpu_times()
        workers = [each.cpu_times() for each in root.children(recursive=True)]
        ended = own.children_user + own.children_system
        return own.user + own.system, ended + sum(each.user + each.system for each in workers)

    def measures(self) -> dict[str, float]:
        """Memory (PSS, MiB), threads and open files; size of the private folder."""
        root = self.root
        workers = root.children(recursive=True)
        files = [each for folder in self.folders for each in folder.rglob("*") if each.is_file()]
        return {
            "server": root.memory_full_info().pss / MIB,
            "workers": sum(each.memory_full_info().pss for each in workers) / MIB,
            "threads": root.num_threads(),
            "descriptors": root.num_fds(),
            "folder": sum(each.stat().st_size for each in files) / MIB,
            "batches": sum(
                1 for folder in self.folders for each in folder.iterdir() if each.is_dir()
            ),
        }


@contextmanager
def serving(chosen: argparse.Namespace, *options: object) -> Iterator[Server]:
    """Start the command, wait until it answers, and end it with Ctrl-C."""
    temporary = Path(tempfile.mkdtemp(dir=chosen.folder))
    said = chosen.folder / "serve.log"
    models = [part for each in chosen.model for part in ("--model", each)]
    started = time.perf_counter()
    with said.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "crosspatch", "serve", "--port", "0"),
                *map(str, (*models, *options)),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
    try:
        while not (found := re.search(r"crosspatch is at (http://\S+?)/? ", said.read_text())):
            if process.poll() is not None:
                raise RuntimeError(said.read_text())
            time.sleep(0.05)
        private = list(temporary.glob("crosspatch-serve-*"))
        server = Server(found[1], process, private, time.perf_counter() - started)
        with server.client() as client:
            client.get("/about").raise_for_status()
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
        left = list(temporary.glob("crosspatch-serve-*"))
        shutil.rmtree(temporary)
        if left:
            raise RuntimeError(f"the server left {left} behind")


# What is uploaded


def make_long(folder: Path, name: str, protocol: StimulusSet, number: int) -> Path:
    """A simulated recording with the whole set and so many sweeps, stored as in the archive."""
    file = folder / f"{name}-{number}.nwb"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    notes = SessionNotes(
        identifier=file.stem,
        description="Simulated recording, no real cell",
        experiment="Simulated by crosspatch with a point neuron",
        keywords=("simulated",),
        start=datetime(2020, 1, 1, tzinfo=UTC),
        species="mouse",
        donor="simulated",
        sex="U",
        age="P60D",
        electrodes=(ElectrodeNotes(file.stem, "a simulated electrode", 3.0, 12.0),),
        device="a simulated amplifier",
        origin="none: simulated",
    )
    subclass = ("Sst", "Pvalb", "Vip", "Lamp5")[number % 4]
    neuron = simulated_neuron("mouse", subclass, number)
    sweeps = record(neuron, number, protocol=protocol, extra=Extras(3.0))
    write_nwb(file, notes, sweeps, ARCHIVE)
    return file


def long_recordings(chosen: argparse.Namespace) -> list[Path]:
    """Recordings of 27 to 33 MB."""
    folder, found = chosen.folder / "long", []
    for number in range(100):
        file = make_long(folder, "long", LONG, number)
        if 27e6 <= file.stat().st_size <= 33e6:
            found.append(file)
        if len(found) == chosen.repeats:
            break
    return found


def recordings(chosen: argparse.Namespace) -> list[Path]:
    """Real recordings (ABF) that can be measured, and simulated ones (NWB)."""
    real = sorted((Path(os.environ["CROSSPATCH_DATA"]) / "recordings").glob("*.abf"))
    folder = chosen.folder / "cells"
    simulate_cells(folder, 6, "mouse")
    return [each for each in real if "voltage_clamp" not in each.name] + sorted(
        folder.glob("sim-*.nwb")
    )


def small_recordings(chosen: argparse.Namespace) -> list[Path]:
    """Recordings of seven sweeps."""
    folder = chosen.folder / "small"
    folder.mkdir(exist_ok=True)
    files = [folder / f"small-{number}.nwb" for number in range(6)]
    return [each if each.exists() else write_small(each, k) for k, each in enumerate(files)]


def tables(chosen: argparse.Namespace) -> list[Path]:
    """Tables of 100 rows with the names and units of another laboratory, and with the model's."""
    folder = chosen.folder / "tables"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{kind}-{k}.csv" for kind in ("foreign", "own") for k in range(3)]
    if all(each.exists() for each in files):
        return files
    predictor = load_predictor(
        chosen.model,
        sets="all-cells",
        data_dir=None,
        jobs=os.cpu_count() or 1,
        say=print,
        progress=lambda what, done, total: None,
    )
    write_table(predictor, folder / "example")
    example = pd.read_csv(folder / "example")
    model = next(iter(predictor.models.values()))
    classifier, names = model.classifier, list(model.layout.feature_names)
    rng = np.random.default_rng(0)
    for file in files:
        if file.name.startswith("foreign"):
            frame = pd.concat([example] * 5, ignore_index=True).head(100)
            frame["Cell"] = [f"cell {k}" for k in range(100)]
        else:
            z = rng.normal(size=(100, len(names)))
            frame = pd.DataFrame(
                (classifier.feature_center_ + classifier.feature_scale_ * z).round(5), columns=names
            )
            frame.insert(0, "cell_id", [f"cell {k}" for k in range(100)])
            frame.insert(1, "species", model.species)
        frame.to_csv(file, index=False)
    (folder / "example").unlink()
    return files


# What is asked


@dataclass
class Answer:
    """What became of an upload."""

    batch: str
    state: str
    cells: list[dict[str, Any]]
    seconds: float


def give(client: httpx.Client, file: Path) -> Answer:
    """Upload a file to a batch of its own, wait, and get its cells."""
    content = file.read_bytes()
    batch = client.post("/batches", json={}).raise_for_status().json()["batch"]
    started = time.perf_counter()
    client.post(
        f"/batches/{batch}/files", params={"name": file.name}, content=content
    ).raise_for_status()
    while not (state := client.get(f"/batches/{batch}").raise_for_status().json())["finished"]:
        time.sleep(PAUSE)
    cells = client.get(f"/batches/{batch}/cells", params={"limit": 1000}).raise_for_status()
    return Answer(
        batch, state["files"][0]["state"], cells.json()["cells"], time.perf_counter() - started
    )


def warm(server: Server, file: Path) -> None:
    """Have every worker started: all but one are when they are first needed."""

    def one(_: int) -> None:
        with server.client() as client:
            answer = give(client, file)
            client.delete(f"/batches/{answer.batch}").raise_for_status()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))


# Parts


def picture(chosen: argparse.Namespace) -> dict[str, Any]:
    """Seconds until the sweeps are seen."""
    files = long_recordings(chosen)
    fast = make_long(chosen.folder / "long", "fast", FAST, 0)
    with serving(chosen) as server, browser() as new_context:
        first = new_context()
        cold = seen(server, first.new_page(), files[0])  # the first of server and browser
        warm(server, small_recordings(chosen)[0])
        page = first.new_page()
        shown = [seen(server, page, file) for file in files]
        fast_shown = seen(server, page, fast)
        zooms = [zoom(page) for _ in range(3)]
    return {
        "server ready": server.ready,
        "long": shown,
        "cold": cold,
        "fast": fast_shown,
        "zooms": zooms,
        "sweeps": {"long": sweeps_of(files[0]), "fast": sweeps_of(fast)},
    }


def sweeps_of(file: Path) -> int:
    """Sweeps in current clamp of a recording of ours."""
    import h5py

    with h5py.File(file) as opened:
        kinds = [each.attrs["neurodata_type"] for each in opened["acquisition"].values()]
    return Counter(kinds)["CurrentClampSeries"]


@contextmanager
def browser() -> Iterator[Callable[[], BrowserContext]]:
    """Makes contexts of a browser, each with a cache of its own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )

        def new() -> BrowserContext:
            context = chromium.new_context(viewport={"width": 1280, "height": 900})
            context.add_init_script(WATCH)
            return context

        try:
            yield new
        finally:
            chromium.close()


@dataclass
class Watched:
    """Requests of a page, and the states of the batch it is about."""

    server: Server
    requests: list[dict[str, Any]] = field(default_factory=list)
    states: list[tuple[float, str]] = field(default_factory=list)
    done: float | None = None
    _follower: threading.Thread | None = None

    def begun(self, request: Request) -> None:
        """Follow the batch from when its first file is sent."""
        found = re.search(r"/batches/([^/]+)/files\?", request.url)
        if request.method == "POST" and found and self._follower is None:
            self._follower = threading.Thread(target=self._follow, args=(found[1],), daemon=True)
            self._follower.start()

    def ended(self, request: Request) -> None:
        """Keep when a request was sent and answered, and how much came."""
        timing, answer = request.timing, request.response()
        gone = request.resource_type == "document" or answer is None or not answer.ok
        try:
            body = 0 if gone or answer is None else len(answer.body())
            sent = request.sizes()["responseBodySize"]
        except Exception:  # the page is left: its bodies are gone
            body, sent = 0, 0
        self.requests.append(
            {
                "method": request.method,
                "path": request.url.removeprefix(self.server.address),
                "from": timing["startTime"] / 1e3,
                "to": (timing["startTime"] + timing["responseEnd"]) / 1e3,
                "bytes": body,
                "sent": sent,
            }
        )

    def _follow(self, batch: str) -> None:
        with self.server.client() as client:
            while self.done is None:
                state = client.get(f"/batches/{batch}").json()
                now = time.time()
                for each in state["files"][:1]:
                    said = each["stage"] or each["state"]
                    if not self.states or self.states[-1][1] != said:
                        self.states.append((now, said))
                if state["finished"] and state["files"]:
                    ended = all(each["state"] == "done" for each in state["files"])
                    if ended and len(state["files"]) >= self.expected:
                        self.done = now
                time.sleep(0.03)

    expected: int = 1

    def when(self, *stages: str) -> float:
        """When the first file was first found in one of some stages."""
        return next((when for when, stage in self.states if stage in stages), float("nan"))

    def of(self, method: str, pattern: str) -> list[dict[str, Any]]:
        """Requests."""
        return [
            each
            for each in self.requests
            if each["method"] == method and re.search(pattern, each["path"])
        ]


def watched(server: Server, page: Page, expected: int = 1) -> Watched:
    """Watch a page."""
    watch = Watched(server, expected=expected)
    page.on("request", watch.begun)
    page.on("requestfinished", watch.ended)
    return watch


def unwatch(page: Page, watch: Watched) -> None:
    """Watch it no more."""
    page.remove_listener("request", watch.begun)
    page.remove_listener("requestfinished", watch.ended)


def until(page: Page, expression: str) -> None:
    """Wait until it is so; Playwright's own way is against the pages' policy for scripts."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if page.evaluate(expression):
                return
        except Error:  # it goes on to another page
            pass
        page.wait_for_timeout(30)
    raise RuntimeError(f"never {expression}")


def seen(server: Server, page: Page, file: Path) -> dict[str, float]:
    """Choose a recording in the browser; seconds until parts of its page are seen, and why."""
    alone = reading_alone(file)
    page.goto(server.address, wait_until="networkidle")
    watch, before = watched(server, page), server.processor()
    page.locator("#files").set_input_files(file)
    page.wait_for_url("**/cells/1/0", timeout=1e3 * PATIENCE)
    until(page, "sessionStorage.getItem('everything')")
    page.wait_for_load_state("networkidle")
    after = server.processor()
    chosen, sent, first, whole, everything = (
        float(page.evaluate(f"sessionStorage.getItem('{name}')")) / 1e3
        for name in ("chosen", "sent", "first", "all", "everything")
    )
    unwatch(page, watch)
    sweeps = watch.of("GET", r"/sweeps\?")
    read, measured = watch.when("measuring", *_LATER), watch.when(*_LATER)
    done = watch.when("done")
    return {
        "megabytes": file.stat().st_size / 1e6,
        "first sweeps": first - sent,
        "all sweeps": whole - sent,
        "everything": everything - sent,
        "upload": sent - chosen,
        "until what is shown is read": read - sent,
        "reading the rest, measuring": measured - read,
        "predicting, explaining": done - measured,
        "from read to the first sweeps": first - read,
        "from the answer to everything": everything - done,
        "of it plotly.js": sum(each["to"] - each["from"] for each in watch.of("GET", "plotly")),
        "the longest wait for sweeps": max(each["to"] - each["from"] for each in sweeps),
        "reading all samples alone": alone[0],
        "the same, processor seconds": alone[1],
        "worker, processor seconds": after[1] - before[1],
        "server, processor seconds": after[0] - before[0],
        "plots": float(len(sweeps)),
        "sweeps, kB": sum(each["bytes"] for each in sweeps) / 1e3,
        "sweeps sent, kB": sum(each["sent"] for each in sweeps) / 1e3,
    }


#: Stages of a file after it is measured; some are too short to be met.
_LATER = ("predicting", "done")


def reading_alone(file: Path) -> tuple[float, float]:
    """Seconds, and seconds of processor, in which a recording's samples are read and no more."""
    began, busy = time.perf_counter(), time.process_time()
    with open_recording(file, measured_only=True) as recording:
        for sweep in recording.current_clamp:
            _ = sweep.voltage, sweep.current
    return time.perf_counter() - began, time.process_time() - busy


def zoom(page: Page) -> dict[str, float]:
    """Drag over a part of the first plot; seconds until its finer data are drawn."""
    page.evaluate(
        """() => {
          const plot = document.querySelector('[data-plot="sweeps"]');
          const before = plot.layout.datarevision;
          window.zoomed = {};
          document.addEventListener("mouseup", () => { zoomed.released = Date.now(); },
            { capture: true, once: true });
          const look = () => {
            if (plot.layout.datarevision === before) { requestAnimationFrame(look); return; }
            zoomed.range = plot.layout.xaxis.range;
            requestAnimationFrame(() => requestAnimationFrame(() => { zoomed.done = Date.now(); }));
          };
          look();
        }"""
    )
    area = page.locator('[data-plot="sweeps"] .nsewdrag').first.bounding_box()
    if area is None:
        raise RuntimeError("there is no plot")
    across, down = area["x"] + 0.45 * area["width"], area["y"] + 0.5 * area["height"]
    with page.expect_response(lambda answer: "start=" in answer.url) as asked:
        page.mouse.move(across, down)
        page.mouse.down()
        page.mouse.move(across + 0.12 * area["width"], down, steps=6)
        page.mouse.up()
    answer = asked.value
    until(page, "zoomed.done")
    zoomed = page.evaluate("zoomed")
    timing = answer.request.timing
    found = {
        "seconds": (zoomed["done"] - zoomed["released"]) / 1e3,
        "answer": timing["responseEnd"] / 1e3,
        "kB": len(answer.body()) / 1e3,
        "kB sent": answer.request.sizes()["responseBodySize"] / 1e3,
        "width, s": float(zoomed["range"][1]) - float(zoomed["range"][0]),
    }
    page.wait_for_timeout(300)
    return found


def clients(chosen: argparse.Namespace) -> dict[str, Any]:
    """Many at once."""
    kinds = {"recordings": recordings(chosen), "tables": tables(chosen)}
    found: dict[str, Any] = {}
    for workers in (1, 2):
        for kind, files in kinds.items():
            # A server each: what one has done does not help the other.
            with serving(chosen, "--workers", workers) as server:
                found[f"{kind}, {workers}"] = crowd(server, files, chosen)
                print(kind, workers, found[f"{kind}, {workers}"], flush=True)
    return found


def crowd(server: Server, files: Sequence[Path], chosen: argparse.Namespace) -> dict[str, Any]:
    """Twenty clients at once for a while."""
    alone: dict[Path, Answer] = {}
    warm(server, files[-1])
    with server.client() as client:
        for file in files:
            alone[file] = give(client, file)
            client.delete(f"/batches/{alone[file].batch}").raise_for_status()
    # Of some real recordings nothing can be measured.
    alone = {file: answer for file, answer in alone.items() if answer.state == "done"}
    files = list(alone)
    wrong: Counter[str] = Counter()
    latencies: list[float] = []
    rows = 0
    lock = threading.Lock()
    before, own = server.processor(), time.process_time()
    started = time.perf_counter()
    ends = started + chosen.seconds

    def one(number: int) -> None:
        nonlocal rows
        given = number
        with server.client() as client:
            while time.perf_counter() < ends:
                file = files[given % len(files)]
                given += 1
                try:
                    answer = give(client, file)
                    client.delete(f"/batches/{answer.batch}").raise_for_status()
                except httpx.HTTPError as error:
                    with lock:
                        wrong[f"{type(error).__name__}: {error}"[:100]] += 1
                    continue
                with lock:
                    latencies.append(answer.seconds)
                    rows += len(answer.cells)
                    if answer.state != "done":
                        wrong[answer.state] += 1
                    elif answer.cells != alone[file].cells:
                        wrong["other cells than alone"] += 1

    with ThreadPoolExecutor(chosen.clients) as pool:
        list(pool.map(one, range(chosen.clients)))
    seconds = time.perf_counter() - started
    after = server.processor()
    return {
        "clients": chosen.clients,
        "files": len(files),
        "alone": statistics.median(each.seconds for each in alone.values()),
        "uploads": len(latencies),
        "rows": rows,
        "seconds": seconds,
        "median": float(np.median(latencies)),
        "95th": float(np.percentile(latencies, 95)),
        "longest": max(latencies),
        "errors": dict(wrong),
        "server": (after[0] - before[0]) / seconds,
        "workers": (after[1] - before[1]) / seconds,
        "own": (time.process_time() - own) / seconds,
    }


def memory(chosen: argparse.Namespace) -> dict[str, Any]:
    """A thousand uploads; everything is read again whenever nothing is being done."""
    real = sorted((Path(os.environ["CROSSPATCH_DATA"]) / "recordings").glob("*.abf"))
    small, table = small_recordings(chosen), tables(chosen)
    few = sorted(real, key=lambda each: each.stat().st_size)[:4]
    files = [
        each for group in zip(few, small[:4], table[1:5], small[2:], strict=True) for each in group
    ]
    states: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    lock = threading.Lock()
    expiring = 0

    def one(number: int) -> None:
        nonlocal expiring
        try:
            with server.client() as client:
                file = files[number % len(files)]
                answer = give(client, file)
                batch = f"/batches/{answer.batch}"
                pages = httpx.Client(base_url=server.address, timeout=PATIENCE)
                with pages:
                    pages.get(batch).raise_for_status()
                    if answer.state == "done":
                        pages.get(f"{batch}/cells/1/0").raise_for_status()
                        if number % 20 == 0:
                            for ending in ("predictions.csv", "predictions.h5ad", "report.html"):
                                client.get(f"{batch}/{ending}").raise_for_status()
                if file.suffix != ".csv" and answer.state == "done":
                    recording = client.get(f"{batch}/cells/1/0").raise_for_status().json()
                    for kind in recording["recording"]["stimuli"]:
                        client.get(
                            f"{batch}/files/1/sweeps", params={"stimulus": kind["kind"]}
                        ).raise_for_status()
                if number % 2:
                    client.delete(batch).raise_for_status()
        except (httpx.HTTPError, KeyError) as error:
            with lock:
                wrong[f"{type(error).__name__}: {error}"[:100]] += 1
            return
        with lock:
            states[answer.state] += 1
            expiring += not number % 2

    points: list[dict[str, float]] = []
    started = time.perf_counter()
    with serving(chosen, "--workers", 2, "--keep", 0.02) as server:
        points.append({"uploads": 0, "seconds": 0.0, **server.measures()})
        for first in range(0, chosen.uploads, 50):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(one, range(first, min(first + 50, chosen.uploads))))
            time.sleep(2)
            now = time.perf_counter() - started
            points.append(
                {"uploads": min(first + 50, chosen.uploads), "seconds": now, **server.measures()}
            )
            print(points[-1], flush=True)
        # Until the last batches are gone.
        time.sleep(0.02 * 3600 + 25)
        after = server.measures()
    late = [each for each in points if each["uploads"] >= chosen.warm]
    slope, offset = np.polyfit([p["uploads"] for p in late], [p["server"] for p in late], 1)
    residual = np.array([p["server"] - offset - slope * p["uploads"] for p in late])
    spread = np.array([p["uploads"] for p in late], dtype=float)
    spread -= spread.mean()
    error = np.sqrt((residual**2).sum() / max(len(late) - 2, 1) / (spread**2).sum())
    return {
        "points": points,
        "after": after,
        "warm": chosen.warm,
        "slope": 100 * float(slope),
        "standard error": 100 * float(error),
        "states": dict(states),
        "errors": dict(wrong),
        "expired": expiring,
    }


def fifty(chosen: argparse.Namespace) -> dict[str, Any]:
    """Fifty recordings chosen at once."""
    kinds = recordings(chosen)
    folder = chosen.folder / "fifty"
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(50):
        source = kinds[number % len(kinds)]
        path = folder / f"{number:02d}-{source.name}"
        if not path.exists():
            shutil.copy(source, path)
        paths.append(path)
    with serving(chosen) as server, browser() as new_context:
        warm(server, kinds[-1])
        page = new_context().new_page()
        page.goto(server.address, wait_until="networkidle")
        watch = watched(server, page, expected=50)
        before = server.processor()
        page.locator("#files").set_input_files(paths)
        page.wait_for_url("**/batches/*", timeout=1e3 * PATIENCE)
        until(page, "sessionStorage.getItem('finished')")
        after = server.processor()
        chose, shown = (
            float(page.evaluate(f"sessionStorage.getItem('{name}')")) / 1e3
            for name in ("chosen", "finished")
        )
        swaps = watch.of("GET", r"^/batches/[^/]+$")
        sent = watch.of("POST", r"/files\?")
        done = watch.done or float("nan")
        rows = page.locator("table.cells tbody tr").count()
        private = server.measures()["folder"]
    return {
        "files": len(paths),
        "megabytes": sum(path.stat().st_size for path in paths) / 1e6,
        "all sent": max(each["to"] for each in sent) - chose,
        "all done": done - chose,
        "page shows all": shown - chose,
        "rows on the page": rows,
        "times the page was asked for": len(swaps),
        "the page at last, kB sent": swaps[-1]["sent"] / 1e3,
        "the page at last, s": swaps[-1]["to"] - swaps[-1]["from"],
        "private folder, MiB": private,
        "processor s of the server": after[0] - before[0],
        "processor s of the workers": after[1] - before[1],
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "picture": picture,
    "clients": clients,
    "memory": memory,
    "fifty": fifty,
}


# What is written


def write(folder: Path) -> None:
    """The tables of what was measured."""
    kept = {name: folder / f"{name}.json" for name in PARTS}
    found = {name: json.loads(file.read_text()) for name, file in kept.items() if file.exists()}
    machine = next(iter(found.values()))["machine"]
    lines = [
        "# The service",
        "",
        f"{machine}. Server, workers, browser and clients share the cores. Commands are those of "
        "`crosspatch serve` with its default settings unless something else is said; see "
        "benchmarks/service.py for what each part does.",
    ]
    for name, part in found.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"Load before (1, 5 min): {part['load']}; other "
            f"work meanwhile took {max(part['others'], 0):.1f} cores.",
        ]
        lines += ["", *WRITERS[name](part["found"])]
    out = Path(__file__).parent / "results" / "service.md"
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def this_machine() -> str:
    """What it runs on."""
    names = ("crosspatch", "fastapi", "uvicorn", "playwright")
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
    )


def loads() -> str:
    """How busy the machine is."""
    return ", ".join(f"{each:.2f}" for each in os.getloadavg()[:2])


def processors() -> tuple[float, float]:
    """Processor seconds of the whole machine, and of this process and what it started and ended."""
    whole = psutil.cpu_times()
    own = os.times()
    return (
        sum(whole) - whole.idle - whole.iowait - getattr(whole, "guest", 0.0),
        own.user + own.system + own.children_user + own.children_system,
    )


def picture_lines(found: dict[str, Any]) -> list[str]:
    """Lines of the part."""
    long, cold, fast = found["long"], found["cold"], found["fast"]
    sizes = [each["megabytes"] for each in long]
    lines = [
        f"Recordings of {min(sizes):.1f} to {max(sizes):.1f} MB at 50 kHz "
        f"({found['sweeps']['long']} sweeps in current clamp), one of {fast['megabytes']:.1f} MB "
        f"at 200 kHz ({found['sweeps']['fast']} sweeps), simulated with the whole stimulus set. "
        f"The server was ready after {found['server ready']:.1f} s. Seconds from the end of the "
        "upload in the browser; stages are those the interface tells, asked for every 30 ms. "
        "First is the first upload to a server and a browser that were just started.",
        "",
        f"| seconds | median of {len(long)} | range | first | 200 kHz |",
        "|---|---|---|---|---|",
    ]
    whole = ("first sweeps", "all sweeps", "everything")
    for name in long[0]:
        if name in ("megabytes", "plots") or name.endswith("kB"):
            continue
        values = [each[name] for each in long]
        shown = f"**{name}**" if name in whole else name
        lines.append(
            f"| {shown} | {statistics.median(values):.2f} | {min(values):.2f}–{max(values):.2f} "
            f"| {cold[name]:.2f} | {fast[name]:.2f} |"
        )
    for name in ("plots", "sweeps, kB", "sweeps sent, kB"):
        values = [each[name] for each in long]
        lines.append(
            f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f}–{max(values):,.0f} "
            f"| {cold[name]:,.0f} | {fast[name]:,.0f} |"
        )
    lines += [
        "",
        "Zooming into the first plot of the 200 kHz recording, again and again (a pause of 0.15 s "
        "before the page asks included):",
        "",
        "| stretch shown | until finer data are drawn | of it the answer | sweeps | sent |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['width, s']:.3f} s | {each['seconds']:.2f} s | {each['answer']:.2f} s "
        f"| {each['kB']:,.0f} kB | {each['kB sent']:,.0f} kB |"
        for each in found["zooms"]
    ]
    return lines


def clients_lines(found: dict[str, Any]) -> list[str]:
    """Lines of the part."""
    one = next(iter(found.values()))
    lines = [
        f"{one['clients']} clients, each with one file after another, a batch each, deleted when "
        "its cells were read, until its first that is done after a minute; tables have 100 rows. "
        f"Clients ask every {PAUSE} s. Latency is from the upload to the cells; alone is "
        "the median of the same files given one by one before. Errors count refusals, other "
        "states than done, and other cells than alone. Cores are processor seconds a second.",
        "",
        "| uploads, workers | uploads | seconds | uploads/s | predicted rows/s | alone | median "
        "| 95th | longest | errors | cores: server | workers | clients |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        wrong = ", ".join(f"{count} {what}" for what, count in each["errors"].items()) or "0"
        lines.append(
            f"| {name} | {each['uploads']} | {each['seconds']:.0f} "
            f"| {each['uploads'] / each['seconds']:.2f} "
            f"| {each['rows'] / each['seconds']:.2f} | {each['alone']:.2f} s "
            f"| {each['median']:.2f} s | {each['95th']:.2f} s | {each['longest']:.2f} s | {wrong} "
            f"| {each['server']:.2f} | {each['workers']:.2f} | {each['own']:.2f} |"
        )
    return lines


def memory_lines(found: dict[str, Any]) -> list[str]:
    """Lines of the part."""
    points, after = found["points"], found["after"]
    shown = [p for p in points if p["uploads"] <= 50 or not p["uploads"] % 100]
    wrong = ", ".join(f"{count} {what}" for what, count in found["errors"].items()) or "none"
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items())
    lines = [
        "Real ABF (one in voltage clamp, which fails), small NWB and tables of 100 rows, "
        "eight at a time, 2 workers, --keep 0.02 (72 s); of each the pages and sweeps are asked "
        "for, of every twentieth the downloads; "
        f"half of the batches are deleted, {found['expired']} expire. Measured when nothing is "
        f"being done. Files: {states}; errors: {wrong}. Memory is proportional (PSS).",
        "",
        "| uploads | server, MiB | both workers, MiB | threads | descriptors | batches "
        "| folder, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in (*shown, after | {"uploads": "after all expired"}):
        lines.append(
            f"| {each['uploads']} | {each['server']:.1f} | {each['workers']:.0f} "
            f"| {each['threads']} | {each['descriptors']} | {each['batches']} "
            f"| {each['folder']:.1f} |"
        )
    lines += [
        "",
        f"Growth of the server from {found['warm']} uploads on: {found['slope']:+.2f} MiB for 100 "
        f"uploads (standard error {found['standard error']:.2f}).",
    ]
    return lines


def fifty_lines(found: dict[str, Any]) -> list[str]:
    """Lines of the part."""
    return [
        "Real ABF and simulated NWB, chosen together in the browser.",
        "",
        "| | |",
        "|---|---|",
        *(
            f"| {name} | {value:.3g} |" if isinstance(value, float) else f"| {name} | {value:,} |"
            for name, value in found.items()
        ),
    ]


WRITERS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "picture": picture_lines,
    "clients": clients_lines,
    "memory": memory_lines,
    "fifty": fifty_lines,
}


def main() -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--repeats", type=int, default=5, help="Recordings of `picture`.")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="Of `clients`.")
    parser.add_argument("--uploads", type=int, default=1000, help="Of `memory`.")
    parser.add_argument("--warm", type=int, default=200, help="Uploads before growth counts.")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.parts or PARTS:
        before, started, busy, own = loads(), time.perf_counter(), *processors()
        found = PARTS[name](chosen)
        more, ours = processors()
        others = (more - busy - ours + own) / (time.perf_counter() - started)
        kept = {"machine": this_machine(), "load": before, "others": others, "found": found}
        (chosen.folder / f"{name}.json").write_text(json.dumps(kept, indent=1))
        print(name, found, flush=True)
    write(chosen.folder)


if __name__ == "__main__":
    main()
