"""Single cells, predicted and explained: what a page about one cell is made from."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.errors import CohortError
from crosspatch.explanation.contributions import CONTRIBUTION_COLUMNS, contributions
from crosspatch.features.extraction import StepDescription
from crosspatch.features.finding import Source
from crosspatch.features.many import ExtractionProgress
from crosspatch.models.artifact import Artifact
from crosspatch.prediction.batches import Batch, ReadSettings, read_inputs
from crosspatch.prediction.output import harmless, header_lines
from crosspatch.prediction.prediction import PredictedCell, Prediction
from crosspatch.prediction.predictor import Predictor, load_predictor
from crosspatch.tables.mapping import Overrides, read_mapping
from crosspatch.telling import Ask, Say, Stage
from crosspatch.writing import replacing

#: Cells explained where none are named.
MOST = 20


@dataclass(frozen=True)
class CellExplanation:
    """What a model says of one cell, and why."""

    cell: PredictedCell
    #: Shape (features,). What was measured, in the layout's units, NaN where missing.
    values: NDArray[np.float32]
    #: From `crosspatch.explanation.contributions.contributions`, without the column ``cell``; empty
    #: where the cell is given no class.
    contributions: pd.DataFrame
    #: What judged it; None where there is no model of its species.
    model: Artifact | None
    #: Tool, models, taxonomy, parameters of the prediction.
    header: Mapping[str, Any]
    #: The file it was recorded in; None for a row of a table.
    recording: Source | None = None
    #: Thresholds the recording was read with.
    quality: str = "default"
    #: For recordings without a command waveform.
    step: StepDescription | None = None
    #: What the recording is called, where that is not the name of its file.
    name: str | None = None


def explain_cells(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: str | Path | Sequence[str | Path] = (),
    species: str | None = None,
    columns: str | Path | Overrides | None = None,
    cells: Sequence[str] = (),
    most: int = MOST,
    sets: str = "all-cells",
    quality: str = "default",
    step: StepDescription | None = None,
    data_dir: str | Path | None = None,
    jobs: int = 1,
    limit: float = 300.0,
    seed: int = 0,
    say: Say = print,
    ask: Ask | None = None,
    failed: list[str] | None = None,
    training: Stage | None = None,
    progress: Callable[[ExtractionProgress], None] | None = None,
) -> list[CellExplanation]:
    """Predict cells and say which of their families spoke for and against each class.

    An input that cannot be read costs a line, not the others.

    Parameters
    ----------
    inputs, model, species, columns, sets, quality, data_dir, jobs
        As for `crosspatch.predict`.
    cells : sequence of str
        Ids of the cells to be explained; without them the first ones are.
    most : int
        How many of the first ones.
    step, limit
        See `crosspatch.prediction.batches.ReadSettings`.
    seed : int
        Of drawing, where there are more than twelve families.
    say : callable
        Told what was taken for what, and what went wrong; by default printed.
    ask : callable, optional
        Asked about ambiguous columns; without it they are left out.
    failed : list, optional
        Inputs that could not be read, and named cells that are not there, are added to it.
    training, progress : callable, optional
        Told of the training of default models, and of recordings.

    Returns
    -------
    list of CellExplanation
        One a cell; one for each species where a cell's is unknown.

    Raises
    ------
    CrosspatchError
        If a model cannot be loaded, no input can be read, or no cell that was named is there.

    Examples
    --------
    >>> (cell,) = explain_cells("cell.nwb", species="human")  # doctest: +SKIP
    >>> cell.contributions  # doctest: +SKIP
    """
    paths = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    folders = [model] if isinstance(model, str | Path) else list(model)
    mapping = read_mapping(columns) if isinstance(columns, str | Path) else columns
    predictor = load_predictor(
        folders, species, sets=sets, data_dir=data_dir, jobs=jobs, say=say, progress=training
    )
    settings = ReadSettings(predictor.layout, species, mapping, quality, step, jobs, limit)
    failed = [] if failed is None else failed
    wanted = set(cells)
    found: list[CellExplanation] = []
    seen: set[str] = set()
    read = False
    for batch in read_inputs(paths, settings, say, ask=ask, progress=progress, failed=failed):
        read = True
        if cells:
            chosen = [name for name in batch.cell_ids if name in wanted]
        else:
            chosen = batch.cell_ids[: most - len(seen)]
            if len(chosen) < len(batch.cell_ids):
                say(f"only the first {most} cells are explained; name the others you want")
        found += _explained(predictor, batch, set(chosen), settings, seed, say)
        seen.update(chosen)
        if (cells and seen == wanted) or (not cells and len(chosen) < len(batch.cell_ids)):
            break
    missing = [name for name in dict.fromkeys(cells) if name not in seen]
    where = ", ".join(map(str, paths))
    if missing and read:
        said = f"no cell '{missing[0]}' in {where}; cells are named as `crosspatch predict` does"
        if not found:
            raise CohortError(said)
        for name in missing:
            say(f"no cell '{name}' in {where}")
        failed += missing
    if not found:
        raise CohortError(f"no cell could be read from {where}")
    return found


def _explained(
    predictor: Predictor,
    batch: Batch,
    chosen: set[str],
    settings: ReadSettings,
    seed: int,
    say: Say,
) -> list[CellExplanation]:
    """Explain some cells of a batch; all are judged, so that what is unusual of it is said."""
    if not chosen:
        return []
    prediction = predictor.predict(batch, say)
    rows = np.flatnonzero(prediction.cells["cell_id"].isin(chosen))
    wanted = replace(
        prediction,
        cells=prediction.cells.iloc[rows].reset_index(drop=True),
        X=prediction.X[rows],
    )
    files = dict(zip(batch.cell_ids, batch.files, strict=False))
    return explain_prediction(predictor, wanted, settings, files=files, seed=seed)


def explain_prediction(
    predictor: Predictor,
    prediction: Prediction,
    settings: ReadSettings,
    *,
    files: Mapping[str, Source] | None = None,
    seed: int = 0,
) -> list[CellExplanation]:
    """Say which families of cells that were predicted spoke for and against each class.

    Parameters
    ----------
    predictor : Predictor
        That predicted them.
    prediction : Prediction
        All of its rows are explained.
    settings : ReadSettings
        How they were read.
    files : mapping, optional
        Cell id to the recording it is from.
    seed : int
        Of drawing, where there are more than twelve families.

    Returns
    -------
    list of CellExplanation
        One a row.
    """
    table, X = prediction.cells, prediction.X
    files = files or {}
    parts: dict[int, pd.DataFrame] = {}
    for species, model in predictor.models.items():
        here = np.flatnonzero((table["species"] == species) & (table["subclass"] != ""))
        if not len(here):
            continue
        shares = contributions(model.classifier, X[here], model.layout, seed=seed)
        for number, row in enumerate(here):
            part = shares[shares["cell"] == number]
            parts[int(row)] = part.drop(columns="cell").reset_index(drop=True)
    empty = pd.DataFrame(columns=list(CONTRIBUTION_COLUMNS[1:]))
    return [
        CellExplanation(
            cell,
            X[row],
            parts.get(row, empty),
            predictor.models.get(cell.species),
            prediction.header,
            files.get(cell.cell_id),
            settings.quality,
            settings.step,
        )
        for row, cell in enumerate(prediction)
    ]


def write_contributions(explanations: Sequence[CellExplanation], file: str | Path) -> None:
    """Write the contributions of several cells as a csv that explains itself.

    Parameters
    ----------
    explanations : sequence of CellExplanation
        From one call of `explain_cells`.
    file : path

    Raises
    ------
    CohortError
        If it cannot be written.
    """
    lines = header_lines(explanations[0].header) if explanations else []
    lines.append(
        "# contribution: what a family adds to the probability of the class, on average over the "
        "orders in which families can come (Shapley value); a class's add up to probability - base"
    )
    lines.append("# base: share of the class among the cells the model learnt from")
    parts = []
    for each in explanations:
        if each.contributions.empty:
            continue
        part = each.contributions.copy()
        part.insert(0, "cell_id", harmless(str(each.cell.cell_id)))
        part.insert(1, "species", harmless(str(each.cell.species)))
        parts.append(part)
    columns = ["cell_id", "species", *CONTRIBUTION_COLUMNS[1:]]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    numbers = frame.select_dtypes("number").columns
    frame[numbers] = frame[numbers].round(6)
    buffer = io.StringIO("\n".join(lines) + "\n")
    buffer.seek(0, io.SEEK_END)
    frame.to_csv(buffer, index=False, lineterminator="\n", quoting=2)
    with replacing(Path(file), CohortError) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8")
