"""The mapping screen: what became of every column of a table, and what else it could be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import pandas as pd
from pydantic import Field

from crosspatch.drawing.labels import readable
from crosspatch.features.layouts import Layout
from crosspatch.tables.column_map import ColumnMap
from crosspatch.tables.mapping import SPECIAL, Override, Overrides
from crosspatch.tables.names import ABSOLUTE, features, split_stimulus
from crosspatch.tables.reading import SHEETS
from crosspatch.tables.units import UNITS, dimension_of

_SAMPLES = 3
#: What the mapping is called in messages.
NAME = "your choice"


@dataclass(frozen=True)
class TableColumn:
    """A column and what became of it."""

    name: str
    values: list[str]  #: the first ones
    #: ``taken``, ``part``, ``cell id``, ``species``, ``layer``, ``refused``, ``unused``,
    #: ``label``, ``unknown``.
    status: str
    feature: str | None
    unit: str | None
    why: str
    candidates: list[str]


@dataclass(frozen=True)
class Columns:
    """The columns of a table."""

    columns: list[TableColumn]
    missing: Annotated[list[str], Field(description="Features that no column gives.")]
    rows: Annotated[int, Field(description="How many rows were looked at.")]
    sheets: Annotated[list[str], Field(description="Those of a workbook; the first one is read.")]

    @property
    def given(self) -> int:
        """How many columns are features."""
        return sum(each.feature is not None for each in self.columns)


@dataclass(frozen=True)
class Choosable:
    """A feature that a column can be, and the units it may be in."""

    feature: str
    label: str
    family: str
    unit: str
    units: list[str]


class _Became(NamedTuple):
    """What became of a column; as `TableColumn` has it."""

    status: str
    feature: str | None = None
    unit: str | None = None
    why: str = ""


def overrides_of(choices: Mapping[str, Override]) -> Overrides | None:
    """What a user chose of some columns; None where nothing was chosen."""
    if not choices:
        return None
    columns = {
        name: replace(each, unit=None if each.target in SPECIAL else each.unit or None)
        for name, each in choices.items()
    }
    return Overrides(NAME, columns)


def described(frame: pd.DataFrame, columns: ColumnMap) -> Columns:
    """What became of every column of the first rows of a table."""
    became = _became(columns)
    candidates = {each.column: list(each.candidates) for each in columns.ambiguous}
    rows = []
    for position, header in enumerate(map(str, frame.columns)):
        found = became.get(header, _Became("unknown"))
        values = [str(v)[:24] for v in frame.iloc[:40, position] if pd.notna(v) and str(v).strip()]
        rows.append(
            TableColumn(header, values[:_SAMPLES], *found, candidates=candidates.get(header, []))
        )
    sheets = frame.attrs.get(SHEETS, [])
    return Columns(rows, list(columns.missing), len(frame), sheets)


def _became(columns: ColumnMap) -> dict[str, _Became]:
    """What became of the columns of which something is known; what is said last holds."""
    found = {name: _Became("label", why="never a feature") for name in columns.labels}
    found |= {name: _Became("unused", why=said.why) for name, said in columns.unused}
    found |= {name: _Became("refused", why=said.why) for name, said in columns.refused}
    # A column may give several features; the first one is shown.
    for each in reversed(columns.taken):
        parts = len(each.columns) > 1
        why = (parts and each.source) or each.how
        became = _Became("part" if parts else "taken", each.feature, each.unit, why)
        found |= dict.fromkeys(each.columns, became)
    special = (columns.species, columns.cell_id, columns.layer)
    for name, status in zip(special, ("species", "cell id", "layer"), strict=True):
        if name is not None:
            found[name] = _Became(status)
    return found


def choosable(layout: Layout) -> list[Choosable]:
    """Features a column can be: those of the layout, then those of which differences are made."""
    layout = layout.measured  # where cells lie has a choice of its own
    wanted = set(layout.feature_names)
    families = {each.name: each.family for each in layout.features if each.name in features()}
    families |= {
        name: "absolute potentials"
        for name in features()
        if name not in wanted and split_stimulus(name)[0] in ABSOLUTE
    }
    unit_of = {each.name: each.unit for each in (*features().values(), *layout.features)}
    families |= {name: "columns as they stand" for name in unit_of if name not in features()}
    found = []
    for name, family in families.items():
        units = list(UNITS[dimension_of(unit_of[name])])
        found.append(Choosable(name, readable(name), family, unit_of[name], units))
    return found
