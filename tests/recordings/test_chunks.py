"""Chunks that are unpacked here hold what HDF5 reads from them."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
import pytest
from isal.igzip_lib import IsalError

from crosspatch.recordings.chunks import AS_STORED, Scale, Unpacker, stored_chunks

SAMPLES = np.cumsum(np.random.default_rng(0).normal(size=2500)) * 100


@pytest.fixture
def stored(tmp_path):
    """Writes samples, and opens the file; gives the dataset and what unpacks it."""
    path = tmp_path / "samples.h5"
    opened = []

    def write(values, **how):
        with h5py.File(path, "w") as file:
            data = file.create_dataset("data", shape=values.shape, dtype=values.dtype, **how)
            data[: len(values) if how.get("fillvalue") is None else 700] = values[
                : None if how.get("fillvalue") is None else 700
            ]
        opened.append(h5py.File(path, "r"))
        content = path.read_bytes()
        return opened[-1]["data"], Unpacker(lambda offset, n: content[offset : offset + n])

    yield write
    for file in opened:
        file.close()


def _chunks(data, first, points):
    """Those that these samples lie in."""
    width, last = data.chunks[0], first + points
    return [each for each in stored_chunks(data) if first - width < each.chunk_offset[0] < last]


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i2", "<u2", "<i4"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("part", [(0, 1), (0, 1000), (0, 1001), (0, 2500), (700, 1), (900, 1300)])
@pytest.mark.parametrize("scale", [AS_STORED, Scale(0.005, -3.0, 1e3)])
def test_deflated_samples(stored, dtype, shuffle, part, scale):
    values = SAMPLES.astype(dtype)
    data, unpacker = stored(values, chunks=(1000,), compression="gzip", shuffle=shuffle)
    first, points = part
    found = unpacker.samples(data, _chunks(data, first, points), first, points, scale)
    expected = (values[first : first + points] * scale.conversion + scale.offset) * scale.factor
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (1000,), "compression": "lzf"},
        {"chunks": (1000,), "compression": "gzip", "fletcher32": True},
        {"chunks": (1000,), "compression": "gzip", "scaleoffset": 0},
        {"chunks": (1000,)},
        {"chunks": (1000,), "compression": "gzip", "fillvalue": 7},
    ],
)
def test_other_ways_to_store_are_left_to_hdf5(stored, how):
    data, unpacker = stored(SAMPLES.astype("<i4"), **how)
    assert unpacker.samples(data, stored_chunks(data), 0, 2500, AS_STORED) is None


def test_the_other_byte_order_is_left_to_hdf5(stored):
    data, unpacker = stored(SAMPLES.astype(">f4"), chunks=(1000,), compression="gzip")
    assert unpacker.samples(data, stored_chunks(data), 0, 2500, AS_STORED) is None


def test_chunks_that_are_alike_are_not_mixed_up(stored):
    values = np.repeat([0.0, 5.0, 0.0, 5.0, 9.0], 500).astype("<f4")
    data, unpacker = stored(values, chunks=(500,), compression="gzip", shuffle=True)
    for points in (2500, 700, 2500):
        found = unpacker.samples(data, _chunks(data, 0, points), 0, points, AS_STORED)
        np.testing.assert_array_equal(found, values[:points])
        found[:] = 1.0  # whoever is given samples may change them


@pytest.mark.parametrize("harm", ["cut", "changed", "bomb"])
def test_damage_is_an_error(stored, harm):
    data, _ = stored(SAMPLES.astype("<f4"), chunks=(1000,), compression="gzip")
    content = open(data.file.filename, "rb").read()  # noqa: SIM115

    def read(offset: int, count: int) -> bytes:
        packed = content[offset : offset + count]
        if harm == "bomb":
            return zlib.compress(bytes(1 << 24))
        middle = len(packed) // 2
        if harm == "cut":
            return packed[:middle]
        return packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1 :]

    with pytest.raises((ValueError, IsalError)):  # type: ignore[arg-type]  # its stub is wrong
        Unpacker(read).samples(data, stored_chunks(data), 0, 2500, AS_STORED)
