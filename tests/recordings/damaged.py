"""Damaged recordings by number, and a process that reads them.

``python -m tests.recordings.damaged SEEDS FIRST LAST LIMIT`` reads damaged files number FIRST to
LAST - 1, made of the files in the folder SEEDS, and names each before it starts. A file that
takes longer than LIMIT seconds, crashes the process or raises anything unexpected ends it, and
is left beside SEEDS. The same number and seeds give the same file.
"""

from __future__ import annotations

import faulthandler
import io
import os
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from crosspatch.errors import CrosspatchError
from crosspatch.features.extraction import ExtractionSettings, extract_recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.stimuli import recognise

Rng = np.random.Generator
#: Of so many files, one goes through the whole extraction; of the others, every sweep is read.
WHOLE = 10
MEMORY = 4 << 30


def damaged(content: bytes, rng: Rng) -> bytes:
    """A file with one to three kinds of damage."""
    ways: list[Callable[[bytearray, Rng], bytearray]] = [
        _flip_anywhere,
        _flip_at_the_start,
        _flip_in_a_window,
        _cut_off,
        _overwrite,
        _repeat_or_drop,
        _scatter,
        _change_numbers,
    ]
    if content[:4] == b"\x89HDF":
        ways += [_change_objects] * 8
    else:
        ways += [_change_numbers] * 4
    count = 1 + int(rng.random() < 0.25) + int(rng.random() < 0.1)
    chosen = [ways[rng.integers(len(ways))] for _ in range(count)]
    # HDF5 itself changes objects, which it can only do in files that are not damaged yet.
    chosen.sort(key=lambda way: way is not _change_objects)
    changed = bytearray(content)
    for way in chosen:
        changed = way(changed, rng)
    return bytes(changed)


def _flip(content: bytearray, rng: Rng, first: int, last: int) -> bytearray:
    if last > first:
        for at in rng.integers(first, last, rng.integers(1, 201)):
            content[at] ^= 1 << int(rng.integers(8))
    return content


def _flip_anywhere(content: bytearray, rng: Rng) -> bytearray:
    return _flip(content, rng, 4, len(content))


def _flip_at_the_start(content: bytearray, rng: Rng) -> bytearray:
    return _flip(content, rng, 4, min(4096, len(content)))


def _flip_in_a_window(content: bytearray, rng: Rng) -> bytearray:
    first = int(rng.integers(4, max(len(content) - 4096, 5)))
    return _flip(content, rng, first, min(first + 4096, len(content)))


def _cut_off(content: bytearray, rng: Rng) -> bytearray:
    return content[: int(rng.integers(4, max(len(content), 5)))]


def _overwrite(content: bytearray, rng: Rng) -> bytearray:
    """Blocks of zeros, ones or random bytes."""
    for _ in range(rng.integers(1, 4)):
        first = int(rng.integers(4, max(len(content), 5)))
        length = min(int(2 ** rng.uniform(0, 15)), len(content) - first)
        kind = rng.integers(3)
        block = rng.bytes(max(length, 0)) if kind == 2 else bytes([255 * kind]) * length
        content[first : first + length] = block
    return content


def _repeat_or_drop(content: bytearray, rng: Rng) -> bytearray:
    first = int(rng.integers(4, max(len(content), 5)))
    last = first + int(2 ** rng.uniform(0, 14))
    repeated = content[first:last] * 2 if rng.random() < 0.5 else bytearray()
    return content[:first] + repeated + content[last:]


def _scatter(content: bytearray, rng: Rng) -> bytearray:
    """Random bytes after the right beginning."""
    kept = int(rng.choice([4, 8, 64, 512, 2048]))
    return content[:kept] + rng.bytes(int(2 ** rng.uniform(4, 16)))


def _change_numbers(content: bytearray, rng: Rng) -> bytearray:
    """Odd numbers in place of some in the header."""
    for _ in range(rng.integers(1, 6)):
        at = 2 * int(rng.integers(2, max(min(len(content), 6144) // 2 - 4, 3)))
        odd: Any = rng.choice([0, 1, -1, 7, 100, 1000, 65536, 10**6, 2**31 - 1, -(2**31)])
        number = rng.choice([np.nan, np.inf, 1e38, -1e30, 1e-38, 1e6, 0.5])
        kinds = (struct.pack("<i", int(odd)), struct.pack("<h", int(odd) % 1000))
        new = [*kinds, struct.pack("<f", number)][rng.integers(3)]
        content[at : at + len(new)] = new
    return content


def _change_objects(content: bytearray, rng: Rng) -> bytearray:
    """Groups, data and attributes that HDF5 can read but that make no sense."""
    memory = io.BytesIO(bytes(content))
    with h5py.File(memory, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(rng.integers(1, 5)):
            _change_object(file, names[rng.integers(len(names))], rng)
    return bytearray(memory.getvalue())


def _odd_value(rng: Rng) -> Any:
    values: list[Any] = [
        np.nan,
        np.inf,
        -1.0,
        0.0,
        1e-300,
        1e300,
        1e-3,
        -(2**63),
        2**62,
        "text",
        "",
        b"\xff\xfe",
        np.zeros(0),
        np.full(3, np.nan),
        np.arange(12.0).reshape(3, 4),
        np.array(["a", "b"], dtype=h5py.string_dtype()),
        np.array([2.0]),
        np.int8(-1),
        np.zeros(20_000, np.int16),
        np.random.default_rng(0).normal(0, 40, 9000),
    ]
    return values[rng.integers(len(values))]


def _change_object(file: h5py.File, name: str, rng: Rng) -> None:
    try:
        item = file[name]
    except (KeyError, OSError, RuntimeError):  # behind a link that was broken before
        return
    parent = item.parent
    leaf = name.rsplit("/", 1)[-1]
    kind = rng.integers(9)
    if kind <= 2 and len(item.attrs):
        attribute = sorted(item.attrs)[rng.integers(len(item.attrs))]
        if kind == 0:
            del item.attrs[attribute]
        else:
            odd = _odd_value(rng)
            # An attribute holds 64 kB at most.
            item.attrs[attribute] = odd[:100] if isinstance(odd, np.ndarray) else odd
        return
    attributes = dict(item.attrs)
    del file[name]
    if kind == 3:
        return
    if kind == 4:
        links = ["/", "/general", "/acquisition", f"/{name}", "/nowhere", "."]
        file[name] = h5py.SoftLink(links[rng.integers(len(links))])
    elif kind == 5:
        file[name] = h5py.ExternalLink("nowhere.nwb", "/data")
    elif kind == 6:  # takes no room until it is read
        shape = int(rng.choice([10**4, 10**6, 10**8, 10**9, 10**11]))
        fill = float(rng.choice([0.0, np.nan, 1.0]))
        parent.create_dataset(leaf, (shape,), "f8", chunks=(min(shape, 10**6),), fillvalue=fill)
    elif kind == 7:
        parent.create_dataset(leaf, (rng.integers(1, 30),), h5py.ref_dtype)
    else:
        file[name] = _odd_value(rng)
    if kind > 5:
        file[name].attrs.update(attributes)


def damaged_file(seeds: Path, number: int) -> tuple[str, bytes]:
    """Name of the seed and content of a damaged file."""
    files = sorted(seeds.iterdir())
    rng = np.random.default_rng(number)
    seed = files[rng.integers(len(files))]
    return seed.name, damaged(seed.read_bytes(), rng)


def use(path: Path, number: int) -> bool:
    """Do with a file what the program does; whether it could be used."""
    try:
        with open_recording(path) as recording:
            if number % WHOLE == 0:
                for layout in ("shared", "gouwens"):
                    extract_recording(recording, ExtractionSettings(layout))
                return True
            readable = 0
            for sweep in recording.sweeps:
                for samples in ("voltage", "current"):
                    try:
                        if len(getattr(sweep, samples)) != sweep.points:
                            raise AssertionError(f"sweep {sweep.number} has another length")
                        readable += 1
                    except CrosspatchError as error:
                        _require_clear(error)
            recognise(recording)
            return readable > 0
    except CrosspatchError as error:
        _require_clear(error)
        return False


def _require_clear(error: CrosspatchError) -> None:
    message = str(error)
    if not len(message) > 10 or "\n" in message:
        raise AssertionError(f"not one clear line: {message!r}") from error


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def main() -> None:
    seeds, first, last, limit = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    faulthandler.enable()
    # The first extraction imports much; that is none of the first file's time.
    use(sorted(seeds.iterdir())[0], 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    before = _open_files()
    usable = 0
    for number in range(first, last):
        faulthandler.dump_traceback_later(limit, exit=True)
        seed, content = damaged_file(seeds, number)
        path = seeds.with_name(f"damaged-{first}-{seed}")
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        print(number, seed, flush=True)
        usable += use(path, number)
        faulthandler.cancel_dump_traceback_later()
    if _open_files() > before:
        links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
        raise AssertionError(f"files left open: {links}")
    print("usable", usable)


if __name__ == "__main__":
    main()
