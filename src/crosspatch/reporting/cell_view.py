"""The one picture of a cell: what was recorded, what a model says of it, and why.

It is made once and drawn by the page of a cell, by the report and by the service, none of which
compute anything of their own. Longer than 400 lines, most of which say what it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.cohorts.taxonomy import ONTOLOGY, load_taxonomy, ordered
from crosspatch.drawing.labels import readable
from crosspatch.errors import EvaluationError
from crosspatch.features.analysis import Analysis
from crosspatch.models.artifact import Artifact
from crosspatch.models.reference import Reference
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.explained import CellExplanation
from crosspatch.prediction.levels import runner_up_columns
from crosspatch.prediction.prediction import IN_NOTES, PredictedCell
from crosspatch.recordings.cell_quality import CellQuality
from crosspatch.recordings.model import Recording
from crosspatch.reporting.recording_figures import FirstSpike, first_spikes, rates

if TYPE_CHECKING:
    from crosspatch.explanation.reference_map import ReferenceMap

# Features shown beside the reference, and of them those that are unlike all subclasses.
_FEATURES, _UNLIKE = 11, 4
# Features named as unusual.
_UNUSUAL = 6
# What is said of a recording's cell, as JSON has it.
_RESISTANCES = ("seal", "access_resistance", "bridge")


# What was recorded


@dataclass(frozen=True)
class RecordingView:
    """What was recorded, besides the sweeps themselves."""

    format: str
    sweeps: int  # how many there are in current clamp
    left_out: int  # of them, those of noise, chirps and the like that are not used
    #: Numbers of the sweeps that quality control refused, by reason.
    rejected: Mapping[str, Sequence[int]]
    cell: CellQuality
    first_spikes: tuple[FirstSpike, ...]
    #: Steps of long squares from the smallest, pA; and the spike rate of each, spikes/s.
    rates: tuple[NDArray[np.float64], NDArray[np.float64]]

    def as_json(self) -> dict[str, object]:
        """As JSON has it: rounded samples, None for NaN."""
        current, rate = self.rates
        resistances = [(name, float(getattr(self.cell, name))) for name in _RESISTANCES]
        return {
            "format": self.format,
            "sweeps": self.sweeps,
            "left_out": self.left_out,
            "rejected": [{"reason": r, "sweeps": [*sweeps]} for r, sweeps in self.rejected.items()],
            "cell": {
                "passed": self.cell.passed,
                "reasons": list(self.cell.reasons),
                **{name: ohms if math.isfinite(ohms) else None for name, ohms in resistances},
            },
            "first_spikes": [
                {
                    "stimulus": each.stimulus,
                    "time": rounded(each.time, 4),
                    "voltage": rounded(each.voltage, 3),
                    "speed": rounded(each.speed, 3),
                }
                for each in self.first_spikes
            ],
            "rates": {"current": rounded(current, 2), "rate": rounded(rate, 3)},
        }


def recording_view(recording: Recording, analysis: Analysis) -> RecordingView:
    """What was recorded, and what the analysis of it measured."""
    rejected: dict[str, list[int]] = {}
    for number, quality in sorted(analysis.qualities.items()):
        for reason in quality.reasons:
            rejected.setdefault(reason, []).append(number)
    return RecordingView(
        format=recording.format,
        sweeps=len(recording.current_clamp) + recording.left_out,
        left_out=recording.left_out,
        rejected=rejected,
        cell=analysis.cell,
        first_spikes=tuple(first_spikes(analysis)),
        rates=rates(analysis),
    )


# What a model says, and why


@dataclass(frozen=True)
class JudgingModel:
    """The model that judged the cell."""

    model: str
    species: str
    layout: str
    digest: str


@dataclass(frozen=True)
class ClassProbability:
    """The probability of a class, and what it needs to be in the prediction set."""

    class_: str
    probability: float
    needed: float
    in_set: bool


@dataclass(frozen=True)
class Contribution:
    """What a family adds to the probability of a class, and the error of drawing orders."""

    contribution: float
    error: float


@dataclass(frozen=True)
class FamilyContributions:
    """What a family adds to each class, the most probable first; empty if not measured."""

    family: str
    measured: bool
    classes: Mapping[str, Contribution]


@dataclass(frozen=True)
class Contributions:
    """What speaks for and against each class, in the order of the layout's families."""

    classes: tuple[str, ...]  # the most probable first
    base: Mapping[str, float]  # share of each class among the cells the model learnt from
    families: tuple[FamilyContributions, ...]


@dataclass(frozen=True)
class ClassRange:
    """The middle 95 % of a class and its mean, in the feature's unit."""

    class_: str
    #: Low, mean and high in robust standard deviations from the reference's median.
    z: tuple[float, float, float]
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class FeatureValue:
    """A single number of the cell beside every class of the reference; NaN if not measured."""

    feature: str
    label: str
    family: str
    unit: str  # empty for ratios
    value: float
    z: float  # in robust standard deviations from the reference's median
    telling: bool  # whether it is one of the few that tell most
    classes: tuple[ClassRange, ...]


@dataclass(frozen=True)
class MapPlace:
    """Where the cell lies on the reference map, and its nearest cells by subclass."""

    x: float
    y: float
    neighbours: Mapping[str, int]


@dataclass(frozen=True)
class NoPlace:
    """Why the cell is not on the map."""

    why: str


@dataclass(frozen=True)
class Remarks:
    """What is said under the answer."""

    quality: str  # what quality control found wrong; empty if nothing
    measured: str  # what share was measured and what is missing; empty without a model
    unusual: tuple[str, ...]  # what sets the cell apart from the class it is given
    notes: tuple[str, ...]  # the others


@dataclass(frozen=True)
class CellView:
    """What a model says of one cell, and why."""

    cell: PredictedCell
    headline: str  # the verdict in a line, and what it means
    meaning: str
    levels: str  # its term, the runner-up, and the t-type or why there is none; may be empty
    warnings: tuple[str, ...]  # what must not be overlooked
    model: JudgingModel | None  # None where there is no model of the cell's species
    #: Of each class in the taxonomy's order; empty where no class is given.
    probabilities: tuple[ClassProbability, ...]
    contributions: Contributions | None  # None where no class is given
    #: Single numbers, in the layout's order; empty for traces and without a model.
    values: tuple[FeatureValue, ...]
    map: MapPlace | NoPlace
    remarks: Remarks

    def as_json(self) -> dict[str, object]:
        """As JSON has it: six digits, None for NaN, the cell as a row of the table."""
        return {each.name: _json(getattr(self, each.name)) for each in fields(self)} | {
            "cell": _row(self.cell)
        }


def cell_view(explanation: CellExplanation, place: ReferenceMap | str = "") -> CellView:
    """What a model says of one cell, and why; `place` is the map, or why there is none."""
    cell, model = explanation.cell, explanation.model
    headline, meaning = _answer(cell)
    given = model if cell.subclass else None
    return CellView(
        cell=cell,
        headline=headline,
        meaning=meaning,
        levels=" ".join(_levels(cell, model)),
        warnings=tuple(_warnings(explanation)),
        model=None if model is None else _judging(model),
        probabilities=_probabilities(explanation, given) if given else (),
        contributions=_contributions(explanation, given) if given else None,
        values=_values(explanation, model.classifier.reference_) if model else (),
        map=_place(explanation, place),
        remarks=_remarks(explanation),
    )


def _judging(model: Artifact) -> JudgingModel:
    return JudgingModel(str(model.about["model"]), model.species, model.layout.title, model.digest)


def _answer(cell: PredictedCell) -> tuple[str, str]:
    """The verdict in a line, and what it means."""
    verdict, meaning = cell.verdict, cell.verdict.meaning
    if verdict == Verdict.INSUFFICIENT:
        return str(verdict), f"{cell.completeness:.0%} of the layout was measured: {meaning}"
    if cell.references:
        return str(verdict), "there is no model of its species; no subclass is given"
    if not cell.subclass:
        share = f"{100 * cell.p_interneuron:.2g} % of interneurons look as excitatory"
        return str(verdict), f"{meaning}; {share}"
    said = f"{cell.subclass}, probability {cell.probability:.2f}"
    within = " or ".join(cell.prediction_set) or "no subclass"
    means = f"90 % prediction set: {within}. {verdict.capitalize()}: {meaning}"
    if verdict == Verdict.OUTSIDE:
        return f"{verdict}; the model's answer would be {said}", means
    return f"{said}: {verdict}", means


def _levels(cell: PredictedCell, model: Artifact | None) -> Iterator[str]:
    """Sentences about the subclass, the next one, and the level below."""
    if cell.cell_ontology_id:
        yield f"{cell.subclass} is {cell.cell_ontology_id} in the Cell Ontology."
    second, chance = cell.runner_up
    if second:
        term = load_taxonomy().term(second)
        yield f"Runner-up: {second}{f' ({term})' if term else ''}, probability {chance:.2f}."
    known = None if model is None else model.about.get("t_types")
    if known is None or not cell.t_type_guess:
        return
    guess = f"{cell.t_type_guess}, probability {cell.t_type_probability:.2f}"
    if cell.t_type_runner_up:
        guess += (
            f"; then {cell.t_type_runner_up}, probability {cell.t_type_runner_up_probability:.2f}"
        )
    if cell.t_type:
        yield f"T-type ({known['taxonomy']}): {guess}."
    else:
        yield f"No t-type ({known['taxonomy']}) is probable enough to be named; best guess {guess}."


def _warnings(explanation: CellExplanation) -> list[str]:
    warnings = []
    if explanation.cell.simulated:
        warnings.append("SIMULATED recording: it says nothing about a real neuron")
    if explanation.model is not None and explanation.model.about["simulated"]:
        warnings.append("the model was trained on SIMULATED recordings")
    return warnings


def _probabilities(explanation: CellExplanation, model: Artifact) -> tuple[ClassProbability, ...]:
    cell, classifier = explanation.cell, model.classifier
    by_class = explanation.header["parameters"]["sets"] == "by-class"
    told = classifier.reference_.compare(explanation.values[None]).information
    needed = classifier.calibration_.limits(told, by_class=by_class)[0]
    of_class = dict(zip(model.classes, needed, strict=True))
    return tuple(
        ClassProbability(
            name, cell.probabilities[name], float(of_class[name]), name in cell.prediction_set
        )
        for name in ordered(model.classes)
    )


def _contributions(explanation: CellExplanation, model: Artifact) -> Contributions:
    table = explanation.contributions
    order = sorted(model.classes, key=lambda name: -explanation.cell.probabilities[name])
    shares = table.set_index(["family", "class"])[["contribution", "error"]].astype(float)
    found = {key: Contribution(*share) for key, *share in shares.itertuples(name=None)}
    families = []
    for family in model.layout.families:
        classes = {name: found[family, name] for name in order if (family, name) in found}
        families.append(FamilyContributions(family, bool(classes), classes))
    base = table.drop_duplicates("class").set_index("class")["base"]
    return Contributions(
        classes=tuple(order),
        base={name: float(base[name]) for name in order},
        families=tuple(families),
    )


def _values(explanation: CellExplanation, reference: Reference) -> tuple[FeatureValue, ...]:
    if reference.coordinates_.traces:
        return ()
    columns = np.concatenate(list(reference.layout.columns.values()))
    z = reference.coordinates(explanation.values[None])[0]
    shown = _telling(reference, z)
    classes = [str(name) for name in reference.classes_]
    found = []
    for place, column in enumerate(columns):
        feature = reference.layout.features[column]
        centre, scale = float(reference.center_[place]), float(reference.scale_[place])
        if not math.isfinite(scale):
            continue
        ranges = []
        for name in ordered(classes):
            code = classes.index(name)
            low, high = reference.middle_[code, :, place]
            ends = float(low), float(reference.means_[code, place]), float(high)
            ranges.append(ClassRange(name, ends, *(centre + scale * end for end in ends)))
        found.append(
            FeatureValue(
                feature=feature.name,
                label=readable(feature.name),
                family=feature.family,
                unit="" if feature.unit in ("ratio", "unspecified") else feature.unit,
                value=float(explanation.values[column]),
                z=float(z[place]),
                telling=place in shown,
                classes=tuple(ranges),
            )
        )
    return tuple(found)


def _telling(reference: Reference, z: NDArray[np.float64]) -> set[int]:
    """Coordinates to be shown, of those measured.

    First those in which the cell lies outside the middle 95 % of every class; then those that tell
    the classes apart best, for which families take turns, so that none of them fills the panel.
    """
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
    unlike = [int(place) for place in np.argsort(-beyond, kind="stable") if beyond[place] > 0]
    best_first = [place for _, _, place in sorted(turns)]
    return set(list(dict.fromkeys([*unlike[:_UNLIKE], *best_first]))[:_FEATURES])


def _place(explanation: CellExplanation, place: ReferenceMap | str) -> MapPlace | NoPlace:
    model = explanation.model
    if isinstance(place, str):
        return NoPlace(place)
    if model is None:
        return NoPlace("there is no model of its species")
    try:
        placed = place.place(explanation.values[None], model.layout, model.species)
    except EvaluationError as error:
        return NoPlace(str(error))
    x, y = float(placed.x[0]), float(placed.y[0])
    if not math.isfinite(x):
        return NoPlace("less than half of what the map is made of was measured")
    return MapPlace(x, y, dict(placed.neighbours[0]))


def _told(explanation: CellExplanation, model: Artifact) -> str:
    """What the measured features tell of the class beside all of the layout, where that is less."""
    reference = model.classifier.reference_
    cells = np.stack([explanation.values, np.zeros_like(explanation.values)])
    these, all_of_them = reference.compare(cells).information
    share = these / all_of_them
    return (
        "" if share > 0.995 else f" It tells {share:.0%} of what all of it tells of the subclass."
    )


def _remarks(explanation: CellExplanation) -> Remarks:
    cell, model = explanation.cell, explanation.model
    measured, unusual = "", []
    if model is not None:
        families = model.layout.measured.families
        absent = [readable(name) for name in families if name not in cell.families]
        missing = f"; not measured: {', '.join(absent)}" if absent else ""
        told = _told(explanation, model)
        layer = f" Cortical layer: {cell.layer or 'not known'}." if model.layout.has_layer else ""
        measured = f"{cell.completeness:.0%} of the layout{missing}.{told}{layer}"
    if model is not None and cell.subclass:
        reference = model.classifier.reference_
        said = reference.unusual(explanation.values[None], [cell.subclass], _UNUSUAL)
        unusual = said[0].as_py()
    unlike = [cell.unlike] if cell.unlike and not unusual else []
    return Remarks(cell.quality, measured, tuple(unusual), (*cell.remarks, *unlike))


# As JSON


def _row(cell: PredictedCell) -> dict[str, object]:
    """The cell as a row of the table has it."""
    row = {k: _json(v) for k, v in cell._asdict().items() if k not in IN_NOTES}
    row[ONTOLOGY] = cell.cell_ontology_id
    second = runner_up_columns(cell.subclass, cell.probabilities)
    row |= {name: _json(value) for name, value in second.items()}
    del row["probabilities"]
    row |= {f"probability_{name}": _json(p) for name, p in cell.probabilities.items()}
    return row | {
        "prediction_set": "|".join(cell.prediction_set),
        "families": "|".join(cell.families),
        "verdict": str(cell.verdict),
        "notes": cell.text,
    }


def _json(value: object) -> object:
    """A value as JSON has it: six digits, None for NaN; ``class_`` is called ``class``."""
    if is_dataclass(value):
        return {each.name.rstrip("_"): _json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def rounded(values: NDArray[np.floating], digits: int) -> list[float | None]:
    """Rounded values as JSON has them; None for NaN."""
    rounded = np.round(values, digits).astype(object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()
