"""The levels of an answer: the subclass, the next one, their terms, and the t-type below."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crosspatch.cohorts.taxonomy import ONTOLOGY, load_taxonomy
from crosspatch.models.artifact import Artifact

#: What the column of a class's probability begins with.
CHANCE = "probability_"

#: Columns of the level below the subclass; left out of tables where no model knows t-types.
T_TYPES = (
    *("t_type", "t_type_guess", "t_type_probability"),
    *("t_type_runner_up", "t_type_runner_up_probability"),
)

# Columns about the second most probable subclass.
_RUNNER_UP = ("runner_up", "runner_up_cell_ontology_id", "runner_up_probability")


def runner_up_of(subclass: str, probabilities: Mapping[str, float | None]) -> tuple[str, float]:
    """The second most probable class and its probability; empty and NaN where none is given."""
    others = {k: p for k, p in probabilities.items() if k != subclass and p is not None and p == p}
    if not subclass or not others:
        return "", math.nan
    return max(others.items(), key=lambda each: each[1])


def runner_up_columns(
    subclass: str, probabilities: Mapping[str, float | None]
) -> dict[str, str | float | None]:
    """Columns of `Prediction.to_table` about the second most probable class, None for NaN."""
    name, p = runner_up_of(subclass, probabilities)
    term = load_taxonomy().term(name) or ""
    values = name, term, None if math.isnan(p) else p
    return dict(zip(_RUNNER_UP, values, strict=True))


def with_terms(records: pa.Table) -> pa.Table:
    """Records with the subclass's term, and the runner-up with its term and probability."""
    names, chances = _runners_up(records)
    place = records.column_names.index("subclass") + 1
    found = records.add_column(place, ONTOLOGY, _terms(records["subclass"]))
    for k, values in enumerate((names, _terms(names), pa.array(chances))):
        found = found.add_column(place + 2 + k, _RUNNER_UP[k], values)
    return found


def _runners_up(records: pa.Table) -> tuple[pa.ChunkedArray, NDArray[np.float64]]:
    """`PredictedCell.runner_up` of every row."""
    columns = [name for name in records.column_names if name.startswith(CHANCE)]
    classes = np.array([*(name.removeprefix(CHANCE) for name in columns), ""])
    p = np.full((len(records), len(classes)), -1.0)
    for k, name in enumerate(columns):
        p[:, k] = np.nan_to_num(records[name].to_numpy(), nan=-1.0)
    rows = np.arange(len(records))
    given = pc.index_in(records["subclass"], pa.array(classes)).to_numpy()
    p[rows, np.nan_to_num(given, nan=-1).astype(np.intp)] = -1.0
    second = p.argmax(axis=1)
    none = (p[rows, second] < 0) | (given == len(columns))
    second[none] = len(columns)
    names = pa.chunked_array([pa.array(classes, pa.string()).take(second)])
    return names, np.where(none, np.nan, p[rows, second])


def _terms(subclasses: pa.ChunkedArray) -> pa.ChunkedArray:
    """Terms of the Cell Ontology, empty where there is no subclass."""
    names = pc.unique(subclasses)
    terms = [load_taxonomy().term(name or "") for name in names.to_pylist()]
    return pc.fill_null(pc.take(pa.array(terms, pa.string()), pc.index_in(subclasses, names)), "")


def t_type_columns(
    model: Artifact, X: NDArray[np.float32], p: NDArray[np.float64], rows: NDArray[np.intp]
) -> dict[str, NDArray]:
    """Columns of the level below the subclass, for the cells that have one."""
    found = model.classifier.t_types(X[rows], p[rows]) if len(rows) else None
    if found is None:
        return {}
    best, chance, second, its_chance = found[:4]
    parts = np.where(found.named, best, ""), best, chance, second, its_chance
    columns: dict[str, NDArray] = {}
    for name, values in zip(T_TYPES, parts, strict=True):
        columns[name] = column = np.full(len(X), "", dtype=object)
        if values.dtype != object:
            columns[name] = column = np.full(len(X), np.nan)
        column[rows] = values
    return columns
