"""In which unit a column is, by its name and its values, or why that cannot be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosspatch.tables.mapping import entry, line
from crosspatch.tables.meanings import Meaning
from crosspatch.tables.names import Numbers, Range, split_stimulus
from crosspatch.tables.taken import Reason
from crosspatch.tables.units import amount, canonical, dimension_of

_SAG = "{{feature: sag, operation: {}}}"
_OF_RATIOS = ("one_minus", "one_minus_reciprocal")

# Below it a peak is not over its steady state, but for noise.
_LEAST_RATIO = 0.95

#: How a unit was recognised that stands in the cells.
IN_CELLS = "unit in the cells"


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


class RefusedColumnError(Exception):
    """A column gives nothing."""

    def __init__(self, why: str, remedy: str = "") -> None:
        self.reason = Reason(why, remedy)
        super().__init__(str(self.reason))


class EmptyError(RefusedColumnError):
    """A column that holds no values."""


@dataclass(frozen=True)
class Unsettled:
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
        how = how if IN_CELLS in how else ["unit in the name", *how]
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
