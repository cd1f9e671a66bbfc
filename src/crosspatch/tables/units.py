"""Units of electrophysiology: their spellings, dimensions and sizes."""

from __future__ import annotations

import re

from crosspatch.texts import data_rows

_ROWS = data_rows("tables", "units")

#: Dimension to its units, each with its size in the dimension's first unit.
UNITS: dict[str, dict[str, float]] = {}
for _row in _ROWS:
    UNITS.setdefault(_row["dimension"], {})[_row["unit"]] = float(_row["size"])
#: The unit of what has none, or none that is known.
UNSPECIFIED = "unspecified"
#: Unit to its dimension.
DIMENSION = {row["unit"]: row["dimension"] for row in _ROWS}

_BY_SPELLING = {
    spelling: row["unit"]
    for row in _ROWS
    for spelling in (row["unit"].lower(), *row["spellings"].split())
}
# An Omega that lost its encoding: a question mark, a replacement character, or two letters.
_LOST_OMEGA = re.compile(r"([kMG])(\?+|\ufffd+|Î©|Ω|â„¦|W)")
# A lone letter at the end of a name is a quantity: threshold_v is a voltage, threshold_i a current.
_NOT_AS_SUFFIX = ("V", "A", "fraction")


def parse_unit(text: str, *, suffix: bool = False) -> str | None:
    """The unit that a text is, if it is one; `suffix` where it ends a name without brackets."""
    text = text.strip()
    lost = _LOST_OMEGA.fullmatch(text)
    if lost:
        return f"{lost[1]}Ohm"
    key = text.lower().replace("μ", "u").replace("_per_", "/").replace(" per ", "/")
    key = re.sub(r"[\s·*]", "", key)
    if key.startswith("in") and key[2:] in _BY_SPELLING and not suffix:
        key = key[2:]
    unit = _BY_SPELLING.get(key)
    return None if suffix and unit in _NOT_AS_SUFFIX else unit


def canonical(unit: str) -> str:
    """The unit of this module that a layout's unit is."""
    return _BY_SPELLING[unit.lower()]


def dimension_of(unit: str, operation: str = "plain") -> str:
    """Dimension of a layout's unit, or of the column from which an operation makes its values."""
    dimension = DIMENSION[canonical(unit)]
    if operation == "reciprocal":
        return {"rate": "time", "time": "rate"}.get(dimension, dimension)
    return dimension


def factor_to(ours: str, unit: str, operation: str) -> float:
    """By which a column in a unit is multiplied to be in ours; a reciprocal is taken after."""
    size, our_size = (UNITS[DIMENSION[name]][name] for name in (unit, canonical(ours)))
    return size * our_size if operation == "reciprocal" else size / our_size


def amount(value: float, unit: str) -> str:
    """A value with its unit, for a message."""
    return f"{value:g}" if unit in ("ratio", UNSPECIFIED) else f"{value:g} {unit}"


def span(low: float, high: float, unit: str) -> str:
    """A range with its unit, for a message."""
    return f"{low:g} to {amount(high, unit)}"
