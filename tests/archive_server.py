"""A server on this machine that answers as the DANDI archive, its S3 bucket and GitHub do.

It serves files on disk as the assets of dandisets and as the raw files of a repository, and can be
told to misbehave. Tests use :class:`ArchiveServer`; by hand, ``python -m tests.archive_server
--dandiset 000020 --folder DIR`` serves until it is interrupted and then prints totals.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import mimetypes
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit
from uuid import NAMESPACE_URL, UUID, uuid5

import trustme
from dandischema.consts import DANDI_SCHEMA_VERSION
from dandischema.digests.dandietag import DandiETag

#: Every way to misbehave; `Faults` says what each does.
KINDS = (
    "drop",
    "cut",
    "short",
    "long",
    "stall",
    "drip",
    "wrong",
    "changed",
    "ignore-range",
    "other-range",
    "broken-json",
    "page",
    "redirect-loop",
    "403",
    "404",
    "429",
    "500",
    "503",
)
#: Bytes sent at a time: what a slow client can hold up, and what is in memory of a file.
PIECE = 1 << 18
#: What the archive gives a page, and at most.
PAGE, LARGEST_PAGE = 100, 1000

_ERRORS = {
    "403": ("AccessDenied", "Request has expired"),
    "404": ("NoSuchKey", "The specified key does not exist."),
    "412": ("PreconditionFailed", "At least one of the pre-conditions did not hold"),
    "416": ("InvalidRange", "The requested range is not satisfiable"),
    "429": ("TooManyRequests", "Request was throttled."),
    "500": ("InternalError", "We encountered an internal error. Please try again."),
    "503": ("SlowDown", "Please reduce your request rate."),
}
_LOGIN = b"""<!DOCTYPE html>
<html><head><title>Welcome to the guest network</title></head>
<body><form method="post" action="/login">Please accept the terms to go online.</form></body></html>
"""


@dataclass(frozen=True)
class Faults:
    """How the server misbehaves, and how often.

    Parameters
    ----------
    kinds : tuple of str
        What is drawn from, each as often:

        - ``drop`` closes the connection without an answer;
        - ``cut`` closes it after a part of the body, ``short`` sends the part as if it were all,
          and ``long`` sends more than there is, chunked;
        - ``stall`` sends a part and then nothing (nothing at all where there is no body), and
          ``drip`` sends a byte at a time;
        - ``wrong`` inverts a few bytes of the body, and ``changed`` gives this file other content
          of the same size under another ETag, until `ArchiveServer.restore`;
        - ``ignore-range`` sends the whole file with status 200, and ``other-range`` a range that
          begins a byte beside the one asked for, and says so;
        - ``broken-json`` sends a part of what the API says as if it were all, ``page`` the login
          page of a guest network with status 200, and ``redirect-loop`` redirects for ever;
        - ``403`` (a signature that expired), ``404``, ``429``, ``500`` and ``503`` are statuses.
    share : float
        Part of the requests that meet a fault.
    seed : int
        With the running number of a request, decides what it meets.
    where : str, optional
        A regular expression. Requests whose path, with the query of an API request, does not
        contain it meet no fault and have no number.
    times : int, optional
        How often there is a fault in all. One that cannot befall a request, such as a wrong range
        where none was asked for, does nothing and is not counted.
    part : float
        Part of the body that ``cut``, ``short``, ``broken-json`` and ``stall`` send.
    stall_seconds : float
        A stalled connection is closed after this time, or earlier by the client.
    drip_seconds : float
        Time from byte to byte.
    retry_after : int or str, optional
        What ``429`` says about the time to wait, as seconds or as an HTTP date.
    """

    kinds: tuple[str, ...]
    share: float = 1.0
    seed: int = 0
    where: str | None = None
    times: int | None = None
    part: float = 0.5
    stall_seconds: float = 30.0
    drip_seconds: float = 0.05
    retry_after: int | str | None = 1

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"faults are one or more of {', '.join(KINDS)}; got {self.kinds}")
        re.compile(self.where or "")  # a mistake shows here, not in a thread


@dataclass(frozen=True, slots=True)
class Served:
    """One answer.

    Parameters
    ----------
    method, path : str
        The path has the query of an API request; the signature of a file is left out.
    range : (int, int), optional
        First and last byte that were asked for, where the file has them and a condition of the
        request is met.
    status : int
        0 where the connection was closed instead.
    sent : int
        Bytes of the body that went out; the client need not have read them.
    fault : str, optional
    asset : str, optional
        Path of the asset that the request was about, or ``owner/repository/path`` of a table.
    whole : bool
        Whether this was the content of a whole file, unspoilt.
    """

    method: str
    path: str
    range: tuple[int, int] | None
    status: int
    sent: int
    fault: str | None
    asset: str | None
    whole: bool


class _File:
    """A file on disk, with digests that are computed when they are first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve(strict=True)
        state = self.path.stat()
        self.size = state.st_size
        self.modified = state.st_mtime_ns
        self._digests: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def digest(self, kind: str, mask: int = 0) -> str:
        """``sha256`` or ``etag`` of the content, or of the content under a mask."""
        with self._lock:
            if (kind, mask) not in self._digests:
                self._digests[kind, mask] = self._computed(kind, mask)
            return self._digests[kind, mask]

    def _computed(self, kind: str, mask: int) -> str:
        table = _masking(mask)
        with self.path.open("rb") as file:
            if kind == "sha256":
                sha256 = hashlib.sha256()
                while piece := file.read(PIECE):
                    sha256.update(piece.translate(table))
                return sha256.hexdigest()
            etag = DandiETag(self.size)
            for part in etag.get_parts():
                etag.update(file.read(part.size).translate(table))
            return etag.as_str()


def _masking(mask: int) -> bytes | None:
    return bytes(value ^ mask for value in range(256)) if mask else None


@dataclass(frozen=True)
class Asset:
    """An asset of a dandiset; its ids follow from dandiset, version and path."""

    dandiset: str
    version: str
    path: str
    file: _File = field(repr=False)
    created: str
    digests: bool

    @property
    def asset_id(self) -> str:
        return _identifier("asset", self.dandiset, self.version, self.path)

    @property
    def blob_id(self) -> str:
        return _identifier("blob", self.dandiset, self.version, self.path)

    @property
    def download_path(self) -> str:
        return f"/api/assets/{self.asset_id}/download/"

    @property
    def blob_path(self) -> str:
        blob = self.blob_id
        return f"/blobs/{blob[:3]}/{blob[3:6]}/{blob}"


def _identifier(*parts: str) -> str:
    # The archive's ids are random ones, version 4, and its addresses are of no other kind.
    return str(UUID(bytes=uuid5(NAMESPACE_URL, "/".join(parts)).bytes, version=4))


@dataclass(frozen=True)
class _Version:
    identifier: str
    version: str
    assets: tuple[Asset, ...]


@dataclass(frozen=True)
class _Body:
    """A part of bytes or of a file, as it is or spoilt."""

    source: bytes | Path = b""
    start: int = 0
    length: int = 0
    mask: int = 0
    inverted: tuple[int, ...] = ()

    def open(self) -> BinaryIO:
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        return self.source.open("rb")

    @property
    def spoilt(self) -> bool:
        return bool(self.mask or self.inverted)

    def read(self, file: BinaryIO, at: int, count: int) -> bytes:
        """Bytes from a place in the source, spoilt."""
        file.seek(at)
        piece = bytearray(file.read(count).translate(_masking(self.mask)))
        for place in self.inverted:
            if at <= place < at + len(piece):
                piece[place - at] ^= 0xFF
        return bytes(piece)


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: _Body = _Body()
    asset: str | None = None
    file: _File | None = None
    range: tuple[int, int] | None = None

    @property
    def json(self) -> bool:
        return self.headers.get("Content-Type") == "application/json"


def _content(status: int, body: bytes, kind: str) -> _Answer:
    return _Answer(status, {"Content-Type": kind}, _Body(body, length=len(body)))


def _json(value: object, status: int = 200) -> _Answer:
    return _content(status, json.dumps(value).encode(), "application/json")


def _xml(status: str) -> _Answer:
    """An error as S3 words it."""
    code, message = _ERRORS[status]
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return _content(int(status), text.encode(), "application/xml")


def _with(answer: _Answer, name: str, value: object) -> _Answer:
    return replace(answer, headers={**answer.headers, name: str(value)})


def _redirect(address: str, status: int = 302) -> _Answer:
    return _Answer(status, {"Location": address, "Content-Type": "text/html; charset=utf-8"})


def _missing(detail: str = "Not found.") -> _Answer:
    return _json({"detail": detail}, 404)


def certificates(folder: Path) -> tuple[trustme.LeafCert, Path]:
    """A certificate for 127.0.0.1, and the file that makes a client trust it (SSL_CERT_FILE)."""
    authority = trustme.CA()
    trusted = folder / "trusted.pem"
    authority.cert_pem.write_to_path(str(trusted))
    return authority.issue_cert("127.0.0.1"), trusted


class ArchiveServer:
    """Serves dandisets and tables on 127.0.0.1 from ``with`` to its end.

    Parameters
    ----------
    port : int
        0 takes a free one.
    latency : float
        Seconds before each answer; can be changed at any time, as can the other two.
    bandwidth : float, optional
        Bytes of a body a second, on each connection.
    faults : Faults, optional
        Setting `faults` starts counting requests and faults anew.
    certificate : trustme.LeafCert, optional
        Makes it answer over TLS, as the real archive does; see `certificates`. Not with ``stall``.

    Notes
    -----
    Files that are served must not change meanwhile. An error of the server itself is raised when
    the server is closed.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        latency: float = 0.0,
        bandwidth: float | None = None,
        faults: Faults | None = None,
        certificate: trustme.LeafCert | None = None,
    ) -> None:
        self._scheme = "http" if certificate is None else "https"
        self.latency = latency
        self.bandwidth = bandwidth
        self.faults = faults
        self._dandisets: dict[str, dict[str, _Version]] = {}
        self._assets: dict[str, Asset] = {}
        self._blobs: dict[str, Asset] = {}
        self._tables: dict[tuple[str, str, str, str], _File] = {}
        self._files: dict[tuple[Path, int, int], _File] = {}
        self._masks: dict[str, int] = {}
        self._changes = itertools.count(1)
        self._signatures = itertools.count(1)
        self._log: list[Served] = []
        self._begun = self._finishing = 0
        self._state = threading.Condition()
        self._closing = threading.Event()
        self._listener = _Listener(port, self, certificate)
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def address(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._listener.server_port}"

    @property
    def api(self) -> str:
        """What stands for ``https://api.dandiarchive.org/api``."""
        return f"{self.address}/api"

    @property
    def tables(self) -> str:
        """What stands for ``https://github.com``."""
        return self.address

    def __enter__(self) -> ArchiveServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._listener.hang_up()
        self._thread.join()
        if self._listener.errors and kind is None:
            raise ExceptionGroup("the archive server failed", self._listener.errors)

    # What is served.

    def add_dandiset(
        self,
        identifier: str,
        files: Mapping[str, Path],
        version: str = "0.240101.0000",
        digests: bool = True,
    ) -> None:
        """Serve files as the assets of a version of a dandiset.

        The version added last is also the draft, unless one named ``draft`` is added.

        Parameters
        ----------
        identifier : str
            Six digits.
        files : mapping of str to Path
            Asset path to file on disk; many assets may have one file, which is read once.
        version : str
        digests : bool
            Whether the metadata has the SHA-256, which the archive computes a while after the
            upload.
        """
        start = datetime(2024, 1, 1, tzinfo=UTC)
        assets = tuple(
            Asset(
                dandiset=identifier,
                version=version,
                path=path,
                file=self._file(file),
                created=f"{start + timedelta(seconds=number):%Y-%m-%dT%H:%M:%S.%fZ}",
                digests=digests,
            )
            for number, (path, file) in enumerate(files.items())
        )
        self._assets.update((asset.asset_id, asset) for asset in assets)
        self._blobs.update((asset.blob_id, asset) for asset in assets)
        self._dandisets.setdefault(identifier, {})[version] = _Version(identifier, version, assets)

    def add_table(self, owner: str, repository: str, commit: str, path: str, file: Path) -> None:
        """Serve a file as GitHub serves ``owner/repository/raw/commit/path``."""
        self._tables[owner, repository, commit, path] = self._file(file)

    def asset(self, identifier: str, path: str, version: str = "draft") -> Asset:
        """An asset that is served, to aim faults at its paths or to read its ids."""
        found = self._version(identifier, version)
        if found is not None:
            for asset in found.assets:
                if asset.path == path:
                    return asset
        raise KeyError((identifier, version, path))

    def restore(self) -> None:
        """Serve the files themselves again where ``changed`` replaced their content."""
        self._masks.clear()

    def _file(self, path: Path) -> _File:
        file = _File(path)
        return self._files.setdefault((file.path, file.size, file.modified), file)

    def _version(self, identifier: str, version: str) -> _Version | None:
        versions = self._dandisets.get(identifier, {})
        if version == "draft" and version not in versions and versions:
            return replace(list(versions.values())[-1], version="draft")
        return versions.get(version)

    # What was served.

    @property
    def log(self) -> list[Served]:
        """All answers so far, in the order in which they ended.

        An answer whose last bytes are on their way is waited for, so that a client that has
        an answer finds it here. One that the client has left is there after `settle`.
        """
        with self._state:
            self._state.wait_for(lambda: not self._finishing, timeout=1.0)
            return list(self._log)

    def settle(self, seconds: float = 5.0) -> bool:
        """Wait until no request is being answered, and say whether that came to be."""
        with self._state:
            return self._state.wait_for(lambda: not self._begun, timeout=seconds)

    def clear_log(self) -> None:
        """Forget the answers so far."""
        with self._state:
            self._state.wait_for(lambda: not self._finishing, timeout=1.0)
            self._log.clear()

    def requests(self, where: str | None = None) -> list[Served]:
        """Answers to requests whose path contains a regular expression."""
        log = self.log
        return log if where is None else [one for one in log if re.search(where, one.path)]

    def sent_bytes(self, where: str | None = None) -> int:
        """Bytes of bodies that went out, whole or not."""
        return sum(one.sent for one in self.requests(where))

    def whole_bodies(self) -> Counter[str]:
        """How often each file went out whole in one answer, without a fault."""
        return Counter(one.asset for one in self.log if one.whole and one.asset is not None)

    # Faults.

    @property
    def faults(self) -> Faults | None:
        return self._drawing.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        # Settings and their counts are one object, so that a request sees what belongs together.
        self._drawing = _Drawing(faults)

    def _answer(
        self, request: _Request, shown: str, drawing: _Drawing
    ) -> tuple[_Answer, str | None]:
        """The answer, spoilt where a fault was drawn that changes what is said."""
        answer = self._route(request)
        fault = drawing.draw(shown, lambda kind: _befalls(kind, request, answer))
        faults = drawing.faults
        if fault is None or faults is None:
            return answer, None
        spoilt = answer
        match fault:
            case "403" | "404" | "429" | "500" | "503":
                if fault == "403" or answer.file is not None:
                    spoilt = _xml(fault)
                else:
                    spoilt = _json({"detail": _ERRORS[fault][1]}, int(fault))
                if fault == "429" and faults.retry_after is not None:
                    spoilt = _with(spoilt, "Retry-After", faults.retry_after)
            case "page":
                spoilt = _content(200, _LOGIN, "text/html; charset=utf-8")
            case "redirect-loop":
                spoilt = _redirect(f"{self.address}/redirect-loop/1")
            case "short" | "broken-json":
                body = replace(answer.body, length=_part(answer, faults))
                spoilt = replace(answer, body=body)
            case "wrong":
                start, length = answer.body.start, answer.body.length
                places = sorted({start + length * quarter // 4 for quarter in (1, 2, 3)})
                spoilt = replace(answer, body=replace(answer.body, inverted=tuple(places)))
            case "changed":
                self._masks[request.path] = next(self._changes) % 255 + 1
                spoilt = self._route(request)
            case "ignore-range":
                kept = {k: v for k, v in request.headers.items() if k != "range"}
                spoilt = self._route(replace(request, headers=kept))
            case "other-range":
                spoilt = _shifted(answer)
        return replace(spoilt, asset=answer.asset, file=answer.file, range=answer.range), fault

    # Routes.

    def _route(self, request: _Request) -> _Answer:
        for pattern, method in _ROUTES:
            if found := pattern.fullmatch(request.path):
                return method(self, request, *(unquote(part) for part in found.groups()))
        if request.path.startswith("/api/") and not request.path.endswith("/"):
            longer = f"{request.path}/"
            if any(pattern.fullmatch(longer) for pattern, _ in _ROUTES):
                query = f"?{urlencode(request.query)}" if request.query else ""
                return _redirect(f"{longer}{query}", 301)
        return _missing()

    def _dandiset(self, request: _Request, identifier: str) -> _Answer:
        draft = self._version(identifier, "draft")
        if draft is None:
            return _missing()
        published = [one for one in self._dandisets[identifier].values() if one.version != "draft"]
        return _json(
            {
                **_described_dandiset(identifier),
                "most_recent_published_version": (
                    _described_version(published[-1]) if published else None
                ),
                "draft_version": _described_version(draft),
            }
        )

    def _version_metadata(self, request: _Request, identifier: str, version: str) -> _Answer:
        found = self._version(identifier, version)
        if found is None:
            return _missing()
        described = _described_version(found)
        return _json(
            {
                "id": f"DANDI:{identifier}/{version}",
                "identifier": f"DANDI:{identifier}",
                "name": described["name"],
                "version": version,
                "schemaKey": "Dandiset",
                "schemaVersion": DANDI_SCHEMA_VERSION,
                "assetsSummary": {
                    "schemaKey": "AssetsSummary",
                    "numberOfBytes": described["size"],
                    "numberOfFiles": described["asset_count"],
                },
            }
        )

    def _version_info(self, request: _Request, identifier: str, version: str) -> _Answer:
        found = self._version(identifier, version)
        return _missing() if found is None else _json(_described_version(found))

    def _listing(self, request: _Request, identifier: str, version: str) -> _Answer:
        found = self._version(identifier, version)
        if found is None:
            return _missing()
        query = request.query
        prefix = query.get("path", "").lower()
        assets = [asset for asset in found.assets if asset.path.lower().startswith(prefix)]
        if "glob" in query:
            # Only the star has a meaning to the archive.
            glob = re.compile(re.escape(query["glob"]).replace(r"\*", ".*"), re.IGNORECASE)
            assets = [asset for asset in assets if glob.fullmatch(asset.path)]
        try:
            size = int(query.get("page_size", PAGE))
        except ValueError:
            size = PAGE
        size = min(size, LARGEST_PAGE) if size > 0 else PAGE
        pages = max(1, -(-len(assets) // size))
        asked = query.get("page", "1")
        if not asked.isdecimal() or not 1 <= int(asked) <= pages:
            return _missing("Invalid page.")
        page = int(asked)
        with_metadata = query.get("metadata", "").lower() in ("true", "t", "1", "yes", "y", "on")
        results = []
        for asset in assets[(page - 1) * size : page * size]:
            described = _described_asset(asset)
            if with_metadata:
                described["metadata"] = self._described_content(asset)
            results.append(described)

        def link(number: int) -> str:
            # The archive leaves the number of the first page out.
            others = {name: value for name, value in query.items() if name != "page"}
            full = others if number == 1 else {**others, "page": str(number)}
            return f"{self.address}{request.path}" + (f"?{urlencode(full)}" if full else "")

        return _json(
            {
                "count": len(assets),
                "next": link(page + 1) if page < pages else None,
                "previous": link(page - 1) if page > 1 else None,
                "results": results,
            }
        )

    def _asset(self, request: _Request, *where: str) -> _Answer:
        asset = self._found(*where)
        if asset is None:
            return _missing()
        return replace(_json(self._described_content(asset)), asset=asset.path)

    def _asset_info(self, request: _Request, *where: str) -> _Answer:
        asset = self._found(*where)
        if asset is None:
            return _missing()
        described = {**_described_asset(asset), "metadata": self._described_content(asset)}
        return replace(_json(described), asset=asset.path)

    def _download(self, request: _Request, *where: str) -> _Answer:
        asset = self._found(*where)
        if asset is None:
            return _missing()
        # The archive signs anew each time.
        signature = f"{next(self._signatures):016x}"
        address = f"{self.address}{asset.blob_path}?signature={signature}"
        return replace(_redirect(address), asset=asset.path)

    def _found(self, *where: str) -> Asset | None:
        """An asset by its id, or by dandiset, version and id."""
        asset = self._assets.get(where[-1])
        if asset is not None and len(where) == 3:
            version = self._version(where[0], where[1])
            if version is None or all(asset is not one for one in version.assets):
                return None
        return asset

    def _blob(self, request: _Request, first: str, second: str, blob: str) -> _Answer:
        asset = self._blobs.get(blob)
        if asset is None or request.path != asset.blob_path:
            return _missing()
        answer = self._file_answer(request, asset.file, "etag", _encoding(asset.path))
        return replace(answer, asset=asset.path)

    def _table(
        self, request: _Request, owner: str, repository: str, commit: str, path: str
    ) -> _Answer:
        if (owner, repository, commit, path) not in self._tables:
            return _missing()
        where = quote(f"{owner}/{repository}/{commit}/{path}")
        answer = _redirect(f"{self.address}/raw-content/{where}")
        return replace(answer, asset=f"{owner}/{repository}/{path}")

    def _raw(
        self, request: _Request, owner: str, repository: str, commit: str, path: str
    ) -> _Answer:
        file = self._tables.get((owner, repository, commit, path))
        if file is None:
            return _missing()
        answer = self._file_answer(request, file, "sha256", "text/plain; charset=utf-8")
        return replace(answer, asset=f"{owner}/{repository}/{path}")

    def _loop(self, request: _Request, number: str) -> _Answer:
        return _redirect(f"{self.address}/redirect-loop/{1 - int(number)}")

    def _file_answer(self, request: _Request, file: _File, digest: str, kind: str) -> _Answer:
        mask = self._masks.get(request.path, 0)
        etag = f'"{file.digest(digest, mask)}"'
        modified = formatdate(file.modified // 10**9, usegmt=True)
        headers = {
            "Content-Type": kind,
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "Last-Modified": modified,
        }
        asked = request.headers
        if "if-match" in asked and not _matches(asked["if-match"], etag):
            return replace(_xml("412"), file=file)
        if "if-none-match" in asked and _matches(asked["if-none-match"], etag):
            return _Answer(304, headers, file=file)
        ranges = asked.get("range")
        if asked.get("if-range", etag) not in (etag, modified):
            ranges = None
        span = _span(ranges, file.size)
        if span is None:
            body = _Body(file.path, length=file.size, mask=mask)
            return _Answer(200, headers, body, file=file)
        first, last = span
        if first > last:
            return replace(_with(_xml("416"), "Content-Range", f"bytes */{file.size}"), file=file)
        body = _Body(file.path, first, last - first + 1, mask=mask)
        headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
        return _Answer(206, headers, body, file=file, range=span)

    def _described_content(self, asset: Asset) -> dict[str, Any]:
        digest = {"dandi:dandi-etag": asset.file.digest("etag")}
        if asset.digests:
            digest["dandi:sha2-256"] = asset.file.digest("sha256")
        return {
            "id": f"dandiasset:{asset.asset_id}",
            "identifier": asset.asset_id,
            "path": asset.path,
            "digest": digest,
            "contentUrl": [
                f"{self.address}{asset.download_path}",
                f"{self.address}{asset.blob_path}",
            ],
            "contentSize": asset.file.size,
            "encodingFormat": _encoding(asset.path),
            "dateModified": asset.created,
            "schemaKey": "Asset",
            "schemaVersion": DANDI_SCHEMA_VERSION,
        }

    # What the handlers tell.

    def _begins(self) -> None:
        with self._state:
            self._begun += 1

    def _finishes(self) -> None:
        with self._state:
            self._finishing += 1

    def _ended(self, served: Served | None, finishing: bool) -> None:
        with self._state:
            self._begun -= 1
            self._finishing -= finishing
            if served is not None:
                self._log.append(served)
            self._state.notify_all()


_DANDISET = r"/api/dandisets/(\d{6})"
_VERSION = _DANDISET + r"/versions/([^/]+)"
_ID = r"([0-9a-f-]{36})"
_ROUTES: tuple[tuple[re.Pattern[str], Callable[..., _Answer]], ...] = tuple(
    (re.compile(pattern), method)
    for pattern, method in (
        (rf"{_DANDISET}/", ArchiveServer._dandiset),
        (rf"{_VERSION}/", ArchiveServer._version_metadata),
        (rf"{_VERSION}/info/", ArchiveServer._version_info),
        (rf"{_VERSION}/assets/", ArchiveServer._listing),
        (rf"{_VERSION}/assets/{_ID}/", ArchiveServer._asset),
        (rf"{_VERSION}/assets/{_ID}/info/", ArchiveServer._asset_info),
        (rf"{_VERSION}/assets/{_ID}/download/", ArchiveServer._download),
        (rf"/api/assets/{_ID}/", ArchiveServer._asset),
        (rf"/api/assets/{_ID}/info/", ArchiveServer._asset_info),
        (rf"/api/assets/{_ID}/download/", ArchiveServer._download),
        (rf"/blobs/(\w+)/(\w+)/{_ID}", ArchiveServer._blob),
        (r"/redirect-loop/([01])", ArchiveServer._loop),
        (r"/raw-content/([^/]+)/([^/]+)/([^/]+)/(.+)", ArchiveServer._raw),
        (r"/([^/]+)/([^/]+)/raw/([^/]+)/(.+)", ArchiveServer._table),
    )
)


def _described_dandiset(identifier: str) -> dict[str, Any]:
    return {
        "identifier": identifier,
        "created": "2024-01-01T00:00:00.000000Z",
        "modified": "2024-01-01T00:00:00.000000Z",
        "contact_person": "Person, A",
        "embargo_status": "OPEN",
    }


def _described_version(version: _Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "name": f"Recordings of {version.identifier}",
        "asset_count": len(version.assets),
        "size": sum(asset.file.size for asset in version.assets),
        "status": "Valid" if version.version == "draft" else "Published",
        "created": "2024-01-01T00:00:00.000000Z",
        "modified": "2024-01-01T00:00:00.000000Z",
        "dandiset": _described_dandiset(version.identifier),
    }


def _described_asset(asset: Asset) -> dict[str, Any]:
    return {
        "asset_id": asset.asset_id,
        "blob": asset.blob_id,
        "zarr": None,
        "path": asset.path,
        "size": asset.file.size,
        "created": asset.created,
        "modified": asset.created,
    }


def _encoding(path: str) -> str:
    if path.endswith(".nwb"):
        return "application/x-nwb"
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _matches(given: str, etag: str) -> bool:
    return given.strip() == "*" or etag in [one.strip() for one in given.split(",")]


def _span(ranges: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a range; first past last where the file has none of it.

    None where no range was asked for, or one that a server ignores: several, or a wrong one.
    """
    found = re.fullmatch(r"bytes=\s*(\d*)-(\d*)\s*", ranges or "")
    if not found or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)) if int(last) else size, size - 1
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last), size - 1) if last else size - 1


class _Drawing:
    """Draws faults, and counts what was drawn."""

    def __init__(self, faults: Faults | None) -> None:
        self.faults = faults
        self._number = self._used = 0
        self._lock = threading.Lock()

    def draw(self, path: str, befalls: Callable[[str], bool]) -> str | None:
        faults = self.faults
        if faults is None or (faults.where is not None and not re.search(faults.where, path)):
            return None
        with self._lock:
            drawn = hashlib.sha256(f"{faults.seed}/{self._number}".encode()).digest()
            self._number += 1
            if faults.times is not None and self._used >= faults.times:
                return None
            if int.from_bytes(drawn[:8], "big") >= faults.share * 2**64:
                return None
            kind = faults.kinds[int.from_bytes(drawn[8:16], "big") % len(faults.kinds)]
            if not befalls(kind):
                return None
            self._used += 1
            return kind


def _befalls(kind: str, request: _Request, answer: _Answer) -> bool:
    """Whether a fault makes sense for a request."""
    body = request.method != "HEAD" and answer.body.length > 0
    match kind:
        case _ if request.path.startswith("/redirect-loop/"):
            return False
        case "cut" | "short" | "long" | "drip" | "wrong":
            return body
        case "broken-json":
            return body and answer.json
        case "changed":
            return answer.file is not None
        case "ignore-range":
            return answer.status == 206
        case "other-range":
            return answer.status == 206 and answer.file is not None and answer.file.size > 1
        case _:
            return True


def _part(answer: _Answer, faults: Faults) -> int:
    """Bytes of a part of the body: never all, and some where there are two."""
    length = answer.body.length
    return max(0, min(max(1, int(length * faults.part)), length - 1))


def _shifted(answer: _Answer) -> _Answer:
    """The range beside the one asked for: a byte off is the hardest to see."""
    assert answer.file is not None
    size = answer.file.size
    start = answer.body.start - 1 if answer.body.start else 1
    length = min(answer.body.length, size - start)
    shifted = replace(answer, body=replace(answer.body, start=start, length=length))
    return _with(shifted, "Content-Range", f"bytes {start}-{start + length - 1}/{size}")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Clients that connect at once are kept waiting, not refused.
    request_queue_size = 1024

    def __init__(
        self, port: int, archive: ArchiveServer, certificate: trustme.LeafCert | None
    ) -> None:
        self.archive = archive
        self.errors: list[Exception] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            # Hands are shaken by the connection's own thread, not by the one that accepts all.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End every connection, or clients would wait for a server that is gone."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was first

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # A client may leave whenever it likes; anything else is a mistake in this file.
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "archive"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Listener

    def do_GET(self) -> None:
        archive = self.server.archive
        self.sent = self.status = 0
        self.finishing = False
        served = None
        drawing, fault = archive._drawing, None
        faults = drawing.faults
        archive._begins()
        try:
            parts = urlsplit(self.path)
            api = parts.path.startswith("/api/") and parts.query
            # Few strings for many requests.
            shown = sys.intern(f"{parts.path}?{parts.query}" if api else parts.path)
            request = _Request(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query)),
                {name.lower(): value for name, value in self.headers.items()},
            )
            if archive.latency:
                archive._closing.wait(archive.latency)
            answer, fault = archive._answer(request, shown, drawing)
            try:
                self._send(answer, fault, faults)
            except OSError:
                self.close_connection = True
            file = answer.file
            served = Served(
                method=self.command,
                path=shown,
                range=answer.range,
                status=self.status,
                sent=self.sent,
                fault=fault,
                asset=answer.asset,
                whole=(
                    file is not None
                    and fault is None
                    and not answer.body.spoilt
                    and self.command == "GET"
                    and self.status in (200, 206)
                    and self.sent == file.size
                ),
            )
        finally:
            archive._ended(served, self.finishing)
        if fault == "stall" and faults is not None:
            self._left(faults.stall_seconds)

    do_HEAD = do_GET  # noqa: N815 (the base class looks for this name)

    def _send(self, answer: _Answer, fault: str | None, faults: Faults | None) -> None:
        length = stop = 0 if self.command == "HEAD" else answer.body.length
        if faults is not None and fault in ("cut", "stall"):
            stop = min(length, _part(answer, faults))
        if fault in ("drop", "cut", "stall", "drip"):
            self.close_connection = True
        if fault == "drop" or (fault == "stall" and not length):
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if fault == "long":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(answer.body.length))
        self.status = answer.status
        if not stop or fault == "drip":
            self._finish()
        self.end_headers()
        if fault == "drip" and faults is not None:
            self._send_body(answer.body, stop, pause=faults.drip_seconds)
        elif stop:
            self._send_body(answer.body, stop, chunked=fault == "long")
        if fault == "long":
            more = bytes(1000)
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(more), more))
            self.sent += len(more)

    def _send_body(self, body: _Body, stop: int, pause: float = 0.0, chunked: bool = False) -> None:
        archive = self.server.archive
        began = time.monotonic()
        with body.open() as file:
            while self.sent < stop:
                bandwidth = archive.bandwidth
                most = 1 if pause else PIECE
                if bandwidth is not None:
                    most = min(most, max(1, int(bandwidth / 20)))
                count = min(most, stop - self.sent)
                if self.sent + count == stop and not self.finishing:
                    self._finish()
                at = body.start + self.sent
                if chunked or body.spoilt:
                    piece = body.read(file, at, count)
                    count = len(piece)
                    if chunked:
                        piece = b"%x\r\n%b\r\n" % (count, piece)
                    self.connection.sendall(piece)
                    self.sent += count
                else:
                    file.seek(at)
                    try:
                        count = self.connection.sendfile(file, at, count)
                    finally:
                        # Where it failed, the place in the file tells how much had gone out.
                        self.sent += file.tell() - at
                if not count:
                    raise OSError("the file became shorter")
                if bandwidth is not None:
                    archive._closing.wait(
                        max(0.0, began + self.sent / bandwidth - time.monotonic())
                    )
                if pause and self._left(pause):
                    raise ConnectionAbortedError

    def _finish(self) -> None:
        self.finishing = True
        self.server.archive._finishes()

    def _left(self, seconds: float) -> bool:
        """Wait, and say whether the client left or the server is closed."""
        self.connection.settimeout(max(seconds, 1e-3))
        try:
            if self.connection.recv(1, socket.MSG_PEEK):
                return self.server.archive._closing.wait(seconds)  # a request ahead of its turn
            return True
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(None)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named so there)
        """Say nothing: `ArchiveServer.log` has it."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.archive_server", description=__doc__)
    add = parser.add_argument
    add("--dandiset", action="append", default=[], help="identifier; with --folder, repeatable")
    add("--folder", action="append", default=[], type=Path, help="files of the dandiset before")
    add("--tables", type=Path, help="folder of owner/repository/commit/path")
    add("--no-digests", action="store_true", help="leave SHA-256 out of the metadata")
    add("--faults", default="", help=f"some of {','.join(KINDS)}")
    add("--share", type=float, default=0.2, help="part of the requests that meet a fault")
    add("--seed", type=int, default=0)
    add("--where", help="regular expression of the paths that meet faults")
    add("--times", type=int, help="how many faults in all")
    add("--latency", type=float, default=0.0, help="seconds before each answer")
    add("--bandwidth", type=float, help="bytes a second on each connection")
    add("--port", type=int, default=0)
    options = parser.parse_args()
    if len(options.dandiset) != len(options.folder):
        parser.error("every --dandiset needs its --folder")
    for folder in [*options.folder, *([options.tables] if options.tables else [])]:
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    return options


def _files_in(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def main() -> None:
    """Serve until interrupted or terminated, then print totals."""
    options = _options()
    kinds = tuple(kind.strip() for kind in options.faults.split(",") if kind.strip())
    faults = None
    if kinds:
        faults = Faults(kinds, options.share, options.seed, options.where, options.times)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server = ArchiveServer(
        options.port, latency=options.latency, bandwidth=options.bandwidth, faults=faults
    )
    with server:
        for identifier, folder in zip(options.dandiset, options.folder, strict=True):
            server.add_dandiset(identifier, _files_in(folder), digests=not options.no_digests)
        if options.tables is not None:
            for name, file in _files_in(options.tables).items():
                owner, repository, commit, path = name.split("/", 3)
                server.add_table(owner, repository, commit, path, file)
        print(f"api     {server.api}\ntables  {server.tables}", flush=True)
        ended.wait()
    log = server.log
    whole = server.whole_bodies()
    print(f"requests  {len(log)}")
    print(f"bytes     {sum(one.sent for one in log)}")
    for title, counts in (
        ("statuses", Counter(one.status for one in log)),
        ("faults", Counter(one.fault for one in log if one.fault)),
    ):
        print(f"{title:<9}", ", ".join(f"{k}: {v}" for k, v in sorted(counts.items())) or "none")
    print(f"whole     {len(whole)} files, {sum(n > 1 for n in whole.values())} more than once")


if __name__ == "__main__":
    main()
