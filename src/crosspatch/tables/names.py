"""The table of names: words of a header, features, and which values of them are plausible."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.layouts import SCALAR_LAYOUTS, Feature, load_layout
from crosspatch.features.ranges import range_row
from crosspatch.tables.units import UNITS, amount, span
from crosspatch.texts import data_rows

#: Of a column.
Numbers = NDArray[np.float64]

#: Stem of an absolute potential to that of its difference from the threshold.
ABSOLUTE = {
    "peak_v": "peak_deltav",
    "fast_trough_v": "fast_trough_deltav",
    "trough_v": "trough_deltav",
}

_FILLERS = {"the", "of", "at", "in", "for", "during", "from", "on"}


@dataclass(frozen=True)
class Range:
    """What values of a feature are plausible, in our unit."""

    low: float  # of the median
    high: float
    floor: float  # least size of a median from whose value alone a unit may be told
    least: float  # of a single value
    most: float
    no_zero: bool  # whether an exact 0 stands for a missing value

    def plausible(self, values: Numbers) -> bool:
        """Whether values may be those of the feature."""
        return bool(self.low <= np.nanmedian(values) <= self.high)

    def within(self, values: Numbers) -> float:
        """Share of single values that lie where a median may."""
        return float(np.mean((self.low <= values) & (values <= self.high)))

    def possible(self, values: Numbers) -> bool:
        """Whether the median may be that of a single unusual cell."""
        return bool(self.least <= np.nanmedian(values) <= self.most)

    def outside(self, values: Numbers) -> NDArray[np.bool_]:
        """The single values that the feature cannot have."""
        return (values < self.least) | (values > self.most)

    def expected(self, unit: str) -> str:
        """Which medians are plausible, for a message."""
        return span(self.low, self.high, unit)

    def unusual(self, values: Numbers, unit: str) -> str:
        """What to say of a column whose median is not plausible, but possible."""
        would = amount(float(np.nanmedian(values)), unit)
        return f"unusual values: the median {would} is outside {self.expected(unit)}"

    def may_be_in(self, unit: str, values: Numbers) -> bool:
        """Whether values alone tell that they are in a unit."""
        if not self.plausible(values) or abs(np.nanmedian(values)) < self.floor:
            return False
        if unit not in UNITS["ratio"]:
            return True
        # Few per cent look like a fraction: a unit counts only if the largest values allow it.
        large = float(np.nanquantile(np.abs(values), 0.95))
        if unit == "%":
            return large * 100 > max(self.high, 1)
        return large <= max(self.most, 1)

    def fits(self, values: Numbers, unit: str) -> bool:
        """Whether values are plausible in the unit they are said to be in."""
        small = self._near_zero(values)
        if unit == "%":
            # Fractions called per cent are small enough to be plausible.
            small = bool(np.any(values != 0)) and not self.may_be_in(unit, values)
        return not small and self.plausible(values)

    def other_unit(self, given: dict[str, Numbers], unit: str) -> str | None:
        """The unit that explains values which the one they are said to be in does not."""
        if self.fits(given[unit], unit):
            return None
        others = (name for name in given if name != unit)
        return next((name for name in others if self._explains(name, given[name])), None)

    def _near_zero(self, values: Numbers) -> bool:
        """Whether a median is so small that any smaller unit would be plausible as well."""
        return bool(self.low <= 0 <= self.high and abs(np.nanmedian(values)) < self.floor)

    def _explains(self, unit: str, values: Numbers) -> bool:
        """Whether a unit would make values plausible that are not in another."""
        if unit in UNITS["ratio"]:
            return self.may_be_in(unit, values)
        return self.plausible(values) and not self._near_zero(values)


@dataclass(frozen=True)
class Name:
    """What a name means."""

    means: str
    operation: str = ""
    vocabulary: str = ""
    note: str = ""
    #: Greatest median, in our unit, with which the name is not thought to mean something else.
    high: float | None = None


@dataclass(frozen=True)
class Names:
    """The table of names; all by `key`, but labels are words and `unlike_there` spellings."""

    name: dict[str, list[Name]] = field(default_factory=dict)
    either: dict[str, Name] = field(default_factory=dict)
    unlike: dict[str, Name] = field(default_factory=dict)
    unlike_there: dict[str, Name] = field(default_factory=dict)
    label: set[str] = field(default_factory=set)
    #: Words of a stimulus to how features name it.
    stimuli: dict[tuple[str, ...], str] = field(default_factory=dict)
    cell_id: list[str] = field(default_factory=list)
    species: list[str] = field(default_factory=list)
    layer: list[str] = field(default_factory=list)


@cache
def names() -> Names:
    """The table of names."""
    result = Names()
    for row in data_rows("tables", "column_names"):
        kind, name = row["kind"], row["name"]
        spoken = words(name)
        by_key = key(spoken)
        most = float(row["high"]) if kind == "name" and row["high"] else None
        meant = Name(row["means"], row["operation"], row["vocabulary"], row["note"], most)
        if kind == "name":
            result.name.setdefault(by_key, []).append(meant)
        elif kind == "unlike" and row["vocabulary"]:
            # Told apart from other names of the same words by its very spelling.
            result.unlike_there[name] = meant
        elif kind == "label":
            result.label.add(name)
        elif kind == "stimulus":
            result.stimuli[tuple(spoken)] = row["means"]
        elif kind in ("either", "unlike"):
            (result.either if kind == "either" else result.unlike)[by_key] = meant
        else:
            getattr(result, kind).append(by_key)
    return result


@cache
def features() -> dict[str, Feature]:
    """Every feature of a scalar layout, and the potentials that differences are made of."""
    found = {f.name: f for name in SCALAR_LAYOUTS for f in load_layout(name).features}
    for absolute in ABSOLUTE:
        for stimulus in ("rheo", "hero", "ramp", "short_square"):
            name = f"{absolute}_{stimulus}"
            found.setdefault(name, Feature(name, "", "mV"))
    return found


@cache
def own_names() -> dict[str, str]:
    """Features by key."""
    return {key(words(name)): name for name in features()}


@cache
def own_stems() -> dict[str, str]:
    """Features without their stimulus, by key."""
    stems = (split_stimulus(name)[0] for name in features())
    return {key(words(stem)): stem for stem in stems}


def split_stimulus(feature: str) -> tuple[str, str]:
    """A feature's stem and stimulus; the stimulus is empty where it has none."""
    match = re.fullmatch(r"(.*)_(rheo|hero|ramp|short_square|mean|max|chirp)", feature)
    return (match[1], match[2]) if match else (feature, "")


def family_of(feature: str) -> str:
    """The sweep that a feature is measured in; empty for those below threshold."""
    # Without a spike there is no rheobase sweep, and no slope.
    return "rheo" if feature in ("rheobase_i", "fi_fit_slope") else split_stimulus(feature)[1]


@cache
def range_of(feature: str) -> Range:
    """The plausible values of a feature."""
    row = range_row(feature) or {}
    parts = ("low", "high", "floor", "least", "most")
    numbers = {part: float(row[part] or 0) for part in parts}
    return Range(**numbers, no_zero=row["zero"] == "missing")


def words(text: str) -> list[str]:
    """The words of a name, in lower case, with its usual variants made one."""
    # The Allen Cell Types Database marks its features so.
    text = text.removeprefix("ef__")
    text = re.sub(r"\bAPs\b", "AP", text)
    text = re.sub(r"\b1st\b", "first", text, flags=re.IGNORECASE)
    text = re.sub("[τΤ]", " tau ", text)
    text = re.sub("[δΔ∆]", " delta ", text)
    result: list[str] = []
    for found in re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", text):
        word = found.lower()
        if word in _FILLERS or (word == "1" and result == ["ap"]):
            continue
        if word in {"spike", "spikes", "aps"}:
            result.append("ap")
        elif word in {"potential", "potentials"} and result[-1:] == ["action"]:
            result[-1] = "ap"
        else:
            result.append(word)
        if result == ["first", "ap"]:
            result = ["ap"]
    return result


def key(of: list[str] | tuple[str, ...]) -> str:
    """By which names of the same words are found."""
    return "".join(of)
