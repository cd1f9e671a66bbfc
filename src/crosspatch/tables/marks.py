"""How the numbers of a column are written: decimal marks, thousands, and units in the cells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crosspatch.tables.units import parse_unit

#: How a column writes its numbers: with decimal points, so that commas are of thousands; the other
#: way; or ``plain``, with points as far as is known.
Marks = Literal["plain", "point", "comma"]

_EXPONENT = r"([eE][+-]?\d+)?"
#: A number with a decimal point, or comma, and without thousands.
PLAIN_NUMBER = re.compile(rf"[+-]?(\d+\.?\d*|\.\d+){_EXPONENT}")
COMMA_NUMBER = re.compile(rf"[+-]?(\d+(,\d+)?|,\d+){_EXPONENT}")
_FIRST = r"[+-]?[1-9]\d{0,2}"
# With thousands, and so that they can be nothing else.
_THOUSANDS = {
    "point": re.compile(rf"{_FIRST}(,\d{{3}})+(\.\d*)?"),
    "comma": re.compile(rf"{_FIRST}(\.\d{{3}})+(,\d*)?"),
    "plain": re.compile(rf"{_FIRST}(,\d{{3}})+\.\d*|{_FIRST}(,\d{{3}}){{2,}}"),
}
_SURE_COMMA = re.compile(rf"{_FIRST}(\.\d{{3}})+,\d*|{_FIRST}(\.\d{{3}}){{2,}}")
_EITHER = re.compile(rf"{_FIRST}[.,]\d{{3}}")
_THREE_DIGITS = re.compile(r"[1-9]\d\d")
# A space of any width, or an apostrophe, between thousands.
_SPACE = "[ \u00a0\u2007\u2009\u202f'\u2019]"
_SPACED = re.compile(rf"([+-]?\d{{1,3}})((?:{_SPACE}\d{{3}})+)(?!\d)(.*)", re.DOTALL)
#: Minus signs and dashes that are typed for one.
MINUS = "[\u2010\u2011\u2012\u2013\u2212\uff0d]"
_WITH_UNIT = re.compile(
    r"(.*?\d[.,]?(?:[eE][+-]?\d+)?)\s*[(\[]?([^\W\d_][^\d±]*?|%)[)\]]?", re.DOTALL
)
#: A mean with what comes after it.
WITH_DEVIATION = re.compile(r"\d\s*[.,]?\s*(±|\+/-|\+-)\s*[\d.,]")

# Texts by which a column's marks are told: so many first ones, and first ones with commas.
_EVIDENCE = 500


def number_and_unit(text: str) -> tuple[str, str] | None:
    """The number and the unit of a text, if it ends with one."""
    parts = _WITH_UNIT.fullmatch(text)
    unit = parse_unit(parts[2]) if parts else None
    return (parts[1], unit) if parts and unit else None


def number_of(text: str, marks: Marks) -> float | None:
    """The number that a text is, if it is one by the marks of its column."""
    text = _without_spaces(text)
    plain = COMMA_NUMBER if marks == "comma" else PLAIN_NUMBER
    if plain.fullmatch(text):
        return float(text.replace(",", "."))
    if _THOUSANDS[marks].fullmatch(text):
        point = text.replace(".", "").replace(",", ".") if marks == "comma" else text
        return float(point.replace(",", ""))
    return None


def _without_spaces(text: str) -> str:
    """A number without the spaces or apostrophes between its thousands."""
    spaced = _SPACED.fullmatch(text)
    return text if spaced is None else spaced[1] + re.sub(r"\D", "", spaced[2]) + spaced[3]


@dataclass
class Evidence:
    """What texts say of the marks of their column: how many are numbers by which."""

    point: int = 0
    comma: int = 0
    either: list[str] = field(default_factory=list)  # texts that may be decimals or thousands
    three_digits: int = 0  # whole numbers just below a thousand
    spaced: bool = False  # whether any has spaces or apostrophes between its thousands
    grouped: bool = False  # whether any has the other mark between them, for sure

    @classmethod
    def of(cls, series: pd.Series) -> Evidence:
        """What a column says."""
        found = cls()
        if pd.api.types.is_numeric_dtype(series.dtype):
            return found
        texts = series
        if series.dtype == pd.ArrowDtype(pa.string()):
            commas = pc.match_substring(pa.array(series.array), ",").fill_null(False)
            commaed = series[commas.to_numpy(zero_copy_only=False)]
            texts = pd.concat([series.iloc[:_EVIDENCE], commaed.iloc[:_EVIDENCE]])
        for text in dict.fromkeys(text.strip() for text in texts if isinstance(text, str)):
            if not PLAIN_NUMBER.fullmatch(text):
                number = re.sub(MINUS, "-", (number_and_unit(text) or (text,))[0])
                text = _without_spaces(number)
                found.spaced |= text != number
            found._add(text)
        return found

    def _add(self, text: str) -> None:
        if _EITHER.fullmatch(text):
            self.either.append(text)
        elif _THOUSANDS["plain"].fullmatch(text):
            self.point, self.grouped = self.point + 1, True
        elif _SURE_COMMA.fullmatch(text):
            self.comma, self.grouped = self.comma + 1, True
        elif PLAIN_NUMBER.fullmatch(text) and "." in text:
            self.point += 1
        elif COMMA_NUMBER.fullmatch(text) and "," in text:
            self.comma += 1
        elif _THREE_DIGITS.fullmatch(text):
            self.three_digits += 1

    @property
    def sure(self) -> Marks | None:
        """Its marks, where it has numbers by one of them only."""
        if bool(self.point) == bool(self.comma):
            return None
        return "point" if self.point else "comma"

    def marks(self, of_table: Marks | None) -> Marks | None:
        """Its marks, in a table in which others have theirs; None if they cannot be told."""
        if self.sure is not None:
            return self.sure
        if self.point and self.comma:
            self.either.clear()
            return "plain" if self.point >= self.comma else None
        if of_table is not None:
            return of_table
        if not self.either:
            return "plain"
        # Points are decimal points unless thousands would explain the whole numbers beside them.
        commas = any("," in text for text in self.either)
        return None if commas or self.three_digits else "plain"
