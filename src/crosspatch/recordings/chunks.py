"""Chunks of an HDF5 dataset, unpacked straight into one array."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import h5py
import numpy as np
from isal import isal_zlib

from crosspatch.recordings.model import Samples

#: A chunk of no more bytes than this holds little but one value, as most of a command does; such
#: chunks are unpacked once …
_FEW = 512
#: … and so many of them are kept.
_MOST_KEPT = 256
#: So many chunks that follow each other in the file are read at once.
_AT_ONCE = 64


def stored_chunks(data: h5py.Dataset) -> list[h5py.h5d.StoreInfo]:
    """Where the chunks of a chunked dataset lie in the file."""
    found: list[h5py.h5d.StoreInfo] = []
    data.id.chunk_iter(found.append)
    return found


class Scale(NamedTuple):
    """What makes stored values physical ones: (value * conversion + offset) * factor."""

    conversion: float
    offset: float
    factor: float

    def of(self, values: Samples, out: Samples | None = None) -> Samples:
        """Physical values, in single precision where the stored ones are, else in double."""
        out = np.multiply(values, self.conversion, out=out)
        if self.offset:
            np.add(out, self.offset, out=out)
        return np.multiply(out, self.factor, out=out)


AS_STORED = Scale(1.0, 0.0, 1.0)


class _Stored(NamedTuple):
    """How the chunks of a dataset are stored."""

    width: int  # samples
    dtype: np.dtype
    shuffled: bool  # whether bytes were shuffled before they were deflated
    scale: Scale


@dataclass
class Unpacker:
    """Unpacks chunks; those that say the same in few bytes once."""

    read: Callable[[int, int], bytes]  # gives bytes of the file at an offset
    _kept: dict[_Stored, dict[bytes, Samples]] = field(default_factory=dict)

    def samples(
        self,
        data: h5py.Dataset,
        chunks: Sequence[h5py.h5d.StoreInfo],
        first: int,
        points: int,
        scale: Scale,
    ) -> Samples | None:
        """So many samples; None where they are not stored in the usual way, for HDF5 to read.

        These are the chunks that they lie in. The usual way is deflate, after a shuffle of bytes or
        not, of all chunks there can be. A ValueError or IsalError if a chunk is damaged.
        """
        shuffled = _shuffled(data)
        width = data.chunks[0] if data.chunks else 0
        from_first = first - first % (width or 1)
        needed = list(range(from_first, first + points, width or points))
        whole = [chunk.chunk_offset[0] for chunk in chunks] == needed
        if shuffled is None or not whole or any(chunk.filter_mask for chunk in chunks):
            return None
        way = _Stored(width, data.dtype, shuffled, scale)
        kept = self._kept.setdefault(way, {})
        result = np.empty(points, np.result_type(way.dtype, 0.0))
        for place, packed in zip(needed, self._packed(chunks), strict=True):
            begin = max(place, first)
            into = result[begin - first : place - first + width]
            few = len(packed) <= _FEW
            values = kept.get(packed) if few else None
            if values is not None:
                into[:] = values[begin - place :][: len(into)]
                continue
            way.scale.of(_unpacked(packed, way)[begin - place :][: len(into)], out=into)
            if few and len(into) == width and len(kept) < _MOST_KEPT:
                kept[packed] = into.copy()
        return result

    def _packed(self, chunks: Sequence[h5py.h5d.StoreInfo]) -> Iterator[bytes]:
        """What is stored of each chunk."""
        for run in _runs(chunks):
            begin, end = run[0].byte_offset, run[-1].byte_offset + run[-1].size
            content = self.read(begin, end - begin)
            for chunk in run:
                place = chunk.byte_offset - begin
                yield content[place : place + chunk.size]


def _runs(chunks: Sequence[h5py.h5d.StoreInfo]) -> Iterator[list[h5py.h5d.StoreInfo]]:
    """Chunks in runs that lie one behind the other in the file, no more than are read at once."""
    run = list(chunks[:1])
    for chunk in chunks[1:]:
        if len(run) == _AT_ONCE or chunk.byte_offset != run[-1].byte_offset + run[-1].size:
            yield run
            run = []
        run.append(chunk)
    yield run


def _unpacked(packed: bytes, way: _Stored) -> Samples:
    """The samples of a chunk as they are stored."""
    width, dtype, shuffled, _ = way
    size = width * dtype.itemsize
    unpacker = isal_zlib.decompressobj()
    content = unpacker.decompress(packed, size + 1)  # no more than shows that it is too much
    if len(content) != size or not unpacker.eof:
        raise ValueError(f"a chunk does not hold {size:,} bytes")
    if not shuffled:
        return np.frombuffer(content, dtype)
    from crosspatch.recordings import passes

    planes = np.frombuffer(content, np.uint8).reshape(dtype.itemsize, width)
    values = np.empty(width, f"u{dtype.itemsize}")
    passes.unshuffle(planes, values)
    return values.view(dtype)


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
