"""Numbers from a column of text: decimal commas, marks of missing values, and what was refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crosspatch.tables.units import data_rows

#: Share of a column's filled cells that must be numbers.
NUMERIC_SHARE = 0.5

_MISSING = {row["text"] for row in data_rows("missing_values.csv")}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_NOT_A_NUMBER = "not a number"

#: How a column uses commas; an unclear one may be of thousands.
Commas = Literal["none", "decimal", "unclear"]


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
    commas: Commas = "none"  # how it uses commas

    @property
    def share(self) -> float:
        """Share of the filled cells that are numbers."""
        bad = sum(count for why, count, _ in self.counted.reasons if why == _NOT_A_NUMBER)
        return (self.filled - bad) / self.filled if self.filled else 0.0


def read_column(
    series: pd.Series, *, commas: Commas | None = None, no_zero: bool = False
) -> Column:
    """The numbers of a column of text or numbers.

    How it uses commas is found out from the values if not given; `no_zero` says that an exact 0
    stands for a missing value.
    """
    counted = Counted()
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        numbers = series.to_numpy(dtype=float, na_value=np.nan).copy()
        filled = int(np.sum(~np.isnan(numbers)))
        commas = "none"
    else:
        numbers, left, texts, which = _plain(series, commas == "decimal")
        if commas is None:
            commaed = any("," in text for text in texts)
            commas = _comma_style(_texts(series)) if commaed else "none"
            if commas == "decimal":
                numbers, left, texts, which = _plain(series, decimal=True)
        filled = len(series) - int(np.isnan(numbers).sum())
        of_texts, holds, bad = _from_text(texts, commas)
        numbers[left] = of_texts[which]
        filled += int(holds[which].sum())
        refused = np.zeros(len(series), dtype=bool)
        refused[left] = bad[which]
        counted += count_cells(_NOT_A_NUMBER, refused, series)
    infinite = np.isinf(numbers)
    counted += count_cells("infinite", infinite, series)
    numbers[infinite] = np.nan
    zeros = numbers == 0
    if no_zero:
        why = "exactly 0, which stands for a missing value"
        counted += count_cells(why, zeros, series, alike=True)
        numbers[zeros] = np.nan
    return Column(numbers, counted, filled, zeros, commas)


def _plain(
    series: pd.Series, decimal: bool
) -> tuple[NDArray[np.float64], NDArray[np.intp], list[str], NDArray[np.intp]]:
    """What a column's plain numbers are, and what is left to be read one by one.

    The numbers, NaN for the others; the rows of those that hold anything; their distinct texts;
    and which of these each row has. Nearly all of a column is plain numbers.
    """
    if isinstance(series.dtype, pd.ArrowDtype):
        numbers = _of_arrow(pa.array(series.array), decimal)
    elif decimal:
        numbers = np.full(len(series), np.nan)
    else:
        numbers = np.array(pd.to_numeric(series, errors="coerce"), dtype=float)
    left = np.flatnonzero(np.isnan(numbers) & series.notna().to_numpy())
    others = series.iloc[left]
    if not isinstance(series.dtype, pd.ArrowDtype):
        others = others.astype(str)
    which, distinct = pd.factorize(others)
    return numbers, left, [text.strip() for text in distinct], which


def _of_arrow(column: pa.ChunkedArray, decimal: bool) -> NDArray[np.float64]:
    """The plain numbers of a column of text, NaN for all that may be something else."""
    try:
        if not decimal:
            return _as_numbers(column)
    except pa.ArrowInvalid:
        pass  # not all of it is plain numbers
    column = pc.utf8_trim_whitespace(pc.replace_substring(column, "\u2212", "-"))
    pattern = _COMMA if decimal else _NUMBER
    fits = pc.match_substring_regex(column, f"^({pattern.pattern})$")
    return _as_numbers(pc.replace_substring(pc.if_else(fits, column, None), ",", "."))


def _as_numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.array(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), dtype=float)


def _texts(series: pd.Series) -> list[str]:
    return ["" if gone else str(v).strip() for v, gone in zip(series, series.isna(), strict=True)]


def zero_rows(columns: Iterable[Column]) -> NDArray[np.bool_]:
    """The rows in which any of some columns is exactly 0; a single False without columns."""
    return np.any([column.zeros for column in columns], axis=0)


def _from_text(
    texts: list[str], commas: Commas
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Numbers, which texts hold anything, and which of these are not numbers."""
    numbers = np.full(len(texts), np.nan)
    holds, bad = np.zeros((2, len(texts)), dtype=bool)
    pattern = _COMMA if commas == "decimal" else _NUMBER
    for index, text in enumerate(texts):
        if text.lower().rstrip(".") in _MISSING:
            continue
        holds[index] = True
        text = text.replace("\u2212", "-")
        if pattern.fullmatch(text):
            numbers[index] = float(text.replace(",", "."))
        elif _INFINITE.fullmatch(text):
            numbers[index] = np.inf
        else:
            bad[index] = True
    return numbers, holds, bad


def _comma_style(texts: list[str]) -> Commas:
    texts = [text.replace("\u2212", "-") for text in texts]
    with_comma = [text for text in texts if "," in text]
    if not with_comma:
        return "none"
    if all(_THOUSANDS.fullmatch(text) for text in with_comma):
        return "unclear"
    decimal = all(_COMMA.fullmatch(text) for text in texts if text.lower() not in _MISSING)
    return "decimal" if decimal else "none"


class FirstRows:
    """The first rows of a table; every column is read once."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.headers = [str(name) for name in frame.columns]
        # By family of features, the columns that cannot be 0.
        self._never_zero: dict[str, list[str]] = {}
        self._frame = frame
        self._place = {name: place for place, name in enumerate(self.headers)}
        self._read: dict[str, Column] = {}

    def series(self, column: str) -> pd.Series:
        """A column as it stands."""
        return self._frame.iloc[:, self._place[column]]

    def read(self, column: str) -> Column:
        """A column as numbers."""
        if column not in self._read:
            self._read[column] = read_column(self.series(column))
        return self._read[column]

    def never_zero(self, column: str, family: str) -> None:
        """Note that a column cannot be 0: where it is, zeros of its family are missing too."""
        self._never_zero.setdefault(family, []).append(column)

    def beside(self, family: str) -> tuple[tuple[str, bool], ...]:
        """The columns of a family that cannot be 0, and whether each has decimal commas."""
        columns = self._never_zero.get(family, [])
        return tuple((name, self.read(name).commas == "decimal") for name in columns)
