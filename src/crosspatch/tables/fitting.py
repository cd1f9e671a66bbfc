"""Whether a column can be the feature that its name says, and in which unit it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosspatch.tables.mapping import entry, line
from crosspatch.tables.meanings import Exactness, Meaning
from crosspatch.tables.names import Numbers, Range, family_of, features, range_of, split_stimulus
from crosspatch.tables.taken import Reason, Taken
from crosspatch.tables.units import DIMENSION, amount, canonical, dimension_of, factor_to, span
from crosspatch.tables.values import NUMERIC_SHARE, Column, FirstRows, Marks, read_column, zero_rows

_SAG = "{{feature: sag, operation: {}}}"
_OF_RATIOS = ("one_minus", "one_minus_reciprocal")

# Share of the texts that may be decimals or thousands which the right reading makes plausible; the
# wrong one does so for fewer than the rest.
_EXPLAINED = 0.9

_IN_CELLS = "unit in the cells"

# Below it a peak is not over its steady state, but for noise.
_LEAST_RATIO = 0.95


@dataclass(frozen=True)
class Candidate:
    """A column that may give a feature."""

    column: str
    meaning: Meaning  # of a single feature
    certain: bool = False  # whether the unit was given in the mapping file, and may be implausible

    @property
    def feature(self) -> str:
        """The feature."""
        return self.meaning.features[0]


@dataclass(frozen=True)
class Fitted:
    """A candidate whose unit is known, with its values in the first rows."""

    taken: Taken
    numbers: Numbers
    level: Exactness
    sure: bool = False  # whether the unit is known from more than the values

    @property
    def column(self) -> str:
        """The column; of a difference the first."""
        return self.taken.columns[0]


class RefusedColumnError(Exception):
    """A column gives nothing."""

    def __init__(self, why: str, remedy: str = "") -> None:
        self.reason = Reason(why, remedy)
        super().__init__(str(self.reason))


class EmptyError(RefusedColumnError):
    """A column that holds no values."""


def fit(candidate: Candidate, rows: FirstRows) -> Fitted:
    """Settle a candidate's unit from the first rows of its table.

    `RefusedColumnError` if the values cannot be the feature's, or the unit cannot be told.
    """
    column, feature = candidate.column, candidate.feature
    ours, allowed = features()[feature].unit, range_of(feature)
    marks = rows.marks(column) or _likelier_marks(candidate, rows)
    candidate, taken, numbers = _unsettled(candidate, rows, marks)
    given = taken.in_units(numbers)
    median = float(np.nanmedian(numbers))
    unit, how = _Unsettled(candidate, given, median, allowed, ours).settle()
    values = given[unit]
    outside = allowed.outside(values)
    if np.sum(outside) > np.sum(np.isfinite(values)) / 2:
        raise RefusedColumnError(
            f"most of its values are outside {span(*taken.limits, ours)} in {unit}; correct the "
            f"unit or write {entry(column, 'ignore')}"
        )
    how += rows.spelled(column, marks)
    if taken.operation == "negated":
        how.append("sign turned")
    taken = replace(
        taken,
        unit=ours if canonical(ours) == unit else unit,
        factor=factor_to(ours, unit, taken.operation),
        signs=tuple(how) or ("our own name",),
        settled=allowed.other_unit(given, unit) is None,
    )
    sure = candidate.meaning.own or candidate.meaning.unit is not None
    return Fitted(taken, np.where(outside, np.nan, values), candidate.meaning.level, sure)


def _with_unit_of_cells(candidate: Candidate, read: Column) -> tuple[Candidate, bool]:
    """With the unit that most cells name, where the header names none.

    And whether a cell without one is in it: not where others are in several.
    """
    meaning = candidate.meaning
    if meaning.unit is not None or read.unit_of is None:
        return candidate, True
    if 2 * np.sum(read.unit_of >= 0) < read.filled:
        return candidate, True  # what is told of the others holds
    dimension = dimension_of(features()[candidate.feature].unit, meaning.operation)
    alike = [unit for unit in read.units if DIMENSION[unit] == dimension]
    unit = next(iter(alike), read.units[0])
    meaning = replace(meaning, unit=unit, notes=(_IN_CELLS, *meaning.notes))
    return replace(candidate, meaning=meaning), len(alike) <= 1


def _unsettled(
    candidate: Candidate, rows: FirstRows, marks: Marks
) -> tuple[Candidate, Taken, Numbers]:
    """What a candidate gives if its numbers are written so, before its unit is told from them.

    The candidate is with the unit that its cells name.
    """
    candidate, bare = _with_unit_of_cells(candidate, rows.read(candidate.column, marks))
    column, feature, operation = candidate.column, candidate.feature, candidate.meaning.operation
    ours, allowed = features()[feature].unit, range_of(feature)
    no_zero = allowed.no_zero or operation == "reciprocal"
    beside = () if no_zero else rows.beside(family_of(feature))
    numbers = _numbers(candidate, rows, marks, beside, no_zero=no_zero, bare=bare)
    if operation == "sign":
        operation = "negated" if np.nanmedian(numbers) > 0 else "plain"
    taken = Taken(
        feature=feature,
        columns=(column,),
        unit=ours,
        operation=operation,
        our_unit=ours,
        marks=(marks,),
        no_zero=(no_zero,),
        limits=(allowed.least, allowed.most),
        beside=beside,
        bare=bare,
    )
    return candidate, taken, numbers


def _likelier_marks(candidate: Candidate, rows: FirstRows) -> Marks:
    """The marks that make plausible what may be decimals or thousands, if others do not."""
    either = rows.either(candidate.column)
    if not either:
        raise RefusedColumnError(
            "some of its numbers have decimal points, others decimal commas", "write all alike"
        )
    both: tuple[Marks, Marks] = ("point", "comma")
    shares = {marks: _explained(candidate, rows, marks, either) for marks in both}
    for marks in both:
        if shares[marks] >= _EXPLAINED and sum(shares.values()) <= 1:
            return marks
    which = "commas" if any("," in text for text in either) else "points"
    raise RefusedColumnError(
        f"its {which} may be decimal {which} or thousands",
        "write the column with points and without thousands separators",
    )


def _explained(candidate: Candidate, rows: FirstRows, marks: Marks, either: list[str]) -> float:
    """Share of the doubtful texts that are plausible if a column's numbers are written so."""
    try:
        candidate, taken, numbers = _unsettled(candidate, rows, marks)
    except RefusedColumnError:
        return 0.0
    allowed, given = range_of(candidate.feature), taken.in_units(numbers)
    doubtful = taken.in_units(read_column(pd.Series(either, dtype=object), marks=marks).numbers)
    known = candidate.meaning.unit
    units = [unit for unit in given if known in (None, unit) and allowed.plausible(given[unit])]
    within = [allowed.within(doubtful[unit]) for unit in units]
    return max(within, default=0.0)


def _numbers(
    candidate: Candidate,
    rows: FirstRows,
    marks: Marks,
    beside: tuple[tuple[str, Marks], ...],
    *,
    no_zero: bool,
    bare: bool,
) -> Numbers:
    """The numbers of a candidate's column, if most of it are numbers."""
    read = rows.read(candidate.column, marks)
    if read.filled and read.share < NUMERIC_SHARE:
        found = next((f", such as '{example}'" for _, _, example in read.counted.reasons), "")
        if read.of_deviations:
            raise RefusedColumnError(
                f"its values are means with their deviations{found}, perhaps of several cells",
                "if a row is one cell, write the means alone",
            )
        raise RefusedColumnError(f"most of its values are not numbers{found}; correct them")
    unit, known = candidate.meaning.unit, read
    if unit is not None:
        known = read.in_unit(unit, rows.series(candidate.column), bare=bare)
    missing = read.zeros
    if not no_zero:
        missing = missing & zero_rows(rows.read(name, marks) for name, marks in beside)
    if unit is None and read.unit_of is not None:
        missing = missing | (read.unit_of >= 0)
    numbers = np.where(missing, np.nan, known.numbers)
    if not np.isfinite(numbers).any():
        counted = f" ({known.counted})" if known.counted.total else ""
        raise EmptyError(f"it holds no values{counted}")
    return numbers


@dataclass(frozen=True)
class _Unsettled:
    """A candidate whose unit is to be found out."""

    candidate: Candidate
    given: dict[str, Numbers]  # unit to the values, in our unit, if the column were in it
    median: float  # of the column as it stands
    allowed: Range
    ours: str  # unit of the layout

    def settle(self) -> tuple[str, list[str]]:
        """The unit, and how it was recognised."""
        known, given = self.candidate.meaning.unit, self.given
        if known is not None and known not in given:
            raise RefusedColumnError(self._of_another_dimension(known))
        likely = [unit for unit in given if self.allowed.may_be_in(unit, given[unit])]
        self._require_our_definition(likely)
        how = list(self.candidate.meaning.notes)
        if known is not None:
            return known, self._how_known(known, how)
        if len(likely) == 1:
            return likely[0], [*how, "unit from the values"] if len(given) > 1 else how
        if likely:
            raise RefusedColumnError(
                f"its median {self.median:g} may be in {' or '.join(likely)}",
                f"write {self._entry(likely[0])}, or with the unit it has",
            )
        ours = canonical(self.ours)
        if self.candidate.meaning.own and ours in given and self._can_be(ours):
            odd = not self.allowed.plausible(given[ours])
            return ours, [*how, self.allowed.unusual(given[ours], self.ours)] if odd else how
        raise RefusedColumnError(self._not_told())

    def _can_be(self, unit: str) -> bool:
        """Whether the values may be in a unit, and no other explains them better."""
        values = self.given[unit]
        if not self.allowed.possible(values):
            return False
        return self.allowed.other_unit(self.given, unit) is None

    def _entry(self, unit: str | None = None) -> str:
        return entry(self.candidate.column, self.candidate.feature, unit)

    def _ignore(self) -> str:
        return entry(self.candidate.column, "ignore")

    def _of_another_dimension(self, known: str) -> str:
        feature, nearest = self.candidate.feature, self._nearest()
        what = f"correct it, or write {self._ignore()}"
        if nearest is not None:
            what = f"if the name is right, write {self._entry(nearest)}"
        dimension = dimension_of(self.ours, self.candidate.meaning.operation)
        return f"says {known}, but {feature} is a {dimension}; {what}"

    def _how_known(self, known: str, how: list[str]) -> list[str]:
        """How a unit that is named was recognised; refused if another explains the values."""
        allowed, values = self.allowed, self.given[known]
        expected = allowed.expected(self.ours)
        would = amount(float(np.nanmedian(values)), self.ours)
        fits = allowed.plausible(values)
        if self.candidate.certain:
            return how if fits else [*how, f"its median {would} is outside {expected}"]
        how = how if _IN_CELLS in how else ["unit in the name", *how]
        other = allowed.other_unit(self.given, known)
        if other is None and fits:
            return how
        # An odd depth may be a potential.
        depth = split_stimulus(self.candidate.feature)[0] in ("fast_trough_deltav", "trough_deltav")
        trusted = self.candidate.meaning.own or not depth
        ratio, can_be = self._ratio_of_sag(values), allowed.possible(values)
        if other is None and can_be and not ratio and trusted:
            return [*how, allowed.unusual(values, self.ours)]
        but = "unlikely small" if fits else f"outside {expected}"
        what = ratio or self._perhaps(known, other, can_be)
        raise RefusedColumnError(
            f"says {known}, but its median {self.median:g} would be {would} of "
            f"{self.candidate.feature}, {but}; {what}"
        )

    def _perhaps(self, known: str, other: str | None, can_be: bool) -> str:
        """What to write of a column whose values speak against the unit that it names."""
        if other is not None:
            return f"if it is {other}, write {self._entry(other)}"
        if can_be:
            return f"if it is right all the same, write {self._entry(known)}"
        return f"correct it, or write {self._ignore()}"

    def _not_told(self) -> str:
        """Why a candidate that names no unit is refused."""
        feature, allowed, nearest = self.candidate.feature, self.allowed, self._nearest()
        why = (
            f"is plausible for {feature} in none of {', '.join(self.given)} "
            f"({allowed.expected(self.ours)} expected)"
        )
        if any(allowed.plausible(values) for values in self.given.values()):
            why = f"does not tell that of {feature}"
        what = "correct it if it is this feature"
        ratio = self._ratio_of_sag(next(iter(self.given.values())))
        if ratio:
            why = f"is more than expected of {feature}"
            what = ratio
        elif nearest is not None:
            what = f"if it is this feature, write {self._entry(nearest)} with its unit"
        return (
            f"names no unit, and its median {self.median:g} {why}; {what}, or else "
            f"{line(self.candidate.column, 'ignore')}"
        )

    def _require_our_definition(self, likely: list[str]) -> None:
        """Refuse values that another quantity of the same name has."""
        self._refuse_peak_over_steady()
        first = "fraction" if "fraction" in self.given else next(iter(likely), None)
        unit = self.candidate.meaning.unit or first
        if self.candidate.meaning.high is None or unit is None:
            return
        values = self.given[unit]
        median = float(np.nanmedian(values))
        if median <= self.candidate.meaning.high:
            return
        stem = split_stimulus(self.candidate.feature)[0]
        if stem == "adapt":
            self._refuse_definition(
                f"its median {median:g} looks like another definition of adaptation, such as the "
                "first interval over the last",
                unit,
            )
        elif stem != "sag":
            self._refuse_definition(
                f"its median {amount(median, self.ours)} is more than spikes reach above "
                "threshold, so it looks measured from rest",
                unit,
            )
        elif self.allowed.plausible(values):
            column = self.candidate.column
            raise RefusedColumnError(
                f"its median {median:g} may be the sag over the deflection or the steady state "
                "over the peak",
                f"write {line(column, _SAG.format('plain'))} for the first or "
                f"{self._sag('one_minus')} for the second",
            )

    def _refuse_peak_over_steady(self) -> None:
        """Refuse a sag from 1 up whose unit is not named: a ratio of sizes, or a few per cent."""
        meaning, column = self.candidate.meaning, self.candidate.column
        if self.candidate.feature != "sag" or meaning.unit or meaning.operation != "plain":
            return
        values = self.given["fraction"]
        least = float(np.nanquantile(values, 0.05))
        # Of a sag of 0.7 the peak is 3.3 times the steady state.
        if least >= _LEAST_RATIO and self.median <= 1 / (1 - self.allowed.high):
            raise RefusedColumnError(
                f"its median {self.median:g}, and hardly any less than 1, may be the peak over the "
                "steady state or per cent",
                f"write {line(column, _SAG.format('one_minus_reciprocal'))} for the first or "
                f"{line(column, 'sag', '%')} for the second",
            )

    def _refuse_definition(self, why: str, unit: str) -> None:
        """Refuse what looks like another quantity, but may be ours in this or another unit."""
        or_else, nearest = f"or else {line(self.candidate.column, 'ignore')}", self._nearest()
        sag = split_stimulus(self.candidate.feature)[0] == "sag"
        if not sag and self.allowed.possible(self.given[unit]):
            nearest = unit
        if nearest is None:
            raise RefusedColumnError(why, f"write {self._ignore()}")
        written = f"write {self._entry(nearest)}, {or_else}"
        if nearest != unit:
            raise RefusedColumnError(f"{why}; if it is in {nearest}, {written}")
        raise RefusedColumnError(why, f"to take it all the same, {written}")

    def _ratio_of_sag(self, values: Numbers) -> str:
        """What to write where a sag that is too large may be a ratio of two sizes; else empty."""
        if self.candidate.feature != "sag" or self.candidate.meaning.own:
            return ""
        inverse = 1 / np.where(values == 0, np.nan, values)
        ways = (("steady state over the peak", values), ("peak over the steady state", inverse))
        if not self.allowed.plausible(values):
            for (what, over), operation in zip(ways, _OF_RATIOS, strict=True):
                if self.allowed.plausible(1 - over) and np.nanmedian(over) <= 1:
                    return f"if it is the {what}, write {self._sag(operation)}"
        return ""

    def _sag(self, operation: str) -> str:
        """What to write of a ratio of two sizes of the sag."""
        return entry(self.candidate.column, _SAG.format(operation))

    def _nearest(self) -> str | None:
        """The likeliest unit; None if the values are impossible in all."""
        ours = canonical(self.ours)
        can = [unit for unit, values in self.given.items() if self.allowed.possible(values)]
        can.sort(key=lambda unit: (not self.allowed.plausible(self.given[unit]), unit != ours))
        return next(iter(can), None)
