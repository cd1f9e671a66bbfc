"""HDF5 files opened so that damage in them makes an error and not an endless loop."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

_HEAP = b"GCOL"
#: Signature, version and reserved bytes of a heap, before its size.
_HEAP_HEAD = 8
#: Index, references and reserved bytes of an object, before its size.
_OBJECT_HEAD = 8
_SMALLEST_HEAP = 4096


class GuardedFile(io.FileIO):
    """A file as HDF5 reads it, with damaged heaps blanked.

    Texts lie in heaps of objects that follow one another. HDF5 (2.0.0) walks such a heap by the
    objects' sizes, and never ends where the free space has size 0. A heap like that is handed
    over without its signature, which HDF5 reports as an error.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        super().__init__(path, "r")
        self._size = os.fstat(self.fileno()).st_size
        start = os.pread(self.fileno(), 16, 0)
        #: Bytes of a length; superblocks before version 2 have it further on.
        self._width = 8
        if len(start) == 16:
            self._width = start[14] if start[8] < 2 else start[10]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset; a damaged address may be beyond what a system can seek."""
        return super().seek(min(offset, self._size), whence)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; past the end of the file there are zeros."""
        view = memoryview(buffer).cast("B")
        at = self.tell()
        count = super().readinto(view) or 0
        view[count:] = bytes(len(view) - count)
        # A signature may begin in what was read before.
        lead = min(at, len(_HEAP) - 1)
        content = os.pread(self.fileno(), lead, at - lead) + view
        found = content.find(_HEAP)
        while found >= 0:
            if not self._is_sound(at - lead + found):
                first, last = max(found - lead, 0), found - lead + len(_HEAP)
                view[first:last] = bytes(last - first)
            found = content.find(_HEAP, found + 1)
        return len(view)

    def _is_sound(self, at: int) -> bool:
        """Whether the objects of the heap that begins here lead to its end."""
        head = os.pread(self.fileno(), _HEAP_HEAD + self._width, at)
        size = int.from_bytes(head[_HEAP_HEAD:], "little")
        if not _SMALLEST_HEAP <= size <= self._size - at:
            return False
        heap = os.pread(self.fileno(), size, at)
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
