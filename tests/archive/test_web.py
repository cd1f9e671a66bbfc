"""A file or an answer arrives as it is, or there is one clear line; nothing hangs."""

from __future__ import annotations

import errno
import hashlib
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dandischema.digests.dandietag import DandiETag, PartGenerator

from crosspatch.archive.web import (
    ChangedError,
    NoRangesError,
    StoppedDownloadError,
    Web,
    WebSettings,
    digests_of,
    part_length,
)
from crosspatch.errors import NetworkError
from tests.archive_server import KINDS, ArchiveServer, Faults

SIZE = 600_000
#: What no patience helps against: it is said at once, or is there for good.
FINAL = {"403", "404", "changed"}
MIB = 2**20


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("source") / "cell.nwb"
    file.write_bytes(np.random.default_rng(0).bytes(SIZE))
    return file


@pytest.fixture(scope="module")
def shared_server(source) -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        server.add_dandiset("000001", {"sub-1/cell.nwb": source})
        yield server


@pytest.fixture
def server(shared_server) -> ArchiveServer:
    shared_server.faults = None
    shared_server.latency = 0.0
    shared_server.bandwidth = None
    shared_server.restore()
    shared_server.settle()
    shared_server.clear_log()
    return shared_server


@pytest.fixture
def address(server) -> str:
    return f"{server.address}{server.asset('000001', 'sub-1/cell.nwb').download_path}"


@pytest.fixture(scope="module")
def digests(source) -> dict[str, str]:
    return digests_of(source, ["sha256", "dandi-etag"])


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert "signature" not in message
    return message


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """For a machine with other things to do it may be more; what hangs would take for ever."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < max(4 * seconds, 15)


# Every way to misbehave, once and for ever.


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_survives_what_passes(kind, server, address, source, digests, quick, tmp_path):
    server.faults = Faults((kind,), times=1, where="/blobs/")
    file = tmp_path / "cell.nwb"
    with at_most(10):
        if kind in FINAL:
            with pytest.raises(NetworkError) as error:
                Web(quick).download(address, file, size=SIZE, digests=digests)
            assert address in one_line(error)
        else:
            Web(quick).download(address, file, size=SIZE, digests=digests)
            assert file.read_bytes() == source.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".part"] == (
        [] if kind in FINAL else ["cell.nwb"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_ends_when_it_never_passes(
    kind, server, address, source, digests, quick, tmp_path
):
    server.faults = Faults((kind,))
    file = tmp_path / "cell.nwb"
    with at_most(15):
        try:
            Web(quick).download(address, file, size=SIZE, digests=digests)
        except NetworkError as error:
            assert "\n" not in str(error)
            assert not file.exists()
        else:
            assert kind in ("long", "ignore-range", "other-range", "broken-json")
            assert file.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, None])
def test_an_answer_is_right_or_an_error(kind, times, server, quick):
    address = f"{server.api}/dandisets/000001/"
    right = Web(quick).json(address)
    server.faults = Faults((kind,), times=times)
    no_fault = kind in ("changed", "ignore-range", "other-range")
    with at_most(10):
        if no_fault or (times == 1 and kind not in FINAL):
            assert Web(quick).json(address) == right
        else:
            with pytest.raises(NetworkError) as error:
                Web(quick).json(address)
            assert address in one_line(error)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wrong"])
@pytest.mark.parametrize("times", [1, None])
def test_a_part_is_right_or_an_error(kind, times, server, address, source, quick):
    """Wrong bytes of a part are for whoever knows what they should be."""
    web = Web(quick)
    first = web.part(address, 0, 100, size=SIZE)
    server.faults = Faults((kind,), times=times)
    harmless = kind in ("long", "broken-json") or (times == 1 and kind not in FINAL)
    with at_most(10):
        if harmless:
            part = web.part(address, 1000, 5000, etag=first.etag, size=SIZE)
            assert part.content == source.read_bytes()[1000:6000]
            assert (part.etag, part.size) == (first.etag, SIZE)
        else:
            with pytest.raises(NetworkError) as error:
                web.part(address, 1000, 5000, etag=first.etag, size=SIZE)
            one_line(error)


def test_a_part_of_another_file_and_a_server_without_parts_are_told_apart(server, address, quick):
    web = Web(quick)
    etag = web.part(address, 0, 100, size=SIZE).etag
    with pytest.raises(ChangedError, match="not 7: it changed"):
        web.part(address, 0, 100, size=7)
    server.faults = Faults(("changed",), times=1)
    with pytest.raises(ChangedError, match="changed while it was read"):
        web.part(address, 0, 100, etag=etag, size=SIZE)
    server.restore()
    server.faults = Faults(("ignore-range",))
    with pytest.raises(NoRangesError, match="does not give parts"):
        web.part(address, 0, 100, etag=etag, size=SIZE)


def test_a_part_that_loses_its_entity_tag_counts_as_changed(server, address, quick, monkeypatch):
    web = Web(quick)
    etag = web.part(address, 0, 100, size=SIZE).etag
    answer = ArchiveServer._file_answer

    def without_etag(*arguments: Any) -> Any:
        found = answer(*arguments)
        headers = {name: value for name, value in found.headers.items() if name != "ETag"}
        return replace(found, headers=headers)

    monkeypatch.setattr(ArchiveServer, "_file_answer", without_etag)
    assert web.part(address, 0, 100, size=SIZE).etag is None
    with pytest.raises(ChangedError):
        web.part(address, 0, 100, etag=etag, size=SIZE)


def test_the_end_of_a_file_is_a_shorter_part(server, address, source, quick):
    part = Web(quick).part(address, SIZE - 10, 4096, size=SIZE)
    assert part.content == source.read_bytes()[-10:]
    assert "/blobs/" in part.address


@pytest.mark.parametrize("seed", range(6))
def test_a_download_survives_everything_at_once(
    seed, server, address, source, digests, quick, tmp_path
):
    kinds = tuple(kind for kind in KINDS if kind not in {*FINAL, "stall", "drip"})
    server.faults = Faults(kinds, share=0.5, seed=seed, part=0.3, retry_after=0)
    patient = replace(quick, attempts=30)
    Web(patient).download(address, tmp_path / "x", size=SIZE, digests=digests)
    assert (tmp_path / "x").read_bytes() == source.read_bytes()


# What is there is not fetched again.


def test_a_download_that_is_cut_again_and_again_costs_its_size(tmp_path, quick):
    content = np.random.default_rng(1).bytes(4_000_000)
    (tmp_path / "large.nwb").write_bytes(content)
    with ArchiveServer(faults=Faults(("cut",), where="/blobs/", times=12, part=0.2)) as server:
        server.add_dandiset("000001", {"large.nwb": tmp_path / "large.nwb"})
        asset = server.asset("000001", "large.nwb")
        digests = {"sha256": hashlib.sha256(content).hexdigest()}
        address = server.address + asset.download_path
        Web(quick).download(address, tmp_path / "x", size=len(content), digests=digests)
        assert len(server.requests("/blobs/")) == 13
        assert server.sent_bytes("/blobs/") <= 1.01 * len(content)
    assert (tmp_path / "x").read_bytes() == content


def test_a_stopped_download_goes_on_where_it_was(server, address, source, digests, quick, tmp_path):
    server.bandwidth = 1_000_000
    stop, came = threading.Event(), 0

    def told(count: int) -> None:
        nonlocal came
        came += count
        if came > SIZE // 3:
            stop.set()

    def download(**more: Any) -> None:
        file = tmp_path / "x"
        Web(quick).download(address, file, size=SIZE, digests=digests, told=told, **more)

    with at_most(2), pytest.raises(StoppedDownloadError, match="stopped"):
        download(stop=stop)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    server.settle()
    server.clear_log()
    had, came = came, 0
    download()
    assert (tmp_path / "x").read_bytes() == source.read_bytes()
    assert came == SIZE
    assert server.sent_bytes("/blobs/") == SIZE - had
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_pause_is_not_waited_for_once_stopped(server, address, tmp_path):
    server.faults = Faults(("429",), retry_after=20)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    settings = WebSettings(first_pause=20, timeout=1)
    with at_most(3), pytest.raises(StoppedDownloadError):
        Web(settings).download(address, tmp_path / "x", size=SIZE, stop=stop)


def cut_once(server: ArchiveServer, address: str, file: Path, settings: WebSettings, **of: Any):
    """A download that ends with a part of the file."""
    server.faults = Faults(("cut",), where="/blobs/", times=1)
    with pytest.raises(NetworkError):
        Web(replace(settings, patience=0.0)).download(address, file, **of)
    server.faults = None
    server.settle()
    server.clear_log()
    (part,) = file.parent.glob(".*.part")
    assert part.stat().st_size == SIZE // 2


def test_a_part_of_another_version_of_the_file_is_not_continued(
    server, address, source, digests, quick, tmp_path
):
    other = digests | {"sha256": hashlib.sha256(b"before").hexdigest()}
    cut_once(server, address, tmp_path / "x", quick, size=SIZE, digests=other)
    Web(quick).download(address, tmp_path / "x", size=SIZE, digests=digests)
    assert (tmp_path / "x").read_bytes() == source.read_bytes()
    assert [request.range for request in server.requests("/blobs/")] == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_part_is_not_continued_where_no_checksum_would_tell(
    server, address, source, quick, tmp_path
):
    cut_once(server, address, tmp_path / "x", quick, size=SIZE)
    Web(quick).download(address, tmp_path / "x", size=SIZE)
    assert [request.range for request in server.requests("/blobs/")] == [None]


@pytest.mark.parametrize("damage", ["other content", "longer"])
def test_a_damaged_part_costs_another_download_and_no_more(
    damage, server, address, source, digests, quick, tmp_path
):
    cut_once(server, address, tmp_path / "x", quick, size=SIZE, digests=digests)
    (part,) = tmp_path.glob(".*.part")
    content = bytes(1000) if damage == "other content" else source.read_bytes() + b"more"
    part.write_bytes(content)
    Web(quick).download(address, tmp_path / "x", size=SIZE, digests=digests)
    assert (tmp_path / "x").read_bytes() == source.read_bytes()
    assert server.sent_bytes("/blobs/") <= 2 * SIZE


def test_a_file_that_changes_on_the_way_is_begun_anew(server, address, digests, quick, tmp_path):
    """Without checksums nothing but the entity tag says that the rest is of another file."""
    server.faults = Faults(("cut",), where="/blobs/", times=1)
    changed = threading.Event()

    def told(count: int) -> None:
        if count and not changed.is_set():
            changed.set()
            server._masks[server.asset("000001", "sub-1/cell.nwb").blob_path] = 0x55

    Web(quick).download(address, tmp_path / "x", size=SIZE, told=told)
    before, after = server.requests("/blobs/")[0], server.requests("/blobs/")[-1]
    assert (before.fault, after.status) == ("cut", 200)
    content = (tmp_path / "x").read_bytes()
    assert len(content) == SIZE
    server.restore()
    original = Web(quick).part(address, 0, SIZE, size=SIZE).content
    assert bytes(byte ^ 0x55 for byte in content[:1000]) == original[:1000]
    assert bytes(byte ^ 0x55 for byte in content[-1000:]) == original[-1000:]


# Servers that are worse than the archive.


@contextmanager
def answering(answer: Any) -> Iterator[str]:
    """A server that answers every request as a function of its handler says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """The client may leave."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/file"
        finally:
            server.shutdown()
            thread.join()


def head(handler: Any, status: int, **headers: object) -> None:
    handler.send_response(status)
    handler.send_header("Connection", "close")
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def test_a_server_without_parts_that_always_breaks_off_is_given_up(quick, tmp_path):
    """Every attempt brings much, and none brings more than the one before."""

    def answer(handler: Any) -> None:
        head(handler, 200, Content_Length=1_000_000)
        handler.wfile.write(bytes(500_000))

    with (
        answering(answer) as address,
        at_most(5),
        pytest.raises(NetworkError, match="the answer is cut short"),
    ):
        Web(quick).download(address, tmp_path / "x", size=1_000_000)


@pytest.mark.parametrize("length", ["many", "-5", "1, 2"])
def test_a_length_that_is_no_number_is_no_crash(length, quick, tmp_path):
    def answer(handler: Any) -> None:
        head(handler, 200, Content_Length=length)
        handler.wfile.write(bytes(10))

    with answering(answer) as address, at_most(5):
        try:
            Web(quick).download(address, tmp_path / "x", size=10)
        except NetworkError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("after", ["nan", "-1", "1e999", "soon", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_pause_that_is_no_number_is_ours_to_choose(after, quick):
    def answer(handler: Any) -> None:
        head(handler, 503, Retry_After=after, Content_Length=0)

    with (
        answering(answer) as address,
        at_most(3),
        pytest.raises(NetworkError, match=r"503 Service Unavailable \(tried 3 times\)"),
    ):
        Web(quick).json(address)


def test_a_pause_that_is_asked_for_is_kept(server, address, quick):
    server.faults = Faults(("429",), times=1, retry_after=1)
    started = time.monotonic()
    Web(replace(quick, longest_pause=0.7)).part(address, 0, 100, size=SIZE)
    assert 0.7 <= time.monotonic() - started < 30


@pytest.mark.parametrize(
    "content_range", ["", "bytes */600000", "bytes 0-99/*", "items 0-99/600000", "bytes 5-1/x"]
)
def test_a_part_must_say_which_it_is(content_range, quick):
    def answer(handler: Any) -> None:
        head(handler, 206, Content_Length=100, Content_Range=content_range)
        handler.wfile.write(bytes(100))

    with (
        answering(answer) as address,
        at_most(3),
        pytest.raises(NetworkError, match="a part came without saying which"),
    ):
        Web(quick).part(address, 0, 100, size=SIZE)


@pytest.mark.parametrize("where", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[", "//"])
def test_a_redirect_to_what_is_no_address(where, quick, tmp_path):
    def answer(handler: Any) -> None:
        head(handler, 302, Location=where, Content_Length=0)

    with answering(answer) as address, at_most(3):
        with pytest.raises(NetworkError) as error:
            Web(quick).download(address, tmp_path / "x", size=10)
        one_line(error)


def test_bytes_that_are_no_http(quick):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with at_most(3), pytest.raises(NetworkError) as error:
                Web(quick).json(f"http://127.0.0.1:{server.server_address[1]}/")
            one_line(error)
        finally:
            server.shutdown()
            thread.join()


# How long it takes.


def test_nothing_is_tried_again_after_the_time_limit(server, address, digests, tmp_path):
    server.faults = Faults(("503",))
    settings = WebSettings(attempts=1000, first_pause=0.05, longest_pause=0.1, patience=0.5)
    with at_most(1.5), pytest.raises(NetworkError, match="503"):
        Web(settings).json(address)


def test_a_pause_beyond_the_time_limit_is_not_waited_for(server, address):
    server.faults = Faults(("429",), retry_after=20)
    with at_most(1), pytest.raises(NetworkError, match="429"):
        Web(WebSettings(patience=3)).json(address)


def test_a_connection_that_always_breaks_is_not_followed_beyond_the_time_limit(
    server, address, digests, quick, tmp_path
):
    server.faults = Faults(("cut",), part=0.12)
    server.latency = 0.2
    settings = replace(quick, patience=0.5)
    with at_most(2), pytest.raises(NetworkError, match="the answer is cut short"):
        Web(settings).download(address, tmp_path / "x", size=SIZE, digests=digests)
    assert len(server.requests("/blobs/")) < 5


def test_connections_stay_open_from_one_request_to_the_next(
    server, address, source, quick, monkeypatch
):
    connections = 0
    accept = server._listener.process_request

    def counted(*of: Any) -> None:
        nonlocal connections
        connections += 1
        accept(*of)

    monkeypatch.setattr(server._listener, "process_request", counted)
    web = Web(quick)
    for number in range(10):
        web.part(address, 1000 * number, 1000, size=SIZE)
        web.json(f"{server.api}/dandisets/000001/")
    assert connections <= 1
    assert web.requests == 20
    assert web.received >= 10_000


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf", "1e9"])
def test_a_time_limit_of_a_user_that_is_none(text, monkeypatch):
    monkeypatch.setenv("CROSSPATCH_TIMEOUT", text)
    with pytest.raises(NetworkError, match=f"CROSSPATCH_TIMEOUT={text}: give a number of seconds"):
        WebSettings.of_user()


def test_the_time_limits_of_a_user(monkeypatch):
    monkeypatch.setenv("CROSSPATCH_TIMEOUT", "2.5")
    assert WebSettings.of_user().timeout == 2.5
    assert WebSettings.of_user(patience=1).timeout == 1
    monkeypatch.delenv("CROSSPATCH_TIMEOUT")
    assert WebSettings.of_user().timeout == 30


# What can be wrong here.


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:9/x", "nobody answers at this address"),
        ("127.0.0.1/x", "is no address; it begins with https://"),
        ("file:///etc/passwd", "is no address"),
        ("http:///x", "is no address"),
        ("http://[/x", "is no address"),
        ("http://127.0.0.1:99999/x", "127.0.0.1"),
    ],
)
def test_an_address_that_leads_nowhere(address, message, quick):
    with at_most(5), pytest.raises(NetworkError, match=message) as error:
        Web(quick).json(address)
    one_line(error)


def test_a_full_disk_is_said(server, address, digests, quick, tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(NetworkError, match="the disk is full; free space and give the same"):
        Web(quick).download(address, tmp_path / "x", size=SIZE, digests=digests)


def test_a_folder_that_cannot_be_made_is_said(server, address, digests, quick, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(NetworkError, match="x cannot be written: ") as error:
        Web(quick).download(address, tmp_path / "taken" / "x", size=SIZE, digests=digests)
    one_line(error)


def test_a_file_of_no_bytes_is_a_file(server, quick, tmp_path):
    (tmp_path / "empty.nwb").touch()
    with ArchiveServer() as other:
        other.add_table("owner", "repository", "commit", "x", tmp_path / "empty.nwb")
        address = f"{other.tables}/owner/repository/raw/commit/x"
        digests = {"sha256": hashlib.sha256().hexdigest()}
        Web(quick).download(address, tmp_path / "x", size=0, digests=digests)
    assert (tmp_path / "x").read_bytes() == b""


# The archive's own checksum.


@pytest.mark.parametrize(
    "size", [1, 1000, 64 * MIB - 1, 64 * MIB, 64 * MIB + 1, 128 * MIB, 128 * MIB + 7]
)
def test_the_archives_checksum_is_that_of_its_schema(size, tmp_path):
    file = tmp_path / "sparse"
    with file.open("wb") as out:
        out.truncate(size)
        out.seek(max(size - 5, 0))
        out.write(b"crosspatch"[: min(5, size)])
    etag = DandiETag(size)
    with file.open("rb") as stream:
        for part in etag.get_parts():
            etag.update(stream.read(part.size))
    assert digests_of(file, ["dandi-etag"]) == {"dandi-etag": etag.as_str()}


@pytest.mark.parametrize("shift", [-1, 0, 1])
@pytest.mark.parametrize("parts", [1, 2, 9_999, 10_000, 12_345])
def test_parts_of_large_files_are_those_of_the_archive(parts, shift):
    size = parts * 64 * MIB + shift
    expected = PartGenerator.for_file_size(size)
    assert min(part_length(size), size) == expected.initial_part_size
