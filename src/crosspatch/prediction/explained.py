"""Single cells, predicted and explained: what a page about one cell is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from crosspatch.errors import CohortError
from crosspatch.explanation.contributions import CONTRIBUTION_COLUMNS, contributions
from crosspatch.features.finding import Source
from crosspatch.models.artifact import Artifact
from crosspatch.prediction.batches import Batch, ReadSettings
from crosspatch.prediction.output import header_lines, write_csv
from crosspatch.prediction.pipeline import (
    Given,
    Listener,
    Measured,
    Pipeline,
    nothing_read,
    request,
)
from crosspatch.prediction.prediction import PredictedCell, Prediction
from crosspatch.prediction.predictor import Predictor
from crosspatch.recordings.reading_options import Reading
from crosspatch.tables.mapping import Overrides
from crosspatch.telling import Messages, Say
from crosspatch.writing import replacing

#: Cells explained where none are named.
MOST = 20


@dataclass(frozen=True)
class CellExplanation:
    """What a model says of one cell, and why."""

    cell: PredictedCell
    #: Shape (features,). What was measured of its model's layout, NaN where missing, moved onto the
    #: reference if its batch was; of the layout of the prediction where there is no model.
    values: NDArray[np.float32]
    #: From `crosspatch.explanation.contributions.contributions`, without the column ``cell``; empty
    #: where the cell is given no class.
    contributions: pd.DataFrame
    model: Artifact | None  # what judged it; None where there is no model of its species
    header: Mapping[str, Any]  # Tool, models, taxonomy, parameters of the prediction
    recording: Source | None = None  # the file it was recorded in; None for a row of a table
    reading: Reading = field(default_factory=Reading)  # how the recording was read
    name: str | None = None  # what the recording is called, where that is not the name of its file


def explain(  # noqa: PLR0913 - what the command line has as options
    inputs: Given | Sequence[Given],
    *,
    cells: Sequence[str] = (),
    model: str | Path | Sequence[str | Path] = (),
    species: str | None = None,
    layer: str | float | None = None,
    columns: str | Path | Overrides | None = None,
    sheet: str | int | None = None,
    reading: Reading | None = None,
    data_dir: str | Path | None = None,
    jobs: int = 1,
    say: Say | None = None,
) -> list[CellExplanation]:
    """Predict cells and say which of their families spoke for and against each class.

    All other parameters are those of `crosspatch.predict`.

    Parameters
    ----------
    cells : sequence of str
        Ids of the cells to be explained; without them the first `MOST` are.

    Returns
    -------
    list of CellExplanation
        One per cell; one for each species where a cell's is unknown.

    Raises
    ------
    CrosspatchError
        If a model cannot be loaded, no input can be read, or no cell that was named is there.

    Examples
    --------
    >>> import crosspatch
    >>> (cell,) = crosspatch.explain("simulated/sim-human-0001.nwb", model="human-model")
    >>> len(cell.contributions)
    20
    """
    wanted = request(
        inputs,
        model,
        columns,
        species=species,
        layer=layer,
        sheet=sheet,
        reading=reading or Reading(),
        data_dir=data_dir,
        jobs=jobs,
    )
    messages = Messages(say)
    found = explain_cells(Pipeline(wanted, Listener(messages)), cells)
    messages.summarise()
    return found


def explain_cells(
    pipeline: Pipeline,
    cells: Sequence[str] = (),
    *,
    seed: int = 0,
    progress: Measured | None = None,
) -> list[CellExplanation]:
    """Predict and explain cells of a pipeline's inputs, reading no further than is needed.

    Those named by their ids; without names the first `MOST`. Named cells that are not there are
    added to what failed of the inputs; a CohortError if none is there, or no input can be read. The
    seed is of drawing, where there are more than twelve families; `progress` is told after every
    recording.
    """
    found: list[CellExplanation] = []
    seen: set[str] = set()
    read = False
    for batch in pipeline.batches(progress):
        read = True
        chosen = [name for name in batch.cell_ids if name in cells] if cells else batch.cell_ids
        if not cells and len(seen) + len(chosen) > MOST:
            chosen = chosen[: MOST - len(seen)]
            pipeline.listener.say(
                f"only the first {MOST} cells are explained; name the others you want"
            )
        found += _explained(pipeline, batch, set(chosen), seed)
        seen.update(chosen)
        if seen.issuperset(cells) if cells else len(chosen) < len(batch):
            break
    if not read:
        raise nothing_read(pipeline.request, "explained")
    _say_missing(pipeline, [name for name in dict.fromkeys(cells) if name not in seen], bool(found))
    return found


def _say_missing(pipeline: Pipeline, missing: Sequence[str], some: bool) -> None:
    """Say which of the named cells are not there; an error if none is."""
    where = ", ".join(pipeline.request.names)
    if missing and not some:
        raise CohortError(
            f"no cell '{missing[0]}' in {where}; cells are named as predictions name them"
        )
    for name in missing:
        pipeline.listener.say(f"no cell '{name}' in {where}")
        pipeline.inputs.failed[name] = "no such cell"


def _explained(
    pipeline: Pipeline, batch: Batch, chosen: set[str], seed: int
) -> list[CellExplanation]:
    """Explain some cells of a batch; all are judged, so that what is unusual of it is said."""
    if not chosen:
        return []
    prediction = pipeline.predictor.predict(batch, pipeline.listener.say)
    rows = np.flatnonzero(prediction.cells["cell_id"].isin(chosen))
    return explain_prediction(
        pipeline.predictor, prediction.rows(rows), pipeline.settings, seed=seed
    )


def explain_first(
    pipeline: Pipeline, prediction: Prediction, most: int = MOST
) -> list[CellExplanation]:
    """Explain the first cells of a prediction of a pipeline.

    None where labelled cells of the user's own had a say: what these add is not explained.
    """
    if pipeline.request.my_labelled is not None:
        return []
    first = prediction.first_cells(most)
    return explain_prediction(pipeline.predictor, first, pipeline.settings)


def explain_prediction(
    predictor: Predictor, prediction: Prediction, settings: ReadSettings, *, seed: int = 0
) -> list[CellExplanation]:
    """Say which families of cells that were predicted spoke for and against each class.

    One explanation per row of the prediction, which is of this predictor; settings say how the
    cells were read. The seed is of drawing, where there are more than twelve families.
    """
    table, X = prediction.cells, prediction.X
    values = list(X)
    parts: dict[int, pd.DataFrame] = {}
    for species, model in predictor.models.items():
        ours = np.flatnonzero(table["species"] == species)
        for row in ours:
            of_cell = predictor.features_of(species, X[row][None])
            how = prediction.alignments.get((table["source"].iloc[row], species))
            if how is not None and table["aligned"].iloc[row]:
                of_cell = how.moved(of_cell).astype(np.float32)
            values[row] = of_cell[0]
        here = ours[table["subclass"].to_numpy()[ours] != ""]
        if not len(here):
            continue
        taken = np.stack([values[row] for row in here])
        shares = contributions(model.classifier, taken, model.layout, seed=seed)
        for number, row in enumerate(here):
            part = shares[shares["cell"] == number]
            parts[int(row)] = part.drop(columns="cell").reset_index(drop=True)
    empty = pd.DataFrame(columns=list(CONTRIBUTION_COLUMNS[1:]))
    return [
        CellExplanation(
            cell,
            values[row],
            parts.get(row, empty),
            predictor.models.get(cell.species),
            prediction.header,
            prediction.recordings.get(cell.cell_id),
            _reading_of(prediction, cell.cell_id, settings.reading),
        )
        for row, cell in enumerate(prediction)
    ]


def _reading_of(prediction: Prediction, cell_id: str, reading: Reading) -> Reading:
    """How the recording of a cell is read."""
    electrode = prediction.electrodes.get(cell_id)
    return reading if electrode is None else replace(reading, electrode=electrode)


def write_contributions(explanations: Sequence[CellExplanation], file: str | Path) -> None:
    """Write the contributions of cells of one prediction as a csv that explains itself.

    A CohortError if it cannot be written.
    """
    lines = header_lines(explanations[0].header) if explanations else []
    lines.append(
        "# contribution: what a family adds to the probability of the class, on average over the "
        "orders in which families can come (Shapley value); a class's add up to probability - base"
    )
    lines.append("# base: share of the class among the cells the model learnt from")
    parts = [
        each.contributions.assign(cell_id=each.cell.cell_id, species=each.cell.species)
        for each in explanations
        if not each.contributions.empty
    ]
    columns = ["cell_id", "species", *CONTRIBUTION_COLUMNS[1:]]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    with replacing(Path(file), CohortError) as temporary, temporary.open("wb") as to:
        to.write(("\n".join(lines) + "\n").encode())
        table = pa.Table.from_pandas(frame[columns], preserve_index=False)
        write_csv(table, ("cell_id", "species"), to)
