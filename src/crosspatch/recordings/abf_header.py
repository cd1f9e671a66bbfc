"""Guards: what the header of an ABF file says is checked before pyabf believes it."""

from __future__ import annotations

import struct
from pathlib import Path

from crosspatch.errors import RecordingError

#: ABF 2 keeps a table of sections from this byte on: block, bytes per entry, entries.
_SECTIONS_AT = 76
_SECTIONS = 18
#: Bytes.
BLOCK = 512
#: Bytes that pyabf reads of an entry: protocol, inputs, outputs, epochs, epochs of an output, user
#: lists, strings, samples, tags, sweeps.
_ENTRY = {0: 208, 1: 82, 2: 132, 3: 4, 5: 30, 6: 12, 9: 1, 10: 2, 11: 64, 15: 8}
_STRINGS, _SAMPLES = 9, 10
_TAG_ENTRY, _SYNCH_ENTRY = 64, 8
#: Sections whose entries pyabf handles one by one, and more entries than a recording has.
_ONE_BY_ONE = _ENTRY.keys() - {_SAMPLES}
_MAX_ENTRIES = 50_000
_MAX_TEXT = 1 << 20


def damaged(path: Path, problem: str) -> RecordingError:
    """What is raised for a header that cannot be true."""
    return RecordingError(f"{path} is a damaged ABF file: {problem}")


def check_header(path: Path) -> None:
    """Refuse counts that cannot be true before pyabf makes lists of that length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_SECTIONS_AT + _SECTIONS * 16)
    if len(head) < _SECTIONS_AT + _SECTIONS * 16:
        problem: str | None = f"it ends after {len(head)} bytes, inside its header"
    elif head[:4] == b"ABF2":
        problem = _problem_of_2(head, size)
    else:
        problem = _problem_of_1(head, size)
        if head[100:102] == b"\1\0":
            raise RecordingError(
                f"{path} is ABF 1 with floating-point samples, which pyabf does not read; "
                "save it with integer samples or as ABF 2"
            )
    if problem:
        raise damaged(path, problem)


def _problem_of_2(head: bytes, size: int) -> str | None:
    sweeps = struct.unpack_from("<I", head, 12)[0]
    if sweeps > _MAX_ENTRIES:
        return f"its header names {sweeps:,} sweeps"
    problems = (_problem_of_section(section, head, size) for section in range(_SECTIONS))
    return next(filter(None, problems), None)


def _problem_of_section(section: int, head: bytes, size: int) -> str | None:
    block, width, count = struct.unpack_from("<IIq", head, _SECTIONS_AT + 16 * section)
    end = block * BLOCK + width * count
    if not 0 <= count <= size or width > size or end > size:
        return f"section {section} of its header lies outside the file; it was cut short"
    if count and width < _ENTRY.get(section, 0):
        return f"section {section} of its header has entries of {width} bytes"
    if section in _ONE_BY_ONE and count > _MAX_ENTRIES:
        return f"section {section} of its header has {count:,} entries"
    if section == _STRINGS and width * count > _MAX_TEXT:
        return f"its header has {width * count:,} bytes of text"
    return None


def _problem_of_1(head: bytes, size: int) -> str | None:
    points = struct.unpack_from("<i", head, 10)[0]
    sweeps = struct.unpack_from("<i", head, 16)[0]
    if not 0 <= points <= size:
        return f"its header names {points:,} samples; it was cut short"
    if not 0 <= sweeps <= _MAX_ENTRIES:
        return f"its header names {sweeps:,} sweeps"
    for name, at, width in (("tags", 44, _TAG_ENTRY), ("sweep times", 92, _SYNCH_ENTRY)):
        block, count = struct.unpack_from("<ii", head, at)
        if not 0 <= count <= _MAX_ENTRIES:
            return f"its header names {count:,} {name}"
        if count and not 0 <= block * BLOCK + width * count <= size:
            return f"its {name} lie outside the file; it was cut short"
    return None
