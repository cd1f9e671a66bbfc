"""What a header means: the feature, its stimulus, and the unit that it names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from enum import IntEnum

from crosspatch.tables.names import (
    ABSOLUTE,
    Name,
    features,
    key,
    names,
    own_names,
    own_stems,
    split_stimulus,
    words,
)
from crosspatch.tables.units import DIMENSION, dimension_of, parse_unit

_NO_FEATURE = ("no feature of a layout",)
# The vocabulary in which a name that may mean something else has our definition.
_OURS_IN = {"adapt": "allen", "peak_deltav": "efel"}
# Of a spike train, the sweep that is meant where none is named.
_HERO = ("adapt", "avg_rate", "first_isi_inv", "isi_cv", "mean_isi", "median_isi")


class Exactness(IntEnum):
    """How exactly a column says what it is; the highest gives the feature."""

    LOOSE = 0
    BARE = 1
    DIFFERENCE = 2
    NAMED = 3
    MAPPED = 4


@dataclass(frozen=True)
class Meaning:
    """What a header was understood to be."""

    kind: str  # ``feature``, ``either`` or ``unlike``
    features: tuple[str, ...] = ()  # the feature, or those it may be
    #: How the feature is computed; ``sign`` where the values tell whether to negate.
    operation: str = "plain"
    level: Exactness = Exactness.NAMED
    unit: str | None = None  # the unit that the header names
    notes: tuple[str, ...] = ()  # how it was understood; of ``unlike``, why it is not a feature
    #: Greatest median, in our unit, with which it is not thought to mean something else.
    high: float | None = None
    #: Whether it is our own name or was mapped, so that without a unit ours is meant.
    own: bool = False


def meaning_of(header: str, vocabularies: set[str]) -> Meaning | None:
    """What a header means in a table of some vocabularies; None if it is not understood."""
    found = (_meaning(reading, vocabularies) for reading in _readings(header))
    return next((meaning for meaning in found if meaning is not None), None)


def is_feature(header: str) -> bool:
    """Whether a name may be that of a feature."""
    meaning = meaning_of(header, set())
    return meaning is not None and meaning.kind != "unlike"


def unit_in(header: str) -> str | None:
    """The unit that a header names, whatever else it says."""
    return next((reading.unit for reading in _readings(header) if reading.unit), None)


def vocabularies_of(headers: list[str]) -> set[str]:
    """Whose names a table uses, where that settles what a bare name means."""
    signs: Counter[str] = Counter()
    for header in headers:
        signs.update(filter(None, [_vocabulary(header)]))
    # One name may be a coincidence; "adaptation" alone says little.
    allen = signs["allen"] > 0 and signs["allen"] + signs["weak"] >= 2
    found = {"allen": allen, "efel": signs["efel"] > 0}
    return {name for name, there in found.items() if there}


def _vocabulary(header: str) -> str:
    """Whose name a header is; empty if it may be anyone's."""
    for reading in _readings(header):
        found = ""
        for rest, stimulus in _without_stimulus(reading.words):
            for name in names().name.get(key(rest), []):
                found = found or name.vocabulary
            stem = own_stems().get(key(rest))
            if stimulus is not None and (stem in ABSOLUTE or stem == "threshold_v"):
                found = "allen"
        if own_names().get(key(reading.words)) == "vm_for_sag":
            found = "allen"
        if found:
            return found
    return ""


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
        found = parse_unit(group) or parse_unit(unicodedata.normalize("NFKC", group))
        if found is not None and unit is None:
            unit = found
        else:
            main = f"{main} {group}"
    main = unicodedata.normalize("NFKC", main)
    readings = [_Reading(tuple(words(main)), unit, main.strip().lower())]
    if unit is not None:
        return readings
    # A unit at the end: tau_ms, "tau, ms", slope_hz_per_pa.
    patterns = (
        r"^(.+?)[\s_,;:.-]+([A-Za-zμΩ]+_per_[A-Za-zμΩ]+)$",
        r"^(.+?)[\s_,;:.-]+(?:in[\s_]+)?([^\s_,;:]+)$",
    )
    for pattern in patterns:
        match = re.match(pattern, main.strip())
        found = parse_unit(match[2], suffix=True) if match else None
        if match and found is not None:
            readings.append(_Reading(tuple(words(match[1])), found, match[1].lower()))
    return readings


def _without_stimulus(of: tuple[str, ...]) -> list[tuple[tuple[str, ...], str | None]]:
    """The words, and the words without the stimulus they name."""
    stimuli = names().stimuli
    ways: list[tuple[tuple[str, ...], str | None]] = [(of, None)]
    for size in (2, 1):
        for start in range(len(of) - size + 1):
            stimulus = stimuli.get(of[start : start + size])
            rest = of[:start] + of[start + size :]
            if stimulus is None or not rest:
                continue
            # "rheobase long square" names one sweep twice.
            for other in range(len(rest)):
                again = stimuli.get(rest[other : other + 1])
                if stimulus == "long_square" and again:
                    ways.append((rest[:other] + rest[other + 1 :], again))
            ways.append((rest, stimulus))
    return ways


def _meaning(reading: _Reading, vocabularies: set[str]) -> Meaning | None:
    table, whole, unit = names(), key(reading.words), reading.unit
    there = table.unlike_there.get(re.sub(r"\s+", "_", reading.raw))
    if there is not None and there.vocabulary in vocabularies:
        placed = [feature_at(option, None, None) for option in table.name.get(whole, [])]
        elsewhere = next((found.features for found in placed if found is not None), ())
        return Meaning("unlike", elsewhere, unit=unit, notes=(there.note,))
    own = own_names().get(whole)
    if own is not None:
        return Meaning("feature", (own,), unit=unit, notes=("our own name",), own=True)
    for rest, stimulus in _without_stimulus(reading.words):
        short = key(rest)
        if short in table.unlike:
            return Meaning("unlike", unit=unit, notes=(table.unlike[short].note,))
        found = _quantity(short, stimulus, unit, vocabularies)
        if found is not None:
            return found
        if short in table.either:
            return _either(table.either[short], stimulus, unit, vocabularies)
    return None


def _quantity(
    short: str, stimulus: str | None, unit: str | None, vocabularies: set[str]
) -> Meaning | None:
    """The feature that words are at a stimulus, by our names or those of the table."""
    stem = own_stems().get(short)
    for option in [*([Name(stem)] if stem else []), *names().name.get(short, [])]:
        found = feature_at(option, stimulus, unit)
        if found is not None:
            ours = _OURS_IN.get(option.means) in vocabularies
            return replace(found, high=None if ours else option.high)
    return None


def feature_at(option: Name, stimulus: str | None, unit: str | None) -> Meaning | None:
    """The feature that a quantity is at a stimulus; None where there is no such feature."""
    stem = option.means
    feature, bare, how = _named_at(stem, stimulus)
    if feature not in features():
        elsewhere = {f"{stem}_rheo", f"{stem}_hero"} & set(features())
        made = stem in (*_HERO, "threshold_i") or (elsewhere and stem != "latency")
        return Meaning("unlike", unit=unit, notes=_NO_FEATURE) if made else None
    level = Exactness.BARE if bare else Exactness.NAMED
    operation = option.operation or "plain"
    if operation == "loose":
        level, operation = Exactness.LOOSE, "plain"
    notes = tuple(part for part in (how, option.note) if part)
    return Meaning("feature", (feature,), operation, level, unit, notes)


def _named_at(stem: str, stimulus: str | None) -> tuple[str, bool, str]:
    """A quantity's name at a stimulus, whether one is missing, and which was taken for it."""
    bare, unnamed = stimulus is None, stimulus in (None, "long_square")
    long_square = unnamed or stimulus == "rheo"
    if stem in features() and not split_stimulus(stem)[1] and long_square:
        # A quantity that needs no stimulus; rheobase is by itself of the long square.
        return stem, False, ""
    if stem == "threshold_i" and long_square:
        return "rheobase_i", bare, ""
    if stem in _HERO and unnamed:
        return f"{stem}_hero", True, "no sweep named, taken as the hero sweep's"
    if stem == "latency" or stem in features() or not unnamed:
        return f"{stem}_{stimulus}", bare, ""
    how = "no stimulus named, taken as the rheobase sweep's" if bare else ""
    return f"{stem}_rheo", bare, how


def _either(
    either: Name, stimulus: str | None, unit: str | None, vocabularies: set[str]
) -> Meaning:
    """Which of several features a name is, if stimulus, vocabulary or unit say so."""
    options = tuple(either.means.split())
    if stimulus not in (None, "long_square"):
        options = _at_stimulus(options, stimulus)
        if not options:
            return Meaning("unlike", unit=unit, notes=_NO_FEATURE)
    elif either.vocabulary in vocabularies:
        how = "as the other names of the Allen Institute's tables"
        return Meaning("feature", options[:1], level=Exactness.BARE, unit=unit, notes=(how,))
    if unit is not None:
        dimension = DIMENSION[unit]
        alike = tuple(n for n in options if dimension_of(features()[n].unit) == dimension)
        options = alike or options
    if len(options) == 1:
        level = Exactness.BARE if stimulus is None else Exactness.NAMED
        return Meaning("feature", options, level=level, unit=unit)
    return Meaning("either", options, unit=unit)


def _at_stimulus(options: tuple[str, ...], stimulus: str | None) -> tuple[str, ...]:
    """The features that some are at another stimulus."""
    # Rheobase is the threshold current of the long square.
    stems = ("threshold_i" if n == "rheobase_i" else split_stimulus(n)[0] for n in options)
    named = dict.fromkeys(f"{stem}_{stimulus}" for stem in stems)
    return tuple(name for name in named if name in features())
