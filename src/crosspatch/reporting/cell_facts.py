"""What is said of one cell, on paper and on screen: the answer, what is unusual, notes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosspatch.models.artifact import Artifact
from crosspatch.models.calibration import group_of
from crosspatch.models.reference import Reference
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.explained import CellExplanation
from crosspatch.reporting.labels import readable

#: Features shown beside the reference.
FEATURES = 11
# Of them, those that are chosen because they are unlike all subclasses.
_STRANGE = 4
# Features named as unusual.
_UNUSUAL = 6


def shows_simulated(explanation: CellExplanation) -> bool:
    """Whether the cell's file says that it was simulated."""
    return explanation.cell.simulated


def warnings_of(explanation: CellExplanation) -> list[str]:
    """What must not be overlooked."""
    warnings = []
    if shows_simulated(explanation):
        warnings.append("SIMULATED recording: it says nothing about a real neuron")
    if explanation.model is not None and explanation.model.about["simulated"]:
        warnings.append("the model was trained on SIMULATED recordings")
    return warnings


def answer(explanation: CellExplanation) -> tuple[str, str]:
    """The verdict in a line, and what it means."""
    cell, verdict = explanation.cell, explanation.cell.verdict
    meaning = verdict.meaning
    if verdict == Verdict.INSUFFICIENT:
        return str(verdict), f"{cell.completeness:.0%} of the layout was measured: {meaning}"
    if not cell.subclass:
        return str(verdict), "there is no model of its species; no subclass is given"
    said = f"{cell.subclass}, probability {cell.probability:.2f}"
    within = " or ".join(cell.prediction_set) or "no subclass"
    means = f"90 % prediction set: {within}. {verdict.capitalize()}: {meaning}"
    if verdict == Verdict.OUTSIDE:
        return f"{verdict}; the model's answer would be {said}", means
    return f"{said}: {verdict}", means


def limits_of(explanation: CellExplanation, model: Artifact) -> dict[str, float]:
    """The probability that each class needs to be in the prediction set."""
    calibration = model.classifier.calibration_
    by_class = explanation.header["parameters"]["sets"] == "by-class"
    limits = calibration.class_limit if by_class else calibration.limit
    limit = limits[group_of(np.array([float(explanation.cell.completeness)]))[0]]
    return {name: float(limit[k]) for k, name in enumerate(model.classes)}


@dataclass(frozen=True)
class Remarks:
    """What is said under the answer."""

    #: What quality control found wrong; empty if nothing.
    quality: str
    #: What was measured and what is missing, in a sentence; empty without a model.
    measured: str
    #: What sets the cell apart from the class it is given.
    unusual: list[str]
    #: The others.
    notes: list[str]


def remarks(explanation: CellExplanation) -> Remarks:
    """What is said under the answer."""
    cell, model = explanation.cell, explanation.model
    measured, unusual = "", []
    if model is not None:
        there = cell.families
        absent = [readable(name) for name in model.layout.families if name not in there]
        missing = f"; not measured: {', '.join(absent)}" if absent else ""
        measured = f"Measured: {cell.completeness:.0%} of the layout{missing}."
    if model is not None and cell.subclass:
        reference = model.classifier.reference_
        values = explanation.values[None]
        unusual = reference.unusual(values, [cell.subclass], most=_UNUSUAL)[0]
    unlike = [cell.unlike] if cell.unlike and not unusual else []
    return Remarks(cell.quality, measured, unusual, cell.remarks + unlike)


def telling(reference: Reference, explanation: CellExplanation) -> NDArray[np.intp]:
    """Coordinates to be shown, of those measured, in the layout's order; none of traces.

    First those in which the cell lies outside the middle 95 % of every class; then those that tell
    the classes apart best, for which families take turns, so that none of them fills the panel.
    """
    if reference.traces_:
        return np.zeros(0, dtype=int)
    z = reference.coordinates(explanation.values[None])[0]
    apart = reference.means_.var(axis=0) / np.diag(reference.covariance_)
    turns: list[tuple[int, float, int]] = []
    before = 0
    for columns in reference.layout.columns.values():
        inside = np.arange(before, before + len(columns))
        before += len(columns)
        measured = inside[np.isfinite(z[inside])]
        best = measured[np.argsort(-apart[measured], kind="stable")]
        turns += [(turn, -apart[place], int(place)) for turn, place in enumerate(best)]
    low, high = reference.middle_[:, 0].min(axis=0), reference.middle_[:, 1].max(axis=0)
    beyond = np.nan_to_num(np.maximum(low - z, z - high), nan=-np.inf)
    strange = [int(place) for place in np.argsort(-beyond, kind="stable") if beyond[place] > 0]
    best_first = [place for _, _, place in sorted(turns)]
    shown = dict.fromkeys([*strange[:_STRANGE], *best_first])
    return np.array(sorted(list(shown)[:FEATURES]), dtype=int)
