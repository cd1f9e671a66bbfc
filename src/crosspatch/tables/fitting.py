"""Whether a column can be the feature that its name says, and in which unit it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crosspatch.tables.mapping import entry, line
from crosspatch.tables.meanings import Exactness, Meaning
from crosspatch.tables.names import Numbers, Range, family_of, features, range_of, split_stimulus
from crosspatch.tables.taken import Reason, Taken
from crosspatch.tables.units import amount, canonical, dimension_of, factor_to, span
from crosspatch.tables.values import NUMERIC_SHARE, FirstRows, zero_rows

_SAG = "{{feature: sag, operation: {}}}"

# Greatest median with which a number may be a ratio of two sizes of the sag; per cent are more.
_RATIO_OF_SAG = 2


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
    no_zero = allowed.no_zero or candidate.meaning.operation == "reciprocal"
    beside = () if no_zero else rows.beside(family_of(feature))
    numbers = _numbers(candidate, rows, no_zero, beside)
    operation = candidate.meaning.operation
    if operation == "sign":
        operation = "negated" if np.nanmedian(numbers) > 0 else "plain"
    taken = Taken(
        feature=feature,
        columns=(column,),
        unit=ours,
        operation=operation,
        our_unit=ours,
        comma=(rows.read(column).commas == "decimal",),
        no_zero=(no_zero,),
        limits=(allowed.least, allowed.most),
        beside=beside,
    )
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
    if taken.comma[0]:
        how.append("decimal commas")
    if operation == "negated":
        how.append("sign turned")
    taken = replace(
        taken,
        unit=ours if canonical(ours) == unit else unit,
        factor=factor_to(ours, unit, operation),
        signs=tuple(how) or ("our own name",),
        settled=allowed.other_unit(given, unit) is None,
    )
    sure = candidate.meaning.own or candidate.meaning.unit is not None
    return Fitted(taken, np.where(outside, np.nan, values), candidate.meaning.level, sure)


def _numbers(
    candidate: Candidate, rows: FirstRows, no_zero: bool, beside: tuple[tuple[str, bool], ...]
) -> Numbers:
    """The numbers of a candidate's column, if most of it are numbers."""
    read = rows.read(candidate.column)
    if read.commas == "unclear":
        raise RefusedColumnError(
            "its commas may be decimal commas or thousands",
            "write the column with points and without thousands separators",
        )
    if read.filled and read.share < NUMERIC_SHARE:
        found = next((f", such as '{example}'" for _, _, example in read.counted.reasons), "")
        raise RefusedColumnError(f"most of its values are not numbers{found}; correct them")
    missing = read.zeros
    if not no_zero:
        missing = missing & zero_rows(rows.read(name) for name, _ in beside)
    numbers = np.where(missing, np.nan, read.numbers)
    if not np.isfinite(numbers).any():
        counted = f" ({read.counted})" if read.counted.total else ""
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
        how = ["unit in the name", *how]
        other = allowed.other_unit(self.given, known)
        if other is None and fits:
            return how
        # An odd depth may be a potential.
        depth = split_stimulus(self.candidate.feature)[0] in ("fast_trough_deltav", "trough_deltav")
        trusted = self.candidate.meaning.own or not depth
        steady, can_be = self._steady_over_peak(values), allowed.possible(values)
        if other is None and can_be and not steady and trusted:
            return [*how, allowed.unusual(values, self.ours)]
        but = "unlikely small" if fits else f"outside {expected}"
        what = self._if_steady() if steady else self._perhaps(known, other, can_be)
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
        if self._steady_over_peak(next(iter(self.given.values()))):
            why = f"is more than expected of {feature}"
            what = self._if_steady()
        elif nearest is not None:
            what = f"if it is this feature, write {self._entry(nearest)} with its unit"
        return (
            f"names no unit, and its median {self.median:g} {why}; {what}, or else "
            f"{line(self.candidate.column, 'ignore')}"
        )

    def _require_our_definition(self, likely: list[str]) -> None:
        """Refuse values that another quantity of the same name has."""
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
                f"{self._steady()} for the second",
            )
        elif not self._steady_over_peak(values) and median <= _RATIO_OF_SAG:
            self._refuse_definition(
                f"its median {median:g} looks like another definition, such as the peak over the "
                "steady state",
                unit,
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

    def _steady_over_peak(self, values: Numbers) -> bool:
        """Whether a sag that is too large is what is left of it."""
        if self.candidate.feature != "sag" or self.candidate.meaning.own:
            return False
        return not self.allowed.plausible(values) and self.allowed.plausible(1 - values)

    def _if_steady(self) -> str:
        return f"if it is the steady state over the peak, write {self._steady()}"

    def _steady(self) -> str:
        """What to write where of the steady state over the peak."""
        return entry(self.candidate.column, _SAG.format("one_minus"))

    def _nearest(self) -> str | None:
        """The likeliest unit; None if the values are impossible in all."""
        ours = canonical(self.ours)
        can = [unit for unit, values in self.given.items() if self.allowed.possible(values)]
        can.sort(key=lambda unit: (not self.allowed.plausible(self.given[unit]), unit != ours))
        return next(iter(can), None)
