"""What becomes of a column: the feature that it gives and its unit, or why it gives none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crosspatch.tables.marks import Marks
from crosspatch.tables.names import Numbers, range_of
from crosspatch.tables.units import UNITS, UNSPECIFIED, canonical, dimension_of, factor_to

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


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A feature and the column or columns that give it."""

    feature: str
    columns: tuple[str, ...]  # one column, or two where the feature is the first less the second
    unit: str  # unit in the source; that of the first column for a difference
    factor: float = 1.0  # by which the column is multiplied; a reciprocal is taken after
    signs: tuple[str, ...] = ()  # by what column and unit were recognised
    operation: str  # one of `OPERATIONS`, or ``difference``
    our_unit: str  # unit of the layout
    second_factor: float = 1.0  # factor of the second column of a difference
    marks: tuple[Marks, ...]  # of each column, how its numbers are written
    no_zero: tuple[bool, ...]  # of each column, whether an exact 0 stands for a missing value
    #: Least and greatest possible value, in our unit; others are taken as missing.
    limits: tuple[float, float]
    #: Columns of the same sweep that cannot be 0, and their marks: in rows in which one is 0, a 0
    #: of this column stands for a missing value too.
    beside: tuple[tuple[str, Marks], ...] = ()
    bare: bool = True  # whether a cell without a unit is in that of the column
    parts: tuple[Taken, ...] = ()  # the two potentials of a difference
    settled: bool = True  # whether the first rows fit the unit, so that later ones must

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
            "one_minus_reciprocal": f"1 less 1 / {names[0]}",
        }.get(self.operation, names[0])

    @property
    def in_unit(self) -> str:
        """In which unit the column is and taken, in words; empty where it has none."""
        if self.unit == UNSPECIFIED:
            return ""
        same = self.unit == self.our_unit
        return f" in {self.unit}" if same else f" in {self.unit}, taken as {self.our_unit}"

    def combine(self, columns: list[Numbers]) -> Numbers:
        """The feature's values, in our unit, from those of the columns."""
        values = columns[0] * self.factor
        if self.operation == "difference":
            return values - columns[1] * self.second_factor
        if self.operation == "negated":
            return -values
        if self.operation == "one_minus":
            return 1 - values
        if self.operation in ("reciprocal", "one_minus_reciprocal"):
            inverse = 1 / np.where(values == 0, np.nan, values)
            return inverse if self.operation == "reciprocal" else 1 - inverse
        return values

    def in_units(self, numbers: Numbers) -> dict[str, Numbers]:
        """The feature's values, in our unit, if the only column were in each unit it may have."""
        return {
            unit: replace(self, factor=factor_to(self.our_unit, unit, self.operation)).combine(
                [numbers]
            )
            for unit in UNITS[dimension_of(self.our_unit, self.operation)]
        }

    def change_of_unit(self, columns: list[Numbers]) -> str | None:
        """Why rows must be in another unit than the first ones, if they must."""
        for part, numbers in zip(self.parts or (self,), columns, strict=True):
            count = np.isfinite(numbers).sum()
            if not part.settled or not count:
                continue
            unit, allowed = canonical(part.unit), range_of(part.feature)
            if allowed.fits(part.combine([numbers]), unit):
                continue
            given = part.in_units(numbers)
            if count < _FEW and allowed.plausible(given[unit]):
                continue
            other = allowed.other_unit(given, unit)
            if other is not None:
                return (
                    f"the unit changes here: median {np.nanmedian(numbers):.2g} looks like "
                    f"{other}, not {unit}"
                )
        return None
