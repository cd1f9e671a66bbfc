"""Hostile files, names, pages and clients: a clear line for them, and no harm to others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import html5lib
import httpx
import pytest
from starlette.testclient import TestClient

from crosspatch.processes import Child
from crosspatch.recordings.reading_options import Reading
from crosspatch.service import queue as workers
from crosspatch.service import server
from crosspatch.service.jobs import Jobs
from crosspatch.service.server import create_app
from crosspatch.service.settings import ServiceSettings
from crosspatch.service.uploads import Batches, label_of
from tests.service import hostile
from tests.service.conftest import PATIENCE, Service, serving
from tests.service.made_tables import table

TABLE = b"cell,Rin (MOhm),tau (ms),Sag ratio\na,150,12,0.1\nb,210,20,0.2\n"

#: Seconds and bytes that a file may cost here.
SECONDS, MEMORY = 6.0, 3 * 2**29


@pytest.fixture(scope="module")
def children() -> list[Any]:
    """Processes of the limited service, in the order in which they began."""
    return []


@pytest.fixture(scope="module")
def limited(settings: ServiceSettings, children: list[Any]) -> Iterator[Service]:
    """A service that lets anyone use little."""

    class Noted(Child):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            if more["memory"] == MEMORY:  # others may be started meanwhile
                children.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "Child", Noted)
        tight = replace(
            settings, memory=MEMORY, seconds=SECONDS, rows=1000, upload=10 * 2**20, silence=0.7
        )
        with serving(tight) as running:
            yield running


@pytest.fixture
def hostile_client(limited: Service) -> httpx.Client:
    return limited.client()


@pytest.fixture
def app_with(settings: ServiceSettings, service: Service) -> Iterator[Callable[..., TestClient]]:
    """Applications with other settings and folders of their own, beside the same workers."""
    made: list[Jobs] = []

    def make(**changed: Any) -> TestClient:
        app = create_app(replace(settings, **changed), service.jobs.workers)
        made.append(app.state.jobs)
        return TestClient(
            app, base_url="http://localhost", raise_server_exceptions=False, follow_redirects=False
        )

    yield make
    for jobs in made:
        jobs._closing.set()
        jobs.batches.close()


def new_batch(client: TestClient, **headers: str) -> str:
    answer = client.post("/api/v1/batches", json={}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["batch"])


def jobs_of(client: TestClient) -> Jobs:
    jobs: Jobs = client.app.state.jobs  # type: ignore[attr-defined]
    return jobs


def files_of(folder: Path) -> list[str]:
    """All there is in a folder, from which files may vanish meanwhile."""
    return sorted(
        str((Path(place) / name).relative_to(folder))
        for place, folders, names in os.walk(folder)
        for name in (*folders, *names)
    )


def outcome(running: Service, client: httpx.Client, name: str, content: bytes) -> dict[str, Any]:
    """What became of a file; the batch stays."""
    batch = running.batch(client, species="mouse")
    answer = running.give(client, batch, name, content)
    assert answer.status_code == 201, answer.text
    (found,) = running.finished(client, batch)["files"]
    return found | {"batch": batch}


def require_works(running: Service, client: httpx.Client) -> None:
    assert outcome(running, client, "good.csv", TABLE)["state"] == "done"


def require_clear(line: str, running: Service) -> None:
    assert len(line) > 15
    assert "\n" not in line
    assert "Traceback" not in line
    assert not line.startswith("unexpected"), line
    assert str(running.jobs.batches.folder) not in line
    assert "/site-packages/" not in line
    assert "upload-" not in line


# Names

NAMES = [
    "../../etc/passwd.csv",
    "..\\..\\windows\\x.csv",
    "/etc/cron.d/x.csv",
    "C:\\Users\\x.csv",
    "nul\0byte.csv",
    "new\nline\r\n.csv",
    "line\u2028separator\u2029.csv",
    "x" * 900 + ".csv",
    ".hidden.csv",
    "con.csv",
    "aux .csv",
    "right\u202eto-left\u2066.csv",
    "fu\uff0fllwidth\u2215slash.csv",
    "zero\u200bwidth\ufeff.csv",
    "-rf *;$(touch x)`id`.csv",
    "<script>alert(1)</script>.csv",
    "%2e%2e%2fx.csv",
    "\U000e0001tag.csv",
    "a\u0301\u0301\u0301.csv",
    "'\" OR 1=1; DROP TABLE cells.csv",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_a_name(service, client, name: str):
    """Nothing on disk is called as a stranger says, and what is shown is one harmless line."""
    private = service.jobs.batches.folder
    outside = {each for each in private.parent.iterdir() if each.name != private.name}
    batch = service.batch(client)
    answer = service.give(client, batch, name, TABLE)
    assert answer.status_code == 201, answer.text
    shown = answer.json()["name"]
    assert shown.isprintable()
    assert 0 < len(shown) <= 120
    assert shown.endswith("csv")
    assert not set(shown) & set("/\\\0\n\u202e\u2066\u200b\ufeff")
    assert service.finished(client, batch)["files"][0]["state"] == "done"
    ours = re.compile(
        r"[0-9a-f]{16}(/\d+-[0-9a-f]{16}(/upload-[0-9a-f]{16}\.csv)?|/cells\.sqlite(-journal)?"
        r"|/values-\d+\.npy|/(details|recording)-\d+(-\d+)?\.json)?"
    )
    folder = service.jobs.batches.get(batch).folder
    assert files_of(folder)
    assert all(ours.fullmatch(f"{folder.name}/{each}") for each in files_of(folder))
    new = {each for each in private.parent.iterdir() if each.name != private.name} - outside
    assert not [each for each in new if "csv" in each.name or "crosspatch-serve" in each.name]
    assert client.delete(f"/batches/{batch}").status_code == 204
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "/",
        "\\",
        "\0",
        "....",
        "....csv",
        "x.exe",
        "x",
        "x.csv/",
        "csv",
        ".nwb\0exe",
        "x.zip",
    ],
)
def test_a_name_without_a_known_ending_is_refused(service, client, name: str):
    batch = service.batch(client)
    answer = service.give(client, batch, name, TABLE)
    assert answer.status_code == 415
    assert "not a file that can be read" in answer.json()["error"]
    assert files_of(service.jobs.batches.get(batch).folder) == []


def test_a_label_is_never_empty_nor_a_path():
    for name in [*NAMES, "", " ", "\u202e", "a/b/", "..."]:
        label = label_of(name)
        assert label.isprintable()
        assert label
        assert "/" not in label


# The private folder


def test_the_folder_is_private_and_ends_with_the_service(app_with):
    client = app_with()
    jobs = jobs_of(client)
    folder = jobs.batches.folder
    batch = new_batch(client)
    client.post(f"/api/v1/batches/{batch}/files?name=x.csv", content=TABLE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for each in folder.rglob("*"):
        if each.is_dir():
            assert stat.S_IMODE(each.stat().st_mode) == 0o700
    jobs.batches.close()
    assert not folder.exists()


def test_a_batch_vanishes_after_its_time(app_with):
    client = app_with(keep=2.0)
    jobs = jobs_of(client)
    batch = new_batch(client)
    folder = jobs.batches.get(batch).folder
    client.post(f"/api/v1/batches/{batch}/files?name=x.csv", content=TABLE)
    begun = time.time()
    jobs.batches.now = lambda: begun + 3600 * 1.9
    assert client.get(f"/api/v1/batches/{batch}").status_code == 200
    jobs.batches.now = lambda: begun + 3600 * 2.1
    for path in ("", "/cells", "/cells/1/0", "/predictions.csv", "/files/1"):
        answer = client.get(f"/api/v1/batches/{batch}{path}")
        assert answer.status_code == 404
        assert "deleted after 2 hours" in answer.json()["error"]
    assert client.get(f"/batches/{batch}").status_code == 404
    assert jobs.batches.expired()
    for each in jobs.batches.expired():
        jobs.remove(each)
    assert not folder.exists()


def test_what_came_while_a_batch_was_deleted_is_deleted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    batches = Batches(ServiceSettings(keep=1, batches=3, files=3, storage=2**30))
    kept, gone = batches.new(None, Reading()), batches.new(None, Reading())
    batches.remove(gone)
    gone.folder.mkdir()
    (gone.folder / "late").write_text("late")
    batches.clear_leftovers()
    assert kept.folder.exists()
    assert not gone.folder.exists()
    batches.close()
    assert list(tmp_path.iterdir()) == []


def test_only_abandoned_folders_of_this_service_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = Batches(ServiceSettings(keep=1, batches=3, files=3, storage=2**30))
    abandoned = tmp_path / "crosspatch-serve-abandoned"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    (abandoned / "file").touch()
    target = tmp_path / "target"
    target.mkdir()
    (target / "lock").touch()
    (tmp_path / "crosspatch-serve-link").symlink_to(target)
    (tmp_path / "crosspatch-serve-without-lock").mkdir()
    other = Batches(ServiceSettings(keep=1, batches=3, files=3, storage=2**30))
    assert living.folder.exists()
    assert not abandoned.exists()
    assert (target / "lock").exists()
    living.close()
    other.close()


def test_the_folder_of_a_killed_server_is_removed_by_the_next(service_models, tmp_path):
    command = [sys.executable, "-m", "crosspatch", "serve", "--port", "0", "--workers", "1"]
    for folder in service_models:
        command += ["--model", str(folder)]
    environment = dict(os.environ, TMPDIR=str(tmp_path), PYTHONUNBUFFERED="1")
    environment.pop("CROSSPATCH_DATA", None)
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        address = wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()))
        with httpx.Client(base_url=f"{address.group()}/api/v1", timeout=PATIENCE) as client:
            batch = client.post("/batches", json={}).json()["batch"]
            client.post(f"/batches/{batch}/files?name=x.csv", content=TABLE)
            # Busy for long: nothing but the end of its parent ends it.
            client.post(f"/batches/{batch}/files?name=y.xlsx", content=hostile.xlsx_texts())
            wait_for(lambda: client.get(f"/batches/{batch}/files/2").json()["state"] == "working")
        (folder,) = tmp_path.glob("crosspatch-serve-*")
        assert list(folder.rglob("upload-*.csv"))
        workers_before = children_of(process.pid)
        assert workers_before
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        assert folder.exists()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers_before))
    finally:
        process.kill()
    tidied = tmp_path / "next"
    tidy = "import tempfile; from crosspatch.service.settings import ServiceSettings; "
    tidy += "from crosspatch.service.uploads import Batches; "
    tidy += "Batches(ServiceSettings()).close()"
    subprocess.run([sys.executable, "-c", tidy], env=environment, check=True, timeout=PATIENCE)
    assert not folder.exists()
    assert not tidied.exists()


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def wait_for(found: Callable[[], Any], limit: float = PATIENCE) -> Any:
    deadline = time.monotonic() + limit
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


# Files that unfold, nest and lie

TABLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip of zeros": ("x.csv.gz", hostile.gzip_zeros),
    "gzip of one line": ("x.csv.gz", hostile.gzip_one_line),
    "gzip of one field": ("x.csv.gz", hostile.gzip_one_field),
    "gzip of a million columns": ("x.csv.gz", hostile.gzip_wide),
    "xlsx that declares gigabytes": ("x.xlsx", hostile.xlsx_declares_gigabytes),
    "xlsx that lies": ("x.xlsx", hostile.xlsx_lies),
    # Half of it is read within the limits on a fast machine.
    "xlsx of texts": ("x.xlsm", partial(hostile.xlsx_texts, 2**30)),
    "xlsx with a cell in the last corner": ("x.xlsx", hostile.xlsx_corners),
    "xlsx of entities": ("x.xlsx", hostile.xlsx_laughs),
    "parquet of a text": ("x.parquet", hostile.parquet_text),
    "parquet with a wrong footer": ("x.parquet", hostile.parquet_damaged),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_that_unfolds_ends_in_a_line(limited, hostile_client, kind: str):
    name, make = TABLES[kind]
    begun = time.monotonic()
    found = outcome(limited, hostile_client, name, make())
    assert found["reason"] is not None
    require_clear(found["reason"], limited)
    assert time.monotonic() - begun < 4 * SECONDS + 20
    require_works(limited, hostile_client)


def test_of_a_table_of_a_hundred_million_rows_the_first_are_predicted(limited, hostile_client):
    found = outcome(limited, hostile_client, "x.parquet", hostile.parquet_constant())
    assert found["reason"] is None
    assert found["rows"] == 1000
    assert any("only the first 1,000 rows" in line for line in found["messages"])


H5AD: dict[str, hostile.Change] = {
    "matrix": hostile.matrix,
    "column": lambda file: hostile.zeros(file["obs"], "depth", kind="f8"),
    "column that nearly fits": lambda file: hostile.zeros(file["obs"], "depth", 10**9, "f8"),
    "index": lambda file: hostile.zeros(file["obs"], "_index", 10**10, "S16"),
    "attributes": lambda file: hostile.many_attributes(file["uns"]),
    "nesting": lambda file: hostile.deep(file["uns"]),
    "loops": lambda file: hostile.loops(file["uns"]),
}


@pytest.mark.parametrize("kind", H5AD)
def test_an_h5ad_that_unfolds_or_nests_ends_in_a_line(limited, hostile_client, tmp_path, kind):
    content = hostile.h5ad(tmp_path, H5AD[kind])
    assert len(content) < limited.settings.upload
    found = outcome(limited, hostile_client, "x.h5ad", content)
    if kind == "attributes":  # odd, not wrong
        assert found["state"] == "done", found
    else:
        assert found["state"] == "failed", found
        require_clear(found["reason"], limited)
    require_works(limited, hostile_client)


NWB: dict[str, hostile.Change] = {
    "samples": lambda file: hostile.all_zeros(file, "acquisition"),
    "samples that nearly fit": lambda file: hostile.zeros(hostile.series(file), "data", 7 * 10**8),
    "commands": lambda file: hostile.all_zeros(file, "stimulus/presentation"),
    "text": lambda file: hostile.zeros(file["general/subject"], "species", kind="S8"),
    "attributes": lambda file: hostile.many_attributes(hostile.series(file)),
    "nesting": lambda file: hostile.deep(file["acquisition"]),
    "nesting in general": lambda file: hostile.deep(file["general"]),
    "loops": lambda file: hostile.loops(file["acquisition"]),
    "loop for samples": hostile.no_samples,
    "the file in itself": lambda file: file.__setitem__("acquisition/all", file["/"]),
}


@pytest.mark.parametrize("kind", NWB)
def test_an_nwb_that_unfolds_or_nests_ends_in_a_line(limited, hostile_client, tmp_path, kind):
    content = hostile.nwb(tmp_path, NWB[kind])
    assert len(content) < limited.settings.upload
    found = outcome(limited, hostile_client, "x.nwb", content)
    assert found["state"] in ("done", "failed"), found
    if kind in ("samples", "commands"):
        assert found["state"] == "failed"
    if found["reason"] is not None:
        require_clear(found["reason"], limited)
    for line in found["messages"]:
        require_clear(line, limited)
    require_works(limited, hostile_client)


# Files that point at others


@pytest.mark.parametrize("way", ["link", "raw", "virtual"])
@pytest.mark.parametrize("name", ["x.h5ad", "x.nwb"])
def test_no_file_shows_what_is_in_another(limited, hostile_client, tmp_path, name, way):
    def change(file: Any) -> None:
        group, data = (file, "X") if name == "x.h5ad" else (hostile.series(file), "data")
        secret = hostile.secret_file(tmp_path, group[data])
        hostile.elsewhere(group, data, way, secret)

    content = (hostile.h5ad if name == "x.h5ad" else hostile.nwb)(tmp_path, change)
    found = outcome(limited, hostile_client, name, content)
    assert found["state"] == "failed"
    assert "lies in another file" in found["reason"]
    require_clear(found["reason"], limited)
    assert hostile_client.get(f"/batches/{found['batch']}/files/1/sweeps?stimulus=long square")
    texts = [
        hostile_client.get(f"/batches/{found['batch']}{path}").text
        for path in ("", "/cells", "/files/1/columns", "/files/1/sweeps?stimulus=long%20square")
    ]
    assert not any("4321" in text for text in texts)


def test_a_whole_group_or_an_odd_place_of_another_file_is_not_read_either(
    limited, hostile_client, tmp_path
):
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["column/values"] = ["TOPSECRET", "TOPSECRET"]

    def change(file: h5py.File) -> None:
        file["uns/deeper"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "column")

    found = outcome(limited, hostile_client, "x.h5ad", hostile.h5ad(tmp_path, change))
    assert found["state"] == "failed"
    assert "'uns/deeper' lies in another file" in found["reason"]


def test_a_link_whose_name_is_not_text_is_found_too(tmp_path):
    import h5py

    from crosspatch.errors import RecordingError
    from crosspatch.service.guards import refuse_other_files

    with h5py.File(tmp_path / "x.nwb", "w") as file:
        file.create_group("general")[b"odd\xff"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(RecordingError, match="lies in another file"):
        refuse_other_files(tmp_path / "x.nwb")


STIMULUS = """ATF\t1.0
2\t2
"AcquisitionMode=Episodic Stimulation"
"Signals="\t"OUT 0"
"Time (s)"\t"Trace #1 (pA)"
"""


def test_no_stimulus_file_that_an_abf_names_is_followed(limited, hostile_client, tmp_path):
    from crosspatch import open_recording

    secret = tmp_path / "secret.atf"
    rows = "".join(f"{k / 1e4:.4f}\t{60.0 if 2000 < k < 6000 else 0}\n" for k in range(9000))
    secret.write_text(STIMULUS + rows)
    content = hostile.abf_with_stimulus_file(tmp_path, secret)
    (tmp_path / "x.abf").write_bytes(content)
    with open_recording(tmp_path / "x.abf") as recording:  # as the command line does
        current = recording.sweeps[0].current
        assert current is not None
        assert max(current) == 60
    found = outcome(limited, hostile_client, "x.abf", content)
    assert found["state"] == "failed", found
    assert "another file" in found["reason"]
    require_clear(found["reason"], limited)


def test_no_entity_of_a_workbook_shows_a_file(limited, hostile_client, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    found = outcome(limited, hostile_client, "x.xlsx", hostile.xlsx_entity(secret))
    if found["reason"] is not None:
        require_clear(found["reason"], limited)
    shown = json.dumps(found) + hostile_client.get(f"/batches/{found['batch']}/cells").text
    assert "TOPSECRET" not in shown
    require_works(limited, hostile_client)


# Files that are something else

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(300)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("png.nwb", PNG),
        ("png.abf", PNG),
        ("png.csv", PNG),
        ("png.xlsx", PNG),
        ("png.parquet", PNG),
        ("png.h5ad", PNG),
        ("png.csv.gz", PNG),
        ("text.parquet", TABLE),
        ("text.h5ad", TABLE),
        ("text.nwb", TABLE),
        ("text.xlsx", TABLE),
        ("text.tsv.gz", TABLE),
        ("xlsx.abf", hostile.xlsx()),
        ("xlsx.csv", hostile.xlsx()),
        ("exe.csv", b"MZ" + bytes(range(256)) * 8),
        ("header only.abf", b"ABF2" + bytes(600)),
        ("hdf5.h5ad", b"\x89HDF\r\n\x1a\n" + bytes(600)),
        ("one byte.nwb", b"\0"),
        ("no row.csv", b"cell,Rin (MOhm)\n"),
        ("no feature.csv", b"cell,colour\na,red\n"),
    ],
)
def test_a_file_of_another_kind_ends_in_a_line(service, client, name: str, content: bytes):
    found = outcome(service, client, name, content)
    assert found["state"] == "failed", found
    require_clear(found["reason"], service)


def test_an_empty_file_is_refused(service, client):
    batch = service.batch(client)
    answer = service.give(client, batch, "x.csv", b"")
    assert answer.status_code == 422
    assert answer.json()["error"] == "x.csv: the file is empty"
    assert client.get(f"/batches/{batch}").json()["files"] == []


# A process that dies


def test_a_killed_process_costs_its_file_only(limited, hostile_client, children):
    batch = limited.batch(hostile_client, species="mouse")
    limited.give(hostile_client, batch, "long.xlsx", hostile.xlsx_texts())
    for name in ("after.csv", "last.csv"):
        limited.give(hostile_client, batch, name, TABLE)
    wait_for(
        lambda: hostile_client.get(f"/batches/{batch}/files/1").json()["state"] == "working", 60
    )
    (alive,) = [each for each in children if each.alive]
    alive.process.kill()
    found = limited.finished(hostile_client, batch)["files"]
    assert [each["state"] for each in found] == ["failed", "done", "done"]
    assert "brought the process down (signal 9)" in found[0]["reason"]
    require_clear(found[0]["reason"], limited)
    assert children[-1] is not alive


def test_an_idle_process_that_was_killed_is_replaced(limited, hostile_client, children):
    require_works(limited, hostile_client)
    (alive,) = [each for each in children if each.alive]
    alive.process.kill()
    alive.process.wait()
    require_works(limited, hostile_client)


# Large, slow and broken uploads


def talk(running: Service, head: str, *parts: bytes, pause: float = 0.0) -> bytes:
    """What a server answers to bytes that no client library would send."""
    place = urlsplit(running.address)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1"))
        try:
            for part in parts:
                time.sleep(pause)
                connection.sendall(part)
        except OSError:
            pass  # it was told enough
        answer = b""
        try:
            while more := connection.recv(65536):
                answer += more
                if b"\r\n\r\n" in answer and b"}" in answer:
                    break
        except OSError:
            pass
    return answer


def size_of(folder: Path) -> int:
    total = 0
    for file in folder.rglob("upload-*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def upload_head(batch: str, *more: str) -> str:
    lines = (f"POST /api/v1/batches/{batch}/files?name=x.csv HTTP/1.1", "Host: localhost", *more)
    return "\n".join(lines) + "\n\n"


def test_a_large_file_is_refused_before_it_comes(limited, hostile_client):
    batch = limited.batch(hostile_client)
    begun = time.monotonic()
    answer = talk(limited, upload_head(batch, f"Content-Length: {2 * 2**30}"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"larger than the 0.00976562 GiB" in answer
    assert time.monotonic() - begun < limited.settings.silence + 10
    assert hostile_client.get(f"/batches/{batch}").json()["files"] == []
    assert files_of(limited.jobs.batches.get(batch).folder) == []


def test_a_large_file_without_a_length_is_refused_where_it_is_too_large(limited, hostile_client):
    batch = limited.batch(hostile_client)
    folder = limited.jobs.batches.get(batch).folder
    kept = [0]

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(2**20)
            kept.append(size_of(folder))

    answer = hostile_client.post(f"/batches/{batch}/files?name=x.csv", content=endless())
    assert answer.status_code == 413
    assert 0 < max(kept) <= limited.settings.upload
    assert kept[-1] == 0
    assert files_of(folder) == []
    assert hostile_client.get(f"/batches/{batch}").json()["files"] == []


def test_a_file_that_stops_coming_is_given_up(limited, hostile_client):
    batch = limited.batch(hostile_client)
    answer = talk(limited, upload_head(batch, "Content-Length: 1000"), b"cell,Rin\n")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"nothing came for 0.7 s" in answer
    assert files_of(limited.jobs.batches.get(batch).folder) == []
    assert hostile_client.get(f"/batches/{batch}").json()["files"] == []


def test_a_slow_file_is_waited_for(limited, hostile_client):
    batch = limited.batch(hostile_client, species="mouse")
    head = upload_head(batch, f"Content-Length: {len(TABLE)}")
    parts = [TABLE[k : k + 12] for k in range(0, len(TABLE), 12)]
    answer = talk(limited, head, *parts, pause=0.15)
    assert answer.startswith(b"HTTP/1.1 201")
    assert limited.finished(hostile_client, batch)["files"][0]["state"] == "done"


@pytest.mark.parametrize("ends", ["closed", "reset"])
def test_a_client_that_goes_away_leaves_nothing(limited, hostile_client, ends, caplog):
    batch = limited.batch(hostile_client)
    folder = limited.jobs.batches.get(batch).folder
    place = urlsplit(limited.address)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        head = upload_head(batch, "Content-Length: 5000000")
        connection.sendall(head.replace("\n", "\r\n").encode() + bytes(300_000))
        wait_for(lambda: list(folder.rglob("upload-*")), 20)
        if ends == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: files_of(folder) == [], 20)
    assert hostile_client.get(f"/batches/{batch}").json()["files"] == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_batch_that_is_deleted_while_a_file_comes_leaves_nothing(limited, hostile_client):
    batch = limited.batch(hostile_client)
    folder = limited.jobs.batches.get(batch).folder

    def parts() -> Iterator[bytes]:
        yield TABLE
        wait_for(lambda: list(folder.rglob("upload-*")), 20)
        assert limited.client().delete(f"/batches/{batch}").status_code == 204
        for _ in range(3):
            time.sleep(0.1)
            yield b"c,1,2,3\n"

    answer = hostile_client.post(f"/batches/{batch}/files?name=x.csv", content=parts())
    assert answer.status_code == 409
    assert not folder.exists()
    require_works(limited, hostile_client)


def test_a_batch_that_is_deleted_while_it_is_worked_on_leaves_nothing(limited, hostile_client):
    batch = limited.batch(hostile_client)
    folder = limited.jobs.batches.get(batch).folder
    limited.give(hostile_client, batch, "long.xlsx", hostile.xlsx_texts())
    wait_for(lambda: hostile_client.get(f"/batches/{batch}/files/1").json()["state"] == "working")
    assert hostile_client.delete(f"/batches/{batch}").status_code == 204
    assert not folder.exists()
    require_works(limited, hostile_client)
    assert not folder.exists()


def test_no_more_is_taken_than_there_is_room_for(app_with):
    client = app_with(storage=2**20)
    batch = new_batch(client)
    path = f"/api/v1/batches/{batch}/files?name=x.csv"
    first = client.post(path, content=TABLE + b"c,1,2,3\n" * 80_000)
    assert first.status_code == 201
    answer = client.post(path, content=TABLE * 10_000)
    assert answer.status_code == 507
    assert "no room left" in answer.json()["error"]
    (jobs_of(client).batches.get(batch).folder / "ballast").write_bytes(bytes(2**20))
    assert client.post(f"/api/v1/batches/{batch}/examples/table").status_code == 507


def test_a_full_disk_is_said(app_with, monkeypatch):
    client = app_with()
    batch = new_batch(client)

    def full(*args: Any, **more: Any) -> Any:
        raise OSError(28, "No space left on device", str(jobs_of(client).batches.folder))

    monkeypatch.setattr(Path, "open", full)
    answer = client.post(f"/api/v1/batches/{batch}/files?name=x.csv", content=TABLE)
    assert answer.status_code == 507
    assert answer.json()["error"] == "x.csv cannot be kept: No space left on device"
    monkeypatch.undo()
    assert files_of(jobs_of(client).batches.get(batch).folder) == []


def test_there_are_no_more_files_nor_batches_than_allowed(app_with):
    client = app_with(files=2, batches=2)
    batch = new_batch(client)
    path = f"/api/v1/batches/{batch}/files?name=x.csv"
    assert [client.post(path, content=TABLE).status_code for _ in range(3)] == [201, 201, 413]
    assert client.post(f"/api/v1/batches/{batch}/examples/table").status_code == 413
    new_batch(client)
    answer = client.post("/api/v1/batches", json={})
    assert answer.status_code == 503
    assert "2 batches already" in answer.json()["error"]
    client.delete(f"/api/v1/batches/{batch}")
    new_batch(client)


# Scripts and formulas

EVIL = "<script>alert(1)</script>"
BREAKOUT = "</script><script>alert(2)</script><!--"
FORMULA = "=cmd|' /C calc'!A0"


def evil_table() -> bytes:
    ids = [EVIL, BREAKOUT, FORMULA, "@SUM(1)", "' onmouseover='alert(4)", "plain", "\t=1+1", "+1+1"]
    species = ["mouse", "mouse", "mouse", "mouse", "mouse", EVIL, "mouse", "=1+1"]
    more = {"Organism": species, EVIL: ["1"] * 8, "<img src=x onerror=alert(3)>": ["2"] * 8}
    return table(ids, more=more)


@pytest.fixture(scope="module")
def evil(service: Service) -> tuple[Service, str]:
    client = service.client()
    batch = service.batch(client)
    answer = service.give(client, batch, f"{EVIL}.csv", evil_table(), columns="ask")
    assert answer.status_code == 201
    # A slash ends a name, so the rest of it is the name.
    assert answer.json()["name"] == "script>.csv"
    whole = "<script>alert(1)<script>.csv"
    service.give(client, batch, whole, evil_table())
    service.give(client, batch, "<img src=x onerror=alert(5)>.nwb", b"no recording")
    state = service.finished(client, batch)
    assert [each["state"] for each in state["files"]] == ["columns", "done", "failed"]
    return service, batch


def harmless_page(text: str) -> Any:
    """The parsed page, with no script, handler or style but ours."""
    page = html5lib.parse(text, namespaceHTMLElements=False)
    for element in page.iter():
        if element.tag == "script":
            if element.get("type") == "application/json":
                assert json.loads(element.text)
            else:
                assert re.fullmatch(r"/(static/\w+|plotly)\.js", element.get("src", ""))
                assert not (element.text or "").strip()
        for name in dict(element.attrib):
            assert not name.lower().startswith("on"), (element.tag, name)
            assert "javascript:" not in element.get(name).lower()
    assert "alert(3)" not in [each.get("src") for each in page.iter("img")]
    return page


@pytest.mark.parametrize(
    "path",
    [
        "",
        "?text=%3Cscript%3Ealert(1)%3C/script%3E",
        "?sort=cell_id&order=%22%3E%3Cscript%3E",
        "?verdict=%22%3E%3Cscript%3Ealert(9)",
        "/cells/2/0",
        "/cells/2/1",
        "/cells/2/2",
        "/cells/2/4",
        "/cells/2/5",
        "/cells/2/7",
        "/cells/3/0",
        "/files/1/columns",
        "/cells/2/999",
        "/cells/%3Cscript%3E/0",
        "/%3Cscript%3Ealert(1)",
    ],
)
def test_no_page_runs_what_strangers_write(evil, path):
    service, batch = evil
    answer = httpx.get(f"{service.address}/batches/{batch}{path}", timeout=PATIENCE)
    assert answer.headers["content-type"].startswith("text/html")
    page = harmless_page(answer.text)
    assert "alert(" not in " ".join(each.text or "" for each in page.iter("style"))
    assert answer.status_code < 500
    assert "unsafe-inline" not in answer.headers["content-security-policy"].split("style-src")[0]


def test_the_data_of_a_cell_page_cannot_be_left(evil):
    service, batch = evil
    rows = service.client().get(f"/batches/{batch}/cells").json()["cells"]
    row = next(each["row"] for each in rows if each["cell_id"] == BREAKOUT and each["subclass"])
    answer = httpx.get(f"{service.address}/batches/{batch}/cells/2/{row}", timeout=PATIENCE)
    assert answer.status_code == 200
    (data,) = [
        each for each in harmless_page(answer.text).iter("script") if each.get("id") == "shown"
    ]
    assert json.loads(data.text)["cell"] == BREAKOUT


def test_no_formula_gets_into_the_csv(evil):
    import csv
    import io

    service, batch = evil
    text = service.client().get(f"/batches/{batch}/predictions.csv").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    assert any("cmd|" in field for row in rows for field in row)
    assert any("@SUM" in field for row in rows for field in row)
    for row in rows[1:]:
        for field in row:
            if field[:1] in "=+-@\t\r" and field:
                float(field)


def test_the_report_runs_nothing_of_strangers(evil):
    service, batch = evil
    answer = service.client().get(f"/batches/{batch}/report.html")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment")
    page = html5lib.parse(answer.text, namespaceHTMLElements=False)
    for script in page.iter("script"):
        assert "alert(" not in (script.text or "").replace("window.alert(", "")
        assert not script.get("src")
    for element in page.iter():
        assert not [name for name in dict(element.attrib) if name.lower().startswith("on")]
    # It is there as text.
    assert EVIL in "".join(page.itertext())


# The token

TOKEN = "a-token-of-this-test"  # noqa: S105
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def every_path(client: TestClient, batch: str) -> list[tuple[str, str]]:
    schema = client.get("/api/v1/openapi.json", headers=BEARER).json()
    places = {"batch": batch, "file": "1", "row": "0", "example": "table"}
    api = [
        (method.upper(), path.format(**places))
        for path, methods in schema["paths"].items()
        for method in methods
    ]
    pages = ["/", "/api", "/plotly.js", f"/batches/{batch}", f"/batches/{batch}/cells/1/0"]
    pages += [f"/batches/{batch}/files/1/columns", "/api/v1/openapi.json", "/nowhere", "/docs"]
    pages += ["/static", "//static/style.css", "/static/../api/v1/about", "/STATIC/style.css"]
    return [*api, *(("GET", page) for page in pages)]


def test_with_a_token_nothing_but_the_style_is_given_without_it(app_with):
    client = app_with(token=TOKEN)
    batch = new_batch(client, Authorization=f"Bearer {TOKEN}")
    paths = every_path(client, batch)
    assert len(paths) > 25
    for method, path in paths:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer"},
            {"Cookie": "crosspatch-token=wrong"},
            {"Cookie": "crosspatch-token="},
            {"Cookie": f"other={TOKEN}"},
            {"Authorization": "Bearer \xe9"},
        ):
            raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
            answer = client.request(method, path, headers=raw)
            assert answer.status_code == 401, (method, path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text
    assert client.get("/static/style.css").status_code == 200
    assert jobs_of(client).batches.get(batch).uploads == {}


def test_the_token_opens(app_with):
    client = app_with(token=TOKEN)
    for headers in (
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        {"Cookie": f"crosspatch-token={TOKEN}"},
        {"Cookie": f"a=b; crosspatch-token={TOKEN}; c=d"},
    ):
        assert client.get("/api/v1/about", headers=headers).status_code == 200, headers
        assert client.get("/", headers=headers).status_code == 200, headers
        client.cookies.clear()


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/", "/"),
        ("/batches/x?text=a%26b&token={token}&page=2", "/batches/x?text=a%26b&page=2"),
        ("//evil.example/", "/evil.example/"),
        ("///evil.example/a", "/evil.example/a"),
        ("/\\evil.example/", "/evil.example/"),
        ("/%5Cevil.example/", "/evil.example/"),
        ("/%2F%2Fevil.example/", "/evil.example/"),
        ("/%09/evil.example/", "/%09/evil.example/"),
        ("/x%0D%0ASet-Cookie:%20a=b", "/x%0D%0ASet-Cookie%3A%20a%3Db"),
        ("/a%3Fb%23c", "/a%3Fb%23c"),
    ],
)
def test_the_token_in_an_address_becomes_a_cookie(app_with, path, to):
    client = app_with(token=TOKEN)
    if "token=" not in path:
        path += "?token={token}"
    answer = client.get("http://localhost" + path.format(token=TOKEN))
    assert answer.status_code == 303
    assert answer.headers["location"] == to
    place = urlsplit(answer.headers["location"])
    assert (place.scheme, place.netloc) == ("", "")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"crosspatch-token={TOKEN};")
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert "a=b" not in cookie
    assert client.get("/api/v1/about").status_code == 200  # the cookie opens


def test_a_wrong_token_in_an_address_gives_no_cookie(app_with):
    client = app_with(token=TOKEN)
    for query in ("token=wrong", "token=", f"token=wrong&token={TOKEN}", "token=%ff%00"):
        answer = client.get(f"/?{query}")
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    assert client.post(f"/api/v1/batches?token={TOKEN}", json={}).status_code == 401


@pytest.mark.parametrize(
    ("host", "token", "made"),
    [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", None, True),  # noqa: S104
        ("127.0.0.1", "own", True),
    ],
)
def test_off_loopback_there_is_always_a_token(monkeypatch, settings, service, host, token, made):
    served: list[Any] = []
    said: list[str] = []
    monkeypatch.setattr(server, "Workers", lambda settings: _Borrowed(service.jobs.workers))

    class Stopped:
        def __init__(self, config: Any) -> None:
            served.append(config.app)

        def run(self, sockets: Any) -> None:
            pass

    monkeypatch.setattr("uvicorn.Server", Stopped)
    server.serve(replace(settings, host=host, port=0, token=token), said.append)
    (app,) = served
    jobs: Jobs = app.state.jobs
    try:
        client = TestClient(app, base_url="http://localhost")
        answer = client.get("/api/v1/about")
        assert answer.status_code == (401 if made else 200)
        key = re.search(r"\?token=(\S+)", " ".join(said))
        assert (key is not None) == made
        if key is not None:
            assert token in (None, key.group(1))
            assert len(key.group(1)) >= (3 if token else 24)
            headers = {"Authorization": f"Bearer {key.group(1)}"}
            assert client.get("/api/v1/about", headers=headers).status_code == 200
        assert any("not encrypted" in line for line in said) == (host == "0.0.0.0")  # noqa: S104
    finally:
        jobs._closing.set()
        jobs.batches.close()


class _Borrowed:
    """Workers of another service, which outlive this one."""

    def __init__(self, others: Any) -> None:
        self.others = others

    def start(self, told: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.others, name)


# Pages of others

FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:9999"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "file://localhost"},
    {"Origin": "http://[::1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "none", "Origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_pages_of_others_are_refused(app_with, headers, token):
    client = app_with(token=token)
    if token:
        headers = {**headers, "Authorization": f"Bearer {token}"}
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        for path in ("/api/v1/about", "/api/v1/batches", "/", "/static/style.css"):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 403, (method, path)
            assert "access-control-allow-origin" not in answer.headers
    assert jobs_of(client).batches.all() == []


def test_followed_links_and_pages_of_ours_are_answered(app_with):
    client = app_with()
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=followed).status_code == 200
    assert client.post("/api/v1/batches", json={}, headers=followed).status_code == 403
    ours = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    assert client.post("/api/v1/batches", json={}, headers=ours).status_code == 201
    assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200


HOSTS = "evil.example localhost.evil.example 127.0.0.1.evil.example evil.example:8700 192.168.1.5"
HOSTS += " 0.0.0.0 [::2] localhost:80@evil.example [ ::1%lo"


@pytest.mark.parametrize("host", ["", *HOSTS.split()])
def test_a_foreign_name_of_this_machine_is_refused(app_with, host):
    client = app_with()
    for path in ("/", "/api/v1/about", "/static/style.css", "/api/v1/openapi.json"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 403, path
    assert client.post("/api/v1/batches", json={}, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8700", "127.0.0.1:8700", "[::1]:8700"])
def test_names_of_loopback_are_answered(app_with, host):
    assert app_with().get("/api/v1/about", headers={"Host": host}).status_code == 200


# What stands on every answer

SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def require_safe(answer: httpx.Response) -> None:
    for name, value in SAFE.items():
        assert answer.headers[name] == value
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"]
    assert "server" not in answer.headers


def test_every_answer_has_safe_headers(app_with, monkeypatch):
    client = app_with()
    batch = new_batch(client)

    def bug(*args: Any, **more: Any) -> Any:
        raise RuntimeError(f"TOPSECRET {jobs_of(client).batches.folder}")

    expected = [
        ("GET", "/", 200),
        ("GET", "/api", 200),
        ("GET", "/plotly.js", 200),
        ("GET", "/static/style.css", 200),
        ("GET", "/static/nowhere.css", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/static/..%2fapp.py", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/nowhere", 404),
        ("PATCH", "/api/v1/batches", 405),
        ("POST", "/", 405),
        ("HEAD", "/static/style.css", 200),
        ("GET", f"/api/v1/batches/{batch}", 200),
        ("GET", f"/api/v1/batches/{batch}/predictions.csv", 409),
        ("GET", f"/api/v1/batches/{batch}/cells?limit=0", 422),
        ("GET", f"/batches/{batch}?page=0", 422),
        ("GET", "/batches/none", 404),
        ("DELETE", f"/api/v1/batches/{batch}", 204),
    ]
    for method, path, status in expected:
        answer = client.request(method, path)
        assert answer.status_code == status, (method, path)
        require_safe(answer)
    monkeypatch.setattr(type(jobs_of(client)), "new", bug)
    monkeypatch.setattr(Batches, "get", bug)
    for answer in (client.post("/api/v1/batches", json={}), client.get("/batches/none")):
        assert answer.status_code == 500
        require_safe(answer)
        assert "TOPSECRET" not in answer.text
        assert "Traceback" not in answer.text
    monkeypatch.undo()
    foreign = client.get("/", headers={"Origin": "null"})
    assert foreign.status_code == 403
    require_safe(foreign)
    refused = app_with(token=TOKEN).get("/")
    assert refused.status_code == 401
    require_safe(refused)


# Odd requests


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"[" * 100_000 + b"]" * 100_000, "application/json"),
        (b'{"species":' * 50_000 + b"1" + b"}" * 50_000, "application/json"),
        (b'{"species": ' + b"9" * 100_000 + b"}", "application/json"),
        (b'{"quality": NaN}', "application/json"),
        (b'{"quality": -Infinity}', "application/json"),
        (b'{"quality": "\\ud800"}', "application/json"),
        (b'{"\\ud800": "x"}', "application/json"),
        (b'{"\\u0000": "x"}', "application/json"),
        (b'{"columns": {"\\ud800": {"feature": "tau"}}}', "application/json"),
        (b'{"columns": {"x": {"feature": "\\udfff"}}}', "application/json"),
        (b'{"columns": {"x": {"\\udfff": 1}}}', "application/json"),
        (b'{"step_start": 0, "step_end": 1e999, "amplitudes": [1]}', "application/json"),
        (b'{"step_start": 0, "step_end": 1, "amplitudes": [NaN]}', "application/json"),
        (b'{"step_start": 0, "step_end": 1, "amplitudes": []}', "application/json"),
        (b'{"step_start": true, "step_end": "x", "amplitudes": 1}', "application/json"),
        (b'{"quality": "' + b"x" * 2_000_000 + b'"}', "application/json"),
        (b'{"species": "rat"}', "application/json"),
        (b'{"species": null, "more": 1}', "application/json"),
        (b"null", "application/json"),
        (b"{}", "text/plain"),
        (b"species=mouse", "application/x-www-form-urlencoded"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"{}", "application/json; charset=nonsense"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_body_that_makes_no_sense_is_refused(app_with, body, kind):
    client = app_with()
    batch = new_batch(client)
    jobs = jobs_of(client)
    headers = {"Content-Type": kind}
    for method, path in (
        ("POST", "/api/v1/batches"),
        ("PUT", f"/api/v1/batches/{batch}/files/1/columns"),
        ("PUT", f"/api/v1/batches/{batch}/files/1/reading"),
    ):
        answer = client.request(method, path, content=body, headers=headers)
        if answer.status_code == 201:
            assert body == b"{}"
            continue
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert len(answer.json()["error"]) < 2000
        assert str(jobs.batches.folder) not in answer.text


def test_a_large_body_is_refused_where_no_file_is_expected(app_with, service, client):
    asgi = app_with()
    batch = new_batch(asgi)
    large = b'{"species": "' + b"x" * (5 * 2**20) + b'"}'
    for method, path in (
        ("POST", "/api/v1/batches"),
        ("PUT", f"/api/v1/batches/{batch}/files/1/columns"),
        ("GET", f"/api/v1/batches/{batch}"),
        ("POST", "/"),
    ):
        answer = asgi.request(method, path, content=large)
        assert answer.status_code == 413, (method, path)
        require_safe(answer)
    head = "POST /api/v1/batches HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n"
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    assert b" 413 " in talk(service, head, *[chunk] * 6)[:40]


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\nHost: localhost\nX: {long}\n\n",
        "GET /{long} HTTP/1.1\nHost: localhost\n\n",
        "GET /?{long} HTTP/1.1\nHost: localhost\n\n",
        "GET / HTTP/1.1\nHost: localhost\nCookie: crosspatch-token={long}\n\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: localhost\n\n",
        "GET http://evil.example/ HTTP/1.1\nHost: evil.example\n\n",
        "NONSENSE\n\n",
        "POST /api/v1/batches HTTP/1.1\nHost: localhost\nContent-Length: -1\n\n",
        "POST /api/v1/batches HTTP/1.1\nHost: localhost\nContent-Length: {nines}\n\n",
        "POST /api/v1/batches HTTP/1.1\nHost: localhost\nContent-Length: 1\nContent-Length: 2\n\n",
    ],
)
def test_odd_heads_are_refused(service, head):
    answer = talk(service, head.format(long="x" * 300_000, nines="9" * 25))
    status = re.match(rb"HTTP/1\.1 (\d+)", answer)
    # Or it hangs up.
    assert answer == b"" or (status is not None and 400 <= int(status.group(1)) < 500), answer[:200]
    assert service.client().get("/about").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/files/99999999999999999999",
        "/files/-1",
        "/files/1e3",
        "/files/\x00",
        "/files/%ff",
        "/files/1/sweeps?stimulus=x&start=1e308",
        "/files/1/sweeps?stimulus=x&start=nan",
        "/files/1/sweeps?stimulus=x&start=inf",
        "/files/1/sweeps?stimulus=x&stretches=99999999999",
        "/cells?offset=99999999999999999999",
        "/cells?limit=-5",
        "/cells?sort=;DROP%20TABLE%20cells",
        "/cells?text=%00",
        "/cells?text=%ff%fe",
        "/cells?verdict=%27%20OR%201=1",
        "/cells/1/99999999999999999999",
        "/cells/1/2147483647",
    ],
)
def test_odd_addresses_are_answered(service, client, path):
    batch = service.batch(client)
    path = path.replace("\x00", "%00")
    answer = client.get(f"/batches/{batch}{path}")
    assert answer.status_code in (200, 404, 422), answer.text
    if answer.status_code == 200:
        assert answer.json()["total"] == 0


# No answer names a place on this machine


def test_no_answer_names_a_place_on_this_machine(app_with, settings, tmp_path):
    client = app_with()
    jobs = jobs_of(client)
    batch = new_batch(client)
    root = f"/api/v1/batches/{batch}"
    client.post(f"{root}/files?name=x.csv", content=TABLE)
    client.post(f"{root}/files?name=y.nwb", content=b"\x89HDF\r\n\x1a\n" + bytes(600))
    client.post(f"{root}/files?name=z.parquet", content=PNG)
    client.post(f"{root}/files?name=w.h5ad", content=b"\x89HDF\r\n\x1a\n" + bytes(600))
    client.post(f"{root}/files?name=v.xlsx", content=hostile.xlsx()[:-300])
    wait_for(lambda: client.get(root).json()["finished"])
    # As if someone tidied up: libraries name the files they miss.
    folder = jobs.batches.get(batch).folder
    for file in [*folder.glob("values-*"), *folder.glob("details-*"), *folder.rglob("upload-*")]:
        file.unlink()
    column = {"columns": {"Rin (MOhm)": {"feature": "tau"}}, "predict": True}
    step = {"step_start": 0, "step_end": 1, "amplitudes": [1.0]}
    answers = [client.request(method, path) for method, path in every_path(client, batch)]
    assert jobs.batches.all() == []  # it was deleted among others
    batch = new_batch(client)
    root = f"/api/v1/batches/{batch}"
    client.post(f"{root}/files?name=x.csv", content=TABLE)
    client.post(f"{root}/files?name=y.nwb", content=b"\x89HDF\r\n\x1a\n" + bytes(600))
    wait_for(lambda: client.get(root).json()["finished"])
    folder = jobs.batches.get(batch).folder
    for file in [*folder.glob("values-*"), *folder.glob("details-*"), *folder.rglob("upload-*")]:
        file.unlink()
    for path in (
        "/cells/1/0",
        "/cells/2/0",
        "/predictions.csv",
        "/report.html",
        "/predictions.h5ad",
    ):
        answers.append(client.get(root + path))
        assert answers[-1].status_code == 409, (path, answers[-1].text)
    answers += [
        client.put(f"{root}/files/1/columns", json=column),
        client.put(f"{root}/files/2/reading", json=step),
    ]
    wait_for(lambda: client.get(root).json()["finished"])
    answers += [client.get(root), client.get(f"{root}/cells"), client.get(f"/batches/{batch}")]
    (folder / "cells.sqlite").unlink()
    (folder / "cells.sqlite").mkdir()
    answers += [client.get(f"{root}/cells"), client.get(f"/batches/{batch}/cells/1/0")]
    places = [str(jobs.batches.folder), "crosspatch-serve-", "upload-", "site-packages"]
    places += [str(Path(__file__).parents[2]), str(settings.data_dir), *map(str, settings.models)]
    for answer in answers:
        for place in places:
            assert place not in answer.text, (answer.request.url, answer.text[:500])
