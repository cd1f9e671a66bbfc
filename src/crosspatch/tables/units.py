"""Units of electrophysiology: their spellings, dimensions and sizes."""

from __future__ import annotations

import re

#: Dimension to its units, each with its size in the dimension's first unit.
UNITS: dict[str, dict[str, float]] = {
    "voltage": {"mV": 1.0, "V": 1e3, "uV": 1e-3},
    "current": {"pA": 1.0, "nA": 1e3, "uA": 1e6, "A": 1e12},
    "resistance": {"MOhm": 1.0, "GOhm": 1e3, "kOhm": 1e-3, "Ohm": 1e-6},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
    "rate": {"Hz": 1.0, "kHz": 1e3},
    "slope of the f-I curve": {"Hz/pA": 1.0, "Hz/nA": 1e-3},
    "rate of rise": {"mV/ms": 1.0, "V/ms": 1e3, "mV/s": 1e-3},
    "ratio": {"fraction": 1.0, "%": 1e-2},
    "angle": {"rad": 1.0},
    "area": {"unspecified": 1.0},
}
#: Unit to its dimension.
DIMENSION = {unit: dimension for dimension, units in UNITS.items() for unit in units}

_SPELLINGS = {
    "mV": "millivolt millivolts",
    "V": "volt volts",
    "uV": "microvolt microvolts",
    "pA": "picoamp picoamps picoampere picoamperes",
    "nA": "nanoamp nanoamps nanoampere nanoamperes",
    "uA": "microamp microamps microampere microamperes",
    "A": "amp amps ampere amperes",
    "MOhm": "mohms megohm megohms megaohm megaohms mω",
    "GOhm": "gohms gigaohm gigaohms gigohm gω",
    "kOhm": "kohms kiloohm kiloohms kω",
    "Ohm": "ohms ω",
    "s": "sec secs second seconds",
    "ms": "msec msecs millisecond milliseconds",
    "us": "usec microsecond microseconds",
    "Hz": "hertz 1/s s-1 s^-1 spikes/s spikes/sec spikes/second spike/s ap/s aps/s /s",
    "kHz": "kilohertz",
    "Hz/pA": "spikes/s/pa spikes/sec/pa spike/s/pa ap/s/pa aps/s/pa hzpa-1 hz/picoamp",
    "Hz/nA": "spikes/s/na spikes/sec/na spike/s/na ap/s/na aps/s/na hzna-1",
    "mV/ms": "v/s v/sec mvms-1 vs-1 millivolts/millisecond volts/second",
    "fraction": "ratio unitless dimensionless a.u. au 1 -",
    "%": "percent pct percentage",
    "rad": "radian radians",
}
_BY_SPELLING = {
    spelling: unit
    for unit in DIMENSION
    for spelling in (unit.lower(), *_SPELLINGS.get(unit, "").split())
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
    return f"{value:g}" if unit in ("ratio", "unspecified") else f"{value:g} {unit}"


def span(low: float, high: float, unit: str) -> str:
    """A range with its unit, for a message."""
    return f"{low:g} to {amount(high, unit)}"
