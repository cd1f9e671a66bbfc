"""Columns that are features as they stand: what they are called, their units and values."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from crosspatch.features.layouts import LAYER, LOCATION, Feature
from crosspatch.tables.fitting import Fitted
from crosspatch.tables.meanings import Exactness, unit_in
from crosspatch.tables.names import features
from crosspatch.tables.settling import IN_CELLS, RefusedColumnError
from crosspatch.tables.taken import Taken
from crosspatch.tables.units import DIMENSION, UNSPECIFIED, canonical, factor_to, parse_unit
from crosspatch.tables.values import NUMERIC_SHARE, Column, FirstRows

_IN_BRACKETS = re.compile(r"[(\[{]([^()\[\]{}]*)[)\]}]")


def own_feature(column: str, rows: FirstRows) -> Feature:
    """A column as a feature: its name without the unit in brackets, a family of its own."""
    named = _bare(column) or column
    taken = {LOCATION, LAYER.name, *features(), *(each.family for each in features().values())}
    name = f"{named} (as it stands)" if named in taken else named
    unit = _unit_of(column, rows.read(column)) or UNSPECIFIED
    return Feature(name, name, "ratio" if unit == "fraction" else unit, column)


def own_key(column: str) -> str:
    """By which columns of one name are found, whatever their unit, spaces and capitals."""
    text = unicodedata.normalize("NFKC", _bare(column) or column)
    return re.sub(r"[\s_]+", "", text).casefold()


def fit_own(feature: Feature, column: str, rows: FirstRows, given: str | None = None) -> Fitted:
    """A column as the feature that it is as it stands; `RefusedColumnError` if it cannot be.

    Given may be its unit, whatever its name says.
    """
    marks = rows.marks(column)
    if marks is None:
        raise RefusedColumnError(
            "its commas or points may be decimal marks or thousands",
            "write the column with points and without thousands separators",
        )
    read = rows.read(column, marks)
    if read.filled and read.share < NUMERIC_SHARE:
        raise RefusedColumnError("most of its values are not numbers")
    ours = canonical(feature.unit)
    said = given or _unit_of(column, read)
    signs = ["as it stands", *([IN_CELLS] if said and not _named_unit(column) else [])]
    unit = ours if said is None or ours == UNSPECIFIED else said
    if DIMENSION[unit] != DIMENSION[ours]:
        raise RefusedColumnError(f"says {said}, but the model has it in {feature.unit}")
    if said is None and ours != UNSPECIFIED:
        signs.append(f"names no unit, taken as {feature.unit}, as the model has it")
    if said is not None and ours == UNSPECIFIED:
        signs.append(f"says {said}, where the model knows no unit: not converted")
    taken = Taken(
        feature=feature.name,
        columns=(column,),
        unit=feature.unit if unit == ours else unit,
        factor=factor_to(feature.unit, unit, "plain"),
        signs=(*signs, *rows.spelled(column, marks)),
        operation="plain",
        our_unit=feature.unit,
        marks=(marks,),
        no_zero=(False,),
        limits=(-np.inf, np.inf),
        bare=len(read.units) <= 1 or _named_unit(column) is not None,
        settled=False,
    )
    numbers = read.in_unit(unit, rows.series(column), bare=taken.bare).numbers
    return Fitted(taken, taken.combine([numbers]), Exactness.NAMED)


def _bare(column: str) -> str:
    """A header without the unit that it names in brackets, in one line."""
    text = _IN_BRACKETS.sub(lambda part: " " if _is_unit(part[1]) else part[0], column)
    return " ".join(text.split())


def _is_unit(text: str) -> bool:
    """Whether a text in brackets is a unit; a number may be that of a spike."""
    return parse_unit(text) is not None and re.search(r"[^\W\d_]|%", text) is not None


def _named_unit(column: str) -> str | None:
    """The unit that a header names."""
    numbered = re.search(r"[(\[{]\s*[-\d]\s*[)\]}]", column)
    return None if numbered else unit_in(column)


def _unit_of(column: str, read: Column) -> str | None:
    """The unit that a header names, or most of its cells."""
    named = _named_unit(column)
    if named is not None or read.unit_of is None:
        return named
    return read.units[0] if 2 * np.sum(read.unit_of >= 0) >= read.filled else None
