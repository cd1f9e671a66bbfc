"""What answers are worth on labelled cells: a table or cohort in, scores by its labels out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from crosspatch.cohorts.cells import Cells, provenance
from crosspatch.cohorts.labelled import NO_LABEL
from crosspatch.cohorts.table import problems_of
from crosspatch.errors import CohortError
from crosspatch.evaluation.results import ResultFolder
from crosspatch.evaluation.validation_tables import (
    ANSWERED,
    UNCHECKED,
    USERS_TEXT,
    VALIDATION,
    VALIDATION_TABLES,
    Validation,
    ValidationTables,
    validation_tables,
)
from crosspatch.features.layouts import Layout, load_layout
from crosspatch.models.alignment import Labelled
from crosspatch.models.artifact import Artifact
from crosspatch.prediction.batches import Batch, ReadSettings, SeenIds, unique
from crosspatch.prediction.in_turn import predict_batches
from crosspatch.prediction.output import harmless_text
from crosspatch.prediction.own_cells import meant_class
from crosspatch.prediction.pipeline import Given, Listener, Pipeline, Request, request
from crosspatch.prediction.prediction import Prediction
from crosspatch.prediction.table_cells import columns_there, named_columns, no_column, read_table
from crosspatch.prediction.training import cells_learned
from crosspatch.tables.endings import TABLE_SUFFIXES, suffix_of
from crosspatch.tables.opened import Table
from crosspatch.telling import Messages, Say

# Significant digits by which cells of two tables are found to be the same, and features that both
# must have.
_DIGITS, _FEATURES = 4, 5


def validate(
    cells: Given,
    *,
    label: str | None = None,
    group: str | None = None,
    new_cells: bool = False,
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: object,
) -> Validation:
    """Say what a model's answers are worth on cells whose label is known.

    Parameters
    ----------
    cells : path, DataFrame or AnnData
        A table of labelled cells, as `crosspatch.predict` takes it, or a cohort table.
    label : str, optional
        Column with the labels: subclasses, t-types, Cre lines or the words of a laboratory (PV,
        SOM). Cells whose label the model does not know are counted by themselves; those without
        one are left out. Only a cohort table needs none: its subclasses, or classes, are taken.
    group : str, optional
        Column with the donor (animal, patient) of each cell, so that intervals allow for cells of
        one donor being alike; that of a cohort table by default.
    new_cells : bool
        Leave out cells that the model learned from, and all others of their donors.
    out : path, optional
        Folder for the tables, ``settings.json`` and ``validation.json``.
    say : callable, optional
        As in `crosspatch.predict`; so are further settings: ``model``, ``species``, ``columns``,
        ``sheet``, ``sets``, ``adapt``, ``my_labelled``, ``my_label``, ``data_dir`` and ``jobs``.
        Give cells that are not among those of ``my_labelled``.

    Returns
    -------
    Validation
        Its ``tables`` are DataFrames: ``scores``, ``unknown``, ``confusion``, ``reliability`` and
        ``answers``.

    Raises
    ------
    CrosspatchError
        If a model cannot be loaded, the table cannot be read, or it has no such column.

    Examples
    --------
    >>> import crosspatch
    >>> cohort = crosspatch.load_cohort("human.h5ad")
    >>> crosspatch.validate(cohort, model="human-model", say=lambda line: None)
    Validation of 360 human cells: macro-F1 ..., sets cover ...%
    """
    messages = Messages(say)
    asked = request(cells, **settings)  # type: ignore[arg-type]
    found = validated(asked, Listener(messages), label, group, new_cells=new_cells, out=out)
    messages.summarise()
    return found


def validated(
    asked: Request,
    listener: Listener,
    label: str | None = None,
    group: str | None = None,
    *,
    new_cells: bool = False,
    out: str | Path | None = None,
) -> Validation:
    """See `validate`."""
    table = _table_of(asked)
    columns = _columns_of(table, asked, label, group)
    told: dict[str, object] = {
        "kind": VALIDATION,
        "crosspatch": version("crosspatch"),
        "cells": asked.names[0],
        "label": columns.label,
        "group": columns.donor,
        "species": asked.species,
        "sets": asked.sets,
        "adapt": asked.adapt,
        "model_folders": [str(folder) for folder in asked.models],
        "new_cells": new_cells,
    }
    heard = Messages(listener.say)
    pipeline = Pipeline(asked, replace(listener, say=heard))
    folder = None if out is None else ResultFolder(Path(out), VALIDATION_TABLES).begin(told)
    how = replace(pipeline.settings, carry=columns.carried)
    judges = {
        name: _Judge(
            model, cells_learned(model, asked.data_dir), pipeline.predictor.labelled.get(name)
        )
        for name, model in pipeline.predictor.models.items()
    }
    if new_cells and any(judge.learned is None for judge in judges.values()):
        raise CohortError(
            "it cannot be told which cells a model of a laboratory's own table learned from",
            "leave {new_cells} out, and give cells that it did not learn from",
        )
    seen = SeenIds()
    batches = (
        unique(batch, seen, heard) for batch in read_table(table, how, heard, ask=listener.ask)
    )
    parts = [
        _answers(prediction, batch, columns, judges)
        for batch, prediction in predict_batches(pipeline.predictor, batches, heard)
    ]
    answers = pd.concat(parts, ignore_index=True)
    if not len(answers):
        raise CohortError(
            f"{asked.names[0]}: no cell is of a species that there is a model of: "
            f"{' or '.join(judges)}",
            "give {model} of its species",
        )
    labelled = answers[answers["label"] != ""]
    if not len(labelled):
        raise CohortError(f"{asked.names[0]}: no cell has a label in column '{columns.label}'")
    told |= {
        "models": [judge.model.about["model"] for judge in judges.values()],
        "judged_by": {each["species"]: each for each in pipeline.predictor.header["models"]},
        "simulated": any(judge.model.about["simulated"] for judge in judges.values()),
        "species_known": bool(answers.pop("species_known").all()),
        "without_label": int((answers["label"] == "").sum()),
        "seen": {name: judge.seen(labelled) for name, judge in judges.items()},
        "labels": {name: _taken_as(labelled, name) for name in judges},
        "cohorts": _provenance(table),
    }
    if new_cells:
        answers = answers[answers["seen"].isin(["", UNCHECKED])].reset_index(drop=True)
        if not (answers["label"] != "").any():
            raise CohortError(
                f"{asked.names[0]}: the model learned from every labelled cell, or from its donor",
                "give other cells, or leave {new_cells} out",
            )
    if answers.loc[answers["label"] != "", "class"].isna().all():
        there = ", ".join(f"'{name}'" for name in answers["label"].unique()[:5] if name)
        known = ", ".join(name for judge in judges.values() for name in judge.model.classes)
        raise CohortError(
            f"{asked.names[0]}: no label in column '{columns.label}' ({there}) is a class of the "
            f"model ({known})",
            "`crosspatch predict` gives their verdicts",
        )
    found = Validation(validation_tables(answers), told, tuple(heard.lines))
    if folder is not None:
        folder.finish(_to_be_written(found.tables), told)
        folder.write("validation.json", _as_json(found))
    return found


class _Columns(NamedTuple):
    """Columns of a table that are of labels and donors."""

    label: str
    instead: str | None  # what stands in for a label that is missing
    donor: str | None

    @property
    def carried(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in self if name is not None))

    def of(self, batch: Batch) -> pd.DataFrame:
        """Label and donor of the cells of a batch; one without a donor is its own."""
        texts = pd.DataFrame(batch.carried, columns=list(self.carried), index=batch.cell_ids)
        label = texts[self.label]
        if self.instead is not None:
            label = label.where(label != "", texts[self.instead])
        label = label.where(~label.str.strip().str.casefold().isin(NO_LABEL), "")
        own = "cell " + texts.index.to_series()
        donor = own if self.donor is None else texts[self.donor].where(texts[self.donor] != "", own)
        return pd.DataFrame({"label": label, "donor": donor})


def _table_of(asked: Request) -> Table:
    """The one table that was given; a CohortError if it is something else."""
    (given,) = asked.inputs
    if not isinstance(given, str | Path):
        return given
    path = Path(given)
    if suffix_of(path) not in TABLE_SUFFIXES:
        raise CohortError(
            f"{path}: labels are in a table ({', '.join(TABLE_SUFFIXES)}), one row per cell",
            "make one of recordings with `crosspatch extract`",
        )
    return path


def _columns_of(table: Table, asked: Request, label: str | None, group: str | None) -> _Columns:
    """Where labels and donors are; a CohortError if they are not there."""
    how = ReadSettings(load_layout("shared"), asked.species, asked.columns, sheet=asked.sheet)
    there, is_cohort = columns_there(table, how)
    if label is None and not is_cohort:
        raise CohortError(
            f"{asked.names[0]}: which column has the labels? It has: {named_columns(there)}",
            "name one with {label}",
        )
    in_cohort = is_cohort and "donor" in there
    instead = "class" if label is None and "class" in there else None
    found = _Columns(label or "subclass", instead, group or ("donor" if in_cohort else None))
    for name in found.carried:
        if name not in there:
            raise no_column(asked.names[0], name, there)
    return found


def _provenance(table: Table) -> dict[str, object]:
    """Where the cells of a cohort table come from, by species; nothing of other tables."""
    if isinstance(table, Path | pd.DataFrame) or problems_of(table):
        return {}
    species = table.obs["species"].astype(str)
    return {name: provenance(table[(species == name).to_numpy()]) for name in sorted(set(species))}


@dataclass(frozen=True)
class _Judge:
    """A model, and the cells that it learned from where they are at hand."""

    model: Artifact
    learned: Cells | None
    own: Labelled | None = None  # labelled cells of the user's that have a say

    def seen(self, cells: pd.DataFrame) -> dict[str, int] | None:
        """How many cells there are of each kind that `met` tells apart; None: unknown."""
        if self.learned is None and self.own is None:
            return None
        of_model = cells.loc[cells["species"] == self.model.species, "seen"]
        return {name: int((of_model == name).sum()) for name in ("itself", "donor", UNCHECKED)}

    def met(self, cells: pd.DataFrame, X: NDArray[np.float32], layout: Layout) -> NDArray[np.str_]:
        """Of each cell ``itself`` where the model learned from it, ``donor`` of its donor, or none.

        A cell is known by its name, or by what was measured, to four digits; `UNCHECKED` is one
        with another name and too few features for that.
        """
        measured = X[:, self.model.layout.measured.within(layout)]
        count = measured.shape[1]
        itself = np.zeros(len(cells), dtype=bool)
        if self.own is not None:
            itself = _measured_alike(measured, self.own.X[:, :count].astype(np.float32))
        if self.learned is None:
            return np.where(itself, "itself", "")
        itself = itself | _measured_alike(measured, self.learned.X[:, :count])
        itself |= cells["cell_id"].isin(set(self.learned.cell_ids)).to_numpy()
        donor = cells["donor"].isin(set(self.learned.donors)).to_numpy()
        few = np.isfinite(measured).sum(axis=1) < _FEATURES
        return np.select([itself, donor, few], ["itself", "donor", UNCHECKED], "")


def _measured_alike(X: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of each cell whether another has the same numbers wherever both have one."""
    cells, known = _rounded(X), _rounded(others)
    columns = zip(cells.T, known.T, strict=True)
    likely = np.all([np.isnan(one) | np.isin(one, other) for one, other in columns], axis=0)
    found = np.zeros(len(cells), dtype=bool)
    for row in np.flatnonzero(likely):
        both = np.isfinite(cells[row]) & np.isfinite(known)
        alike = ((cells[row] == known) | ~both).all(axis=1)
        found[row] = (alike & (both.sum(axis=1) >= _FEATURES)).any()
    return found


def _rounded(X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Numbers to `_DIGITS` significant digits."""
    values = X.astype(np.float64)
    size = np.where(np.isfinite(values) & (values != 0), np.abs(values), 1.0)
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(size)))
    return np.round(values * scale) / scale


def _answers(
    prediction: Prediction, batch: Batch, columns: _Columns, judges: Mapping[str, _Judge]
) -> pd.DataFrame:
    """One row per cell and model, with the columns `ANSWERED`."""
    cells = prediction.cells.rename(columns={"prediction_set": "set"})
    cells = cells.join(columns.of(batch), on="cell_id")
    parts = [pd.DataFrame(columns=[*ANSWERED, "species_known"])]
    for species, judge in judges.items():
        rows = np.flatnonzero(cells["species"] == species)
        part = cells.iloc[rows].copy()
        meant = {label: meant_class(label, judge.model) for label in part["label"].unique()}
        part["class"] = part["label"].map(meant).astype(object).where(part["label"].notna(), None)
        part["seen"] = judge.met(part, prediction.X[rows], prediction.layout)
        parts.append(part[list(parts[0])])
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _taken_as(labelled: pd.DataFrame, species: str) -> dict[str, str | None]:
    """The labels of a model's cells to what they were taken for."""
    part = labelled[labelled["species"] == species]
    return dict(zip(part["label"], part["class"], strict=True))


def _to_be_written(tables: ValidationTables) -> dict[str, pd.DataFrame]:
    """The tables for csv: what a spreadsheet could take for a formula is made harmless."""
    found = {name: frame.copy() for name, frame in vars(tables).items()}
    for frame in found.values():
        for column in frame.columns.intersection(list(USERS_TEXT)):
            frame[column] = harmless_text(pa.array(frame[column].astype(str))).to_pylist()
    return found


def _as_json(found: Validation) -> str:
    """The settings and all tables but that of the cells."""
    tables = {
        name: json.loads(frame.to_json(orient="records"))
        for name, frame in vars(found.tables).items()
        if name != "answers"
    }
    return json.dumps({"settings": found.settings, **tables}, indent=1) + "\n"
