"""Numbers in a report: each is a reference to a cell of a result table, never a bare number.

A number that is typed into a report, or computed on the way, cannot be checked by a reader. Here a
number knows where it is from, and writes that beside itself:
``<data value="0.7401404" data-from="run/summary.csv:0:macro_f1_mean">0.740</data>``.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from crosspatch.errors import EvaluationError
from crosspatch.evaluation.results import BENCHMARK, Settings, read_settings

#: How a number is written.
Form = Literal["plain", "signed", "p", "count"]


class Shown(Protocol):
    """Something that writes itself as HTML."""

    def __html__(self) -> Markup: ...


#: What may stand in a text or a table.
Content = str | Shown


@cache
def report_data(name: str) -> dict[str, dict[str, Any]]:
    """What a file in ``data`` says: columns that a report needs, or its figures and tables."""
    file = files("crosspatch.reporting") / "data" / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8"))


def file_name(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"\W+", "_", text)


@dataclass(frozen=True)
class ResultSource:
    """A result folder that a report is made from."""

    path: Path
    label: str  # what the report calls it; no two of a report are the same
    settings: Settings
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """``benchmark``, ``learning-curve`` or ``explanation``."""
        return str(self.settings.get("kind", BENCHMARK))

    @property
    def name(self) -> str:
        """The label as part of a file's name."""
        return file_name(self.label)

    @property
    def simulated(self) -> bool:
        """Whether any of its cohorts is made up."""
        return any(each.get("simulated") for each in self.settings.get("cohorts", {}).values())

    @property
    def files(self) -> list[Path]:
        """The tables that were read, and the settings."""
        return [*(self.path / f"{name}.csv" for name in self._tables), self.path / "settings.json"]

    def table(self, name: str) -> pd.DataFrame:
        """A table by name, empty where the folder has none; an EvaluationError if damaged."""
        if name not in self._tables:
            file = self.path / f"{name}.csv"
            columns = report_data("columns")[self.kind].get(name, [])
            if not file.is_file():
                return pd.DataFrame(columns=columns)
            self._tables[name] = self._read(file, columns)
        return self._tables[name]

    def rows(self, name: str, part: pd.DataFrame | None = None) -> list[TableRow]:
        """Rows of a table, or of a part of it."""
        frame = self.table(name) if part is None else part
        return [TableRow(self, name, int(row)) for row in frame.index]

    def _read(self, file: Path, columns: list[str]) -> pd.DataFrame:
        try:
            # As precise as it was written, so that a reader finds the same digits in the file.
            frame = pd.read_csv(file, float_precision="round_trip")
        except pd.errors.EmptyDataError:
            return pd.DataFrame(columns=columns)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{file} is damaged ({error}); run it again") from error
        lacking = [name for name in columns if name not in frame]
        if lacking:
            raise EvaluationError(f"{file} has no column '{lacking[0]}'; run it again")
        return frame


def open_results(path: Path, label: str) -> ResultSource:
    """Open a result folder; an EvaluationError if it is none, of unknown kind, or unfinished."""
    source = ResultSource(path, label, read_settings(path))
    if source.kind not in report_data("columns"):
        raise EvaluationError(f"{path} holds results of a kind that is not known: {source.kind}")
    return source


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    source: ResultSource
    table: str
    row: int  # from 0, as in the file
    column: str
    digits: int = 3  # after the point
    form: Form = "plain"  # ``plain``, ``signed``, ``p`` (below 0.001 it says so) or ``count``

    @property
    def value(self) -> object:
        """The number or text itself."""
        return self.source.table(self.table)[self.column].iloc[self.row]

    def __bool__(self) -> bool:
        return not _missing(self.value)

    def __html__(self) -> Markup:
        where = f"{self.source.label}/{self.table}.csv:{self.row}:{self.column}"
        return _data(self.value, where, self.digits, self.form)


class TableRow(NamedTuple):
    """A row of a table, which gives references to its cells."""

    source: ResultSource
    table: str
    number: int  # from 0, as in the file

    def cell(self, column: str, form: Form = "plain", digits: int = 3) -> Cell:
        """One of its cells."""
        return Cell(self.source, self.table, self.number, column, digits, form)

    def name(self, column: str) -> str:
        """The name that stands in a column."""
        return str(self.source.table(self.table)[column].loc[self.number])

    def spread(self, score: str) -> Markup:
        """Mean ± SD; the mean alone where one run has no SD, a dash where there is neither."""
        there = self.source.table(self.table)
        if f"{score}_mean" not in there:
            return Markup("–")
        mean = self.cell(f"{score}_mean")
        if f"{score}_sd" in there and (sd := self.cell(f"{score}_sd")):
            return say("{mean} ± {sd}", mean=mean, sd=sd)
        return say("{mean}", mean=mean)

    def interval(self, of: str = "ci", form: Form = "signed", digits: int = 3) -> Markup:
        """An interval of 95 % confidence of columns ``_low`` and ``_high``, or a dash."""
        low, high = (self.cell(f"{of}_{end}", form, digits) for end in ("low", "high"))
        if not low and not high:
            return Markup("–")
        return say("[{low}, {high}]", low=low, high=high)


@dataclass(frozen=True)
class Rows:
    """How many rows of a table have certain values."""

    source: ResultSource
    table: str
    where: Mapping[str, str]  # column to value

    @property
    def value(self) -> int:
        """Their number."""
        columns = self.source.table(self.table)[list(self.where)].astype(str)
        return int((columns == pd.Series(dict(self.where))).all(axis=1).sum())

    def __html__(self) -> Markup:
        chosen = "&".join(f"{column}={value}" for column, value in self.where.items())
        where = f"{self.source.label}/{self.table}.csv:rows:{chosen}"
        return _data(self.value, where, 0, "count")


@dataclass(frozen=True)
class Setting:
    """A value of a folder's settings."""

    source: ResultSource
    path: tuple[str, ...]  # keys from the top

    @property
    def value(self) -> object:
        """The value itself."""
        value: Any = self.source.settings
        for key in self.path:
            value = value[key]
        return value

    def __html__(self) -> Markup:
        # RFC 6901: a pointer into a JSON file.
        keys = (str(key).replace("~", "~0").replace("/", "~1") for key in self.path)
        where = "/".join([f"{self.source.label}/settings.json#", *keys])
        return _data(self.value, where, 3, "count")


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _data(value: object, where: str, digits: int, form: Form) -> Markup:
    if _missing(value):
        return Markup("–")
    if not isinstance(value, bool | np.bool_ | int | float | np.number):
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if not any(sign.isdigit() for sign in text):
            return escape(text)
        return Markup('<data value="{0}" data-from="{1}">{0}</data>').format(text, where)
    exact = value.item() if isinstance(value, np.generic) else value
    return Markup('<data value="{0}" data-from="{1}" title="{0} ({1})">{2}</data>').format(
        str(exact), where, written(exact, digits, form)
    )


def code(text: str) -> Markup:
    """The name of a file or folder."""
    return Markup("<code>{}</code>").format(text)


def first_by(table: pd.DataFrame, column: str, *, lowest: bool = False) -> pd.Series:
    """Row with the highest (or lowest) value of a column."""
    values = table[column].to_numpy(dtype=float)
    return table.iloc[int(np.nanargmin(values) if lowest else np.nanargmax(values))]


def written(value: float, digits: int = 3, form: Form = "plain") -> str:
    """A number as it is shown: rounded, with a true minus sign; see `Cell`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if form == "count":
        text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{digits}f}"
    elif form == "p" and value < 0.001:
        text = "< 0.001"
    else:
        text = f"{value:{'+' if form == 'signed' else ''}.{digits}f}"
        if not float(text):
            text = text.lstrip("+-")
    return text.replace("-", "−")


def say(text: str, /, **parts: Content) -> Markup:
    """A sentence, with numbers and names put in for fields in braces.

    It must not have numbers of its own; a part that is a bare number is a TypeError.
    """
    for name, part in parts.items():
        refuse_bare(part, name)
    return Markup(text).format(**parts)  # noqa: S704, the texts are our own


def refuse_bare(part: object, name: str = "it") -> object:
    """Give back what may stand in a report; a number that is from nowhere is a TypeError."""
    if isinstance(part, bool | int | float | np.number):
        raise TypeError(f"{name} is a bare number, {part}: give the cell of the table it is from")
    return part


def enumerated(parts: Sequence[Content], last: str = "and") -> Markup:
    """Names or numbers as words: a, b and c."""
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup("{} {} {}").format(Markup(", ").join(parts[:-1]), last, parts[-1])


def checksum(file: Path) -> str:
    """Sha256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
