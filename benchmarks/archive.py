"""Fetching from an archive and streaming out of it, against a server on this machine.

    python -m benchmarks.archive --folder DIR [--recordings 500] [--parts fetch stream …]

Simulates recordings with the whole stimulus set of both species, makes `--recordings` distinct
files of them, serves them as a dandiset (`tests.archive_server`), and measures with the command
line:

fetch
    all files while a fifth of the requests fail at random, killed by SIGKILL twice;
stream
    features without storing the files, compared with those of the fetched files;
dask
    the same on four worker processes of which two are killed;
latency
    how long a recording takes, one after another, if every answer takes 30 or 100 ms;
memory
    `--many` recordings, of which those beyond `--recordings` are small, every process limited to
    1 GiB of data.

Every part leaves its numbers in DIR; benchmarks/results/archive.md is written from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import psutil
from tests.archive_server import ArchiveServer, Faults, certificates
from tests.features.made_files import folder_of

from crosspatch.archive.web import digests_of

NUMBER = "000020"
FAULTS = (
    *("drop", "cut", "short", "stall", "wrong", "ignore-range", "other-range", "broken-json"),
    *("429", "500", "503"),
)
#: Some faults cannot befall some requests: of all requests, a fifth meets one.
SHARE = 0.33
GIB = 2**30


def make(folder: Path, recordings: int) -> Path:
    """Distinct recordings: the same few cells, each file with a name of its own inside."""
    import h5py

    from benchmarks.whole_set import WHOLE_SET
    from crosspatch.simulation.cells import simulate_cells

    for species in ("mouse", "human"):
        simulate_cells(folder / species, 12, species, style=WHOLE_SET)
    cells = sorted(folder.glob("*/sim-*.nwb"))
    served = folder / "served"
    served.mkdir(exist_ok=True)
    for number in range(recordings):
        path = served / f"sub-{number // 4:04d}_ses-{number:05d}_icephys.nwb"
        if not path.exists():
            temporary = path.with_suffix(".part")
            shutil.copy(cells[number % len(cells)], temporary)
            with h5py.File(temporary, "r+") as file:
                del file["identifier"]
                file["identifier"] = path.stem
            temporary.rename(path)
    return served


def dandiset(
    server: ArchiveServer, served: Path, whole: int, recordings: int, small: Path
) -> dict[str, Path]:
    """Serve so many files as a dandiset; beyond `whole` they are small and of few cells."""
    from crosspatch.archive.dandi import Archive, DandiPlace
    from crosspatch.archive.web import Web, WebSettings

    files = sorted(served.glob("*.nwb"))[:whole]
    assets = {f"{file.name.split('_')[0]}/{file.name}": file for file in files[:recordings]}
    if recordings > len(files):
        few = sorted(folder_of(small, 5).glob("*.nwb"))
        for number in range(len(files), recordings):
            assets[f"sub-9999/sub-9999_ses-{number:05d}_icephys.nwb"] = few[number % len(few)]
    server.add_dandiset(NUMBER, assets)
    # The server computes checksums when they are first asked for.
    Archive(server.api, Web(WebSettings(timeout=600))).recordings(DandiPlace(NUMBER))
    server.clear_log()
    return assets


def command(server: ArchiveServer, *arguments: object) -> dict[str, Any]:
    """What starts a command with this server as its archive."""
    environment = os.environ | {"CROSSPATCH_DANDI": server.api, "CROSSPATCH_TIMEOUT": "5"}
    return {
        "args": [sys.executable, "-m", "crosspatch", *map(str, arguments)],
        "env": environment,
        "stderr": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
    }


def fetch(server: ArchiveServer, assets: dict[str, Path], folder: Path) -> dict[str, Any]:
    """All files, a fifth of the requests failing, killed twice."""
    out = folder / "fetched"
    shutil.rmtree(out, ignore_errors=True)
    server.faults = Faults(FAULTS, share=SHARE, seed=1, stall_seconds=6)
    server.clear_log()
    run = command(server, "fetch", "recordings", "--dandiset", NUMBER, "--unlabelled", "--out", out)
    started, kills, there_at_kill = time.perf_counter(), 0, []
    for share in (0.3, 0.6, None):
        process = subprocess.Popen(**run)
        while process.poll() is None:
            time.sleep(0.2)
            there = len(list(out.rglob("*.nwb")))
            if share is not None and there >= share * len(assets):
                process.send_signal(signal.SIGKILL)
                kills += 1
                there_at_kill.append(there)
                break
        process.wait()
    seconds = time.perf_counter() - started
    right = sum(same(out / path, file) for path, file in assets.items())
    log = server.log
    whole = server.whole_bodies()
    size = sum(file.stat().st_size for file in assets.values())
    found = {
        "files": len(assets),
        "verified": right,
        "kills": kills,
        "there at the kills": there_at_kill,
        "exit": process.returncode,
        "seconds": seconds,
        "requests": len(log),
        "faults": sum(served.fault is not None for served in log),
        "share of requests with a fault": sum(s.fault is not None for s in log) / len(log),
        "whole bodies of one file, at most": max(whole.values()),
        "gigabytes": size / 1e9,
        "bytes sent / bytes": sum(served.sent for served in log if served.asset) / size,
    }
    server.faults = None
    return found


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same content."""
    if not (one.is_file() and other.is_file()):
        return False
    return digests_of(one, ["sha256"]) == digests_of(other, ["sha256"])


def extract(
    server: ArchiveServer, what: object, out: Path, *options: object, limit: int | None = None
) -> tuple[float, float, float]:
    """Seconds, processor seconds and the largest memory (bytes, all processes) of a command."""
    for file in out.parent.glob(f"{out.stem}.*"):
        file.unlink()
    run = command(server, "extract", what, "--out", out, *options)

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(**run, preexec_fn=limited)
    largest = 0
    while process.poll() is None:
        largest = max(largest, memory_of(process.pid))
        time.sleep(1.0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{run['args']} ended with {process.returncode}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, processor, largest


def memory_of(pid: int) -> int:
    """Proportional memory of a process and all below it, bytes."""
    total = 0
    try:
        root = psutil.Process(pid)
        for each in (root, *root.children(recursive=True)):
            total += each.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def equal(one: Path, other: Path) -> dict[str, Any]:
    """How two cohort tables of the same recordings differ."""
    a, b = anndata.read_h5ad(one), anndata.read_h5ad(other)
    b = b[list(a.obs_names)]
    return {
        "cells": a.n_obs,
        "cells of the other": b.n_obs,
        "features that differ": int((~((a.X == b.X) | (np.isnan(a.X) & np.isnan(b.X)))).sum()),
    }


def stream(server: ArchiveServer, assets: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Features out of the archive, and the same of the files on disk."""
    server.clear_log()
    seconds, streaming, largest = extract(
        server, f"dandi:{NUMBER}", folder / "streamed.h5ad", "--unlabelled"
    )
    sent = server.sent_bytes("/blobs/")
    requests = len(server.requests("/blobs/"))
    local = folder / "fetched"
    if not local.is_dir():
        local = folder / "served"
    near, processor, _ = extract(server, local, folder / "local.h5ad")
    obs = anndata.read_h5ad(folder / "streamed.h5ad", backed="r").obs
    size = sum(file.stat().st_size for file in assets.values())
    share = obs["bytes_read"] / obs["file_bytes"]
    by_species = {
        str(name): float(part["bytes_read"].sum() / part["file_bytes"].sum())
        for name, part in obs.groupby("species", observed=True)
    }
    return {
        "recordings": len(assets),
        **equal(folder / "streamed.h5ad", folder / "local.h5ad"),
        "bytes sent / bytes": sent / size,
        "of a file, least and most": [float(share.min()), float(share.max())],
        "by species": by_species,
        "requests a recording": requests / len(assets),
        "megabytes a recording": size / len(assets) / 1e6,
        "megabytes read a recording": sent / len(assets) / 1e6,
        "seconds streamed": seconds,
        "processor seconds streamed": streaming,
        "seconds local": near,
        "processor seconds local": processor,
        "largest memory, MiB": largest / 2**20,
    }


def dask(server: ArchiveServer, assets: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Four worker processes, two of them killed on the way."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    environment = os.environ | {"CROSSPATCH_DANDI": server.api, "CROSSPATCH_TIMEOUT": "5"}
    quiet: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": environment,
        "start_new_session": True,
    }
    module = [sys.executable, "-m"]
    head = [*module, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    worker = [*module, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    processes = [subprocess.Popen([*head, "--no-dashboard"], **quiet)]
    processes += [subprocess.Popen(worker, **quiet) for _ in range(4)]
    out = folder / "dask.h5ad"
    store = out.with_suffix(".cells.sqlite")
    for file in folder.glob("dask.*"):
        file.unlink()
    time.sleep(5)
    try:
        options = ("--scheduler", address, "--unlabelled", "--limit-cells", len(assets))
        started = time.perf_counter()
        run = command(server, "extract", f"dandi:{NUMBER}", "--out", out, *options)
        process = subprocess.Popen(**run)
        killed_at: list[int] = []
        while process.poll() is None:
            time.sleep(0.5)
            done = rows(store)
            if len(killed_at) < 2 and done >= (len(killed_at) + 1) * len(assets) // 4:
                os.killpg(processes[1 + len(killed_at)].pid, signal.SIGKILL)
                killed_at.append(done)
        seconds = time.perf_counter() - started
    finally:
        for each in processes:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
    return {
        "recordings": len(assets),
        "workers killed after": killed_at,
        "exit": process.returncode,
        **equal(out, folder / "local.h5ad"),
        "seconds": seconds,
    }


def rows(store: Path) -> int:
    """How many recordings are done."""
    import sqlite3

    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as base:
            return int(base.execute("SELECT COUNT(*) FROM outcomes").fetchone()[0])
    except sqlite3.Error:
        return 0


def latency(server: ArchiveServer, assets: dict[str, Path], folder: Path) -> dict[str, Any]:
    """One recording after another where every answer takes a while."""
    from crosspatch.archive.dandi import Archive, DandiPlace
    from crosspatch.features.extraction import extract_file

    listed = Archive(server.api).recordings(DandiPlace(NUMBER))
    extract_file(listed[0])  # imports and compiles
    found: dict[str, Any] = {"recordings": len(assets)}
    for wait in (0.0, 0.03, 0.1):
        server.latency = wait
        started = time.perf_counter()
        for asset in listed:
            extract_file(asset)
        seconds = (time.perf_counter() - started) / len(assets)
        found[f"seconds a recording, {wait * 1e3:.0f} ms an answer"] = seconds
    server.latency = 0.0
    return found


def memory(server: ArchiveServer, assets: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Many recordings under a limit."""
    seconds, processor, largest = extract(
        server, f"dandi:{NUMBER}", folder / "memory.h5ad", "--unlabelled", limit=GIB
    )
    table = anndata.read_h5ad(folder / "memory.h5ad", backed="r")
    return {
        "recordings": len(assets),
        "cells": table.n_obs,
        "largest memory, MiB": largest / 2**20,
        "seconds": seconds,
        "processor seconds": processor,
    }


PARTS: dict[str, Callable[[ArchiveServer, dict[str, Path], Path], dict[str, Any]]] = {
    "fetch": fetch,
    "stream": stream,
    "dask": dask,
    "latency": latency,
    "memory": memory,
}


def write(folder: Path) -> None:
    """The table of what was measured."""
    lines = [
        "# An archive on this machine: fetching and streaming",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}. The "
        "server, the command and the workers share the cores. Simulated recordings with the whole "
        "stimulus set of both species; see benchmarks/archive.py for what each part does.",
    ]
    for name in PARTS:
        file = folder / f"{name}.json"
        if file.exists():
            lines += ["", f"## {name}", "", "| | |", "|---|---|"]
            for key, value in json.loads(file.read_text()).items():
                lines.append(f"| {key} | {shown(value)} |")
    out = Path(__file__).parent / "results" / "archive.md"
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def shown(value: Any) -> str:
    """A value in a cell of the table."""
    if isinstance(value, dict):
        return "; ".join(f"{name} {shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def main() -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=500)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--some", type=int, default=60, help="For dask.")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    served = make(chosen.folder, chosen.recordings)
    # Streamed over TLS, as from the archive: without it, what nothing protects comes twice.
    certificate, trusted = certificates(chosen.folder)
    os.environ["SSL_CERT_FILE"] = str(trusted)
    counts = {"dask": chosen.some, "latency": 10, "memory": chosen.many}
    for name in chosen.parts:
        with ArchiveServer(certificate=None if name == "fetch" else certificate) as server:
            count = counts.get(name, chosen.recordings)
            small = chosen.folder / "small"
            assets = dandiset(server, served, chosen.recordings, count, small)
            found = PARTS[name](server, assets, chosen.folder)
        (chosen.folder / f"{name}.json").write_text(json.dumps(found, indent=1))
        print(name, found, flush=True)
    write(chosen.folder)


if __name__ == "__main__":
    main()
