"""The columns of another laboratory's feature table: which feature each is, and in which unit."""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from crosspatch.errors import CohortError, in_words
from crosspatch.features.layouts import SCALAR_LAYOUTS, Feature, Layout, load_layout

#: What a mapping file may say of a column besides a feature.
SPECIAL = ("ignore", "cell_id", "species")

#: How a feature is computed; a difference takes two columns, the others one.
OPERATIONS = ("plain", "difference", "negated", "reciprocal", "one_minus")

# Dimension to its units, each with its size in the dimension's first unit.
_UNITS: dict[str, dict[str, float]] = {
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
    for units in _UNITS.values()
    for unit in units
    for spelling in (unit.lower(), *_SPELLINGS.get(unit, "").split())
}
_DIMENSION = {unit: dimension for dimension, units in _UNITS.items() for unit in units}
# An Omega that lost its encoding: a question mark, a replacement character, or two letters.
_LOST_OMEGA = re.compile(r"([kMG])(\?+|\ufffd+|Î©|Ω|â„¦|W)")
# A lone letter at the end of a name is a quantity: threshold_v is a voltage, threshold_i a current.
_NOT_AS_SUFFIX = {"V", "A", "-", "1", "ratio", "fraction"}

_STIMULI = {
    ("long", "square"): "long_square",
    ("longsquare",): "long_square",
    ("short", "square"): "short_square",
    ("shortsquare",): "short_square",
    ("ramp",): "ramp",
    ("hero",): "hero",
    ("rheo",): "rheo",
    ("rheobase",): "rheo",
    ("rheobasic",): "rheo",
}
# Of a spike train, the sweep that is meant where none is named.
_HERO = ("adapt", "avg_rate", "first_isi_inv", "isi_cv", "mean_isi", "median_isi")
_FILLERS = {"the", "of", "at", "in", "for", "during", "from", "on"}
_ABSOLUTE = {"peak_v": "peak_deltav", "fast_trough_v": "fast_trough_deltav"} | {
    "trough_v": "trough_deltav"
}

# How exactly a column says what it is; the highest gives the feature.
_MAPPED, _NAMED, _DIFFERENCE, _BARE, _LOOSE = 4, 3, 2, 1, 0
_WHY_LOWER = {
    _DIFFERENCE: "is a difference of two columns",
    _BARE: "does not name its stimulus",
    _LOOSE: "is defined otherwise",
}

_MISSING = {"", "na", "n/a", "n.a", "nan", "-", "--", ".", "null", "none", "<na>", "nat", "#n/a"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")

# Share of the filled cells that must be numbers, and rows over which two columns must agree.
_NUMERIC_SHARE = 0.5
_AGREEING_SHARE = 0.95
_AGREEMENT = 1e-3
# Share of impossible zeros from which a table is taken to write 0 for missing.
_ZEROS_FOR_MISSING = 0.01


@dataclass(frozen=True)
class Counted:
    """Values of a column that were taken as missing.

    Attributes
    ----------
    reasons : tuple of (str, int, str)
        Why, how many, and the first of them as it stands in the table.
    """

    reasons: tuple[tuple[str, int, str], ...] = ()

    @property
    def total(self) -> int:
        """How many values."""
        return sum(count for _, count, _ in self.reasons)

    def __add__(self, other: Counted) -> Counted:
        """Both together, as for two chunks of one table."""
        reasons = {why: (count, example) for why, count, example in self.reasons}
        for why, count, example in other.reasons:
            before, first = reasons.get(why, (0, example))
            reasons[why] = (before + count, first)
        return Counted(tuple((why, *found) for why, found in reasons.items()))

    def __str__(self) -> str:
        return "; ".join(
            f"{count} {why}" + ("" if why.startswith("exactly 0") else f", such as '{example}'")
            for why, count, example in self.reasons
        )


@dataclass(frozen=True)
class Ambiguity:
    """A column that may be one of several features."""

    column: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Taken:
    """A feature and the column or columns that give it.

    Attributes
    ----------
    feature : str
    columns : tuple of str
        One column, or two where the feature is the first less the second.
    unit : str
        Unit in the source; that of the first column for a difference.
    factor : float
        By which the column is multiplied; a reciprocal is taken after.
    how : str
        How column and unit were recognised.
    operation : str
        One of `OPERATIONS`.
    our_unit : str
        Unit of the layout.
    second_factor : float
        Factor of the second column of a difference.
    comma : tuple of bool
        Of each column, whether it is written with decimal commas.
    no_zero : tuple of bool
        Of each column, whether an exact 0 stands for a missing value.
    limits : tuple of float
        Least and greatest possible value, in our unit; others are taken as missing.
    """

    feature: str
    columns: tuple[str, ...]
    unit: str
    factor: float
    how: str
    operation: str = "plain"
    our_unit: str = ""
    second_factor: float = 1.0
    comma: tuple[bool, ...] = (False,)
    no_zero: tuple[bool, ...] = (True,)
    limits: tuple[float, float] = (-np.inf, np.inf)

    @property
    def source(self) -> str:
        """The columns and what is done with them, in words."""
        names = [f"'{name}'" for name in self.columns]
        return {
            "difference": " less ".join(names),
            "negated": f"minus {names[0]}",
            "reciprocal": f"1 / {names[0]}",
            "one_minus": f"1 less {names[0]}",
        }.get(self.operation, names[0])

    def combine(self, columns: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """The feature's values, in our unit, from those of the columns."""
        values = columns[0] * self.factor
        if self.operation == "difference":
            return values - columns[1] * self.second_factor
        if self.operation == "negated":
            return -values
        if self.operation == "one_minus":
            return 1 - values
        if self.operation == "reciprocal":
            return 1 / np.where(values == 0, np.nan, values)
        return values


@dataclass(frozen=True)
class Override:
    """What a mapping file says of a column.

    Attributes
    ----------
    target : str
        A feature, an absolute potential such as ``peak_v_rheo``, or one of `SPECIAL`.
    unit : str, optional
        Unit of the column; taken from its name or its values if not given.
    operation : str, optional
        ``plain``, ``negated``, ``reciprocal`` or ``one_minus``.
    """

    target: str
    unit: str | None = None
    operation: str | None = None


@dataclass(frozen=True)
class Overrides:
    """Contents of a mapping file: column name to what it is."""

    name: str
    columns: dict[str, Override]


@dataclass(frozen=True)
class ColumnMap:
    """What became of every column of a table.

    Attributes
    ----------
    layout : Layout
    cell_id, species : str, optional
        Columns that name a cell and its species.
    taken : tuple of Taken
        In the order of the layout.
    refused : tuple of (str, str)
        Column, and why together with what to write in the mapping file.
    ambiguous : tuple of Ambiguity
        Those of `refused` that may be one of several features.
    unused : tuple of (str, str)
        Column that was understood and is not needed, and why.
    labels : tuple of str
        Columns that are never features.
    unknown : tuple of str
        Columns of numbers that were not understood.
    """

    layout: Layout
    cell_id: str | None
    species: str | None
    taken: tuple[Taken, ...]
    refused: tuple[tuple[str, str], ...] = ()
    ambiguous: tuple[Ambiguity, ...] = ()
    unused: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Features of the layout that no column gives."""
        given = {taken.feature for taken in self.taken}
        return tuple(name for name in self.layout.feature_names if name not in given)

    def values(self, frame: pd.DataFrame) -> tuple[NDArray[np.float32], dict[str, Counted]]:
        """The features of some rows of the table.

        Parameters
        ----------
        frame : DataFrame
            Rows with the columns of the table, as text or numbers.

        Returns
        -------
        values : array of float32, shape (cells, features)
            In the layout's units, NaN where missing.
        counted : dict
            Column to the values taken as missing; columns without any are left out.

        Raises
        ------
        CohortError
            If a column that gives a feature is not there.
        """
        result = np.full((len(frame), len(self.layout.features)), np.nan, dtype=np.float32)
        place = {name: index for index, name in enumerate(self.layout.feature_names)}
        read: dict[str, _Column] = {}
        counted: dict[str, Counted] = {}
        names = {str(name): name for name in frame.columns}
        for taken in self.taken:
            parts = []
            settings = zip(taken.columns, taken.comma, taken.no_zero, strict=True)
            for name, comma, no_zero in settings:
                if name not in read:
                    if name not in names:
                        raise CohortError(
                            f"column '{name}' is missing from some rows of the table; every part "
                            "of a table must have the same columns"
                        )
                    read[name] = _read(frame[names[name]], comma=comma, no_zero=no_zero)
                    counted[name] = read[name].counted
                parts.append(read[name].numbers)
            values = taken.combine(parts)
            low, high = taken.limits
            outside = np.isfinite(values) & ((values < low) | (values > high))
            if outside.any():
                first = taken.columns[0]
                why = f"outside {_span(low, high, taken.our_unit)}"
                example = _shown(frame[names[first]].iloc[int(np.flatnonzero(outside)[0])])
                counted[first] += Counted(((why, int(outside.sum()), example),))
                values = np.where(outside, np.nan, values)
            result[:, place[taken.feature]] = values
        return result, {name: found for name, found in counted.items() if found.total}

    def report(self) -> list[tuple[str, str, str]]:
        """What became of every column, for a table.

        Returns
        -------
        list of (str, str, str)
            What became of it (``taken``, ``refused``, ``unused``, ``never features``,
            ``not understood``, ``missing``, ``cell id``, ``species``), the features or columns,
            and the details.
        """
        rows = []
        if self.cell_id is not None:
            rows.append(("cell id", self.cell_id, ""))
        if self.species is not None:
            rows.append(("species", self.species, ""))
        for taken in self.taken:
            unit = taken.unit if taken.unit == taken.our_unit else f"{taken.unit}, taken as"
            unit += "" if taken.unit == taken.our_unit else f" {taken.our_unit}"
            rows.append(("taken", taken.feature, f"{taken.source} in {unit} ({taken.how})"))
        rows += [("refused", column, why) for column, why in self.refused]
        rows += [("unused", column, why) for column, why in self.unused]
        if self.labels:
            rows.append(("never features", ", ".join(self.labels), ""))
        rows += [
            ("not understood", column, f"if it is a feature, write {_entry(column, 'FEATURE')}")
            for column in self.unknown
        ]
        if self.missing:
            rows.append(("missing", ", ".join(self.missing), ""))
        return rows

    def lines(self) -> list[str]:
        """`report` as lines of text."""
        # A header may be of several lines, as spreadsheets have them.
        return [
            re.sub(r"[\r\n]+", " ", f"{status}: {name}" + (f": {details}" if details else ""))
            for status, name, details in self.report()
        ]


# ---------------------------------------------------------------------------------------------
# The table of names


@dataclass(frozen=True)
class _Range:
    """What values of a feature are plausible, in our unit."""

    #: Of the median.
    low: float
    high: float
    #: Least size of a median from whose value alone a unit may be told.
    floor: float
    #: Of a single value.
    least: float
    most: float
    #: Whether an exact 0 stands for a missing value.
    no_zero: bool


@dataclass(frozen=True)
class _Name:
    """What a name means."""

    means: str
    operation: str
    vocabulary: str
    note: str


@dataclass(frozen=True)
class _Names:
    ranges: dict[str, _Range] = field(default_factory=dict)
    name: dict[str, list[_Name]] = field(default_factory=dict)
    either: dict[str, _Name] = field(default_factory=dict)
    unlike: dict[str, _Name] = field(default_factory=dict)
    unlike_there: dict[str, _Name] = field(default_factory=dict)
    label: set[str] = field(default_factory=set)
    cell_id: list[str] = field(default_factory=list)
    species: list[str] = field(default_factory=list)


@cache
def _names() -> _Names:
    text = (files("crosspatch.cohorts") / "data" / "column_names.csv").read_text(encoding="utf-8")
    names = _Names()
    for row in csv.DictReader(text.splitlines()):
        kind, name = row["kind"], row["name"]
        meaning = _Name(row["means"], row["operation"], row["vocabulary"], row["note"])
        key = _key(_words(name))
        if kind == "range":
            low, high, least, most = (float(row[c]) for c in ("low", "high", "least", "most"))
            floor = float(row["floor"] or 0)
            names.ranges[name] = _Range(low, high, floor, least, most, row["zero"] == "missing")
        elif kind == "name":
            names.name.setdefault(key, []).append(meaning)
        elif kind == "either":
            names.either[key] = meaning
        elif kind == "unlike" and meaning.vocabulary:
            # Told apart from other names of the same words by its very spelling.
            names.unlike_there[name] = meaning
        elif kind == "unlike":
            names.unlike[key] = meaning
        elif kind == "label":
            names.label.add(name)
        elif kind == "cell_id":
            names.cell_id.append(key)
        else:
            names.species.append(key)
    return names


@cache
def _features() -> dict[str, Feature]:
    """Every feature of a scalar layout, and the potentials that differences are made of."""
    features = {f.name: f for name in SCALAR_LAYOUTS for f in load_layout(name).features}
    for absolute in _ABSOLUTE:
        for stimulus in ("rheo", "hero", "ramp", "short_square"):
            name = f"{absolute}_{stimulus}"
            features.setdefault(name, Feature(name, "", "mV"))
    return features


@cache
def _own_names() -> dict[str, str]:
    return {_key(_words(name)): name for name in _features()}


@cache
def _stems() -> dict[str, str]:
    """Own names without their stimulus, by key."""
    stems = (_stem(name) for name in _features())
    return {_key(_words(stem)): stem for stem in stems}


def _stem(feature: str) -> str:
    pattern = r"_(rheo|hero|ramp|short_square|mean|max|chirp)$"
    return "rheobase_i" if feature == "rheobase_i" else re.sub(pattern, "", feature)


def _range_of(feature: str) -> _Range:
    ranges = _names().ranges
    if feature in ranges:
        return ranges[feature]
    stem = re.sub(r"_5spike$", "", _stem(feature))
    return ranges[stem]


def _words(text: str) -> list[str]:
    """The words of a name, in lower case, with its usual variants made one."""
    # The Allen Cell Types Database marks its features so.
    text = re.sub(r"^ef__", "", text)
    text = re.sub(r"\bAPs\b", "AP", text)
    text = re.sub(r"\b1st\b", "first", text, flags=re.IGNORECASE)
    text = re.sub("[τΤ]", " tau ", text)
    text = re.sub("[δΔ∆]", " delta ", text)
    found = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", text)
    words = [word.lower() for word in found]
    words = [word for word in words if word not in _FILLERS]
    result: list[str] = []
    for word in words:
        if word in {"spike", "spikes", "aps"}:
            result.append("ap")
        elif word in {"potential", "potentials"} and result and result[-1] == "action":
            result[-1] = "ap"
        elif word == "1" and result == ["ap"]:
            continue
        else:
            result.append(word)
        if result[-2:] == ["first", "ap"] and len(result) == 2:
            result = ["ap"]
    return result


def _key(words: Iterable[str]) -> str:
    return "".join(words)


def _unit(text: str, *, suffix: bool = False) -> str | None:
    """The unit that a text is, if it is one."""
    text = text.strip()
    lost = _LOST_OMEGA.fullmatch(text)
    if lost:
        return f"{lost[1]}Ohm"
    key = text.lower().replace("μ", "u").replace("_per_", "/").replace(" per ", "/")
    key = re.sub(r"[\s·*]", "", key)
    if key.startswith("in") and key[2:] in _BY_SPELLING and not suffix:
        key = key[2:]
    unit = _BY_SPELLING.get(key)
    return None if suffix and (unit in _NOT_AS_SUFFIX or key in _NOT_AS_SUFFIX) else unit


@dataclass(frozen=True)
class _Reading:
    """One way to read a header."""

    words: tuple[str, ...]
    unit: str | None
    raw: str


def _readings(header: str) -> list[_Reading]:
    """Ways to read a header, the likeliest first."""
    # NFKC would turn a mis-encoded Omega into plain letters, so brackets are read before.
    header = re.sub(r"\s+", " ", header)
    groups = re.findall(r"[(\[{]([^()\[\]{}]*)[)\]}]", header)
    main = re.sub(r"[(\[{][^()\[\]{}]*[)\]}]", " ", header)
    unit = None
    for group in groups:
        found = _unit(group) or _unit(unicodedata.normalize("NFKC", group))
        if found is not None and unit is None:
            unit = found
        else:
            main = f"{main} {group}"
    main = unicodedata.normalize("NFKC", main)
    raw = main.strip().lower()
    readings = [_Reading(tuple(_words(main)), unit, raw)]
    if unit is not None:
        return readings
    # A unit at the end: tau_ms, "tau, ms", slope_hz_per_pa.
    patterns = (
        r"^(.+?)[\s_,;:.-]+([A-Za-zμΩ]+_per_[A-Za-zμΩ]+)$",
        r"^(.+?)[\s_,;:.-]+(?:in[\s_]+)?([^\s_,;:]+)$",
    )
    for pattern in patterns:
        match = re.match(pattern, main.strip())
        found = _unit(match[2], suffix=True) if match else None
        if match and found is not None:
            readings.append(_Reading(tuple(_words(match[1])), found, match[1].lower()))
    return readings


def _without_stimulus(words: tuple[str, ...]) -> list[tuple[tuple[str, ...], str | None]]:
    """The words, and the words without the stimulus they name."""
    ways: list[tuple[tuple[str, ...], str | None]] = [(words, None)]
    for size in (2, 1):
        for start in range(len(words) - size + 1):
            stimulus = _STIMULI.get(words[start : start + size])
            rest = words[:start] + words[start + size :]
            if stimulus is not None and rest:
                # "rheobase long square" names one sweep twice.
                for other in range(len(rest)):
                    if stimulus == "long_square" and _STIMULI.get(rest[other : other + 1]):
                        again = rest[:other] + rest[other + 1 :]
                        ways.append((again, _STIMULI[rest[other : other + 1]]))
                ways.append((rest, stimulus))
    return ways


# ---------------------------------------------------------------------------------------------
# What a header means


@dataclass(frozen=True)
class _Meaning:
    """What a header was understood to be.

    Attributes
    ----------
    kind : str
        ``feature``, ``either`` or ``unlike``.
    features : tuple of str
        The feature, or those it may be.
    """

    kind: str
    features: tuple[str, ...] = ()
    operation: str = "plain"
    level: int = _NAMED
    unit: str | None = None
    note: str = ""
    how: str = ""


def _vocabularies(headers: list[str]) -> set[str]:
    """Whose names a table uses, where that settles what a bare name means."""
    signs: Counter[str] = Counter()
    for header in headers:
        for reading in _readings(header):
            found = None
            for words, stimulus in _without_stimulus(reading.words):
                for name in _names().name.get(_key(words), []):
                    found = found or name.vocabulary or None
                stem = _stems().get(_key(words))
                if stimulus is not None and (stem in _ABSOLUTE or stem == "threshold_v"):
                    found = "allen"
            if _own_names().get(_key(reading.words)) == "vm_for_sag":
                found = "allen"
            if found:
                signs[found] += 1
                break
    known = set()
    # One name may be a coincidence; "adaptation" alone says little.
    if signs["allen"] and signs["allen"] + signs["weak"] >= 2:
        known.add("allen")
    if signs["efel"] >= 1:
        known.add("efel")
    return known


def _meaning(header: str, vocabularies: set[str]) -> _Meaning | None:
    """What a header means; None if it is not understood."""
    for reading in _readings(header):
        found = _meaning_of(reading, vocabularies)
        if found is not None:
            return found
    return None


def _meaning_of(reading: _Reading, vocabularies: set[str]) -> _Meaning | None:
    names, key = _names(), _key(reading.words)
    there = names.unlike_there.get(re.sub(r"\s+", "_", reading.raw))
    if there is not None and there.vocabulary in vocabularies:
        candidates = _candidates_of(key)
        return _Meaning("unlike", candidates, unit=reading.unit, note=there.note)
    own = _own_names().get(key)
    if own is not None:
        return _Meaning("feature", (own,), unit=reading.unit, how="our own name")
    for words, stimulus in _without_stimulus(reading.words):
        short = _key(words)
        if short in names.unlike:
            return _Meaning("unlike", unit=reading.unit, note=names.unlike[short].note)
        stem = _stems().get(short)
        options = [_Name(stem, "", "", "")] if stem else []
        options += names.name.get(short, [])
        for option in options:
            found = _placed(option, stimulus, reading.unit)
            if found is not None:
                return found
        either = names.either.get(short)
        if either is not None:
            return _chosen(either, stimulus, reading.unit, vocabularies)
    return None


def _candidates_of(key: str) -> tuple[str, ...]:
    for option in _names().name.get(key, []):
        placed = _placed(option, None, None)
        if placed is not None:
            return placed.features
    return ()


def _placed(option: _Name, stimulus: str | None, unit: str | None) -> _Meaning | None:
    """The feature that a quantity is at a stimulus; None where there is no such feature."""
    stem, features = option.means, _features()
    loose = option.operation == "loose"
    operation = "plain" if loose else option.operation or "plain"
    how, note = "", option.note
    if stem in features and _stem(stem) == stem:
        # A quantity that needs no stimulus; rheobase is by itself of the long square.
        if stimulus not in (None, "long_square", "rheo"):
            return None
        feature, level = stem, _NAMED
    elif stem == "threshold_i":
        of = {"long_square": "rheobase_i", "rheo": "rheobase_i", "ramp": "threshold_i_ramp"}
        if stimulus is None:
            return _Meaning("feature", ("rheobase_i",), operation, _BARE, unit, note)
        if stimulus not in of:
            return _Meaning("unlike", unit=unit, note="no feature of a layout")
        feature, level = of[stimulus], _NAMED
    elif stem == "latency":
        if stimulus not in ("rheo", "hero"):
            return None
        feature, level = f"latency_{stimulus}", _NAMED
    elif stem in _HERO:
        named = stimulus not in (None, "long_square")
        feature, level = f"{stem}_{stimulus if named else 'hero'}", _NAMED if named else _BARE
        how = "" if named else "no sweep named, taken as the hero sweep's"
    else:
        at = {None: "rheo", "long_square": "rheo"}.get(stimulus, stimulus)
        feature, level = f"{stem}_{at}", _BARE if stimulus is None else _NAMED
        how = "no stimulus named, taken as the rheobase sweep's" if stimulus is None else ""
    if feature not in features:
        made = stem in _HERO or f"{stem}_rheo" in features or f"{stem}_hero" in features
        return _Meaning("unlike", unit=unit, note="no feature of a layout") if made else None
    if loose:
        level = _LOOSE
    how = "; ".join(part for part in (how, note) if part)
    return _Meaning("feature", (feature,), operation, level, unit, note, how)


def _chosen(
    either: _Name, stimulus: str | None, unit: str | None, vocabularies: set[str]
) -> _Meaning:
    """Which of several features a name is, if stimulus, vocabulary or unit say so."""
    features = tuple(either.means.split())
    if stimulus not in (None, "long_square"):
        named = tuple(dict.fromkeys(f"{_stem(name)}_{stimulus}" for name in features))
        features = tuple(name for name in named if name in _features())
        if not features:
            return _Meaning("unlike", unit=unit, note="no feature of a layout")
        if len(features) < len(named):
            features = tuple(either.means.split())
    elif either.vocabulary in vocabularies:
        how = "as the other names of the Allen Institute's tables"
        return _Meaning("feature", features[:1], level=_BARE, unit=unit, how=how)
    if unit is not None:
        fitting = tuple(n for n in features if _dimension(_features()[n].unit) == _DIMENSION[unit])
        features = fitting or features
    if len(features) == 1:
        level = _BARE if stimulus is None else _NAMED
        return _Meaning("feature", features, level=level, unit=unit)
    return _Meaning("either", features, unit=unit)


def _dimension(unit: str) -> str:
    return _DIMENSION[_BY_SPELLING[unit.lower()]]


def _size(unit: str) -> float:
    canonical = _BY_SPELLING[unit.lower()]
    return _UNITS[_DIMENSION[canonical]][canonical]


# ---------------------------------------------------------------------------------------------
# Numbers from a column


@dataclass(frozen=True)
class _Column:
    """A column as numbers.

    Attributes
    ----------
    numbers : array of float, NaN where missing
    counted : Counted
        What was taken as missing.
    filled : int
        Cells that hold anything.
    """

    numbers: NDArray[np.float64]
    counted: Counted
    filled: int

    @property
    def share(self) -> float:
        """Share of the filled cells that are numbers."""
        bad = sum(count for why, count, _ in self.counted.reasons if why == _NOT_A_NUMBER)
        return (self.filled - bad) / self.filled if self.filled else 0.0


_NOT_A_NUMBER = "not a number"


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 30 else f"{text[:29]}…"


def _texts(series: pd.Series) -> NDArray[np.object_]:
    """Text of every cell, empty where missing."""
    missing = series.isna().to_numpy(dtype=bool)
    texts = np.array([str(value).strip() for value in series], dtype=object)
    texts[missing] = ""
    return texts


def _read(series: pd.Series, *, comma: bool = False, no_zero: bool = False) -> _Column:
    """The numbers of a column of text or numbers."""
    examples: dict[str, tuple[int, str]] = {}

    def count(why: str, bad: NDArray[np.bool_]) -> None:
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            examples[why] = (int(bad.sum()), _shown(series.iloc[first]))

    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        numbers = series.to_numpy(dtype=float, na_value=np.nan).copy()
        filled = int(np.sum(~np.isnan(numbers)))
    else:
        numbers, filled, bad = _from_text(_texts(series), comma)
        count(_NOT_A_NUMBER, bad)
    infinite = np.isinf(numbers)
    count("infinite", infinite)
    numbers[infinite] = np.nan
    if no_zero:
        zero = numbers == 0
        count("exactly 0, which stands for a missing value", zero)
        numbers[zero] = np.nan
    reasons = tuple((why, *found) for why, found in examples.items())
    return _Column(numbers, Counted(reasons), filled)


def _from_text(
    texts: NDArray[np.object_], comma: bool
) -> tuple[NDArray[np.float64], int, NDArray[np.bool_]]:
    numbers = np.full(len(texts), np.nan)
    bad = np.zeros(len(texts), dtype=bool)
    filled = 0
    for index, text in enumerate(texts):
        if text.lower().rstrip(".") in _MISSING or text.lower() in _MISSING:
            continue
        filled += 1
        text = text.replace("\u2212", "-")
        if comma and _COMMA.fullmatch(text):
            numbers[index] = float(text.replace(",", "."))
        elif not comma and _NUMBER.fullmatch(text):
            numbers[index] = float(text)
        elif _INFINITE.fullmatch(text):
            numbers[index] = np.inf
        else:
            bad[index] = True
    return numbers, filled, bad


def _comma_style(series: pd.Series) -> str:
    """``decimal``, ``unclear`` (may be thousands) or empty, for how commas are used."""
    if pd.api.types.is_numeric_dtype(series.dtype):
        return ""
    texts = [text.replace("\u2212", "-") for text in _texts(series)]
    texts = [text for text in texts if text.lower() not in _MISSING]
    with_comma = [text for text in texts if "," in text]
    if not with_comma or not all(_COMMA.fullmatch(text) for text in texts):
        unclear = [text for text in texts if _THOUSANDS.fullmatch(text)]
        return "unclear" if unclear and len(unclear) == len(with_comma) else ""
    return "unclear" if all(_THOUSANDS.fullmatch(text) for text in with_comma) else "decimal"


def _span(low: float, high: float, unit: str) -> str:
    shown = "" if unit in ("ratio", "unspecified") else f" {unit}"
    return f"{low:g} to {high:g}{shown}"


def _entry(column: str, feature: str, unit: str | None = None) -> str:
    """Where to write which line of a mapping file."""
    return f"{_line(column, feature, unit)} in the mapping file"


def _line(column: str, feature: str, unit: str | None = None) -> str:
    """The line of a mapping file that says what a column is."""
    escaped = column.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    what = f"{{feature: {feature}, unit: {_quoted(unit)}}}" if unit else feature
    return f"""'"{escaped}": {what}'"""


def _quoted(unit: str) -> str:
    return f'"{unit}"' if unit == "%" else unit


class _Table:
    """The first rows of a table; every column is read once."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.headers = [str(name) for name in frame.columns]
        self._place = {name: place for place, name in enumerate(self.headers)}
        #: Whether the table writes 0 where a value is missing.
        self.zeros_for_missing = False
        self._commas: dict[str, str] = {}
        self._read: dict[str, _Column] = {}

    def series(self, column: str) -> pd.Series:
        return self.frame.iloc[:, self._place[column]]

    def commas(self, column: str) -> str:
        if column not in self._commas:
            self._commas[column] = _comma_style(self.series(column))
        return self._commas[column]

    def read(self, column: str) -> _Column:
        if column not in self._read:
            comma = self.commas(column) == "decimal"
            self._read[column] = _read(self.series(column), comma=comma)
        return self._read[column]

    def settle_zeros(self, columns: Iterable[str]) -> None:
        """Look for zeros in columns that cannot be 0: there 0 stands for missing everywhere."""
        least = max(1, _ZEROS_FOR_MISSING * len(self.frame))
        zeros = [np.sum(self.read(column).numbers == 0) for column in columns]
        self.zeros_for_missing = sum(count >= least for count in zeros) >= 2


# ---------------------------------------------------------------------------------------------
# Units from values


@dataclass(frozen=True)
class _Candidate:
    """A column that may give a feature."""

    column: str
    feature: str
    operation: str
    level: int
    unit: str | None
    how: str
    #: Whether the unit was given in the mapping file, and may be implausible.
    certain: bool = False


@dataclass(frozen=True)
class _Fitted:
    """A candidate whose unit is known, with its values in the first rows."""

    taken: Taken
    numbers: NDArray[np.float64]
    level: int


def _with_unit(
    candidate: _Candidate, unit: str, numbers: NDArray[np.float64]
) -> tuple[str, float, NDArray[np.float64]]:
    """Operation, factor and values in our unit, if the column is in a unit."""
    ours = _features()[candidate.feature].unit
    operation, size = candidate.operation, _UNITS[_DIMENSION[unit]][unit]
    factor = size * _size(ours) if operation == "reciprocal" else size / _size(ours)
    if operation == "sign":
        operation = "negated" if np.nanmedian(numbers) > 0 else "plain"
    taken = Taken(candidate.feature, (candidate.column,), unit, factor, "", operation)
    return operation, factor, taken.combine([numbers])


def _source_dimension(candidate: _Candidate) -> str:
    dimension = _dimension(_features()[candidate.feature].unit)
    if candidate.operation == "reciprocal":
        return {"rate": "time", "time": "rate"}.get(dimension, dimension)
    return dimension


def _fits(values: NDArray[np.float64], feature: str, unit: str, *, told: bool) -> bool:
    """Whether the values are plausible; more strictly where the unit is told from them."""
    allowed = _range_of(feature)
    median = float(np.nanmedian(values))
    if not allowed.low <= median <= allowed.high:
        return False
    if told:
        return True
    if abs(median) < allowed.floor:
        return False
    if _DIMENSION[unit] == "ratio":
        # Few per cent look like a fraction: a unit counts only if the largest values allow it.
        large = float(np.nanquantile(np.abs(values), 0.95))
        if unit == "%":
            return large * 100 > max(allowed.high, 1)
        return large <= max(allowed.most, 1)
    return True


def _fit(candidate: _Candidate, table: _Table) -> _Fitted | str:
    """Settle a candidate's unit, or say why it is refused and what to do."""
    column, feature = candidate.column, candidate.feature
    ours, allowed = _features()[feature].unit, _range_of(feature)
    style = table.commas(column)
    if style == "unclear":
        return (
            "its commas may be decimal commas or thousands; write the column with points and "
            "without thousands separators"
        )
    comma = style == "decimal"
    no_zero = allowed.no_zero or table.zeros_for_missing or candidate.operation == "reciprocal"
    read = table.read(column)
    if no_zero:
        read = replace(read, numbers=np.where(read.numbers == 0, np.nan, read.numbers))
    if read.filled == 0:
        return "it holds no values"
    if read.share < _NUMERIC_SHARE:
        found = next((f", such as '{r[2]}'" for r in read.counted.reasons), "")
        return f"most of its values are not numbers{found}; correct them"
    if not np.isfinite(read.numbers).any():
        return (
            f"it holds no values ({read.counted})" if read.counted.total else "it holds no values"
        )
    dimension = _source_dimension(candidate)
    known = candidate.unit
    if known is not None and _DIMENSION[known] != dimension:
        return (
            f"says {known}, but {feature} is a {dimension}; if the name is right, write "
            f"{_entry(column, feature, next(iter(_UNITS[dimension])))}"
        )
    results = {unit: _with_unit(candidate, unit, read.numbers) for unit in _UNITS[dimension]}
    told = known is not None
    fitting = [unit for unit, r in results.items() if _fits(r[2], feature, unit, told=False)]
    how = [candidate.how] if candidate.how else []
    median = float(np.nanmedian(read.numbers))
    span = _span(allowed.low, allowed.high, ours)
    if known is not None:
        values = results[known][2]
        plausible = _fits(values, feature, known, told=True)
        would = float(np.nanmedian(values))
        if not plausible and not candidate.certain:
            others = [unit for unit in fitting if unit != known]
            what = (
                f"; if it is {others[0]}, write {_entry(column, feature, others[0])}"
                if others
                else f"; if it is right all the same, write {_entry(column, feature, known)}"
            )
            return (
                f"says {known}, but its median {median:g} would be {_amount(would, ours)} of "
                f"{feature}, outside {span}{what}"
            )
        if not plausible:
            how.append(f"its median {_amount(would, ours)} is outside {span}")
        unit = known
    elif len(fitting) == 1:
        unit = fitting[0]
        if len(results) > 1:
            how.append("unit from the values")
    elif fitting:
        return (
            f"its median {median:g} may be in {' or '.join(fitting)}; write "
            f"{_entry(column, feature, fitting[0])}, or with the unit it has"
        )
    else:
        return _implausible(candidate, median, list(results))
    operation, factor, values = results[unit]
    if comma:
        how.append("decimal commas")
    limits = (allowed.least, allowed.most)
    outside = (values < limits[0]) | (values > limits[1])
    if np.sum(outside) > np.sum(np.isfinite(values)) / 2:
        return (
            f"most of its values are outside {_span(*limits, ours)} in {unit}; correct the unit or "
            f"write {_entry(column, 'ignore')}"
        )
    values = np.where(outside, np.nan, values)
    if told and not candidate.certain:
        how.insert(0, "unit in the name")
    if operation == "negated":
        how.append("sign turned")
    shown = ours if _BY_SPELLING[ours.lower()] == unit else unit
    return _Fitted(
        Taken(
            feature,
            (column,),
            shown,
            factor,
            "; ".join(how) or "our own name",
            operation,
            ours,
            comma=(comma,),
            no_zero=(no_zero,),
            limits=limits,
        ),
        values,
        candidate.level,
    )


def _implausible(candidate: _Candidate, median: float, units: list[str]) -> str:
    """Why a column is refused whose values are plausible in no unit, and what to do."""
    column, feature = candidate.column, candidate.feature
    allowed = _range_of(feature)
    span = _span(allowed.low, allowed.high, _features()[feature].unit)
    if _stem(feature) == "sag" and allowed.low <= 1 - median <= allowed.high:
        line = _line(column, "{feature: sag, operation: one_minus}")
        what = f"if it is the steady state over the peak, write {line} in the mapping file"
    else:
        what = f"if it is this feature, write {_entry(column, feature, units[0])} with its unit"
    return (
        f"names no unit, and its median {median:g} is plausible for {feature} in none of "
        f"{', '.join(units)} ({span} expected); {what}, or else {_line(column, 'ignore')}"
    )


def _amount(value: float, unit: str) -> str:
    return f"{value:g}" if unit in ("ratio", "unspecified") else f"{value:g} {unit}"


# ---------------------------------------------------------------------------------------------
# The mapping file


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, which would otherwise silently hide the first."""


def _unique_keys(loader: Any, node: Any) -> dict[Any, Any]:
    pairs = [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
    for index, (key, _) in enumerate(pairs):
        if any(key == other for other, _ in pairs[:index]):
            raise CohortError(f"column '{key}' has two entries; keep one")
    return dict(pairs)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)


def read_mapping(file: str | Path) -> Overrides:
    """Read a mapping file: YAML with one entry a column.

    An entry is ``"Rin": input_resistance``, ``"Rin": {feature: input_resistance, unit: GOhm}``,
    ``"Notes": ignore``, ``"Cell": cell_id`` or ``"Organism": species``; ``operation`` may be
    ``plain``, ``negated``, ``reciprocal`` or ``one_minus``.

    Parameters
    ----------
    file : path

    Returns
    -------
    Overrides

    Raises
    ------
    CohortError
        If the file is missing, no YAML, or names an unknown feature or unit, or a feature twice.
    """
    file = Path(file)
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_Loader)  # noqa: S506
    except OSError as error:
        raise CohortError(f"{file} cannot be read: {error.strerror}") from error
    except CohortError as error:
        raise CohortError(f"{file}: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise CohortError(f"{file} is not YAML: {in_words(error)}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise CohortError(
            f"{file} must have one entry a column, such as '\"Rin\": input_resistance'; it holds "
            f"a {type(content).__name__}"
        )
    columns: dict[str, Override] = {}
    for column, entry in content.items():
        where = f"{file}, column '{column}'"
        if not isinstance(column, str | int | float) or isinstance(column, bool):
            raise CohortError(f"{where}: write the column's name in quotes")
        columns[str(column)] = _override(entry, where)
    mapping = Overrides(str(file), columns)
    _require_once(mapping)
    return mapping


def _override(entry: Any, where: str) -> Override:
    """One entry of a mapping file."""
    if isinstance(entry, str):
        entry = {"feature": entry}
    keys = {"feature", "unit", "operation"}
    if not isinstance(entry, dict) or "feature" not in entry or not set(entry) <= keys:
        raise CohortError(
            f"{where}: write a feature, 'ignore', 'cell_id', 'species', or "
            "'{feature: input_resistance, unit: GOhm}'"
        )
    target, unit, operation = (entry.get(key) for key in ("feature", "unit", "operation"))
    if target not in SPECIAL and target not in _features():
        near = difflib.get_close_matches(str(target), _features(), n=1)
        hint = f"; the nearest is '{near[0]}'" if near else ""
        raise CohortError(f"{where}: there is no feature '{target}'{hint}")
    if target in SPECIAL and (unit is not None or operation is not None):
        raise CohortError(f"{where}: '{target}' has no unit and no operation; leave them out")
    if operation == "difference" or operation not in (None, *OPERATIONS):
        known = ", ".join(name for name in OPERATIONS if name != "difference")
        raise CohortError(f"{where}: there is no operation '{operation}'; use one of {known}")
    if unit is None:
        return Override(target, None, operation)
    known_unit = _unit(str(unit))
    if known_unit is None:
        units = ", ".join(_UNITS[_dimension(_features()[target].unit)])
        raise CohortError(f"{where}: there is no unit '{unit}'; use one of {units}")
    override = Override(target, known_unit, operation)
    _require_dimension(override, where, operation or "plain")
    return override


def _require_dimension(override: Override, where: str, operation: str) -> None:
    """Refuse a unit of another dimension; of a rate, the reciprocal of a time may be given."""
    if override.unit is None:
        return
    candidate = _Candidate("", override.target, operation, _MAPPED, None, "")
    dimensions = {_source_dimension(candidate)}
    if override.operation is None:
        dimensions.add(_source_dimension(replace(candidate, operation="reciprocal")))
    if _DIMENSION[override.unit] not in dimensions:
        dimension = _source_dimension(candidate)
        raise CohortError(
            f"{where}: {override.unit} is no unit of {override.target}, a {dimension}; use one of "
            f"{', '.join(_UNITS[dimension])}"
        )


def _require_once(mapping: Overrides) -> None:
    seen: dict[str, str] = {}
    for column, override in mapping.columns.items():
        if override.target == "ignore":
            continue
        if override.target in seen:
            raise CohortError(
                f"{mapping.name}, column '{column}': '{override.target}' is already given by "
                f"column '{seen[override.target]}'; keep one of them"
            )
        seen[override.target] = column


# ---------------------------------------------------------------------------------------------
# The whole table


def map_columns(
    frame: pd.DataFrame, layout: Layout, overrides: Overrides | None = None
) -> ColumnMap:
    """Find out which columns of a foreign table give which features, and in which units.

    Nothing is guessed: a column that may be several features, or be in several units, is refused
    with the line of the mapping file that settles it.

    Parameters
    ----------
    frame : DataFrame
        The first rows of the table, some thousand if there are as many, with all its columns as
        text or numbers.
    layout : Layout
        A layout of single numbers: ``shared`` or ``full``.
    overrides : Overrides, optional
        What the user says of some columns.

    Returns
    -------
    ColumnMap

    Raises
    ------
    CohortError
        If an override names a column that does not exist or stands twice, a feature twice, or a
        unit of another dimension; or if the layout is of feature vectors.
    """
    unknown = [name for name in layout.feature_names if name not in _features()]
    if unknown:
        raise CohortError(
            f"columns cannot be mapped to layout '{layout.name}', it has '{unknown[0]}'; use one "
            f"of {', '.join(SCALAR_LAYOUTS)}"
        )
    mapping = overrides or Overrides("the mapping", {})
    _require_once(mapping)
    return _Mapper(_Table(frame), layout, mapping).map()


class _Mapper:
    """Sorts the columns of one table."""

    def __init__(self, table: _Table, layout: Layout, mapping: Overrides) -> None:
        self.table, self.layout, self.mapping = table, layout, mapping
        self.wanted = set(layout.feature_names)
        # What a wanted difference is made of is read too.
        for absolute, delta in _ABSOLUTE.items():
            for name in layout.feature_names:
                if _stem(name) == delta:
                    stimulus = name.removeprefix(f"{delta}_")
                    self.wanted |= {f"{absolute}_{stimulus}", f"threshold_v_{stimulus}"}
        self.refused: dict[str, str] = {}
        self.unused: dict[str, str] = {}
        self.labels: list[str] = []
        self.unknown: list[str] = []
        self.either: dict[str, tuple[str, ...]] = {}
        self.candidates: list[_Candidate] = []

    def map(self) -> ColumnMap:
        headers = self.table.headers
        self._check_overrides()
        once = self._refuse_duplicates()
        cell_id = self._special(once, "cell_id", _names().cell_id)
        species = self._special(once, "species", _names().species)
        vocabularies = _vocabularies(once)
        for column in once:
            if column not in (cell_id, species):
                self._sort(column, vocabularies)
        cannot_be_zero = {c.column for c in self.candidates if _range_of(c.feature).no_zero}
        self.table.settle_zeros(sorted(cannot_be_zero))
        taken = self._choose(self._fitted())
        self._settle_either(taken)
        order = {column: place for place, column in enumerate(headers)}
        return ColumnMap(
            layout=self.layout,
            cell_id=cell_id,
            species=species,
            taken=tuple(taken[name] for name in self.layout.feature_names if name in taken),
            refused=tuple(sorted(self.refused.items(), key=lambda item: order[item[0]])),
            ambiguous=tuple(Ambiguity(*item) for item in self.either.items()),
            unused=tuple(sorted(self.unused.items(), key=lambda item: order[item[0]])),
            labels=tuple(sorted(self.labels, key=lambda column: order[column])),
            unknown=tuple(self.unknown),
        )

    def _refuse_duplicates(self) -> list[str]:
        """The columns whose name no other column has."""
        for header, count in Counter(self.table.headers).items():
            if count > 1:
                self.refused[header] = (
                    f"{count} columns have this name; give each its own or remove all but one"
                )
        known = set(self.table.headers)
        for header in self.table.headers:
            # pandas names a second column "tau" so.
            numbered = re.fullmatch(r"(.+)\.\d+", header)
            base = numbered[1] if numbered else ""
            mapped = {header, base} & set(self.mapping.columns)
            if base not in known or mapped or _meaning(base, set()) is None:
                continue
            for column in (header, base):
                self.refused[column] = (
                    f"'{base}' and '{header}' look like two columns of one name; write "
                    f"{_entry(header, 'ignore')}, or map it"
                )
        return [header for header in self.table.headers if header not in self.refused]

    def _check_overrides(self) -> None:
        headers = self.table.headers
        for column, override in self.mapping.columns.items():
            where = f"{self.mapping.name}, column '{column}'"
            if column not in headers:
                near = difflib.get_close_matches(column, headers, n=1)
                hint = f"; the nearest is '{near[0]}'" if near else ""
                raise CohortError(f"{where}: the table has no such column{hint}")
            if headers.count(column) > 1:
                raise CohortError(f"{where}: the table has several such columns; rename them")
            if override.target not in SPECIAL:
                if override.target not in _features():
                    raise CohortError(f"{where}: there is no feature '{override.target}'")
                if override.unit not in (None, *_DIMENSION):
                    raise CohortError(f"{where}: there is no unit '{override.unit}'")
                _require_dimension(override, where, override.operation or "plain")

    def _special(self, columns: list[str], what: str, keys: list[str]) -> str | None:
        """The column of cell ids or species: the one mapped, else the first of the known names."""
        mapped = [c for c, override in self.mapping.columns.items() if override.target == what]
        free = [column for column in columns if column not in self.mapping.columns]
        by_key: dict[str, list[str]] = {}
        for column in free:
            by_key.setdefault(_key(_words(column)), []).append(column)
        found = mapped + [column for key in keys for column in by_key.get(key, [])]
        return found[0] if found else None

    def _sort(self, column: str, vocabularies: set[str]) -> None:
        """Put a column where its name says it belongs."""
        override = self.mapping.columns.get(column)
        meaning = _meaning(column, vocabularies)
        if override is not None:
            self._sort_mapped(column, override, meaning)
            return
        if meaning is None:
            self._sort_other(column)
        elif meaning.kind == "unlike":
            more = ""
            if meaning.features and meaning.features[0] in self.wanted:
                more = f"; to take it all the same, write {_entry(column, meaning.features[0])}"
            self.unused[column] = meaning.note + more
        elif not set(meaning.features) & self.wanted:
            names = " or ".join(meaning.features)
            self.unused[column] = f"{names}, which layout '{self.layout.name}' does not have"
        elif meaning.kind == "either":
            self.either[column] = tuple(n for n in meaning.features if n in self.wanted)
            options = " or ".join(meaning.features)
            lines = " or ".join(_line(column, name) for name in self.either[column])
            self.refused[column] = (
                f"may be {options}; write {lines} in the mapping file, or 'ignore' instead"
            )
        else:
            feature = meaning.features[0]
            self.candidates.append(
                _Candidate(
                    column, feature, meaning.operation, meaning.level, meaning.unit, meaning.how
                )
            )

    def _sort_mapped(self, column: str, override: Override, meaning: _Meaning | None) -> None:
        feature = override.target
        if feature == "ignore":
            self.unused[column] = "the mapping file says to ignore it"
            return
        if feature not in self.wanted:
            self.unused[column] = f"{feature}, which layout '{self.layout.name}' does not have"
            return
        operation = override.operation
        if operation is None:
            known = meaning is not None and meaning.features == (feature,)
            operation = meaning.operation if meaning is not None and known else "plain"
            if override.unit is not None:
                dimension = _dimension(_features()[feature].unit)
                if _DIMENSION[override.unit] != dimension:
                    operation = "reciprocal"
            if _stem(feature) in ("fast_trough_deltav", "trough_deltav", "downstroke"):
                operation = "sign"
        unit = override.unit or (meaning.unit if meaning is not None else _bare_unit(column))
        certain = override.unit is not None
        self.candidates.append(
            _Candidate(column, feature, operation, _MAPPED, unit, "mapping file", certain)
        )

    def _sort_other(self, column: str) -> None:
        """A column whose name is no feature's: a label, or numbers that were not understood."""
        words = _words(unicodedata.normalize("NFKC", column))
        keys = {*_names().cell_id, *_names().species}
        if _key(words) in keys or any(word in _names().label for word in words):
            self.labels.append(column)
            return
        dtype = self.table.series(column).dtype
        if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_datetime64_any_dtype(dtype):
            self.labels.append(column)
            return
        read = self.table.read(column)
        numbers = read.filled == 0 or read.share >= _NUMERIC_SHARE
        (self.unknown if numbers else self.labels).append(column)

    def _fitted(self) -> dict[str, list[_Fitted]]:
        """By feature, the columns that give it, those that say so most exactly first."""
        fitted: dict[str, list[_Fitted]] = {}
        for candidate in self.candidates:
            found = _fit(candidate, self.table)
            if isinstance(found, str):
                self.refused[candidate.column] = found
            else:
                fitted.setdefault(candidate.feature, []).append(found)
        for options in fitted.values():
            options.sort(key=lambda option: -option.level)
        return fitted

    def _choose(self, fitted: dict[str, list[_Fitted]]) -> dict[str, Taken]:
        """For every feature of the layout, the column or difference that gives it."""
        thresholds = {
            name.removeprefix("threshold_v_"): self._best(name, options)
            for name, options in fitted.items()
            if _stem(name) == "threshold_v"
        }
        directs = {
            name: thresholds[name.removeprefix("threshold_v_")]
            if _stem(name) == "threshold_v"
            else self._best(name, options)
            for name, options in fitted.items()
        }
        taken: dict[str, Taken] = {}
        blocked = {name for name, best in directs.items() if best is None}
        differences = self._differences(directs, fitted, thresholds)
        for name in self.layout.feature_names:
            best, other = directs.get(name), differences.get(name)
            if name in blocked:
                continue
            if best is not None and (other is None or best.level > other.level):
                taken[name] = best.taken
            elif other is not None:
                taken[name] = other.taken
                if best is not None:
                    self._yields(best, other, name)
        used = {column for found in taken.values() for column in found.columns}
        self.unused = {column: why for column, why in self.unused.items() if column not in used}
        for name, best in directs.items():
            column = best.taken.columns[0] if best is not None else None
            if column is None or column in used | set(self.unused) | set(self.refused):
                continue
            self.unused[column] = self._why_spare(name, taken)
        return taken

    def _why_spare(self, name: str, taken: dict[str, Taken]) -> str:
        """Why a potential that is understood gives nothing."""
        stem, stimulus = _stem(name), name.removeprefix(f"{_stem(name)}_")
        if stem not in _ABSOLUTE:
            return f"{name}, which layout '{self.layout.name}' does not have"
        delta = f"{_ABSOLUTE[stem]}_{stimulus}"
        if delta in taken:
            return f"{taken[delta].source} gives {delta} more exactly"
        return f"an absolute potential; {delta} needs the threshold of the same stimulus as well"

    def _best(self, name: str, options: list[_Fitted]) -> _Fitted | None:
        """The column that gives a feature; None if equally exact ones contradict each other."""
        top = [option for option in options if option.level == options[0].level]
        first = top[0]
        differing = [option for option in top[1:] if not _agree(first.numbers, option.numbers)]
        if differing:
            columns = [option.taken.columns[0] for option in top]
            for column in columns:
                others = " and ".join(f"'{other}'" for other in columns if other != column)
                self.refused[column] = (
                    f"{others} also gives {name}, with other values; write "
                    f"{_entry(column, name)} to take this one, or {_entry(column, 'ignore')}"
                )
            for lower in options[len(top) :]:
                self.unused[lower.taken.columns[0]] = (
                    f"{' and '.join(columns)} say more exactly that they give {name}"
                )
            return None
        for lower in options[len(top) :]:
            self._yields(lower, first, name)
        for option in top[1:]:
            column = option.taken.columns[0]
            self.unused[column] = f"gives {name} with the same values as '{first.taken.columns[0]}'"
        return first

    def _yields(self, lower: _Fitted, best: _Fitted, name: str) -> None:
        why = _WHY_LOWER.get(lower.level, "is named less exactly")
        self.unused[lower.taken.columns[0]] = (
            f"{name} is given by {best.taken.source}, this column {why}"
        )

    def _differences(
        self,
        directs: dict[str, _Fitted | None],
        fitted: dict[str, list[_Fitted]],
        thresholds: dict[str, _Fitted | None],
    ) -> dict[str, _Fitted]:
        """Potentials less the threshold of the same stimulus."""
        found: dict[str, _Fitted] = {}
        for name, best in directs.items():
            stem = _stem(name)
            if best is None or stem not in _ABSOLUTE:
                continue
            stimulus = name.removeprefix(f"{stem}_")
            threshold = thresholds.get(stimulus)
            bare = best.level <= _BARE
            if bare:
                # Neither names its stimulus, so both are of the same only if both are bare.
                options = fitted.get(f"threshold_v_{stimulus}", [])
                threshold = next(
                    (
                        option
                        for option in options
                        if option.level <= _BARE and option.taken.columns[0] not in self.refused
                    ),
                    None,
                )
            if threshold is None or (not bare and threshold.level <= _BARE):
                continue
            feature = f"{_ABSOLUTE[stem]}_{stimulus}"
            if feature not in self.layout.feature_names:
                continue
            result = self._difference(feature, best, threshold, _LOOSE if bare else _DIFFERENCE)
            if result is not None:
                found[feature] = result
        return found

    def _difference(
        self, feature: str, first: _Fitted, second: _Fitted, level: int
    ) -> _Fitted | None:
        a, b = first.taken, second.taken
        if a.operation != "plain" or b.operation != "plain":
            return None
        allowed, column = _range_of(feature), a.columns[0]
        values = first.numbers - second.numbers
        if np.isfinite(values).any() and not _fits(values, feature, "mV", told=True):
            self.refused[column] = (
                f"less '{b.columns[0]}' its median would be {np.nanmedian(values):g} mV of "
                f"{feature}, outside {_span(allowed.low, allowed.high, 'mV')}; correct the units, "
                f"or write {_entry(column, 'ignore')}"
            )
            return None
        how = dict.fromkeys(part for taken in (a, b) for part in taken.how.split("; "))
        taken = replace(
            a,
            feature=feature,
            columns=(column, b.columns[0]),
            unit=a.unit if a.unit == b.unit else f"{a.unit} and {b.unit}",
            how="; ".join(how),
            operation="difference",
            our_unit=_features()[feature].unit,
            second_factor=b.factor,
            comma=a.comma + b.comma,
            no_zero=a.no_zero + b.no_zero,
            limits=(allowed.least, allowed.most),
        )
        return _Fitted(taken, values, level)

    def _settle_either(self, taken: dict[str, Taken]) -> None:
        """An ambiguous column is not asked for where better ones give all it may be."""
        for column, features in list(self.either.items()):
            if all(name in taken for name in features):
                del self.either[column], self.refused[column]
                by = " and ".join(f"{name} by {taken[name].source}" for name in features)
                self.unused[column] = f"may be {' or '.join(features)}; given are {by}"


def _bare_unit(column: str) -> str | None:
    """The unit that a name gives, whatever else it says."""
    return next((reading.unit for reading in _readings(column) if reading.unit), None)


def _agree(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return False
    close = np.isclose(first[both], second[both], rtol=_AGREEMENT, atol=1e-12)
    return bool(np.mean(close) >= _AGREEING_SHARE)
