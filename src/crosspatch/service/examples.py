"""Simulated cells to try the service with; they say nothing about real neurons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from crosspatch.errors import RecordingError
from crosspatch.species import HUMAN, MOUSE

if TYPE_CHECKING:
    from crosspatch.prediction.predictor import Predictor

# Planned cells among which one of the subclass is looked for.
_PLANNED = 60
_TABLE_CELLS = 24
# Features as another laboratory may call them, and what its unit is of ours.
_FOREIGN = {
    "v_baseline": ("RMP (V)", 1e-3),
    "input_resistance": ("Rin [GOhm]", 1e-3),
    "tau": ("membrane time constant (s)", 1e-3),
    "sag": ("Sag ratio", 1.0),
    "rheobase_i": ("Rheobase (nA)", 1e-3),
    "threshold_v_rheo": ("AP threshold at rheobase (mV)", 1.0),
    "width_rheo": ("AP half-width at rheobase (us)", 1e3),
    "upstroke_downstroke_ratio_rheo": ("upstroke/downstroke ratio, rheobase", 1.0),
    "avg_rate_hero": ("firing rate hero (Hz)", 1.0),
    "adapt_hero": ("adaptation index hero", 1.0),
}


class Example(NamedTuple):
    """A simulated cell, or a table with the column names and units of another laboratory."""

    label: str
    species: str = ""
    subclass: str | None = None  # None for the table


SIMULATED_EXAMPLES = {
    "mouse-pvalb": Example("simulated mouse Pvalb.nwb", MOUSE.name, "Pvalb"),
    "mouse-sst": Example("simulated mouse Sst.nwb", MOUSE.name, "Sst"),
    "human-lamp5": Example("simulated human Lamp5.nwb", HUMAN.name, "Lamp5"),
    "table": Example("simulated table of another laboratory.csv"),
}


def write_example(name: str, predictor: Predictor, file: Path) -> None:
    """Write one of `SIMULATED_EXAMPLES`; a table is made for the predictor's models."""
    example = SIMULATED_EXAMPLES[name]
    if example.subclass is None:
        write_table(predictor, file)
        return
    from crosspatch.simulation.cells import plan_cells, write_cell

    for cell in plan_cells(_PLANNED, example.species):
        if cell.subclass == example.subclass:
            write_cell(cell, file.parent).replace(file)
            return
    raise RecordingError(f"there is no simulated {example.species} {example.subclass} cell to try")


def write_table(predictor: Predictor, file: Path) -> None:
    """Cells drawn around the means of the reference's subclasses, so each is like one of them."""
    rng = np.random.default_rng(0)
    model = next(iter(predictor.models.values()))
    reference = model.classifier.reference_
    if reference.coordinates_.traces:
        raise RecordingError("the model takes recordings only; there is no table to try")
    codes = np.arange(_TABLE_CELLS) % len(reference.classes_)
    spread = np.sqrt(np.diag(reference.covariance_))
    z = reference.means_[codes] + 0.5 * spread * rng.standard_normal((_TABLE_CELLS, len(spread)))
    columns = np.concatenate(list(reference.layout.columns.values()))
    values = reference.center_ + reference.scale_ * z
    frame = pd.DataFrame({"Cell": [f"simulated {k + 1:02d}" for k in range(_TABLE_CELLS)]})
    frame["Organism"] = model.species
    names = [reference.layout.features[column].name for column in columns]
    for name, (foreign, factor) in _FOREIGN.items():
        if name in names:
            frame[foreign] = np.round(values[:, names.index(name)] * factor, 6)
    frame["Experimenter"] = "nobody"
    frame["Slice depth"] = rng.integers(40, 120, _TABLE_CELLS)
    frame.to_csv(file, index=False)
