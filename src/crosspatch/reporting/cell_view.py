"""What a page about one cell is made from, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.analysis import Analysis
from crosspatch.models.artifact import Artifact
from crosspatch.prediction.explained import CellExplanation
from crosspatch.prediction.prediction import IN_NOTES, PredictedCell
from crosspatch.recordings.model import Recording
from crosspatch.reporting.cell_facts import answer, limits_of, remarks, telling, warnings_of
from crosspatch.reporting.labels import ordered, readable
from crosspatch.reporting.recording_figures import (
    first_spikes,
    rates,
)

if TYPE_CHECKING:
    from crosspatch.explanation.reference_map import ReferenceMap


def recording_details(recording: Recording, analysis: Analysis) -> dict[str, Any]:
    """What was recorded, besides the sweeps.

    Returns
    -------
    dict
        ``format``; ``sweeps`` in current clamp; ``rejected``, the reasons for which quality
        control refused sweeps and their numbers; ``cell``, the seal (GOhm), access resistance and
        bridge error (MOhm) and what is wrong with them; ``first_spikes`` (ms, mV, mV/ms);
        ``rates`` (pA, spikes/s).
    """
    rejected: dict[str, list[int]] = {}
    for number, quality in sorted(analysis.qualities.items()):
        for reason in quality.reasons:
            rejected.setdefault(reason, []).append(number)
    current, rate = rates(analysis)
    cell = analysis.cell
    return {
        "format": recording.format,
        "sweeps": len(recording.current_clamp) + recording.left_out,
        "left_out": recording.left_out,
        "rejected": [{"reason": reason, "sweeps": each} for reason, each in rejected.items()],
        "cell": {
            "passed": cell.passed,
            "reasons": list(cell.reasons),
            "seal": _number(cell.seal),
            "access_resistance": _number(cell.access_resistance),
            "bridge": _number(cell.bridge),
        },
        "first_spikes": [
            {
                "stimulus": each.stimulus,
                "time": listed(each.time, 4),
                "voltage": listed(each.voltage, 3),
                "speed": listed(each.speed, 3),
            }
            for each in first_spikes(analysis)
        ],
        "rates": {"current": listed(current, 2), "rate": listed(rate, 3)},
    }


def cell_details(explanation: CellExplanation, place: ReferenceMap | str) -> dict[str, Any]:
    """What a model says of one cell, and why.

    Parameters
    ----------
    explanation : CellExplanation
    place : ReferenceMap or str
        The map, or why there is none.

    Returns
    -------
    dict
        ``cell``, its row of the table; ``headline`` and ``meaning``; ``warnings``;
        ``probabilities`` of each class, what is ``needed`` to be in the set; ``contributions`` of
        families; ``values`` among the reference; ``map``; ``remarks``.
    """
    headline, meaning = answer(explanation)
    said = remarks(explanation)
    model = explanation.model
    given = model is not None and bool(explanation.cell.subclass)
    return {
        "cell": _of_cell(explanation.cell),
        "headline": headline,
        "meaning": meaning,
        "warnings": warnings_of(explanation),
        "model": None if model is None else _model(model),
        "probabilities": _probabilities(explanation, model) if model and given else [],
        "contributions": _contributions(explanation, model) if model and given else None,
        "values": [] if model is None else _values(explanation, model),
        "map": _place(explanation, model, place),
        "remarks": {
            "quality": said.quality,
            "measured": said.measured,
            "unusual": said.unusual,
            "notes": said.notes,
        },
    }


def _model(model: Artifact) -> dict[str, Any]:
    return {
        "model": str(model.about["model"]),
        "species": model.species,
        "layout": model.layout.name,
        "digest": model.digest,
    }


def _probabilities(explanation: CellExplanation, model: Artifact) -> list[dict[str, Any]]:
    within = explanation.cell.prediction_set
    limits = limits_of(explanation, model)
    return [
        {
            "class": name,
            "probability": plain(explanation.cell.probabilities[name]),
            "needed": plain(limits[name]),
            "in_set": name in within,
        }
        for name in ordered(model.classes)
    ]


def _contributions(explanation: CellExplanation, model: Artifact) -> dict[str, Any]:
    """Of every family, measured or not, to every class; the most probable class first."""
    table = explanation.contributions
    order = sorted(model.classes, key=lambda name: -explanation.cell.probabilities[name])
    by_place = table.set_index(["class", "family"])
    measured = set(table["family"])
    families = [
        {
            "family": family,
            "measured": family in measured,
            "classes": {
                name: {
                    "contribution": plain(by_place.loc[(name, family), "contribution"]),
                    "error": plain(by_place.loc[(name, family), "error"]),
                }
                for name in order
                if family in measured
            },
        }
        for family in model.layout.families
    ]
    base = table.drop_duplicates("class").set_index("class")["base"]
    return {
        "classes": order,
        "base": {name: plain(base[name]) for name in order},
        "families": families,
    }


def _values(explanation: CellExplanation, model: Artifact) -> list[dict[str, Any]]:
    """Single numbers of the cell, in the layout's order, beside every class of the reference."""
    reference = model.classifier.reference_
    if reference.traces_:
        return []
    shown = set(telling(reference, explanation).tolist())
    columns = np.concatenate(list(reference.layout.columns.values()))
    z = reference.coordinates(explanation.values[None])[0]
    classes = [str(name) for name in reference.classes_]
    codes = {name: classes.index(name) for name in ordered(classes)}
    found = []
    for place, column in enumerate(columns):
        feature = reference.layout.features[column]
        centre, scale = reference.center_[place], reference.scale_[place]
        if not math.isfinite(scale):
            continue
        found.append(
            {
                "feature": feature.name,
                "label": readable(feature.name),
                "family": feature.family,
                "unit": "" if feature.unit in ("ratio", "unspecified") else feature.unit,
                "value": plain(explanation.values[column]),
                "z": plain(z[place]),
                "telling": place in shown,
                "classes": [
                    {
                        "class": name,
                        "z": [
                            plain(reference.middle_[code, 0, place]),
                            plain(reference.means_[code, place]),
                            plain(reference.middle_[code, 1, place]),
                        ],
                        "low": plain(centre + scale * reference.middle_[code, 0, place]),
                        "mean": plain(centre + scale * reference.means_[code, place]),
                        "high": plain(centre + scale * reference.middle_[code, 1, place]),
                    }
                    for name, code in codes.items()
                ],
            }
        )
    return found


def _place(
    explanation: CellExplanation, model: Artifact | None, place: ReferenceMap | str
) -> dict[str, Any]:
    if isinstance(place, str):
        return {"why": place}
    if model is None:
        return {"why": "there is no model of its species"}
    from crosspatch.errors import EvaluationError

    try:
        placed = place.place(explanation.values[None], model.layout, model.species)
    except EvaluationError as error:
        return {"why": str(error)}
    x, y = float(placed.x[0]), float(placed.y[0])
    if not math.isfinite(x):
        return {"why": "less than half of what the map is made of was measured"}
    return {"x": x, "y": y, "neighbours": dict(placed.neighbours[0])}


def _of_cell(cell: PredictedCell) -> dict[str, Any]:
    found = {
        name: plain(value)
        for name, value in cell._asdict().items()
        if name not in ("probabilities", *IN_NOTES)
    }
    found |= {f"probability_{name}": plain(p) for name, p in cell.probabilities.items()}
    return found | {
        "prediction_set": "|".join(cell.prediction_set),
        "families": "|".join(cell.families),
        "verdict": str(cell.verdict),
        "notes": cell.text,
    }


def plain(value: Any) -> Any:
    """A value as JSON has it; None for what is no number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return value


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def listed(values: NDArray[np.floating], digits: int) -> list[float | None]:
    """Rounded values as JSON has them; None for what is no number."""
    rounded = np.round(values, digits)
    if np.isfinite(rounded).all():
        return rounded.tolist()
    return [value if math.isfinite(value) else None for value in rounded.tolist()]
