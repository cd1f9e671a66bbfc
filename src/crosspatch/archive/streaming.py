"""A recording read where it lies: only the bytes that are used come over the network."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import h5py

from crosspatch.archive.dandi import Asset
from crosspatch.archive.looking_ahead import announce_members, announce_samples
from crosspatch.archive.web import ChangedError, NoRangesError, RangePart, Web
from crosspatch.errors import CrosspatchError, NetworkError, RecordingError
from crosspatch.recordings.cell_quality import is_unmeasured
from crosspatch.recordings.formats import HDF5_SIGNATURE
from crosspatch.recordings.hdf5 import Bytes, DoubtfulBytesError, LocalBytes
from crosspatch.recordings.model import Recording
from crosspatch.recordings.nwb import read_nwb
from crosspatch.recordings.opening import as_read, only
from crosspatch.recordings.reading_options import Reading

#: What HDF5 looks up lies all over the file in tables of some hundred bytes: kept in blocks of …
_BLOCK = 512
#: … and fetched so many at a time where nothing was announced.
_BLOCKS = 2
_HEAD = 32 * 1024  #: fetched at once from the beginning of the file, where the first tables are
_LARGE = 16 * 1024  #: more than this at a time is samples, not looked up
_CACHE = 16 * 1024 * 1024  #: looked-up bytes kept of a file
_AHEAD = 64 * 1024 * 1024  #: samples fetched ahead of their use at most
#: Two ranges this near are fetched as one: a request costs more than the bytes between.
_GAP = 4 * 1024
_LEAD = 8  #: a signature that begins before a range is looked for, see `GuardedFile`
_REQUESTS = 8  #: requests at a time for bytes that were announced


class RemoteBytes(Bytes):
    """The bytes of a file of the archive, with a bounded memory.

    What HDF5 looks up is kept in blocks; samples are fetched as exactly the ranges they lie in.
    Parts of a file cannot be compared with the checksum of the whole. So a server that gives no
    parts, or whose file is not visibly the one that was listed, makes it download the file, check
    it, and read that. What was looked up, which nothing in the file protects, is fetched a second
    time before samples are read, and must be the same, over a connection without TLS, which would
    protect it; a file whose samples have no checksum is then downloaded as well.

    `verified` makes it do so in any case. A `NetworkError` if nothing can be had.
    """

    def __init__(self, asset: Asset, *, verified: bool = False, web: Web | None = None):
        self.asset = asset
        self.size = asset.size
        #: A `DoubtfulBytesError` if the whole file may still be had.
        self.failure: CrosspatchError | None = None
        self.web = web or Web()
        self._etag: str | None = None
        self._address = asset.address
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        #: Blocks that were handed over, and those that came twice the same.
        self._used: set[int] = set()
        self._confirmed: set[int] = set()
        self._ahead: list[tuple[int, bytes]] = []
        self._copy: LocalBytes | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        first = None
        if not verified:
            with suppress(NoRangesError):
                first = self._fetch(0, min(_HEAD, self.size))
        etag = asset.digests.get("dandi-etag", self._etag)
        if first is None or self._etag is None or self._etag != etag:
            self._download()
        else:
            self._keep(0, first)

    @property
    def protected(self) -> bool:
        """Whether nothing can have changed the bytes on their way here: TLS, or a checked copy."""
        return self._copy is not None or self._address.startswith("https://")

    def read_at(self, offset: int, count: int) -> bytes:
        """Some bytes; fewer where the file ends, or where they cannot be had (`failure`)."""
        if self._copy is not None:
            return self._copy.read_at(offset, count)
        if self.failure is not None:
            return b""
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        for start, content in self._ahead:
            if start <= offset and offset + count <= start + len(content):
                return content[offset - start : offset - start + count]
        try:
            if count > _LARGE:
                return self._fetch(offset, count)
            return self._looked_up(offset, count)
        except NetworkError as error:
            self._fail(error)
            return b""

    def announce(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch these (offset, count), which will be looked up, several at a time."""
        if not self.doubtful():
            return
        numbers: set[int] = set()
        for offset, count in ranges:
            first, last = max(offset - _LEAD, 0), min(offset + count, self.size)
            numbers.update(range(first // _BLOCK, -(-last // _BLOCK)))
        missing = [n for n in sorted(numbers) if n not in self._blocks][: _CACHE // _BLOCK]
        for first, content in self._fetch_all(_blocks(missing, 2 * _BLOCK)):
            self._keep(first, content)
        self._shrink()

    def look_ahead(self, groups: Iterable[h5py.Group]) -> None:
        """Fetch what HDF5 will look up of all members of these groups."""
        if self.doubtful():
            announce_members(self, groups)

    def look_for_samples(self, series: Sequence[h5py.Group]) -> None:
        """Fetch what says where the samples of these series lie."""
        if self.doubtful():
            announce_samples(self, series)

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch these (offset, count), which will be read next, in few requests."""
        self._ahead = []
        if not self.doubtful():
            return
        seconds = _blocks(sorted(self._used - self._confirmed), _GAP)
        wanted = [(max(offset - _LEAD, 0), count + _LEAD) for offset, count in ranges if count]
        runs = _runs(sorted(wanted), _GAP)
        if sum(last - first for first, last in runs) > _AHEAD:
            runs = []
        found = self._fetch_all(seconds + runs)
        for first, content in found[: len(seconds)]:
            self._confirm(first, content)
        self._ahead = found[len(seconds) :]

    def doubtful(self) -> bool:
        """Whether what looks like damage may be bytes that came wrong."""
        return self._copy is None and self.failure is None

    def close(self) -> None:
        """Drop everything, a downloaded copy too."""
        self._blocks.clear()
        self._used.clear()
        self._confirmed.clear()
        self._ahead = []
        if self._copy is not None:
            self._copy.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _looked_up(self, offset: int, count: int) -> bytes:
        numbers = range(offset // _BLOCK, (offset + count - 1) // _BLOCK + 1)
        missing = [number for number in numbers if number not in self._blocks]
        if missing:
            end = max(missing[0] + _BLOCKS, missing[-1] + 1)
            at = missing[0] * _BLOCK
            self._keep(at, self._fetch(at, min(end * _BLOCK, self.size) - at))
        pieces = []
        for number in numbers:
            self._blocks.move_to_end(number)
            if not self._address.startswith("https://"):
                self._used.add(number)
            pieces.append(self._blocks[number])
        self._shrink()
        start = offset - numbers[0] * _BLOCK
        return b"".join(pieces)[start : start + count]

    def _keep(self, offset: int, content: bytes) -> None:
        """Put whole blocks, the last one of the file included, where they are looked up."""
        for number, block in _numbered(offset, content):
            self._blocks.setdefault(number, block)

    def _shrink(self) -> None:
        while len(self._blocks) * _BLOCK > _CACHE:
            number, _ = self._blocks.popitem(last=False)
            self._used.discard(number)
            self._confirmed.discard(number)

    def _confirm(self, offset: int, content: bytes) -> None:
        """Compare what was looked up with the same bytes fetched again."""
        for number, block in _numbered(offset, content):
            if number in self._blocks:
                self._confirmed.add(number)
                if self._blocks[number] != block:
                    self.failure = DoubtfulBytesError(f"{self.asset}: bytes came wrong")

    def _fail(self, error: NetworkError) -> None:
        # A server that has given parts and now gives none still gives the whole.
        without = isinstance(error, NoRangesError)
        self.failure = DoubtfulBytesError(str(error)) if without else error

    def _fetch_all(self, runs: list[tuple[int, int]]) -> list[tuple[int, bytes]]:
        """Contents of ranges (first, last); nothing, and a `failure`, if one cannot be had."""
        runs = [(first, min(last, self.size)) for first, last in runs if first < self.size]
        try:
            if len(runs) < 2:
                return [(first, self._fetch(first, last - first)) for first, last in runs]
            with ThreadPoolExecutor(min(_REQUESTS, len(runs))) as threads:
                found = threads.map(lambda run: self._fetch(run[0], run[1] - run[0]), runs)
                return [(first, content) for (first, _), content in zip(runs, found, strict=True)]
        except NetworkError as error:
            self._fail(error)
            return []

    def _fetch(self, offset: int, count: int) -> bytes:
        def part(address: str) -> RangePart:
            return self.web.part(address, offset, count, etag=self._etag, size=self.size)

        address = self._address
        try:
            found = part(address)
        except (ChangedError, NoRangesError):
            raise
        except NetworkError:
            if address == self.asset.address:
                raise
            found = part(self.asset.address)  # the link may have expired
        # From now on straight to where the archive sent us.
        self._address, self._etag = found.address, self._etag or found.etag
        return found.content

    def _download(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="crosspatch-")
        file = Path(self._folder.name) / "recording.nwb"
        try:
            self.web.download(
                self.asset.address, file, size=self.asset.size, digests=self.asset.digests
            )
        except NetworkError:
            self._folder.cleanup()
            raise
        self._copy = LocalBytes(file)


def _numbered(offset: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(content), _BLOCK):
        yield (offset + start) // _BLOCK, content[start : start + _BLOCK]


def _blocks(numbers: Iterable[int], gap: int) -> list[tuple[int, int]]:
    """Sorted blocks as (first, last), those near one another together."""
    return _runs([(number * _BLOCK, _BLOCK) for number in numbers], gap)


def _runs(ranges: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Sorted (offset, count) as (first, last), those near one another together."""
    runs: list[tuple[int, int]] = []
    for offset, count in ranges:
        if runs and offset - runs[-1][1] <= gap:
            runs[-1] = (runs[-1][0], max(runs[-1][1], offset + count))
        else:
            runs.append((offset, offset + count))
    return runs


def open_asset(
    asset: Asset, reading: Reading | None = None, *, verified: bool = False
) -> Recording:
    """Open a recording of one cell in the archive; only the bytes that are used are fetched.

    The file can be fetched whole and compared with its checksums first (`verified`).

    A `RecordingError` if the file is not a recording, or holds no current-clamp sweep; a
    `NetworkError` if it cannot be had, which is a `DoubtfulBytesError` if it looks damaged, which
    `verified` settles.
    """
    return only(open_cells(asset, reading, verified=verified))


def open_cells(
    asset: Asset,
    reading: Reading | None = None,
    *,
    measured_only: bool = False,
    verified: bool = False,
    web: Web | None = None,
) -> list[Recording]:
    """Open a file of the archive, one recording for each of its cells; else as `open_asset`.

    Sweeps are left out (`measured_only`) as `open_recording` does; the web counts what comes.
    """
    reading = reading or Reading()
    content = RemoteBytes(asset, verified=verified, web=web)
    try:
        start = content.read_at(0, len(HDF5_SIGNATURE))
        if start != HDF5_SIGNATURE:
            if content.doubtful():
                raise DoubtfulBytesError(f"{asset} begins with {start!r}")
            raise RecordingError(f"{asset} is no NWB 2 (HDF5) file: it begins with {start!r}")
        recordings = read_nwb(
            content, str(asset), is_unmeasured if measured_only else None, reading
        )
    except BaseException:
        content.close()
        raise
    return as_read(recordings, reading)
