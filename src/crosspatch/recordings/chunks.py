"""Chunks of an HDF5 dataset, unpacked straight into one array."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import h5py
import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.model import Samples

#: A chunk of no more bytes than this holds little but one value, as most of a command does; such
#: chunks are unpacked once …
_FEW = 512
#: … and so many of them are kept.
_MOST_KEPT = 256


@dataclass(frozen=True)
class StoredChunk:
    """Where a chunk of samples lies in the file."""

    first: int  # number of its first sample
    offset: int  # in the file, bytes
    size: int
    skipped: int  # filters that were not applied to it, as bits


def stored_chunks(data: h5py.Dataset) -> list[StoredChunk]:
    """The chunks of a chunked dataset."""
    found: list[StoredChunk] = []

    def add(chunk: h5py.h5d.StoreInfo) -> None:
        place = (chunk.chunk_offset[0], chunk.byte_offset, chunk.size, chunk.filter_mask)
        found.append(StoredChunk(*place))

    data.id.chunk_iter(add)
    return found


@dataclass
class Unpacker:
    """Unpacks chunks; those that say the same in few bytes once."""

    read: Callable[[int, int], bytes]  # gives bytes of the file at an offset
    _kept: dict[tuple[bytes, np.dtype, bool], Samples] = field(default_factory=dict)

    def samples(
        self, data: h5py.Dataset, chunks: Sequence[StoredChunk], first: int, points: int
    ) -> Samples | None:
        """So many samples; None where they are not stored in the usual way, for HDF5 to read.

        These are the chunks that they lie in. The usual way is deflate, after a shuffle of bytes or
        not, of all chunks there can be. A ValueError or zlib.error if a chunk is damaged.
        """
        shuffled = _shuffled(data)
        width = data.chunks[0] if data.chunks else 0
        from_first = first - first % (width or 1)
        needed = set(range(from_first, first + points, width or points))
        whole = {chunk.first for chunk in chunks} == needed
        if shuffled is None or not whole or any(chunk.skipped for chunk in chunks):
            return None
        dtype = data.dtype
        result = np.empty(points, dtype)
        for chunk in chunks:
            packed = self.read(chunk.offset, chunk.size)
            part = self._unpacked(packed, width, dtype, shuffled)
            place = chunk.first - first
            result[max(place, 0) : place + width] = part[max(-place, 0) : points - place]
        return result

    def _unpacked(self, packed: bytes, width: int, dtype: np.dtype, shuffled: bool) -> Samples:
        kept = self._kept.get((packed, dtype, shuffled)) if len(packed) <= _FEW else None
        if kept is not None and len(kept) == width:
            return kept
        size = width * dtype.itemsize
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, size + 1)  # no more than shows that it is too much
        if len(content) != size or not unpacker.eof:
            raise ValueError(f"a chunk does not hold {size:,} bytes")
        part = np.frombuffer(content, dtype=dtype)
        if shuffled:
            planes = np.frombuffer(content, dtype=np.uint8).reshape(dtype.itemsize, width)
            mixed: NDArray[np.uint8] = np.empty((width, dtype.itemsize), dtype=np.uint8)
            for place, plane in enumerate(planes):
                mixed[:, place] = plane
            part = mixed.view(dtype)[:, 0]
        if len(packed) <= _FEW and len(self._kept) < _MOST_KEPT:
            self._kept[packed, dtype, shuffled] = part
        return part


def _shuffled(data: h5py.Dataset) -> bool | None:
    """Whether bytes were shuffled before they were deflated; None for other ways to store."""
    if not data.chunks or data.ndim != 1 or data.dtype.kind not in "iuf":
        return None
    if not data.dtype.isnative or sys.byteorder != "little":
        return None
    layout = data.id.get_create_plist()
    filters = [layout.get_filter(k)[0] for k in range(layout.get_nfilters())]
    if filters == [h5py.h5z.FILTER_DEFLATE]:
        return False
    return True if filters == [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE] else None
