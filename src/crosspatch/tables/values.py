"""Numbers from a column of text: decimal marks, thousands, units, and what was refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crosspatch.features.cortical_layer import layer_depth
from crosspatch.tables.marks import (
    COMMA_NUMBER,
    MINUS,
    PLAIN_NUMBER,
    WITH_DEVIATION,
    Evidence,
    Marks,
    number_and_unit,
    number_of,
)
from crosspatch.tables.units import DIMENSION, UNITS
from crosspatch.texts import data_rows

#: Share of a column's filled cells that must be numbers.
NUMERIC_SHARE = 0.5

#: Texts, in small letters, that stand for no value.
MISSING = {row["text"] for row in data_rows("tables", "missing_values")}
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_NOT_A_NUMBER = "not a number"
_DEVIATION = "a mean with its deviation, so not of one cell"
_UNSAID = "without a unit beside values in several"


@dataclass(frozen=True)
class Counted:
    """Values of a column that were taken as missing."""

    #: Why, how many, and the first of them as it stands in the table unless all are alike.
    reasons: tuple[tuple[str, int, str | None], ...] = ()

    @property
    def total(self) -> int:
        """How many values."""
        return sum(count for _, count, _ in self.reasons)

    def __add__(self, other: Counted) -> Counted:
        """Both together, as for two chunks of one table."""
        reasons = {why: (count, example) for why, count, example in self.reasons}
        for why, count, example in other.reasons:
            before, first = reasons.get(why, (0, example))
            reasons[why] = (before + count, first)
        return Counted(tuple((why, *found) for why, found in reasons.items()))

    def __str__(self) -> str:
        return "; ".join(
            f"{count} {why}" + ("" if example is None else f", such as '{example}'")
            for why, count, example in self.reasons
        )


def count_cells(
    why: str, cells: NDArray[np.bool_], series: pd.Series, *, alike: bool = False
) -> Counted:
    """The fields of a column that are taken as missing for one reason; `alike` if all are 0."""
    if not cells.any():
        return Counted()
    example = None if alike else _shown(series.iloc[int(np.argmax(cells))])
    return Counted(((why, int(cells.sum()), example),))


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 30 else f"{text[:29]}…"


@dataclass(frozen=True)
class Column:
    """A column as numbers."""

    numbers: NDArray[np.float64]
    counted: Counted  # what was taken as missing
    filled: int  # cells that hold anything
    zeros: NDArray[np.bool_]  # the cells that are exactly 0
    units: tuple[str, ...] = ()  # those that its cells name, the most frequent first
    #: Of each cell the place of its unit, -1 where it names none; None where none does.
    unit_of: NDArray[np.intp] | None = None

    @property
    def share(self) -> float:
        """Share of the filled cells that are numbers."""
        no_numbers = (_NOT_A_NUMBER, _DEVIATION)
        bad = sum(count for why, count, _ in self.counted.reasons if why in no_numbers)
        return (self.filled - bad) / self.filled if self.filled else 0.0

    @property
    def of_deviations(self) -> bool:
        """Whether what is no number is a mean with its deviation."""
        return any(why == _DEVIATION for why, _, _ in self.counted.reasons)

    def in_unit(self, unit: str, series: pd.Series, *, bare: bool = True) -> Column:
        """With the cells that name a unit converted to this one; missing where they cannot be.

        Cells that name none are in it already; without `bare` they are missing.
        """
        if self.unit_of is None:
            return self
        factors = [
            UNITS[DIMENSION[each]][each] / UNITS[DIMENSION[unit]][unit]
            if DIMENSION[each] == DIMENSION[unit]
            else np.nan
            for each in self.units
        ]
        factor = np.array([*factors, 1.0 if bare else np.nan])[self.unit_of]
        there = np.isfinite(self.numbers) & np.isnan(factor)
        other = there & (self.unit_of >= 0)
        counted = self.counted + count_cells(f"in no unit of {DIMENSION[unit]}", other, series)
        counted += count_cells(_UNSAID, there & ~other, series)
        return replace(self, numbers=self.numbers * factor, counted=counted)


def read_layers(series: pd.Series) -> tuple[NDArray[np.float64], Counted]:
    """The cortical layers of a column, in order of depth.

    NaN where none is said, infinite where what is said is not understood.
    """
    which, distinct = pd.factorize(series)
    depths = np.array([*map(layer_depth, distinct), np.nan])[which]  # the last is of -1, missing
    said = np.array([*(str(each).strip().lower() not in MISSING for each in distinct), False])
    odd = np.isnan(depths) & said[which]
    return np.where(odd, np.inf, depths), count_cells("not a cortical layer", odd, series)


def read_column(series: pd.Series, *, marks: Marks = "plain", no_zero: bool = False) -> Column:
    """The numbers of a column of text or numbers.

    `no_zero` says that an exact 0 stands for a missing value.
    """
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        numbers = series.to_numpy(dtype=float, na_value=np.nan).copy()
        filled = int(np.sum(~np.isnan(numbers)))
        column = Column(numbers, Counted(), filled, zeros=numbers == 0)
    else:
        column = _read_texts(series, marks)
        numbers = column.numbers
    infinite = np.isinf(numbers)
    counted = column.counted + count_cells("infinite", infinite, series)
    numbers[infinite] = np.nan
    if no_zero:
        why = "exactly 0, which stands for a missing value"
        counted += count_cells(why, column.zeros, series, alike=True)
        numbers[column.zeros] = np.nan
    return replace(column, counted=counted)


def _read_texts(series: pd.Series, marks: Marks) -> Column:
    """A column of text, with its infinite numbers."""
    numbers, left, texts, which = _plain(series, marks)
    filled = len(series) - int(np.isnan(numbers).sum())
    read = [_Read.of(text, marks) for text in texts]
    numbers[left] = np.array([each.number for each in read], dtype=float)[which]
    filled += int(np.array([each.holds for each in read], dtype=bool)[which].sum())
    counted = Counted()
    for why in (_NOT_A_NUMBER, _DEVIATION):
        refused = np.zeros(len(series), dtype=bool)
        refused[left] = np.array([each.why == why for each in read], dtype=bool)[which]
        counted += count_cells(why, refused, series)
    column = Column(numbers, counted, filled, zeros=numbers == 0)
    said = Counter(filter(None, (read[k].unit for k in which)))
    if not said:
        return column
    places = {unit: place for place, (unit, _) in enumerate(said.most_common())}
    unit_of = np.full(len(series), -1)
    unit_of[left] = np.array([places.get(each.unit, -1) for each in read])[which]
    return replace(column, units=tuple(places), unit_of=unit_of)


def _plain(
    series: pd.Series, marks: Marks
) -> tuple[NDArray[np.float64], NDArray[np.intp], list[str], NDArray[np.intp]]:
    """What a column's plain numbers are, and what is left to be read one by one.

    The numbers, NaN for the others; the rows of those that hold anything; their distinct texts;
    and which of these each row has. Nearly all of a column is plain numbers.
    """
    if isinstance(series.dtype, pd.ArrowDtype):
        numbers = _of_arrow(pa.array(series.array), marks)
    elif marks == "comma":
        texts = np.array([isinstance(value, str) for value in series], dtype=bool)
        plain = pd.to_numeric(series.mask(texts), errors="coerce")
        numbers = np.array(plain, dtype=float)
    else:
        numbers = np.array(pd.to_numeric(series, errors="coerce"), dtype=float)
    left = np.flatnonzero(np.isnan(numbers) & series.notna().to_numpy())
    others = series.iloc[left]
    if not isinstance(series.dtype, pd.ArrowDtype):
        others = others.astype(str)
    which, distinct = pd.factorize(others)
    return numbers, left, [text.strip() for text in distinct], which


def _of_arrow(column: pa.ChunkedArray, marks: Marks) -> NDArray[np.float64]:
    """The plain numbers of a column of text, NaN for all that may be something else."""
    try:
        if marks != "comma":
            return _as_numbers(column)
    except pa.ArrowInvalid:
        pass  # not all of it is plain numbers
    column = pc.utf8_trim_whitespace(pc.replace_substring_regex(column, MINUS, "-"))
    pattern = COMMA_NUMBER if marks == "comma" else PLAIN_NUMBER
    fits = pc.match_substring_regex(column, f"^({pattern.pattern})$")
    return _as_numbers(pc.replace_substring(pc.if_else(fits, column, None), ",", "."))


def _as_numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.array(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), dtype=float)


class _Read(NamedTuple):
    """What a text says."""

    number: float = np.nan
    holds: bool = True  # whether it says anything
    why: str = ""  # why it is no number
    unit: str = ""  # the unit that it names

    @classmethod
    def of(cls, text: str, marks: Marks) -> _Read:
        if text.lower().rstrip(".") in MISSING:
            return cls(holds=False)
        text = re.sub(MINUS, "-", text)
        number = number_of(text, marks)
        if number is not None:
            return cls(number)
        if _INFINITE.fullmatch(text):
            return cls(np.inf)
        if WITH_DEVIATION.search(text):
            return cls(why=_DEVIATION)
        parts = number_and_unit(text)
        number = None if parts is None else number_of(parts[0], marks)
        if parts is None or number is None:
            return cls(why=_NOT_A_NUMBER)
        return cls(number, unit=parts[1])


def zero_rows(columns: Iterable[Column]) -> NDArray[np.bool_]:
    """The rows in which any of some columns is exactly 0; a single False without columns."""
    return np.any([column.zeros for column in columns], axis=0)


class FirstRows:
    """The first rows of a table; every column is read once."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.headers = [str(name) for name in frame.columns]
        # By family of features, the columns that cannot be 0.
        self._never_zero: dict[str, list[str]] = {}
        self._frame = frame
        self._place = {name: place for place, name in enumerate(self.headers)}
        self._read: dict[tuple[str, Marks], Column] = {}
        self._evidence: dict[str, Evidence] = {}
        self._of_table: Marks | None = None

    def series(self, column: str) -> pd.Series:
        """A column as it stands."""
        return self._frame.iloc[:, self._place[column]]

    def settle(self, columns: Iterable[str]) -> None:
        """Find out by some columns which marks the table's numbers have."""
        found = {self._evidence_of(column).sure for column in columns} - {None}
        self._of_table = found.pop() if len(found) == 1 else None

    def marks(self, column: str) -> Marks | None:
        """How a column writes its numbers; None if it cannot be told."""
        return self._evidence_of(column).marks(self._of_table)

    def either(self, column: str) -> list[str]:
        """Texts of a column that may be decimals or thousands."""
        return self._evidence_of(column).either

    def spelled(self, column: str, marks: Marks) -> list[str]:
        """How a column writes its numbers, in words, where that is not as usual."""
        found = self._evidence_of(column)
        how = ["decimal commas"] if marks == "comma" else []
        other = "points" if marks == "comma" else "commas"
        mark = "." if marks == "comma" else ","
        if marks != "plain" and (found.grouped or any(mark in text for text in found.either)):
            how.append(f"{other} between thousands")
        return [*how, "spaces between thousands"] if found.spaced else how

    def read(self, column: str, marks: Marks | None = None) -> Column:
        """A column as numbers, by its marks or by others."""
        marks = marks or self.marks(column) or "point"
        if (column, marks) not in self._read:
            self._read[column, marks] = read_column(self.series(column), marks=marks)
        return self._read[column, marks]

    def _evidence_of(self, column: str) -> Evidence:
        if column not in self._evidence:
            self._evidence[column] = Evidence.of(self.series(column))
        return self._evidence[column]

    def never_zero(self, column: str, family: str) -> None:
        """Note that a column cannot be 0: where it is, zeros of its family are missing too."""
        self._never_zero.setdefault(family, []).append(column)

    def beside(self, family: str) -> tuple[tuple[str, Marks], ...]:
        """The columns of a family that cannot be 0, and their marks."""
        found = self._never_zero.get(family, [])
        return tuple((name, self.marks(name) or "point") for name in found)
