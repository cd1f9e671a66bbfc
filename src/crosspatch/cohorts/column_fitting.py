"""Whether a column can be the feature that its name says, and in which unit it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosspatch.cohorts.column_meanings import Exactness
from crosspatch.cohorts.column_names import Range, features, range_of, split_stimulus
from crosspatch.cohorts.column_overrides import entry, line
from crosspatch.cohorts.column_units import (
    DIMENSION,
    UNITS,
    amount,
    canonical,
    dimension_of,
    factor_to,
    span,
)
from crosspatch.cohorts.column_values import NUMERIC_SHARE, FirstRows


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
        ``plain``, ``difference``, ``negated``, ``reciprocal`` or ``one_minus``.
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
    operation: str
    our_unit: str
    second_factor: float
    comma: tuple[bool, ...]
    no_zero: tuple[bool, ...]
    limits: tuple[float, float]

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


@dataclass(frozen=True)
class Fitted:
    """A candidate whose unit is known, with its values in the first rows."""

    taken: Taken
    numbers: NDArray[np.float64]
    level: Exactness

    @property
    def column(self) -> str:
        """The column; of a difference the first."""
        return self.taken.columns[0]


class RefusedError(Exception):
    """Why a column gives nothing, and what to do."""


def plausible(values: NDArray[np.float64], allowed: Range) -> bool:
    """Whether values may be those of a feature."""
    return bool(allowed.low <= np.nanmedian(values) <= allowed.high)


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
    RefusedError
        If the values cannot be the feature's, or the unit cannot be told.
    """
    column, feature = candidate.column, candidate.feature
    ours, allowed = features()[feature].unit, range_of(feature)
    no_zero = allowed.no_zero or rows.zeros_for_missing or candidate.operation == "reciprocal"
    numbers = _numbers(candidate, rows, no_zero)
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
        )
        fits[unit] = Fitted(taken, taken.combine([numbers]), candidate.level)
    unit, how = _settle_unit(candidate, fits, float(np.nanmedian(numbers)))
    taken, values = fits[unit].taken, fits[unit].numbers
    outside = (values < allowed.least) | (values > allowed.most)
    if np.sum(outside) > np.sum(np.isfinite(values)) / 2:
        raise RefusedError(
            f"most of its values are outside {span(*taken.limits, ours)} in {unit}; correct the "
            f"unit or write {entry(column, 'ignore')}"
        )
    if taken.comma[0]:
        how.append("decimal commas")
    if operation == "negated":
        how.append("sign turned")
    taken = replace(taken, how="; ".join(how) or "our own name")
    return Fitted(taken, np.where(outside, np.nan, values), candidate.level)


def _numbers(candidate: Candidate, rows: FirstRows, no_zero: bool) -> NDArray[np.float64]:
    """The numbers of a candidate's column, if most of it are numbers."""
    read = rows.read(candidate.column)
    if read.commas == "unclear":
        raise RefusedError(
            "its commas may be decimal commas or thousands; write the column with points and "
            "without thousands separators"
        )
    if read.filled and read.share < NUMERIC_SHARE:
        found = next((f", such as '{example}'" for _, _, example in read.counted.reasons), "")
        raise RefusedError(f"most of its values are not numbers{found}; correct them")
    numbers = np.where(read.numbers == 0, np.nan, read.numbers) if no_zero else read.numbers
    if not np.isfinite(numbers).any():
        counted = f" ({read.counted})" if read.counted.total else ""
        raise RefusedError(f"it holds no values{counted}")
    return numbers


def _settle_unit(
    candidate: Candidate, fits: dict[str, Fitted], median: float
) -> tuple[str, list[str]]:
    """The unit of a candidate whose values are given in every unit, and how it was recognised."""
    column, feature, known = candidate.column, candidate.feature, candidate.unit
    ours, allowed = features()[feature].unit, range_of(feature)
    expected = span(allowed.low, allowed.high, ours)
    how = [candidate.how] if candidate.how else []
    if known is not None and known not in fits:
        dimension = dimension_of(ours, candidate.operation)
        raise RefusedError(
            f"says {known}, but {feature} is a {dimension}; if the name is right, write "
            f"{entry(column, feature, next(iter(fits)))}"
        )
    likely = [unit for unit, option in fits.items() if _may_be_in(option.numbers, allowed, unit)]
    if known is not None:
        values = fits[known].numbers
        would = amount(float(np.nanmedian(values)), ours)
        if not candidate.certain:
            how.insert(0, "unit in the name")
        if plausible(values, allowed):
            return known, how
        if candidate.certain:
            return known, [*how, f"its median {would} is outside {expected}"]
        other = next((unit for unit in likely if unit != known), None)
        what = f"it is {other}" if other else "it is right all the same"
        raise RefusedError(
            f"says {known}, but its median {median:g} would be {would} of {feature}, outside "
            f"{expected}; if {what}, write {entry(column, feature, other or known)}"
        )
    if len(likely) == 1:
        return likely[0], [*how, "unit from the values"] if len(fits) > 1 else how
    if likely:
        raise RefusedError(
            f"its median {median:g} may be in {' or '.join(likely)}; write "
            f"{entry(column, feature, likely[0])}, or with the unit it has"
        )
    if split_stimulus(feature)[0] == "sag" and allowed.low <= 1 - median <= allowed.high:
        steady = entry(column, "{feature: sag, operation: one_minus}")
        what = f"if it is the steady state over the peak, write {steady}"
    else:
        first = entry(column, feature, next(iter(fits)))
        what = f"if it is this feature, write {first} with its unit"
    raise RefusedError(
        f"names no unit, and its median {median:g} is plausible for {feature} in none of "
        f"{', '.join(fits)} ({expected} expected); {what}, or else {line(column, 'ignore')}"
    )
