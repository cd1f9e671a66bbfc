"""What became of every column of a table: the values they give, and the report of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.errors import CohortError
from crosspatch.features.layouts import Layout
from crosspatch.tables.mapping import entry
from crosspatch.tables.taken import Reason, Taken
from crosspatch.tables.units import canonical, span
from crosspatch.tables.values import (
    Column,
    Counted,
    count_cells,
    read_column,
    read_layers,
    zero_rows,
)

# Columns that give nothing and are named, for each reason.
_SHOWN = 12

_ZERO_BESIDE = "exactly 0 beside another 0 of the same sweep, which stand for missing values"


@dataclass(frozen=True)
class Ambiguity:
    """A column that may be one of several features."""

    column: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class ColumnMap:
    """What became of every column of a table."""

    layout: Layout
    cell_id: str | None  # columns that name a cell and its species
    species: str | None
    layer: str | None  # the cortical layer, where the layout has it
    taken: tuple[Taken, ...]  # in the order of the layout
    refused: tuple[tuple[str, Reason], ...] = ()  # Column, and why
    ambiguous: tuple[Ambiguity, ...] = ()  # those of `refused` that may be one of several features
    #: Column that was understood and is not needed, and why.
    unused: tuple[tuple[str, Reason], ...] = ()
    labels: tuple[str, ...] = ()  # columns that are never features
    unknown: tuple[str, ...] = ()  # columns of numbers that were not understood
    absent: tuple[str, ...] = ()  # columns of the mapping that the table does not have

    @property
    def missing(self) -> tuple[str, ...]:
        """Features of the layout that no column gives."""
        given = {taken.feature for taken in self.taken}
        return tuple(name for name in self.layout.feature_names if name not in given)

    def values(self, frame: pd.DataFrame) -> tuple[NDArray[np.float32], dict[str, Counted]]:
        """The features of some rows of the table, and what was taken as missing.

        Rows are text or numbers; features have shape (cells, features), in the layout's units, NaN
        where missing; counted are only columns of which anything was. A CohortError if a column
        that gives a feature is not there.
        """
        result = np.full((len(frame), len(self.layout.features)), np.nan, dtype=np.float32)
        series = {str(name): column for name, column in frame.items()}
        read: dict[str, Column] = {}
        counted: dict[str, Counted] = {}
        for taken in self.taken:
            for part in taken.parts or (taken,):
                name = part.columns[0]
                if name not in series:
                    raise CohortError(
                        f"column '{name}' is missing from some rows of the table; every part "
                        "of a table must have the same columns"
                    )
                if name not in read:
                    column = read_column(series[name], marks=part.marks[0], no_zero=part.no_zero[0])
                    unit = canonical(part.unit)
                    read[name] = column.in_unit(unit, series[name], bare=part.bare)
                    counted[name] = read[name].counted
            values, odd = _computed(taken, read, series)
            counted[taken.columns[0]] += odd
            result[:, self.layout.feature_names.index(taken.feature)] = values
        return result, {name: found for name, found in counted.items() if found.total}

    def layers(self, frame: pd.DataFrame) -> tuple[NDArray[np.float64], dict[str, Counted]]:
        """Where cells lie, in order of depth, as `read_layers`; what is missing as `values`."""
        if self.layer is None:
            return np.full(len(frame), np.nan), {}
        found, odd = read_layers(frame[self.layer])
        return found, {self.layer: odd} if odd.total else {}

    def report(self) -> list[tuple[str, str, str]]:
        """What became of every column, for a table.

        In each row: ``taken``, ``refused``, ``unused``, ``never features``, ``not understood``,
        ``missing``, ``cell id``, ``species`` or ``layer``; the features or columns; and the
        details.
        """
        special = (("cell id", self.cell_id), ("species", self.species), ("layer", self.layer))
        rows = [(what, column, "") for what, column in special if column is not None]
        for taken in self.taken:
            rows.append(("taken", taken.feature, f"{taken.source}{taken.in_unit} ({taken.how})"))
        rows += [("refused", column, str(why)) for column, why in self.refused]
        together: dict[str, list[str]] = {}  # the same reason is said once
        for column, why in self.unused:
            together.setdefault(str(why), []).append(column)
        rows += [("unused", _some(names), why) for why, names in together.items()]
        if self.labels:
            rows.append(("never features", _some(self.labels), ""))
        rows += [
            ("not understood", column, f"if it is a feature, write {entry(column, 'FEATURE')}")
            for column in self.unknown
        ]
        if self.missing:
            rows.append(("missing", _some(self.missing), ""))
        return rows

    def lines(self) -> list[str]:
        """`report` as lines of text; of many columns that give nothing the first ones."""
        lines, seen = [], Counter[str]()
        for status, name, details in self.report():
            seen[status] += 1
            if status == "taken" or seen[status] <= _SHOWN:
                line = f"{status}: {name}" + (f": {details}" if details else "")
                # A header may be of several lines, as spreadsheets have them.
                lines.append(re.sub(r"[\r\n]+", " ", line))
        more = {
            status: n - _SHOWN for status, n in seen.items() if n > _SHOWN and status != "taken"
        }
        return lines + [f"{status}: {n} more columns" for status, n in more.items()]


def _some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _computed(
    taken: Taken, read: dict[str, Column], series: dict[str, pd.Series]
) -> tuple[NDArray[np.float64], Counted]:
    """The values of a feature, NaN where they cannot be, and what was taken as missing."""
    first = taken.columns[0]
    columns = [read[name].numbers for name in taken.columns]
    counted = Counted()
    zeros = read[first].zeros
    if taken.beside and zeros.any():
        others = (
            read_column(series[name], marks=marks) for name, marks in taken.beside if name in series
        )
        zeros = zeros & zero_rows(others)
        counted += count_cells(_ZERO_BESIDE, zeros, series[first], alike=True)
        columns[0] = np.where(zeros, np.nan, columns[0])
    values = taken.combine(columns)
    why = taken.change_of_unit(columns)
    odd = ~np.isnan(values)
    if why is None:
        why = f"outside {span(*taken.limits, taken.our_unit)}"
        odd = (values < taken.limits[0]) | (values > taken.limits[1])
    return np.where(odd, np.nan, values), counted + count_cells(why, odd, series[first])
