"""What becomes of a column: the feature that it gives and its unit, or why it gives none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosspatch.tables.names import Range, range_of
from crosspatch.tables.units import UNITS, amount, canonical, dimension_of, factor_to, span

_Values = NDArray[np.float64]

# Rows of which a small median says little.
_FEW = 10


@dataclass(frozen=True)
class Reason:
    """Why a column gives no feature."""

    why: str
    #: What to write in a table or mapping file, where that settles it; of no use on a screen.
    remedy: str = ""

    def __str__(self) -> str:
        return "; ".join(part for part in (self.why, self.remedy) if part)


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
    #: By what column and unit were recognised.
    signs: tuple[str, ...]
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
    def how(self) -> str:
        """How column and unit were recognised, in words."""
        return "; ".join(self.signs)

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

    def combine(self, columns: list[_Values]) -> _Values:
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

    def in_units(self, numbers: _Values) -> dict[str, _Values]:
        """The feature's values, in our unit, if the only column were in each unit it may have."""
        return {
            unit: replace(self, factor=factor_to(self.our_unit, unit, self.operation)).combine(
                [numbers]
            )
            for unit in UNITS[dimension_of(self.our_unit, self.operation)]
        }

    def change_of_unit(self, columns: list[_Values]) -> str | None:
        """Why rows must be in another unit than the first ones, if they must."""
        for part, numbers in zip(self.parts or (self,), columns, strict=True):
            count = np.isfinite(numbers).sum()
            if not part.settled or not count:
                continue
            given, unit = part.in_units(numbers), canonical(part.unit)
            allowed = range_of(part.feature)
            if count < _FEW and plausible(given[unit], allowed):
                continue
            other = other_unit(given, unit, allowed)
            if other is not None:
                return (
                    f"the unit changes here: median {np.nanmedian(numbers):.2g} looks like "
                    f"{other}, not {unit}"
                )
        return None


def plausible(values: _Values, allowed: Range) -> bool:
    """Whether values may be those of a feature."""
    return bool(allowed.low <= np.nanmedian(values) <= allowed.high)


def possible(values: _Values, allowed: Range) -> bool:
    """Whether the median may be that of a single unusual cell."""
    return bool(allowed.least <= np.nanmedian(values) <= allowed.most)


def unusual(values: _Values, allowed: Range, unit: str) -> str:
    """What to say of a column whose median is not plausible, but possible."""
    would = amount(float(np.nanmedian(values)), unit)
    return f"unusual values: the median {would} is outside {span(allowed.low, allowed.high, unit)}"


def may_be_in(values: _Values, allowed: Range, unit: str) -> bool:
    """Whether values alone tell that they are in a unit."""
    if not plausible(values, allowed) or abs(np.nanmedian(values)) < allowed.floor:
        return False
    if unit not in UNITS["ratio"]:
        return True
    # Few per cent look like a fraction: a unit counts only if the largest values allow it.
    large = float(np.nanquantile(np.abs(values), 0.95))
    if unit == "%":
        return large * 100 > max(allowed.high, 1)
    return large <= max(allowed.most, 1)


def _near_zero(values: _Values, allowed: Range) -> bool:
    """Whether a median is so small that any smaller unit would be plausible as well."""
    return bool(allowed.low <= 0 <= allowed.high and abs(np.nanmedian(values)) < allowed.floor)


def _explains(values: _Values, allowed: Range, unit: str) -> bool:
    """Whether a unit would make values plausible that are not in another."""
    if unit in UNITS["ratio"]:
        return may_be_in(values, allowed, unit)
    return plausible(values, allowed) and not _near_zero(values, allowed)


def other_unit(given: dict[str, _Values], unit: str, allowed: Range) -> str | None:
    """The unit that explains values which the one they are said to be in does not."""
    values = given[unit]
    small = _near_zero(values, allowed)
    if unit == "%":
        # Fractions called per cent are small enough to be plausible.
        small = bool(np.any(values != 0)) and not may_be_in(values, allowed, unit)
    if plausible(values, allowed) and not small:
        return None
    others = (name for name in given if name != unit)
    return next((name for name in others if _explains(given[name], allowed, name)), None)
