"""Whether a column can be the feature that its name says, and in which unit it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosspatch.tables.mapping import entry, line
from crosspatch.tables.meanings import Exactness
from crosspatch.tables.names import (
    Range,
    family_of,
    features,
    range_of,
    split_stimulus,
)
from crosspatch.tables.units import (
    DIMENSION,
    UNITS,
    amount,
    canonical,
    dimension_of,
    factor_to,
    span,
)
from crosspatch.tables.values import NUMERIC_SHARE, FirstRows, zero_rows

# Rows of which a small median says little.
_FEW = 10

# Greatest median with which a number may be a ratio of two sizes of the sag; per cent are more.
_RATIO_OF_SAG = 2


@dataclass(frozen=True)
class Taken:
    """A feature and the column or columns that give it."""

    feature: str
    #: One column, or two where the feature is the first less the second.
    columns: tuple[str, ...]
    #: Unit in the source; that of the first column for a difference.
    unit: str
    #: By which the column is multiplied; a reciprocal is taken after.
    factor: float
    #: How column and unit were recognised.
    how: str
    #: ``plain``, ``difference``, ``negated``, ``reciprocal`` or ``one_minus``.
    operation: str
    #: Unit of the layout.
    our_unit: str
    #: Factor of the second column of a difference.
    second_factor: float
    #: Of each column, whether it is written with decimal commas.
    comma: tuple[bool, ...]
    #: Of each column, whether an exact 0 stands for a missing value.
    no_zero: tuple[bool, ...]
    #: Least and greatest possible value, in our unit; others are taken as missing.
    limits: tuple[float, float]
    #: Columns of the same sweep that cannot be 0, and whether they have decimal commas: in rows in
    #: which one is 0, a 0 of this column stands for a missing value too.
    beside: tuple[tuple[str, bool], ...] = ()
    #: The two potentials of a difference.
    parts: tuple[Taken, ...] = ()
    #: Whether the first rows fit the unit, so that later ones must.
    settled: bool = True

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

    def in_units(self, numbers: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The feature's values, in our unit, if the only column were in each unit it may have."""
        return {
            unit: replace(self, factor=factor_to(self.our_unit, unit, self.operation)).combine(
                [numbers]
            )
            for unit in UNITS[dimension_of(self.our_unit, self.operation)]
        }

    def change_of_unit(self, columns: list[NDArray[np.float64]]) -> str | None:
        """Why rows must be in another unit than the first ones, if they must."""
        for part, numbers in zip(self.parts or (self,), columns, strict=True):
            count = np.isfinite(numbers).sum()
            if not part.settled or not count:
                continue
            given, unit, allowed = (
                part.in_units(numbers),
                canonical(part.unit),
                range_of(part.feature),
            )
            if count < _FEW and plausible(given[unit], allowed):
                continue
            other = _other_unit(given, unit, allowed)
            if other is not None:
                return (
                    f"the unit changes here: median {np.nanmedian(numbers):.2g} looks like "
                    f"{other}, not {unit}"
                )
        return None


@dataclass(frozen=True)
class Candidate:
    """A column that may give a feature."""

    column: str
    feature: str
    operation: str
    level: Exactness
    unit: str | None
    how: str
    #: Whether the unit was given in the mapping file, and may be implausible.
    certain: bool = False
    #: Whether the name is ours or was mapped, so that without a unit ours is meant.
    sure: bool = False
    #: Greatest median, in our unit, with which the name is not thought to mean something else.
    high: float | None = None


@dataclass(frozen=True)
class Fitted:
    """A candidate whose unit is known, with its values in the first rows."""

    taken: Taken
    numbers: NDArray[np.float64]
    level: Exactness
    #: Whether the unit is known from more than the values.
    sure: bool = False

    @property
    def column(self) -> str:
        """The column; of a difference the first."""
        return self.taken.columns[0]


class RefusedColumnError(Exception):
    """Why a column gives nothing, and what to do."""


class EmptyError(RefusedColumnError):
    """A column that holds no values."""


def plausible(values: NDArray[np.float64], allowed: Range) -> bool:
    """Whether values may be those of a feature."""
    return bool(allowed.low <= np.nanmedian(values) <= allowed.high)


def possible(values: NDArray[np.float64], allowed: Range) -> bool:
    """Whether the median may be that of a single unusual cell."""
    return bool(allowed.least <= np.nanmedian(values) <= allowed.most)


def unusual(values: NDArray[np.float64], allowed: Range, unit: str) -> str:
    """What to say of a column whose median is not plausible, but possible."""
    would = amount(float(np.nanmedian(values)), unit)
    return f"unusual values: the median {would} is outside {span(allowed.low, allowed.high, unit)}"


def _may_be_in(values: NDArray[np.float64], allowed: Range, unit: str) -> bool:
    """Whether values alone tell that they are in a unit."""
    if not plausible(values, allowed) or abs(np.nanmedian(values)) < allowed.floor:
        return False
    if DIMENSION[unit] != "ratio":
        return True
    # Few per cent look like a fraction: a unit counts only if the largest values allow it.
    large = float(np.nanquantile(np.abs(values), 0.95))
    if unit == "%":
        return large * 100 > max(allowed.high, 1)
    return large <= max(allowed.most, 1)


def _near_zero(values: NDArray[np.float64], allowed: Range) -> bool:
    """Whether a median is so small that any smaller unit would be plausible as well."""
    return bool(allowed.low <= 0 <= allowed.high and abs(np.nanmedian(values)) < allowed.floor)


def _explains(values: NDArray[np.float64], allowed: Range, unit: str) -> bool:
    """Whether a unit would make values plausible that are not in another."""
    if DIMENSION[unit] == "ratio":
        return _may_be_in(values, allowed, unit)
    return plausible(values, allowed) and not _near_zero(values, allowed)


def _other_unit(given: dict[str, NDArray[np.float64]], unit: str, allowed: Range) -> str | None:
    """The unit that explains values which the one they are said to be in does not."""
    values = given[unit]
    small = _near_zero(values, allowed)
    if unit == "%":
        # Fractions called per cent are small enough to be plausible.
        small = bool(np.any(values != 0)) and not _may_be_in(values, allowed, unit)
    if plausible(values, allowed) and not small:
        return None
    others = (name for name in given if name != unit)
    return next((name for name in others if _explains(given[name], allowed, name)), None)


def fit(candidate: Candidate, rows: FirstRows) -> Fitted:
    """Settle a candidate's unit.

    Parameters
    ----------
    candidate : Candidate
    rows : FirstRows
        The table's.

    Returns
    -------
    Fitted

    Raises
    ------
    RefusedColumnError
        If the values cannot be the feature's, or the unit cannot be told.
    """
    column, feature = candidate.column, candidate.feature
    ours, allowed = features()[feature].unit, range_of(feature)
    no_zero = allowed.no_zero or candidate.operation == "reciprocal"
    beside = () if no_zero else rows.beside(family_of(feature))
    numbers = _numbers(candidate, rows, no_zero, beside)
    operation = candidate.operation
    if operation == "sign":
        operation = "negated" if np.nanmedian(numbers) > 0 else "plain"
    fits: dict[str, Fitted] = {}
    for unit in UNITS[dimension_of(ours, operation)]:
        taken = Taken(
            feature,
            (column,),
            unit=ours if canonical(ours) == unit else unit,
            factor=factor_to(ours, unit, operation),
            how="",
            operation=operation,
            our_unit=ours,
            second_factor=1.0,
            comma=(rows.read(column).commas == "decimal",),
            no_zero=(no_zero,),
            limits=(allowed.least, allowed.most),
            beside=beside,
        )
        fits[unit] = Fitted(taken, taken.combine([numbers]), candidate.level)
    unit, how = _settle_unit(candidate, fits, float(np.nanmedian(numbers)))
    taken, values = fits[unit].taken, fits[unit].numbers
    outside = (values < allowed.least) | (values > allowed.most)
    if np.sum(outside) > np.sum(np.isfinite(values)) / 2:
        raise RefusedColumnError(
            f"most of its values are outside {span(*taken.limits, ours)} in {unit}; correct the "
            f"unit or write {entry(column, 'ignore')}"
        )
    if taken.comma[0]:
        how.append("decimal commas")
    if operation == "negated":
        how.append("sign turned")
    settled = _other_unit(_given(fits), unit, allowed) is None
    taken = replace(taken, how="; ".join(how) or "our own name", settled=settled)
    sure = candidate.sure or candidate.unit is not None
    return Fitted(taken, np.where(outside, np.nan, values), candidate.level, sure)


def _given(fits: dict[str, Fitted]) -> dict[str, NDArray[np.float64]]:
    return {unit: option.numbers for unit, option in fits.items()}


def _numbers(
    candidate: Candidate, rows: FirstRows, no_zero: bool, beside: tuple[tuple[str, bool], ...]
) -> NDArray[np.float64]:
    """The numbers of a candidate's column, if most of it are numbers."""
    read = rows.read(candidate.column)
    if read.commas == "unclear":
        raise RefusedColumnError(
            "its commas may be decimal commas or thousands; write the column with points and "
            "without thousands separators"
        )
    if read.filled and read.share < NUMERIC_SHARE:
        found = next((f", such as '{example}'" for _, _, example in read.counted.reasons), "")
        raise RefusedColumnError(f"most of its values are not numbers{found}; correct them")
    missing = (
        read.zeros
        if no_zero
        else read.zeros & zero_rows((rows.read(name) for name, _ in beside), len(read.zeros))
    )
    numbers = np.where(missing, np.nan, read.numbers)
    if not np.isfinite(numbers).any():
        counted = f" ({read.counted})" if read.counted.total else ""
        raise EmptyError(f"it holds no values{counted}")
    return numbers


def _settle_unit(
    candidate: Candidate, fits: dict[str, Fitted], median: float
) -> tuple[str, list[str]]:
    """The unit of a candidate whose values are given in every unit, and how it was recognised."""
    column, feature, known = candidate.column, candidate.feature, candidate.unit
    allowed, given = range_of(feature), _given(fits)
    how = [candidate.how] if candidate.how else []
    if known is not None and known not in fits:
        dimension = dimension_of(features()[feature].unit, candidate.operation)
        nearest = _nearest(given, feature)
        what = f"correct it, or write {entry(column, 'ignore')}"
        if nearest is not None:
            what = f"if the name is right, write {entry(column, feature, nearest)}"
        raise RefusedColumnError(f"says {known}, but {feature} is a {dimension}; {what}")
    likely = [unit for unit, values in given.items() if _may_be_in(values, allowed, unit)]
    _require_our_definition(candidate, given, likely)
    if known is not None:
        return known, _how_known(candidate, given, known, how, median)
    if len(likely) == 1:
        return likely[0], [*how, "unit from the values"] if len(fits) > 1 else how
    if likely:
        raise RefusedColumnError(
            f"its median {median:g} may be in {' or '.join(likely)}; write "
            f"{entry(column, feature, likely[0])}, or with the unit it has"
        )
    ours = canonical(features()[feature].unit)
    if candidate.sure and ours in given:
        values = given[ours]
        if possible(values, allowed) and _other_unit(given, ours, allowed) is None:
            odd = not plausible(values, allowed)
            return ours, [*how, unusual(values, allowed, features()[feature].unit)] if odd else how
    raise RefusedColumnError(_not_told(candidate, given, median))


def _how_known(
    candidate: Candidate,
    given: dict[str, NDArray[np.float64]],
    known: str,
    how: list[str],
    median: float,
) -> list[str]:
    """How a unit that is named was recognised; refused if another explains the values."""
    column, feature = candidate.column, candidate.feature
    ours, allowed, values = features()[feature].unit, range_of(feature), given[known]
    expected = span(allowed.low, allowed.high, ours)
    would = amount(float(np.nanmedian(values)), ours)
    fits = plausible(values, allowed)
    if candidate.certain:
        return how if fits else [*how, f"its median {would} is outside {expected}"]
    how = ["unit in the name", *how]
    other = _other_unit(given, known, allowed)
    if other is None and fits:
        return how
    steady = _steady_over_peak(candidate, values)
    can_be = possible(values, allowed)
    # An odd depth may be a potential.
    depth = split_stimulus(feature)[0] in ("fast_trough_deltav", "trough_deltav")
    if other is None and can_be and not steady and (candidate.sure or not depth):
        return [*how, unusual(values, allowed, ours)]
    if steady:
        what = f"if it is the steady state over the peak, write {_sag(column, 'one_minus')}"
    elif other is not None:
        what = f"if it is {other}, write {entry(column, feature, other)}"
    elif can_be:
        what = f"if it is right all the same, write {entry(column, feature, known)}"
    else:
        what = f"correct it, or write {entry(column, 'ignore')}"
    but = "unlikely small" if fits else f"outside {expected}"
    raise RefusedColumnError(
        f"says {known}, but its median {median:g} would be {would} of {feature}, {but}; {what}"
    )


def _not_told(candidate: Candidate, given: dict[str, NDArray[np.float64]], median: float) -> str:
    """Why a candidate that names no unit is refused."""
    column, feature = candidate.column, candidate.feature
    ours, allowed = features()[feature].unit, range_of(feature)
    nearest = _nearest(given, feature)
    if _steady_over_peak(candidate, given[next(iter(given))]):
        what = f"if it is the steady state over the peak, write {_sag(column, 'one_minus')}"
    elif nearest is not None:
        what = f"if it is this feature, write {entry(column, feature, nearest)} with its unit"
    else:
        what = "correct it if it is this feature"
    why = (
        f"is plausible for {feature} in none of {', '.join(given)} "
        f"({span(allowed.low, allowed.high, ours)} expected)"
    )
    if any(plausible(values, allowed) for values in given.values()):
        why = f"does not tell that of {feature}"
    if _steady_over_peak(candidate, given[next(iter(given))]):
        why = f"is more than expected of {feature}"
    return (
        f"names no unit, and its median {median:g} {why}; {what}, or else {line(column, 'ignore')}"
    )


def _require_our_definition(
    candidate: Candidate, given: dict[str, NDArray[np.float64]], likely: list[str]
) -> None:
    """Refuse values that another quantity of the same name has."""
    if candidate.high is None:
        return
    column, feature, allowed = candidate.column, candidate.feature, range_of(candidate.feature)
    ratio = "fraction" in given
    unit = candidate.unit or ("fraction" if ratio else next(iter(likely), None))
    if unit is None:
        return
    median = float(np.nanmedian(given[unit]))
    if median <= candidate.high:
        return
    stem, or_else = split_stimulus(feature)[0], f"or else {line(column, 'ignore')}"
    nearest = _nearest(given, feature)
    if stem != "sag" and possible(given[unit], allowed):
        nearest = unit
    same = (
        f"to take it all the same, write {entry(column, feature, nearest)}, {or_else}"
        if nearest == unit
        else f"if it is in {nearest}, write {entry(column, feature, nearest)}, {or_else}"
        if nearest is not None
        else f"write {entry(column, 'ignore')}"
    )
    if stem == "adapt":
        raise RefusedColumnError(
            f"its median {median:g} looks like another definition of adaptation, such as the "
            f"first interval over the last; {same}"
        )
    if stem != "sag":
        raise RefusedColumnError(
            f"its median {amount(median, features()[feature].unit)} is more than spikes reach "
            f"above threshold, so it looks measured from rest; {same}"
        )
    if plausible(given[unit], allowed):
        raise RefusedColumnError(
            f"its median {median:g} may be the sag over the deflection or the steady state over "
            f"the peak; write {_sag(column, 'plain', told=False)} for the first or "
            f"{_sag(column, 'one_minus')} for the second"
        )
    if not _steady_over_peak(candidate, given[unit]) and median <= _RATIO_OF_SAG:
        raise RefusedColumnError(
            f"its median {median:g} looks like another definition, such as the peak over the "
            f"steady state; {same}"
        )


def _steady_over_peak(candidate: Candidate, values: NDArray[np.float64]) -> bool:
    """Whether a sag that is too large is what is left of it."""
    if candidate.feature != "sag" or candidate.sure:
        return False
    allowed = range_of("sag")
    return not plausible(values, allowed) and plausible(1 - values, allowed)


def _sag(column: str, operation: str, *, told: bool = True) -> str:
    """What to write to say how a sag was computed."""
    said = f"{{feature: sag, operation: {operation}}}"
    return entry(column, said) if told else line(column, said)


def _nearest(given: dict[str, NDArray[np.float64]], feature: str) -> str | None:
    """The likeliest unit; None if the values are impossible in all."""
    allowed, ours = range_of(feature), canonical(features()[feature].unit)
    can = [unit for unit, values in given.items() if possible(values, allowed)]
    can.sort(key=lambda unit: (not plausible(given[unit], allowed), unit != ours))
    return next(iter(can), None)
