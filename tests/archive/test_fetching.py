"""A folder of recordings is fetched once, verified, whatever stops it on the way."""

from __future__ import annotations

import collections
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosspatch.archive.dandi import Archive, Asset, DandiPlace
from crosspatch.archive.fetching import FetchProgress, fetch_assets
from crosspatch.archive.web import Web, digests_of
from crosspatch.errors import NetworkError
from tests.archive_server import KINDS, ArchiveServer, Faults

SIZE = 150_000
CELLS = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for number in range(CELLS):
        (folder / f"{number}.nwb").write_bytes(rng.bytes(SIZE + number))
    return {f"sub-{k}/sub-{k}_icephys.nwb": folder / f"{k}.nwb" for k in range(CELLS)}


@pytest.fixture
def server(files) -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        server.add_dandiset("000001", files)
        yield server


@pytest.fixture
def archive(server, quick) -> Archive:
    return Archive(server.api, Web(quick))


@pytest.fixture
def assets(archive) -> list[Asset]:
    return archive.recordings(DandiPlace("000001"))


def require_right(folder: Path, files: dict[str, Path], count: int | None = None) -> None:
    """Every file under a recording's name is that recording, and nothing else has such a name."""
    found = {path.relative_to(folder).as_posix(): path for path in complete(folder)}
    for name, path in found.items():
        assert path.read_bytes() == files[name].read_bytes()
    assert len(found) == (len(files) if count is None else count)


def complete(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.nwb") if path.is_file()]


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.part"))


# Every way to misbehave, once and for ever.


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_survives_what_passes(kind, server, archive, assets, files, tmp_path):
    server.faults = Faults((kind,), times=1, where="/blobs/")
    started = time.monotonic()
    fetched = fetch_assets(assets, tmp_path, archive=archive, jobs=2)
    assert time.monotonic() - started < 60
    lost = 1 if kind in ("403", "404", "changed") else 0
    assert len(fetched.failures) == lost
    require_right(tmp_path, files, CELLS - lost)
    server.restore()
    assert not fetch_assets(assets, tmp_path, archive=archive).failures
    require_right(tmp_path, files)
    assert not hidden(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_ends_when_it_never_passes(kind, server, archive, assets, files, tmp_path):
    server.faults = Faults((kind,))
    started = time.monotonic()
    fetched = fetch_assets(assets, tmp_path, archive=archive, jobs=4)
    assert time.monotonic() - started < 60
    harmless = kind in ("long", "ignore-range", "other-range", "broken-json")
    assert len(fetched.files) == (CELLS if harmless else 0)
    assert len(fetched.failures) == CELLS - len(fetched.files)
    for asset, reason in fetched.failures.items():
        assert asset.address in reason
        assert "\n" not in reason
    require_right(tmp_path, files, len(fetched.files))
    # The same command again, when the network is well.
    server.faults = None
    server.restore()
    again = fetch_assets(assets, tmp_path, archive=archive)
    assert not again.failures
    assert again.kept == len(fetched.files)
    require_right(tmp_path, files)


@pytest.mark.parametrize("seed", range(3))
def test_a_folder_survives_everything_at_once(
    seed, server, archive, assets, files, quick, tmp_path
):
    kinds = tuple(kind for kind in KINDS if kind not in ("403", "404", "changed", "drip"))
    server.faults = Faults(kinds, share=0.3, seed=seed, retry_after=0)
    archive.web.settings = replace(quick, attempts=20)
    assert not fetch_assets(assets, tmp_path, archive=archive, jobs=4).failures
    require_right(tmp_path, files)
    assert not hidden(tmp_path)


# What is there stays.


@pytest.fixture
def hashed(monkeypatch) -> list[Path]:
    """The files that were read to see whether they are right."""
    read: list[Path] = []

    def counted(file, kinds):
        read.append(file)
        return digests_of(file, kinds)

    monkeypatch.setattr("crosspatch.archive.fetching.digests_of", counted)
    return read


def test_what_is_there_is_neither_fetched_nor_read_again(
    server, archive, assets, files, tmp_path, hashed
):
    first = fetch_assets(assets, tmp_path, archive=archive)
    assert (first.kept, len(first.files)) == (0, CELLS)
    assert first.files[assets[0]] == tmp_path / assets[0].path
    server.clear_log()
    again = fetch_assets(assets, tmp_path, archive=archive)
    assert (again.kept, again.files) == (CELLS, first.files)
    assert not server.log
    assert not hashed


def test_what_came_otherwise_is_read_once_and_kept(
    server, archive, assets, files, tmp_path, hashed
):
    for name, file in files.items():
        (tmp_path / name).parent.mkdir()
        shutil.copy(file, tmp_path / name)
    server.clear_log()
    for reads in (CELLS, 0):
        hashed.clear()
        assert fetch_assets(assets, tmp_path, archive=archive).kept == CELLS
        assert len(hashed) == reads
    (tmp_path / ".fetched.sqlite").unlink()
    assert fetch_assets(assets, tmp_path, archive=archive).kept == CELLS
    assert len(hashed) == CELLS
    assert not server.requests("/blobs/")


def test_a_file_that_was_changed_is_read_again_and_left_alone(
    server, archive, assets, files, tmp_path, hashed
):
    fetch_assets(assets, tmp_path, archive=archive)
    damaged = tmp_path / assets[1].path
    content = damaged.read_bytes()
    damaged.write_bytes(bytes(10) + content[10:])
    server.clear_log()
    fetched = fetch_assets(assets, tmp_path, archive=archive)
    assert hashed == [damaged]
    assert list(fetched.failures) == [assets[1]]
    reason = fetched.failures[assets[1]]
    assert f"{damaged} is there, but is not {assets[1]}" in reason
    assert "move or delete it" in reason
    assert fetched.kept == CELLS - 1
    assert damaged.read_bytes() == bytes(10) + content[10:]
    assert not server.requests("/blobs/")
    damaged.unlink()
    assert not fetch_assets(assets, tmp_path, archive=archive).failures
    require_right(tmp_path, files)


def test_a_newer_version_of_a_file_does_not_replace_it(server, archive, assets, files, tmp_path):
    fetch_assets(assets, tmp_path, archive=archive)
    other = files[assets[1].path]
    server.add_dandiset("000001", {assets[0].path: other}, version="0.250101.0000")
    newer = archive.recordings(DandiPlace("000001"))
    assert "is not dandi:000001@0.250101.0000" in next(
        iter(fetch_assets(newer, tmp_path, archive=archive).failures.values())
    )
    require_right(tmp_path, files)


@pytest.mark.parametrize("name", ["a folder", "too long"])
def test_what_cannot_be_read_is_one_failure(name, archive, assets, files, tmp_path):
    if name == "a folder":
        (tmp_path / assets[0].path).mkdir(parents=True)
    else:
        assets[0] = replace(assets[0], path=f"{'x' * 300}.nwb")
    fetched = fetch_assets(assets, tmp_path, archive=archive)
    assert list(fetched.failures) == [assets[0]]
    assert "cannot be" in fetched.failures[assets[0]]
    require_right(tmp_path, files, CELLS - 1)


def test_two_files_of_one_name_are_not_mixed(server, archive, assets, files, tmp_path):
    twin = replace(assets[1], path=assets[0].path)
    fetched = fetch_assets([assets[0], twin, assets[0]], tmp_path, archive=archive)
    assert list(fetched.files) == [assets[0]]
    assert "another file of the list" in fetched.failures[twin]
    require_right(tmp_path, files, 1)


def test_without_sha256_files_are_verified_by_the_archives_own_checksum(
    server, archive, files, tmp_path
):
    server.add_dandiset("000002", files, digests=False)
    young = archive.recordings(DandiPlace("000002"))
    assert all(set(asset.digests) == {"dandi-etag"} for asset in young)
    server.faults = Faults(("wrong",), times=1, where="/blobs/")
    assert not fetch_assets(young, tmp_path, archive=archive).failures
    require_right(tmp_path, files)
    server.faults = Faults(("changed",), where="/blobs/")
    shutil.rmtree(tmp_path)
    fetched = fetch_assets(young, tmp_path, archive=archive)
    assert all("its dandi-etag is" in reason for reason in fetched.failures.values())
    require_right(tmp_path, files, 0)


def test_checksums_that_a_list_lacks_are_asked_for(server, archive, assets, files, tmp_path):
    bare = [replace(asset, digests={}) for asset in assets]
    fetched = fetch_assets(bare, tmp_path, archive=archive)
    assert set(fetched.files) == set(bare)
    require_right(tmp_path, files)
    assert fetch_assets(bare, tmp_path, archive=archive).kept == CELLS


def test_a_file_without_any_checksum_is_not_fetched(server, archive, assets, tmp_path, monkeypatch):
    monkeypatch.setattr(archive.web, "json", lambda *_: {"digest": {}})
    fetched = fetch_assets([replace(assets[0], digests={})], tmp_path, archive=archive)
    assert "the archive has no checksum of it" in next(iter(fetched.failures.values()))
    assert not server.requests("/blobs/")


# What stands in the way.


def test_only_one_process_fetches_into_a_folder(server, archive, assets, files, tmp_path):
    errors: list[str] = []

    def second(_: FetchProgress) -> None:
        if not errors:
            with pytest.raises(NetworkError) as error:
                fetch_assets(assets, tmp_path, archive=archive)
            errors.append(str(error.value))

    assert not fetch_assets(assets, tmp_path, archive=archive, progress=second).failures
    assert errors == [
        f"another process is fetching into {tmp_path}; wait for it, or give another 'out'"
    ]
    require_right(tmp_path, files)


def test_too_little_space_is_said_before_anything_is_fetched(
    server, archive, assets, tmp_path, monkeypatch
):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 200 * 2**20))
    server.clear_log()
    with pytest.raises(NetworkError, match=r"0\.00 GB are needed for 4 files, 0\.21 GB are free"):
        fetch_assets(assets, tmp_path, archive=archive)
    assert not server.log


def test_a_full_disk_does_not_matter_where_all_is_there(archive, assets, tmp_path, monkeypatch):
    fetch_assets(assets, tmp_path, archive=archive)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 0))
    assert fetch_assets(assets, tmp_path, archive=archive).kept == CELLS


def test_a_folder_that_cannot_be_written(archive, assets, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(NetworkError, match="taken cannot be written"):
        fetch_assets(assets, tmp_path / "taken", archive=archive)


def test_a_damaged_ledger_is_said(archive, assets, tmp_path):
    (tmp_path / ".fetched.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(NetworkError, match=r"fetched\.sqlite cannot be used: .*; delete it"):
        fetch_assets(assets, tmp_path, archive=archive)


def test_progress_tells_what_is_there_and_what_comes(archive, assets, tmp_path):
    fetch_assets(assets[:1], tmp_path, archive=archive)
    told: list[FetchProgress] = []
    fetch_assets(assets, tmp_path, archive=archive, progress=told.append)
    size = sum(asset.size for asset in assets[1:])
    assert told[0] == FetchProgress(1, CELLS, 0, size, 0, 1)
    assert told[-1] == FetchProgress(CELLS, CELLS, size, size, 0, 1)


# Killed, stopped, and given again.

_FETCH = """
import signal, sys
from crosspatch.archive.dandi import Archive, DandiPlace
from crosspatch.archive.fetching import fetch_assets
# What was started in the background ignores Ctrl-C, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
archive = Archive(sys.argv[1])
assets = archive.recordings(DandiPlace("000001"))
fetched = fetch_assets(assets, sys.argv[2], archive=archive, jobs=2)
print(fetched.kept, len(fetched.failures))
"""


def fetching_process(server: ArchiveServer, folder: Path, timeout: int = 5) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, server.api, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CROSSPATCH_TIMEOUT": str(timeout)},
    )


def wait_until_there(folder: Path, whole: int, least: int, most: int = SIZE) -> None:
    """Wait for so many complete files, and for a part of about so many bytes."""
    limit = time.monotonic() + 120
    while True:
        assert time.monotonic() < limit
        time.sleep(0.02)
        with suppress(FileNotFoundError):  # one that has just been completed
            sizes = [part.stat().st_size for part in folder.rglob("*.part")]
            if len(complete(folder)) >= whole and any(least <= size <= most for size in sizes):
                return


def test_killed_twice_nothing_is_fetched_twice(tmp_path):
    rng = np.random.default_rng(1)
    files = {f"sub-{k}/{k}.nwb": tmp_path / f"{k}.nwb" for k in range(6)}
    for file in files.values():
        file.write_bytes(rng.bytes(1_000_000))
    out = tmp_path / "out"
    with ArchiveServer(bandwidth=2_000_000) as server:
        server.add_dandiset("000001", files)
        for whole in (1, 3):
            process = fetching_process(server, out)
            wait_until_there(out, whole, 200_000, 800_000)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            require_right(out, files, len(complete(out)))
        before = {path.name for path in complete(out)}
        assert 3 <= len(before) < 6
        server.settle()
        earlier = len(server.log)
        process = fetching_process(server, out)
        said, errors = process.communicate(timeout=180)
        assert (said, errors) == (f"{len(before)} 0\n", "")
        later = [served for served in server.log[earlier:] if "/blobs/" in served.path]
        assert not {Path(served.asset or "").name for served in later} & before
        assert any(served.range is not None for served in later)
        assert max(server.whole_bodies().values()) == 1
        # What a kill costs is what had been sent, but not written.
        assert server.sent_bytes("/blobs/") < 1.5 * 6_000_000
    require_right(out, files)
    assert not hidden(out)


@pytest.mark.parametrize("stalled", [False, True])
def test_interrupted_it_ends_at_once_and_can_go_on(stalled, server, files, tmp_path):
    if stalled:
        server.faults = Faults(("stall",), where="/blobs/", stall_seconds=120)
    else:
        server.bandwidth = 50_000
    process = fetching_process(server, tmp_path, timeout=60)
    wait_until_there(tmp_path, 0, 1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=180)
    assert time.monotonic() - started < 30  # half of what a stalled server is given
    assert "KeyboardInterrupt" in errors
    assert hidden(tmp_path)
    require_right(tmp_path, files, 0)
    server.bandwidth = server.faults = None
    process = fetching_process(server, tmp_path)
    assert process.communicate(timeout=180)[0] == "0 0\n"
    require_right(tmp_path, files)


def test_an_error_of_the_caller_ends_the_threads(server, archive, assets, tmp_path):
    server.bandwidth = 100_000

    class StopError(Exception):
        pass

    def stop(state: FetchProgress) -> None:
        if state.bytes_done:
            raise StopError

    started = time.monotonic()
    with pytest.raises(StopError):
        fetch_assets(assets, tmp_path, archive=archive, progress=stop)
    assert time.monotonic() - started < 30
    server.bandwidth = None
    assert server.settle(2)
    assert len(fetch_assets(assets, tmp_path, archive=archive).files) == CELLS  # nobody has it
