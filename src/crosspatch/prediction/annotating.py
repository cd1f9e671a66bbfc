"""Predictions written into copies of the NWB files that they are of.

There are two tables in the processing module. One has a row per cell, species and class, the most
probable first, beside what `Prediction.to_table` says of the cell; so the rows of rank 1 are that
table. The other has a row per number that was measured. Both have several rows where there is a
single cell: a table of one row is no good practice in NWB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CrosspatchError, RecordingError
from crosspatch.features.finding import Source
from crosspatch.prediction.output import header_lines
from crosspatch.prediction.prediction import PredictedCell, Prediction
from crosspatch.recordings.nwb_annotating import ModuleTable, require_place, write_annotated

#: Names of the tables.
PREDICTIONS, FEATURES = BOTH_TABLES = ("crosspatch_predictions", "crosspatch_features")

# What the columns of `Prediction.to_table` hold; those of single classes are rows instead.
_ABOUT = {
    "cell_id": "Name of the cell: of the file, and of the electrode where there are several.",
    "species": "Species of the reference that the cell was judged by.",
    "species_known": "Whether the file, or whoever asked, said the species of the cell.",
    "subclass": "Transcriptomic subclass that is most probable; empty where none is given.",
    "cell_ontology_id": "Term of the Cell Ontology for the subclass; empty where there is none.",
    "probability": "Probability of the subclass, from 0 to 1.",
    "prediction_set": "Classes that hold the cell's own in 90 % of cells, joined by |.",
    "verdict": "What is concluded: confident, ambiguous, not an interneuron, outside reference or "
    "insufficient data.",
    "p_reference": "Share of reference cells that lie as far out, from 0 to 1.",
    "p_interneuron": "Share of interneurons of other laboratories that look at least as "
    "excitatory, from 0 to 1.",
    "completeness": "Share of the model's features that was measured, from 0 to 1.",
    "families": "Families of features that were measured, joined by |.",
    "layer": "Cortical layer that the cell was judged with; empty where none was.",
    "quality": "What quality control found wrong; empty where nothing was.",
    "notes": "What else is to be said of the cell, such as why it has no answer.",
    "source": "What the cell was read from.",
}


def copies_of(
    sources: Sequence[Source], out: str | Path | None = None, *, in_place: bool = False
) -> dict[Path, Path]:
    """Where the annotated copy of every file goes: a file, a folder, or the file's own place.

    A `RecordingError` unless one of `out` and `in_place` is given, or if the copy would be another
    file or two copies have one name.
    """
    if (out is None) != in_place:
        raise RecordingError("", hint="give {out} for a copy or {in_place}, one of the two")
    files = [each for each in sources if isinstance(each, Path)]
    if len(files) < len(sources):
        raise RecordingError(
            "files of the archive are not here to be copied",
            hint="get them with `crosspatch fetch recordings`",
        )
    if out is None:
        return {file: file for file in files}
    out = Path(out)
    if len(files) == 1 and out.suffix and not out.is_dir():
        copies = {files[0]: out}
    elif out.suffix and not out.is_dir():
        raise RecordingError(f"{len(files)} files go into a folder", hint="give one with {out}")
    else:
        copies = {file: out / file.name for file in files}
    names = list(copies.values())
    for file, copy in copies.items():
        if copy.exists() and any(copy.samefile(each) for each in files):
            raise RecordingError(
                f"{copy} is an input and would be written over",
                hint="give another {out}, or {in_place}",
            )
        if names.count(copy) > 1:
            raise RecordingError(f"two files are called {file.name}; annotate them one by one")
    return copies


def annotated(
    prediction: Prediction, copies: Mapping[Path, Path], *, replace: bool = False
) -> Iterator[tuple[Path, Prediction | CrosspatchError]]:
    """Write an annotated copy of every file; of each what was written of it, or why it was not.

    With `replace` an earlier annotation, or a file that is called as the copy, is replaced.
    """
    of_cell = prediction.records["cell_id"].to_pylist()
    sources = [prediction.recordings.get(cell_id) for cell_id in of_cell]
    for source, copy in copies.items():
        found = prediction.rows(np.flatnonzero([each == source for each in sources]))
        try:
            if not found.records["unread"].null_count:
                raise RecordingError(f"{source}: no cell could be measured, so nothing is written")
            require_place(source, copy, BOTH_TABLES, replace=replace)
            tables = {PREDICTIONS: _predictions(found), FEATURES: _features(found)}
            write_annotated(source, copy, tables)
        except CrosspatchError as error:
            yield source, error
        else:
            yield source, found


def _predictions(prediction: Prediction) -> ModuleTable:
    """A row per cell, species and class."""
    written = prediction.written()
    said = written.select([n for n in written.column_names if not n.startswith("probability_")])
    models = {each["species"]: each for each in prediction.header["models"]}
    cells = list(prediction)
    rows: list[int] = []
    ranks: list[int] = []
    classes: list[str] = []
    for row, cell in enumerate(cells):
        ranked = _ranked(cell, models.get(cell.species, {}).get("classes", ()))
        rows += [row] * len(ranked)
        ranks += range(1, len(ranked) + 1)
        classes += ranked
    found: dict[str, tuple[str, Sequence[Any]]] = {}
    for name, column in zip(said.column_names, said.columns, strict=True):
        about = _ABOUT.get(name, name.replace("_", " ").capitalize() + ".")
        found[name] = about, pc.take(column, rows).to_pylist()
    pairs = [(cells[row], name) for row, name in zip(rows, classes, strict=True)]
    chances = [cell.probabilities.get(name, np.nan) for cell, name in pairs]
    sets = [name in cell.prediction_set for cell, name in pairs]
    terms = [load_taxonomy().term(name) or "" for name in classes]
    found |= {
        "rank": ("Place of the class among those the model tells apart, 1 is the first.", ranks),
        "class": ("A class that the cell may be of.", classes),
        "class_cell_ontology_id": ("Term of the Cell Ontology for the class.", terms),
        "class_probability": ("Probability of the class, from 0 to 1.", chances),
        "is_class_in_set": ("Whether the class is in the prediction set.", sets),
    }
    made_by = {
        "crosspatch_version": "Version of crosspatch.",
        "model": "Name of the model in crosspatch.",
        "model_digest": "Checksum (sha256) of the model.",
    }
    version = {"crosspatch_version": prediction.header["crosspatch"]}
    made = [models.get(cell.species, {}) | version for cell, _ in pairs]
    for name, about in made_by.items():
        found[name] = about, [each.get(name.removeprefix("model_"), "") for each in made]
    # A column without a value says nothing, and is no good practice.
    lines = [line.removeprefix("# ") for line in header_lines(prediction.header)]
    about = (
        "Transcriptomic subclasses, predicted from the recording. One row per cell, species and "
        "class, the most probable class first; columns of the cell repeat. Columns without any "
        "value are left out."
    )
    return ModuleTable(
        "\n".join([about, *lines]),
        {name: each for name, each in found.items() if not _missing(each[1])},
    )


def _ranked(cell: PredictedCell, of_model: Sequence[str]) -> list[str]:
    """The classes of a cell: the most probable first, then those that are in its set."""
    classes = dict.fromkeys([*(of_model or cell.probabilities), *cell.prediction_set])

    def place(name: str) -> tuple[float, bool]:
        chance = np.nan_to_num(cell.probabilities.get(name, np.nan))
        return -float(chance), name not in cell.prediction_set

    return sorted(classes, key=place)


def _missing(values: Sequence[Any]) -> bool:
    return all(isinstance(each, float) and np.isnan(each) for each in values)


def _features(prediction: Prediction) -> ModuleTable:
    """A row per cell and feature that was measured; a cell's species all have the same."""
    layout = prediction.layout.measured
    cells = dict(zip(prediction.records["cell_id"].to_pylist(), prediction.X, strict=True))
    rows = [
        (cell_id, each.name, each.family, float(value), each.unit)
        for cell_id, values in cells.items()
        for each, value in zip(layout.features, values, strict=False)
        if np.isfinite(value)
    ]
    about = {
        "cell_id": _ABOUT["cell_id"],
        "feature": "Name of the feature, in the words of IPFX.",
        "family": "Family of the feature.",
        "value": "What was measured, in the unit that the column unit names.",
        "unit": "Unit of the value; ratio where it has none.",
    }
    columns = zip(*rows, strict=True)
    return ModuleTable(
        f"What was measured on each cell and given to the model (layout {layout.name}). A feature "
        "that is not here was not measured.",
        {name: (said, values) for (name, said), values in zip(about.items(), columns, strict=True)},
    )
