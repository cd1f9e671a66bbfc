"""Files and answers from the network, whatever happens on the way.

Every request is tried again, with growing pauses, where the fault may pass: no connection, a
connection that breaks or stalls, an answer cut short, 408, 425, 429 and 5xx. What arrives is
compared with what was announced: lengths, ranges, entity tags and checksums.

Longer than 400 lines: requests, downloads and checksums share what passes and what does not.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import certifi
import tenacity
import urllib3

from crosspatch.errors import NetworkError, in_words

#: Environment variable with the seconds to wait for a server.
TIMEOUT_VARIABLE = "CROSSPATCH_TIMEOUT"
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_PIECE = 1 << 16
#: A whole file is downloaded this often before its checksum is believed to be wrong for good.
_WHOLE_TRIES = 3
_Answer = TypeVar("_Answer")
#: What urllib3 raises when a connection fails.
_BROKEN = (urllib3.exceptions.HTTPError, OSError)
#: Redirects are followed, so many; everything else is tried again here.
_REDIRECTS = urllib3.Retry(
    total=None,
    connect=False,
    read=False,
    redirect=5,
    status=False,
    other=False,
    respect_retry_after_header=False,
)
#: What urllib3 says of a fault, and what it means.
_SIGNS = {
    "too many redirects": "it leads from one address to another without end",
    "certificate": "its certificate is not trusted; SSL_CERT_FILE may name the one that is",
    "Failed to resolve": "its host name is not known; is there a network?",
    "Connection refused": "nobody answers at this address",
    "Network is unreachable": "there is no network",
    "timed out": "the server does not answer",
    "IncompleteRead": "the answer is cut short",
    "RemoteDisconnected": "the server closed the connection",
    "Connection aborted": "the server closed the connection",
}
#: Environment variables that name a file with certificates to be trusted.
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class WebSettings:
    """How long to be patient."""

    attempts: int = 8  #: requests in a row that bring nothing, before giving up
    timeout: float = 30.0  #: for a connection, and from one byte to the next, s
    #: A connection that brings fewer bytes than this in `timeout` is as good as broken.
    slowest: int = 4096
    first_pause: float = 0.5  # first pause and longest pause between attempts, s
    longest_pause: float = 30.0
    patience: float = float("inf")  #: after this time nothing is tried again, s

    @classmethod
    def of_user(cls, patience: float = float("inf")) -> WebSettings:
        """The defaults, with the user's ``CROSSPATCH_TIMEOUT``, a number of seconds."""
        text = os.environ.get(TIMEOUT_VARIABLE) or str(cls.timeout)
        try:
            timeout = float(text)
        except ValueError:
            timeout = -1.0
        if not 0 < timeout < 3600:
            raise NetworkError(f"{TIMEOUT_VARIABLE}={text}: give a number of seconds, such as 30")
        return cls(timeout=min(timeout, patience), patience=patience)


class ChangedError(NetworkError):
    """A file is not the one it was, or not the one that was announced."""


class NoRangesError(NetworkError):
    """A server that gives whole files only."""


class StoppedDownloadError(NetworkError):
    """Stopped because the user asked for it."""


class _PassingError(Exception):
    """A fault that may pass; `pause` is what the server asks for, s."""

    def __init__(self, message: str, pause: float | None = None):
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True)
class RangePart:
    """A part of a remote file."""

    content: bytes
    etag: str | None  #: entity tag of the file, without quotes
    size: int  #: of the whole file, bytes
    address: str  #: where it came from, after redirects


@cache
def _pool(proxy: str | None, certificates: str) -> urllib3.PoolManager:
    """The connections of this process; they stay open from one request to the next."""
    if proxy is None:
        return urllib3.PoolManager(maxsize=32, ca_certs=certificates)
    return urllib3.ProxyManager(proxy, maxsize=32, ca_certs=certificates)


def _certificates() -> str:
    """The file with the certificates to be trusted."""
    named = (os.environ.get(name) for name in _CERTIFICATES)
    return next(filter(None, named), certifi.where())


@cache
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host."""
    if urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(scheme)


class Web:
    """Requests over HTTP that are patient and check what they get."""

    def __init__(self, settings: WebSettings | None = None):
        self.settings = settings or WebSettings.of_user()
        #: Requests that were made, and bytes of bodies that came, those of failed requests too.
        self.requests = self.received = 0
        self.until = time.monotonic() + self.settings.patience
        self._lock = threading.Lock()

    def json(self, address: str, parameters: Mapping[str, str] | None = None) -> object:
        """Get a JSON answer; a `NetworkError` says what the server answered if there is none."""

        def once() -> object:
            with self.get(address, parameters=parameters) as response:
                _require_success(response, address)
                body = b"".join(self.pieces(response, None))
                try:
                    return json.loads(body)
                except ValueError as error:
                    raise _PassingError(
                        f"the answer is no JSON but begins with {body[:20]!r}"
                    ) from error

        return self.patiently(once, address)

    def part(
        self, address: str, first: int, count: int, *, etag: str | None = None, size: int | None
    ) -> RangePart:
        """Get some bytes of a file; fewer come only where the file ends.

        A `ChangedError` if the file has not this size (where known) or entity tag (if given), a
        `NoRangesError` if the server does not give parts.
        """
        ignored = 0

        def once() -> RangePart:
            nonlocal ignored
            asked = f"bytes={first}-{first + count - 1}"
            with self.get(address, {"Range": asked}) as response:
                if response.status == 200:
                    ignored += 1
                    if ignored >= _WHOLE_TRIES:
                        raise NoRangesError(f"{address}: the server does not give parts of files")
                    raise _PassingError("the whole file came where a part was asked for")
                _require_success(response, address)
                start, total = _content_range(response)
                if size is not None and total != size:
                    raise ChangedError(f"{address} has {total:,} bytes, not {size:,}: it changed")
                found = _etag(response)
                if etag is not None and found != etag:
                    raise ChangedError(f"{address} changed while it was read")
                if start != first:
                    raise _PassingError(f"bytes from {start} came where {first} was asked for")
                wanted = min(count, total - first)
                content = b"".join(self.pieces(response, wanted))
                return RangePart(content, found, total, _final(response, address))

        return self.patiently(once, address)

    def download(
        self,
        address: str,
        file: Path,
        *,
        size: int | None = None,
        digests: Mapping[str, str] | None = None,
        told: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Download a file; it appears under its name when all of it is there and is right.

        What is there already lies beside it under a hidden name and is not fetched again, after a
        broken connection or, with a checksum, in another process. Checksums are by the names
        ``sha256`` or ``dandi-etag``. `told` is given how many bytes came, a negative number where
        bytes are thrown away. Once `stop` is set it ends with a `StoppedDownloadError`.
        """
        digests = dict(digests or {})
        mark = hashlib.sha256(repr((size, sorted(digests.items()))).encode()).hexdigest()[:8]
        part = file.with_name(f".{file.name}.{mark}.part")
        download = _Download(self, address, part, size, told or (lambda _: None), stop)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not digests:  # nothing would tell whether what is there is of this file
                part.unlink(missing_ok=True)
            wrong = download.bring(digests)
            if not wrong:
                part.replace(file)
                for stale in file.parent.glob(f".{glob.escape(file.name)}.*.part"):
                    stale.unlink()  # of another version of the file
                return
        except OSError as error:
            reason = str(error.strerror or error)
            if error.errno == errno.ENOSPC:
                reason = "the disk is full; free space and give the same command again"
            raise NetworkError(f"{file} cannot be written: {reason}") from error
        raise ChangedError(f"{address} is not the file it should be: {wrong}")

    @contextmanager
    def get(
        self,
        address: str,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Ask once, for an answer whose body has not been read."""
        with self._lock:
            self.requests += 1
        if parameters:
            address = f"{address}?{urllib.parse.urlencode(parameters)}"
        try:
            parts = urllib.parse.urlsplit(address)
        except ValueError as error:
            raise NetworkError(f"{_bare(address)} is no address: {in_words(error)}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NetworkError(f"{_bare(address)} is no address; it begins with https://")
        limit = self.settings.timeout
        try:
            response = _pool(_proxy(parts.scheme, parts.hostname), _certificates()).request(
                "GET",
                address,
                # Compressed answers would have other lengths than the file.
                headers={"Accept-Encoding": "identity", **(headers or {})},
                preload_content=False,
                timeout=urllib3.Timeout(limit, limit),
                retries=_REDIRECTS,
            )
        except (urllib3.exceptions.LocationParseError, ValueError) as error:
            raise NetworkError(f"{_bare(address)} leads nowhere: {in_words(error)}") from error
        except _BROKEN as error:
            raise _PassingError(_reason(error)) from error
        try:
            yield response
        finally:
            if response.length_remaining == 0:
                response.release_conn()
            else:  # what was not read would be in the way of the next answer
                response.close()

    def pieces(self, response: urllib3.BaseHTTPResponse, count: int | None) -> Iterator[bytes]:
        """The body, as it comes; `count` bytes of it, or all that was announced."""
        if count is None:
            count = _length(response)
        came, since, mark = 0, time.monotonic(), 0
        while count is None or came < count:
            wanted = _PIECE if count is None else min(_PIECE, count - came)
            try:
                piece = response.read1(wanted, decode_content=False)
            except _BROKEN as error:
                raise _PassingError(f"the connection broke: {_reason(error)}") from error
            if not piece:
                if count is not None:
                    raise _PassingError(f"the answer ended after {came:,} of {count:,} bytes")
                return
            came += len(piece)
            with self._lock:
                self.received += len(piece)
            yield piece
            if time.monotonic() - since > self.settings.timeout:
                if came - mark < self.settings.slowest:
                    took = time.monotonic() - since
                    raise _PassingError(f"only {came - mark} bytes came in {took:.0f} s")
                since, mark = time.monotonic(), came

    def patiently(
        self, once: Callable[[], _Answer], address: str, stop: threading.Event | None = None
    ) -> _Answer:
        """Do something as often as it takes, until patience is at its end."""
        tries = 0

        def counted() -> _Answer:
            nonlocal tries
            tries += 1
            if stop is not None and stop.is_set():
                raise StoppedDownloadError(f"{address}: stopped")
            return once()

        pauses = tenacity.wait_random_exponential(
            multiplier=self.settings.first_pause, max=self.settings.longest_pause
        )

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "pause", None)
            return pauses(state) if asked is None else min(asked, self.settings.longest_pause)

        try:
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_PassingError),
                wait=pause,
                stop=lambda state: (
                    state.attempt_number >= self.settings.attempts
                    or time.monotonic() + state.upcoming_sleep > self.until
                ),
                sleep=time.sleep if stop is None else tenacity.sleep_using_event(stop),
                reraise=True,
            )(counted)
        except _PassingError as error:
            raise NetworkError(
                f"{address} cannot be had: {error} (tried {tries} times); give the same "
                "command again later"
            ) from error


@dataclass
class _Download:
    """A file on its way into a part that lies beside it, over as many requests as it takes."""

    web: Web
    address: str
    part: Path
    size: int | None
    told: Callable[[int], None]
    stop: threading.Event | None
    etag: str | None = None
    complete: bool = False
    most: int = 0  #: bytes there were at most: a server without parts begins again each time

    def bring(self, digests: Mapping[str, str]) -> str:
        """Bring the whole, up to some times; what is wrong with it, empty if nothing is."""
        self.told(self.part.stat().st_size if self.part.exists() else 0)
        wrong = ""
        for _ in range(_WHOLE_TRIES):
            self.etag, self.complete, self.most = None, False, 0
            while not self.complete:
                self.web.patiently(self._once, self.address, self.stop)
            wrong = _wrong(self.part, self.size, digests)
            if not wrong:
                break
            self.told(-self.part.stat().st_size)
            self.part.unlink()
        return wrong

    def _once(self) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        self.most = max(self.most, have)
        if self.size and have >= self.size:
            self.complete = True
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self.etag is not None:
            headers["If-Range"] = f'"{self.etag}"'
        with self.web.get(self.address, headers) as response:
            if response.status == 416:  # nothing behind what we have
                self.complete = True
                return
            _require_success(response, self.address)
            have, total = self._place(response, have)
            self.etag = _etag(response)
            self._append(response, have, None if total is None else total - have)

    def _place(self, response: urllib3.BaseHTTPResponse, have: int) -> tuple[int, int | None]:
        """Where an answer belongs, and the size of the whole."""
        total = self.size
        if response.status == 206:
            start, total = _content_range(response)
            changed = self.etag is not None and _etag(response) not in (None, self.etag)
            if start != have or changed:
                self.told(-have)
                self.part.unlink()
                raise _PassingError("another part came than the one asked for")
        elif have:  # the whole file: it changed, or the server gives no parts
            self.told(-have)
            have = 0
        if response.status == 200:
            announced = _length(response)
            total = total if announced is None else announced
        if self.size is not None and total != self.size:
            raise _PassingError(f"it has {total} bytes, not {self.size}")
        return have, total

    def _append(self, response: urllib3.BaseHTTPResponse, have: int, missing: int | None) -> None:
        try:
            with self.part.open("r+b" if have else "wb") as out:
                out.seek(have)
                for piece in self.web.pieces(response, missing):
                    out.write(piece)
                    have += len(piece)
                    self.told(len(piece))
                    if self.stop is not None and self.stop.is_set():
                        raise StoppedDownloadError(f"{self.address}: stopped")
        except _PassingError:
            # Some of it came anew: go on without counting this as a failure.
            if have - self.most < _PIECE or time.monotonic() > self.web.until:
                raise
            return
        self.complete = True


def digests_of(file: Path, kinds: Mapping[str, str] | list[str]) -> dict[str, str]:
    """Checksums of a file, read once: ``sha256`` and ``dandi-etag``, the archive's.

    The latter is, as its schema (dandischema.digests) defines it, the MD5 of the MD5s of the file's
    parts, and how many parts there are.
    """
    length = part_length(file.stat().st_size)
    sha256, parts = hashlib.sha256(), list[bytes]()
    with file.open("rb") as stream:
        while stream.peek():
            md5, left = _md5(), length
            while piece := stream.read(min(left, 1 << 20)):
                sha256.update(piece)
                md5.update(piece)
                left -= len(piece)
            parts.append(md5.digest())
    etag = f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"
    found = {"sha256": sha256.hexdigest(), "dandi-etag": etag}
    return {kind: found[kind] for kind in kinds}


_md5 = partial(hashlib.md5, usedforsecurity=False)


def part_length(size: int) -> int:
    """Bytes of a part for the archive's tag: 64 MiB, but a file has at most 10,000 parts."""
    usual, most = 64 * 2**20, 10_000
    return usual if -(-size // usual) < most else -(-size // most)


def _wrong(file: Path, size: int | None, digests: Mapping[str, str]) -> str:
    """What is wrong with a downloaded file; empty if nothing is."""
    found = file.stat().st_size
    if size is not None and found != size:
        return f"it has {found:,} bytes, not {size:,}"
    for name, digest in digests_of(file, digests).items():
        if digest != digests[name]:
            return f"its {name} is {digest[:12]}…, not {digests[name][:12]}…"
    return ""


def _require_success(response: urllib3.BaseHTTPResponse, address: str) -> None:
    status = response.status
    if status in (200, 206):
        return
    said = f"{status} {response.reason or ''}".strip()
    if status in _PASSING:
        # Where it is a date instead of seconds, our own pauses do.
        pause = _number(response.headers.get("Retry-After"))
        raise _PassingError(f"the server answered {said}", pause)
    hint = {
        401: "; it is not public",
        403: "; it is not public, or the link has expired: give the same command again",
        404: "; check the name",
    }.get(status, "")
    raise NetworkError(f"{_bare(address)}: the server answered {said}{hint}")


def _bare(address: str) -> str:
    """An address without its query: signatures are nobody's business."""
    return address.split("?")[0]


def _final(response: urllib3.BaseHTTPResponse, address: str) -> str:
    """Where an answer came from, after redirects."""
    for step in response.retries.history if response.retries else ():
        address = urllib.parse.urljoin(address, step.redirect_location or "")
    return address


def _content_range(response: urllib3.BaseHTTPResponse) -> tuple[int, int]:
    """First byte and size of the whole, from an answer with a part."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text.strip())
    if not match:
        raise _PassingError(f"a part came without saying which ('{text}')")
    return int(match[1]), int(match[3])


def _length(response: urllib3.BaseHTTPResponse) -> int | None:
    """Bytes that a body is announced to have."""
    return _number(response.headers.get("Content-Length"))


def _number(text: str | None) -> int | None:
    """What a header says, where it is a number."""
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _etag(response: urllib3.BaseHTTPResponse) -> str | None:
    text = response.headers.get("ETag", "").removeprefix("W/").strip('"')
    return text or None


def _reason(error: BaseException) -> str:
    """What happened to a connection, in few words."""
    text = str(error).lower()
    found = (words for sign, words in _SIGNS.items() if sign.lower() in text)
    return next(found, in_words(error))
