"""Which rows of a table are its header: below titles, with groups above it and units below."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, takewhile

from crosspatch.tables.meanings import meaning_of
from crosspatch.tables.names import key, names, words
from crosspatch.tables.units import parse_unit

#: Rows among which the header is looked for.
HEAD_ROWS = 60

# Fields of a row that are looked at, and characters of a name.
_FIELDS = 2000
_LONGEST_NAME = 200
_NUMBER = re.compile(r"[+\-\u2212\u2013]?[\d.,]*\d[\d.,]*([eE][+-]?\d+)?\s*%?")
_OF_UNITS = re.compile(r"units?|einheit(en)?|unit[ée]s?", re.IGNORECASE)


@dataclass(frozen=True)
class HeadRow:
    """A row that holds anything."""

    number: int  # of its line or row in the file, from 1
    fields: list[str]


@dataclass(frozen=True)
class Header:
    """Which of the first rows of a table are its header."""

    names: int  # place of the row of names
    grouped: bool = False  # whether the row above it belongs to it
    below: int = 0  # rows of units, or of other names, under it

    @property
    def end(self) -> int:
        """The place of the first row that may be a cell."""
        return self.names + 1 + self.below

    def columns(self, rows: Sequence[HeadRow]) -> list[str]:
        """The names of the columns, with units that stand in rows of their own."""
        if not rows:
            return []
        found = [name.strip() for name in rows[self.names].fields]
        if self.grouped:
            found = _joined(rows[self.names - 1].fields, found)
        for row in rows[self.names + 1 : self.end]:
            if are_units(row.fields):
                units = _padded(row.fields, len(found))
                found = [_with_unit(n, u) for n, u in zip(found, units, strict=True)]
        return found

    def said(self, rows: Sequence[HeadRow], what: str) -> list[str]:
        """What was taken for what, where it is not simply the first row; `what` is a row."""
        lines = []
        # Comments, and what names the delimiter, need no word.
        plain = ("#", "sep=")
        above = rows[: self.names - self.grouped]
        above = [row for row in above if not row.fields[0].startswith(plain)]
        if above:
            left = "1 is" if len(above) == 1 else f"{len(above)} are"
            text = next(filter(None, (field.strip() for field in above[0].fields)), "")
            lines.append(
                f"{what} {rows[self.names].number} is taken for the header; of those above it "
                f"{left} left out: '{text[:60]}'"
            )
        if self.grouped:
            lines.append(
                f"{what} {rows[self.names - 1].number} is taken for the header's upper row"
            )
        for row in rows[self.names + 1 : self.end]:
            if are_units(row.fields):
                lines.append(
                    "the row under the header is taken for the columns' units"
                    if row.number == rows[self.names].number + 1
                    else f"{what} {row.number} is taken for the columns' units"
                )
            else:
                lines.append(f"{what} {row.number} has names again, and is left out")
        return lines


def find_header(rows: Sequence[HeadRow], known: Collection[str] = ()) -> Header:
    """The header among the first rows: that with the most names that mean something.

    `known` are further names that do, such as those of a mapping file. Where none does it is the
    first row that is about as wide as the others.
    """
    place, grouped, best = 0, False, 0
    for k, row in enumerate(rows[:HEAD_ROWS]):
        if not _may_be_names(row.fields):
            continue
        groups = rows[k - 1].fields if k and _may_be_groups(rows[k - 1].fields) else []
        joined = _joined(groups, row.fields) if groups else row.fields
        found = understood_of(joined, known)
        if found > best:
            place, grouped, best = k, joined != row.fields, found
    if not best:
        place = _first_wide(rows)

    def is_below(row: HeadRow) -> bool:
        return are_units(row.fields) or (best > 0 and _are_names(row.fields, known))

    below = takewhile(is_below, rows[place + 1 : place + 4])
    return Header(place, grouped, len(list(below)))


def understood_of(fields: Sequence[str], known: Collection[str] = ()) -> int:
    """How many different things the names of some columns mean."""
    named = (field.strip() for field in fields[:_FIELDS])
    found = ((name,) if name in known else _understood(name[:_LONGEST_NAME]) for name in named)
    return len(set(filter(None, found)))


@lru_cache(8192)
def _understood(name: str) -> tuple[str, ...]:
    """What a name means; empty if nothing."""
    if not re.search("[^\\W\\d_]", name):
        return ()
    meaning = meaning_of(name, set())
    if meaning is not None:
        return meaning.features or (name,)
    by_words = key(words(name))
    table = names()
    if by_words in table.cell_id:
        return ("cell id",)
    return ("species",) if by_words in table.species else ()


def _filled(fields: Iterable[str]) -> list[str]:
    return [field.strip() for field in islice(fields, _FIELDS) if field.strip()]


def _may_be_names(fields: Sequence[str]) -> bool:
    filled = _filled(fields)
    return sum(map(_is_number, filled)) * 2 < len(filled)


def _may_be_groups(fields: Sequence[str]) -> bool:
    """Whether a row may name groups of columns: words, and not only in the first field."""
    filled = _filled(fields[1:])
    return bool(filled) and not any(map(_is_number, filled)) and not are_units(fields)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _are_names(fields: Sequence[str], known: Collection[str]) -> bool:
    """Whether a row has other names of the columns in place of values."""
    filled = _filled(fields)
    if any(map(_is_number, filled)):
        return False
    found = understood_of(filled, known)
    return found >= 2 and found * 2 >= len(filled)


def _first_wide(rows: Sequence[HeadRow]) -> int:
    """The first row with half as many filled fields as most, or more."""
    counts = [len(_filled(row.fields)) for row in rows]
    if not counts:
        return 0
    usual, _ = max(Counter(counts).items(), key=lambda item: (item[1], item[0]))
    return next(k for k, count in enumerate(counts) if count * 2 >= usual)


def _joined(groups: Sequence[str], fields: Sequence[str]) -> list[str]:
    """Names with those of their groups, where that says more; a group goes on to the right."""
    width = max(len(groups), len(fields))
    above, own = _padded(groups, width), _padded(fields, width)
    several = {name for name, count in Counter(own).items() if count > 1}
    result, group = [], ""
    for upper, name in zip(above, own, strict=True):
        group = upper or group
        both = f"{group} {name}".strip()
        if not name:
            result.append(upper)
        elif not group or group == name:
            result.append(name)
        else:
            result.append(both if name in several or _says_more(both, name) else name)
    return result


def _padded(fields: Sequence[str], width: int) -> list[str]:
    """So many fields, the missing ones empty."""
    return [*(field.strip() for field in fields[:width]), *[""] * (width - len(fields))]


def _says_more(both: str, name: str) -> bool:
    """Whether a name with that of its group means something, and other than alone."""
    more = _understood(both[:_LONGEST_NAME])
    return bool(more) and more not in ((both,), _understood(name[:_LONGEST_NAME]))


def are_units(fields: Sequence[object]) -> bool:
    """Whether a row has units in place of values: no number, and hardly anything but units."""
    texts = [str(field).strip() for field in fields if field is not None and str(field).strip()]
    if any(map(_is_number, texts)):
        return False
    bare = [text.strip("()[]") for text in texts]
    units = sum(map(_is_unit, bare))
    return units >= 3 or (0 < units >= (len(fields) - 1) / 2 and all(map(_may_be_unit, bare)))


def _is_unit(text: str) -> bool:
    return bool(re.search("[^\\W\\d_]|%", text)) and parse_unit(text) is not None


def _may_be_unit(text: str) -> bool:
    """Whether a text is a unit, if only of counts, or calls the row one of units."""
    return parse_unit(text) is not None or _OF_UNITS.fullmatch(text) is not None


def _with_unit(name: str, said: str) -> str:
    """A header with its unit, if it is one and the header has none yet."""
    unit = said.strip().strip("()[]")
    if parse_unit(unit) is None or "(" in name or "[" in name:
        return name
    return f"{name} ({unit})"
