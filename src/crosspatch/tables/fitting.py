"""Whether a column can be the feature that its name says, and in which unit it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosspatch.tables.mapping import entry
from crosspatch.tables.marks import Marks
from crosspatch.tables.meanings import Exactness
from crosspatch.tables.names import Numbers, family_of, features, range_of
from crosspatch.tables.settling import (
    IN_CELLS,
    Candidate,
    EmptyError,
    RefusedColumnError,
    Unsettled,
)
from crosspatch.tables.taken import Taken
from crosspatch.tables.units import DIMENSION, canonical, dimension_of, factor_to, span
from crosspatch.tables.values import NUMERIC_SHARE, Column, FirstRows, read_column, zero_rows

# Share of the texts that may be decimals or thousands which the right reading makes plausible; the
# wrong one does so for fewer than the rest.
_EXPLAINED = 0.9


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
    unit, how = Unsettled(candidate, given, median, allowed, ours).settle()
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
    meaning = replace(meaning, unit=unit, notes=(IN_CELLS, *meaning.notes))
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
