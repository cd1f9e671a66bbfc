"""The mapping screen: what became of every column of a table, and what else it could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from crosspatch.features.layouts import Layout
from crosspatch.reporting.labels import readable
from crosspatch.tables.columns import ColumnMap
from crosspatch.tables.mapping import SPECIAL, Override, Overrides
from crosspatch.tables.names import ABSOLUTE, features, split_stimulus
from crosspatch.tables.units import UNITS, dimension_of

_SAMPLES = 3

#: What the mapping is called in messages.
NAME = "your choice"


def overrides_of(choices: Mapping[str, Mapping[str, Any]]) -> Overrides | None:
    """What a user chose of some columns.

    Parameters
    ----------
    choices : mapping
        Column to ``feature`` and, if wanted, ``unit``.

    Returns
    -------
    Overrides or None
        None where nothing was chosen.
    """
    if not choices:
        return None
    columns = {
        column: Override(
            str(said["feature"]),
            None if said["feature"] in SPECIAL else (said.get("unit") or None),
        )
        for column, said in choices.items()
    }
    return Overrides(NAME, columns)


def described(frame: pd.DataFrame, columns: ColumnMap) -> dict[str, Any]:
    """What became of every column.

    Parameters
    ----------
    frame : DataFrame
        The first rows.
    columns : ColumnMap
        Of them.

    Returns
    -------
    dict
        ``columns``: name, first ``values``, ``status`` (``taken``, ``part``, ``cell id``,
        ``species``, ``refused``, ``unused``, ``label``, ``unknown``), the ``feature`` and ``unit``
        it was taken for, ``why``, ``candidates``; ``missing``: features that no column gives;
        ``rows``: how many were looked at.
    """
    taken: dict[str, tuple[str, str, str, str]] = {}
    for each in columns.taken:
        status = "part" if len(each.columns) > 1 else "taken"
        for name in each.columns:
            source = each.source if status == "part" else ""
            taken.setdefault(name, (status, each.feature, each.unit, source or each.how))
    refused, unused = dict(columns.refused), dict(columns.unused)
    candidates = {each.column: list(each.candidates) for each in columns.ambiguous}
    rows = []
    for position, header in enumerate(map(str, frame.columns)):
        status, feature, unit, why = "unknown", None, None, ""
        if header == columns.cell_id:
            status = "cell id"
        elif header == columns.species:
            status = "species"
        elif header in taken:
            status, feature, unit, why = taken[header]
        elif header in refused:
            status, why = "refused", refused[header].why
        elif header in unused:
            status, why = "unused", unused[header].why
        elif header in columns.labels:
            status, why = "label", "never a feature"
        values = [str(v)[:24] for v in frame.iloc[:40, position] if pd.notna(v) and str(v).strip()]
        rows.append(
            {
                "name": header,
                "values": values[:_SAMPLES],
                "status": status,
                "feature": feature,
                "unit": unit,
                "why": why,
                "candidates": candidates.get(header, []),
            }
        )
    return {"columns": rows, "missing": list(columns.missing), "rows": len(frame)}


def choosable(layout: Layout) -> list[dict[str, Any]]:
    """Features a column can be, and the units it may be in.

    Returns
    -------
    list of dict
        ``feature``, ``label``, ``family``, ``unit`` and ``units``; those of the layout first, then
        absolute potentials, from which differences are made.
    """
    wanted = set(layout.feature_names)
    found = []
    for feature in layout.features:
        if feature.name in features():
            found.append((feature.name, feature.family))
    found += [
        (name, "absolute potentials")
        for name in features()
        if name not in wanted and split_stimulus(name)[0] in ABSOLUTE
    ]
    return [
        {
            "feature": name,
            "label": readable(name),
            "family": family,
            "unit": features()[name].unit,
            "units": list(UNITS[dimension_of(features()[name].unit)]),
        }
        for name, family in found
    ]
