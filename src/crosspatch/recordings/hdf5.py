"""HDF5 files opened so that damage in them makes an error and not an endless loop."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import CrosspatchError, NetworkError

if TYPE_CHECKING:
    import h5py
    from _typeshed import WriteableBuffer

_HEAP = b"GCOL"
#: Signature, version and reserved bytes of a heap, before its size.
_HEAP_HEAD = 8
#: Index, references and reserved bytes of an object, before its size.
_OBJECT_HEAD = 8
_SMALLEST_HEAP = 4096


class Bytes:
    """Where the bytes of a file come from: a disk, unless a kind of them says otherwise."""

    size: int  # of the whole, bytes
    failure: CrosspatchError | None = (
        None  # why bytes could not be had: HDF5 hands no exceptions on
    )

    @property
    def protected(self) -> bool:
        """Whether nothing can have changed the bytes on their way here."""
        return True

    def read_at(self, offset: int, count: int) -> bytes:
        """Some bytes; fewer where the file ends."""
        raise NotImplementedError

    def look_ahead(self, groups: Iterable[h5py.Group]) -> None:
        """Say that all members of these groups will be looked at."""

    def look_for_samples(self, series: Sequence[h5py.Group]) -> None:
        """Say that it will be looked up where the samples of these series lie."""

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Say that these (offset, count) will be read next."""

    def doubtful(self) -> bool:
        """Whether what looks like damage may be bytes that came wrong."""
        return False

    def close(self) -> None:
        """Let go of the file."""


class LocalBytes(Bytes):
    """The bytes of a file on disk; an `OSError` if it cannot be opened."""

    def __init__(self, path: Path):
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Some bytes; fewer where the file ends."""
        return os.pread(self._file.fileno(), count, offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class GuardedFile(io.RawIOBase):
    """A file as HDF5 reads it, with damaged heaps blanked.

    Texts lie in heaps of objects that follow one another. HDF5 (2.0.0) walks such a heap by the
    objects' sizes, and never ends where the free space has size 0. A heap like that is handed
    over without its signature, which HDF5 reports as an error.

    Samples may hold those bytes by chance (in a hundred gigabytes they do); they are handed over as
    they are, see `expect`. The content is closed with this file.
    """

    def __init__(self, content: Bytes):
        super().__init__()
        self.content = content
        self._size = content.size
        self._at = 0
        self._samples: list[tuple[int, int]] = []
        start = content.read_at(0, 16)
        #: Bytes of a length; superblocks before version 2 have it further on.
        self._width = 8
        if len(start) == 16:
            self._width = start[14] if start[8] < 2 else start[10]

    def readable(self) -> bool:
        """It is only read."""
        return True

    def seekable(self) -> bool:
        """It is read anywhere."""
        return True

    def tell(self) -> int:
        """Where the next bytes come from."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset; a damaged address may be beyond the end of the file."""
        if whence != os.SEEK_SET:
            offset += self._at if whence == os.SEEK_CUR else self._size
        self._at = min(offset, self._size)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer; past the end of the file there are zeros."""
        view = memoryview(buffer).cast("B")
        at, wanted = self._at, len(view)
        # A signature may begin in what was read before.
        lead = min(at, len(_HEAP) - 1)
        content = self._read(at - lead, lead + wanted)
        self._require_bytes()
        count = max(len(content) - lead, 0)
        view[:count] = content[lead:]
        if count < wanted:
            view[count:] = bytes(wanted - count)
        self._at = at + count
        found = content.find(_HEAP)
        if found >= 0 and any(
            first <= at and at + wanted <= first + n for first, n in self._samples
        ):
            return wanted
        while found >= 0:
            if not self._is_sound(at - lead + found):
                first, last = max(found - lead, 0), found - lead + len(_HEAP)
                view[first:last] = bytes(last - first)
            found = content.find(_HEAP, found + 1)
        return wanted

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Say that samples will be read from these (offset, count), until it is said anew."""
        self._samples = list(ranges)
        self.content.expect(ranges)
        self._require_bytes()

    def read_samples(self, offset: int, count: int) -> bytes:
        """Bytes of samples, as they are; an `OSError` if they cannot be had."""
        content = self._read(offset, count)
        self._require_bytes()
        return content

    def close(self) -> None:
        """Close what it reads from."""
        if not self.closed:
            self.content.close()
        super().close()

    def _require_bytes(self) -> None:
        """Bytes that did not come are not zeros."""
        if self.content.failure is not None:
            raise OSError(str(self.content.failure))

    def _read(self, at: int, count: int) -> bytes:
        """As many bytes as there are; a system may give fewer at a time."""
        count = min(count, self._size - at)
        content = piece = self.content.read_at(at, count) if count > 0 else b""
        while piece and len(content) < count:
            piece = self.content.read_at(at + len(content), count - len(content))
            content += piece
        return content

    def _is_sound(self, at: int) -> bool:
        """Whether the objects of the heap that begins here lead to its end."""
        head = self._read(at, _HEAP_HEAD + self._width)
        size = int.from_bytes(head[_HEAP_HEAD:], "little")
        if not _SMALLEST_HEAP <= size <= self._size - at:
            return False
        heap = self._read(at, size)
        head_of_object = _OBJECT_HEAD + self._width
        place = len(head)
        while place + head_of_object <= size:
            index = int.from_bytes(heap[place : place + 2], "little")
            length = int.from_bytes(heap[place + _OBJECT_HEAD : place + head_of_object], "little")
            if index:
                place += head_of_object + -(-length // 8) * 8
            elif length:
                place += length
            else:
                return False
        return place <= size


class Closing:
    """Closes a file with the last of the recordings that are in it."""

    def __init__(self, close: Callable[[], None], count: int):
        self._close = close
        self._open = set(range(count))
        self._given = iter(range(count))

    def once(self) -> Callable[[], None]:
        """For one of the recordings, which may be closed more than once."""
        mine = next(self._given)

        def close() -> None:
            self._open.discard(mine)
            if not self._open:
                self._close()

        return close


class DoubtfulBytesError(NetworkError):
    """What came over the network looks damaged; the whole file, verified, will tell."""
