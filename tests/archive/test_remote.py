"""A recording read where it lies gives what the file gives, or an error."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from crosspatch.archive import web as web_module
from crosspatch.archive.dandi import Archive, Asset, DandiPlace
from crosspatch.archive.streaming import RemoteBytes, open_asset
from crosspatch.archive.web import ChangedError, RangePart, Web
from crosspatch.errors import CrosspatchError, NetworkError
from crosspatch.features.extraction import ExtractionSettings, extract_file
from crosspatch.features.outcome import CellFeatures
from crosspatch.recordings.hdf5 import DoubtfulBytesError, GuardedFile
from crosspatch.recordings.opening import open_recording
from tests.archive_server import KINDS, ArchiveServer, Faults
from tests.features.made_files import write_small
from tests.recordings import made_files

SHARED = ExtractionSettings("shared")
#: What a streamed recording says besides.
TOLD = ("recording_source", "file_bytes", "bytes_read", "requests")


def compress(path: Path) -> Path:
    """Few sweeps in compressed chunks, as in the archive's files; what is not used between."""
    with h5py.File(path, "r+") as file:
        for place in ("acquisition", "stimulus/presentation"):
            for name, series in list(file[place].items()):
                if int(name.split("_")[1]) in (1, 2, 4):
                    del file[place][name]
                    continue
                values, kept = series["data"][:], dict(series["data"].attrs)
                del series["data"]
                data = series.create_dataset("data", data=values, chunks=(8192,), compression=3)
                data.attrs.update(kept)
            file.create_dataset(f"unused_{place.split('/')[0]}", data=np.ones(30_000))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("source")
    return {
        "sub-1/compressed.nwb": compress(write_small(folder / "compressed.nwb")),
        "sub-1/plain.nwb": write_small(folder / "plain.nwb"),
    }


@pytest.fixture(scope="module")
def local(files) -> dict[str, CellFeatures]:
    return {name: extract_file(file, SHARED) for name, file in files.items()}


@pytest.fixture(scope="module")
def shared_server(files) -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        server.add_dandiset("000001", files)
        yield server


@pytest.fixture
def server(shared_server) -> ArchiveServer:
    shared_server.faults = None
    shared_server.latency = 0.0
    shared_server.restore()
    shared_server.settle()
    shared_server.clear_log()
    return shared_server


@pytest.fixture
def assets(server, quick) -> dict[str, Asset]:
    found = Archive(server.api).recordings(DandiPlace("000001"))
    server.clear_log()
    return {asset.path: asset for asset in found}


@pytest.fixture
def asset(assets) -> Asset:
    return assets["sub-1/compressed.nwb"]


def require_same(streamed: CellFeatures, local: CellFeatures) -> None:
    np.testing.assert_array_equal(streamed.values, local.values)
    ours, theirs = (
        {name: value for name, value in cell.head.items() if name not in TOLD}
        for cell in (streamed, local)
    )
    assert repr(ours) == repr(theirs)  # so that NaN is NaN


def same_or_error(asset: Asset, local: CellFeatures) -> CrosspatchError | None:
    try:
        cell = extract_file(asset, SHARED)
    except CrosspatchError as error:
        assert "\n" not in str(error)
        assert isinstance(error, NetworkError)  # nothing is said of the file
        return error
    require_same(cell, local)
    return None


def whole(server: ArchiveServer) -> int:
    return sum(server.whole_bodies().values())


# What comes is what is there.


@pytest.mark.parametrize("name", ["sub-1/compressed.nwb", "sub-1/plain.nwb"])
def test_features_are_those_of_the_file(name, assets, local, server):
    asset = assets[name]
    cell = extract_file(asset, SHARED)
    require_same(cell, local[name])
    assert cell.head["recording_source"] == f"dandi:000001@0.240101.0000/{name}"
    assert cell.head["file_bytes"] == asset.size
    assert cell.head["sha256"] == asset.digests["sha256"]


def test_only_what_is_used_is_fetched(asset, local, server):
    cell = extract_file(asset, SHARED)
    assert not whole(server)
    assert cell.head["bytes_read"] == server.sent_bytes("/blobs/") < 0.7 * asset.size
    # Only the first request asks the archive where the file lies.
    assert len(server.requests("/download/")) == 1


def test_the_sweeps_of_a_recording_are_those_of_the_file(asset, files):
    with open_asset(asset) as far, open_recording(files[asset.path]) as near:
        assert len(far.sweeps) == len(near.sweeps)
        for ours, theirs in zip(far.sweeps, near.sweeps, strict=True):
            np.testing.assert_array_equal(ours.voltage, theirs.voltage)
            np.testing.assert_array_equal(ours.voltage_until(777), theirs.voltage[:777])
            np.testing.assert_array_equal(ours.current, theirs.current)


def test_what_is_said_ahead_saves_time_and_changes_nothing(asset, local, server, monkeypatch):
    extract_file(asset, SHARED)
    ahead = len(server.requests("/blobs/"))
    server.clear_log()
    monkeypatch.setattr(RemoteBytes, "announce", lambda self, ranges: None)
    require_same(extract_file(asset, SHARED), local[asset.path])
    assert len(server.requests("/blobs/")) != ahead


@pytest.mark.parametrize("pairing", made_files.PAIRINGS)
def test_every_layout_is_the_same_from_afar(pairing, quick, tmp_path):
    options: dict[str, Any] = {"pairing": pairing, "timestamps": pairing == "names"}
    sweeps = made_files.cell(steps=(-60, 60, 140))
    file = made_files.write_nwb(tmp_path / "cell.nwb", sweeps, compressed=True, **options)
    with ArchiveServer() as server:
        server.add_dandiset("000001", {"cell.nwb": file})
        (asset,) = Archive(server.api).recordings(DandiPlace("000001"))
        require_same(extract_file(asset, SHARED), extract_file(file, SHARED))


# Every way to misbehave, once and for ever.


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_survives_what_passes(kind, asset, local, server):
    server.faults = Faults((kind,), times=1, where="/blobs/")
    started = time.monotonic()
    error = same_or_error(asset, local[asset.path])
    assert time.monotonic() - started < 60
    assert (error is not None) == (kind in ("403", "404", "changed"))


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_ends_when_it_never_passes(kind, asset, local, server):
    server.faults = Faults((kind,), where="/blobs/")
    started = time.monotonic()
    error = same_or_error(asset, local[asset.path])
    assert time.monotonic() - started < 60
    assert (error is None) == (kind in ("long", "ignore-range", "broken-json"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("drip", "stall", "wrong")])
def test_streaming_survives_many_faults_or_ends(kind, asset, local, server):
    server.faults = Faults((kind,), share=0.2, seed=3)
    started = time.monotonic()
    same_or_error(asset, local[asset.path])
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("seed", range(12))
def test_wrong_bytes_are_never_believed(seed, asset, local, server):
    server.faults = Faults(("wrong",), share=0.1, seed=seed, where="/blobs/")
    same_or_error(asset, local[asset.path])


# A server in this process that spoils any byte it is told to.


class Spoiling(Web):
    """Parts of a file on disk; one answer has a few bytes inverted."""

    def __init__(self, file: Path, asset: Asset, spoilt: int = -1, seed: int = 0):
        super().__init__()
        self.content = file.read_bytes()
        self.etag = asset.digests["dandi-etag"]
        self.spoilt, self.rng = spoilt, np.random.default_rng(seed)
        self.parts: list[tuple[int, int]] = []

    def part(self, address, first, count, *, etag=None, size=None):
        content = bytearray(self.content[first : first + count])
        with self._lock:
            self.parts.append((first, len(content)))
            if len(self.parts) - 1 == self.spoilt:
                for place in self.rng.integers(len(content), size=self.rng.integers(1, 4)):
                    content[place] ^= 0xFF
        return RangePart(bytes(content), self.etag, len(self.content), address)

    def download(self, address, file, **_):
        file.write_bytes(self.content)


@pytest.fixture
def spoil(monkeypatch):
    """What is extracted next comes from a spoiling server."""

    def spoil(web: Web) -> None:
        monkeypatch.setattr(web_module, "Web", lambda: web)

    return spoil


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("name", ["sub-1/compressed.nwb", "sub-1/plain.nwb"])
def test_a_spoilt_byte_anywhere_changes_nothing(seed, name, spoil, assets, files, local):
    asset = assets[name]
    web = Spoiling(files[asset.path], asset)
    spoil(web)
    extract_file(asset, SHARED)
    assert web.parts
    spoilt = int(np.random.default_rng(seed).integers(len(web.parts)))
    spoil(Spoiling(files[asset.path], asset, spoilt, seed))
    same_or_error(asset, local[asset.path])


# When streaming is not to be trusted, the whole file is fetched and verified.


def test_a_server_without_parts_gives_the_whole(asset, local, server):
    server.faults = Faults(("ignore-range",), where="/blobs/")
    require_same(extract_file(asset, SHARED), local[asset.path])
    assert whole(server) == 1


def test_a_server_that_stops_giving_parts_gives_the_whole(asset, local, server):
    with open_asset(asset) as recording:
        recording.current_clamp[0].voltage
        server.faults = Faults(("ignore-range",), where="/blobs/")
        with pytest.raises(DoubtfulBytesError, match="does not give parts of files"):
            recording.current_clamp[-1].voltage
    server.faults = Faults(("ignore-range",), where="/blobs/", share=0.7, seed=2)
    require_same(extract_file(asset, SHARED), local[asset.path])


@pytest.mark.parametrize("etag", ["another", None])
def test_a_file_under_another_entity_tag_is_verified(etag, asset, local, server, monkeypatch):
    answer = ArchiveServer._file_answer

    def tagged(*arguments: Any) -> Any:
        found = answer(*arguments)
        headers = {name: value for name, value in found.headers.items() if name != "ETag"}
        return replace(found, headers=headers | ({"ETag": f'"{etag}"'} if etag else {}))

    monkeypatch.setattr(ArchiveServer, "_file_answer", tagged)
    require_same(extract_file(asset, SHARED), local[asset.path])
    assert whole(server) == 1
    server.faults = Faults(("wrong",), where="/blobs/")
    with pytest.raises(ChangedError, match="is not the file it should be"):
        extract_file(asset, SHARED)


def test_another_file_than_the_listed_one_is_refused(asset, server):
    server.faults = Faults(("changed",), times=1, where="/blobs/")
    with pytest.raises(ChangedError, match="is not the file it should be: its"):
        extract_file(asset, SHARED)


def test_a_file_that_changes_between_two_requests_is_noticed(asset, server):
    with open_asset(asset) as recording:
        first = recording.current_clamp[0].voltage
        server.faults = Faults(("changed",), times=1, where="/blobs/")
        with pytest.raises(ChangedError, match="changed while it was read"):
            recording.current_clamp[-1].voltage
        with pytest.raises(ChangedError):  # nor is anything read afterwards
            recording.current_clamp[0].voltage
    assert len(first)


def test_bytes_that_do_not_come_are_no_zeros(assets, server):
    """HDF5 asks for samples that lie bare, and would take what it is given."""
    content = RemoteBytes(assets["sub-1/plain.nwb"])
    with GuardedFile(content) as source, h5py.File(source, "r") as file:
        data = [series["data"] for series in file["acquisition"].values()]
        assert data[0][:].any()
        server.faults = Faults(("503",))
        with pytest.raises(OSError, match=r"503|read"):
            data[-1][:]
        assert "503" in str(content.failure)
        with pytest.raises(OSError, match="503"):
            source.expect([])


def test_a_link_that_has_expired_is_asked_for_again(asset, server, local):
    with open_asset(asset) as recording:
        server.clear_log()
        server.faults = Faults(("403",), times=1, where="/blobs/")
        assert len(recording.current_clamp[-1].voltage)
        assert len(server.requests("/download/")) == 1


def test_verified_from_the_beginning(asset, server, files, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_asset(asset, verified=True) as far, open_recording(files[asset.path]) as near:
        np.testing.assert_array_equal(far.sweeps[0].voltage, near.sweeps[0].voltage)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert len(server.requests("/blobs/")) == 1


def test_nothing_stays_of_a_download_that_failed(asset, server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server.faults = Faults(("wrong",), where="/blobs/")
    with pytest.raises(NetworkError):
        open_asset(asset, verified=True)
    assert not list(tmp_path.iterdir())


# Samples that look like something else.


@pytest.mark.parametrize("kind", ["contiguous", "chunked", "checked"])
@pytest.mark.parametrize("points", [None, 100, 5000])
def test_samples_may_spell_anything(kind, points, quick, tmp_path):
    """A heap of texts begins with these four letters; one with such a size would be damaged."""
    file = write_small(tmp_path / "cell.nwb")
    spelt = np.frombuffer(b"GCOL\x01\0\0\0" + bytes(8), "<i2")
    options: dict[str, Any] = {} if kind == "contiguous" else {"chunks": (4096,)}
    options["fletcher32"] = kind == "checked"
    expected = []
    with h5py.File(file, "r+") as opened:
        for place in ("stimulus/presentation", "acquisition"):
            for series in opened[place].values():
                values, said = series["data"][:], dict(series["data"].attrs)
                for at in (0, 40, 96, 4090, len(values) - 8):
                    values[at : at + 8] = spelt
                expected.append(values * said["conversion"] * 1e3)
                del series["data"]
                data = series.create_dataset("data", data=values, **options)
                data.attrs.update(said)
    expected = expected[len(expected) // 2 :]

    def require_spelt(source: Path | Asset, verified: bool) -> None:
        opened = (
            open_recording(source)
            if isinstance(source, Path)
            else open_asset(source, verified=verified)
        )
        with opened as recording:
            for sweep, voltage in zip(recording.sweeps, expected, strict=True):
                read = sweep.voltage if points is None else sweep.voltage_until(points)
                np.testing.assert_allclose(read, voltage[:points], rtol=1e-12)

    require_spelt(file, verified=False)
    with ArchiveServer() as server:
        server.add_dandiset("000001", {"cell.nwb": file})
        (asset,) = Archive(server.api).recordings(DandiPlace("000001"))
        require_spelt(asset, verified=kind != "checked")


# Memory.


class Endless(Web):
    """A large file of which every byte says where it is."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def part(self, address, first, count, *, etag=None, size=None):
        count = min(count, self.size - first)
        places = np.arange(first // 256, (first + count) // 256 + 1, dtype=np.uint32)
        content = np.repeat(places % 251, 256).astype(np.uint8).tobytes()
        self.requests += 1
        return RangePart(content[first % 256 :][:count], "tag", self.size, address)


def endless(size: int) -> RemoteBytes:
    asset = Asset("000001", "draft", "id", "large.nwb", size, {"dandi-etag": "tag"}, "http://x")
    return RemoteBytes(asset, web=Endless(size))


def kept(content: RemoteBytes) -> int:
    blocks: Sequence[bytes] = list(content._blocks.values())
    return sum(map(len, blocks)) + sum(len(piece) for _, piece in content._ahead)


def test_what_was_looked_up_is_forgotten_in_time(quick):
    content = endless(200 * 2**20)
    for offset in range(0, 20 * 2**20, 3000):
        piece = content.read_at(offset, 2000)
        assert piece[0] == offset // 256 % 251
        assert piece[-1] == (offset + len(piece) - 1) // 256 % 251
    assert kept(content) <= 17 * 2**20
    content.announce([(0, 100 * 2**20)])
    assert kept(content) <= 17 * 2**20
    content.expect([])
    content.expect([(0, 60 * 2**20)])
    assert 60 * 2**20 <= kept(content) <= 85 * 2**20
    content.expect([(0, 99 * 2**20)])  # more than is fetched ahead
    assert kept(content) <= 17 * 2**20
    content.expect([(offset, 64) for offset in range(0, 100 * 2**20, 2048)])
    assert kept(content) <= 17 * 2**20
    content.close()
    assert kept(content) == 0


def test_what_is_near_is_fetched_together(quick):
    content = endless(2**20)
    content.expect([(100_000, 2000), (103_000, 2000), (500_000, 2000)])
    requests = content.web.requests
    assert content.read_at(103_500, 1000)[0] == 103_500 // 256 % 251
    assert content.read_at(500_000, 2000)[0] == 500_000 // 256 % 251
    assert content.web.requests == requests == 3  # one was for the head of the file


def test_the_end_of_the_file(quick):
    content = endless(2**20 + 100)
    assert len(content.read_at(2**20, 4096)) == 100
    assert content.read_at(2**20 + 100, 10) == b""
    assert content.read_at(2**30, 10) == b""
    content.announce([(2**20 + 50, 4096), (2**30, 10)])
    content.expect([(2**20 + 50, 4096), (2**30, 10)])
    assert len(content.read_at(2**20 + 50, 4096)) == 50
    assert content.failure is None
