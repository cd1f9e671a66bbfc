"""A recording's usable sweeps by stimulus, analysed by IPFX.

IPFX (Allen Institute) does the measuring. Its file layer is not used: the sweeps, the stimulus
interval and the command come from here, so that any file, rate and timing will do.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ipfx.error import FeatureError
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording, Samples, Sweep
from crosspatch.recordings.quality import (
    CellQuality,
    QualityThresholds,
    SweepQuality,
    assess_cell,
    assess_sweep,
    recorded_points,
)
from crosspatch.recordings.stimuli import (
    LONG_SQUARE,
    NONE,
    OTHER,
    RAMP,
    SHORT_SQUARE,
    Stimulus,
    StimulusSettings,
    command_during,
    recognise,
)

#: The part of a long square that is measured, s: the reference tables have steps of 1 s.
STEP_WINDOW = 1.0
#: Kept on both sides of a square, s: families need 0.2, the rest keeps filter edges away.
MARGIN = 0.25
#: Kept after the start of a short square, s.
_SHORT_AFTER = 0.3

#: Kept after the end of a ramp, s.
_AFTER_RAMP = 0.1

#: What IPFX raises where a measurement is impossible.
IPFX_ERRORS = (
    FeatureError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Responses:
    """Sweeps of one kind of stimulus and what IPFX measured on them."""

    #: Time in s, voltage in mV, current in pA above holding.
    sweeps: list[Any]
    #: Result of IPFX's analysis for this stimulus.
    features: dict[str, Any]
    #: IPFX's analysis object.
    measured: Any
    #: Stimulus interval on the sweeps' time axis, s; the end of a long square is at most
    #: `STEP_WINDOW` after its start.
    start: float
    end: float
    #: How long the stimulus really lasts, s.
    duration: float
    #: The sweeps' numbers in the file.
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Analysis:
    """Everything measured on a recording before features are named."""

    #: None where the protocol is missing or none of its sweeps can be used.
    long_square: Responses | None
    short_square: Responses | None
    ramp: Responses | None
    #: Sweep number to stimulus.
    stimuli: dict[int, Stimulus]
    #: Sweep number to quality, of the sweeps that were read.
    qualities: dict[int, SweepQuality]
    cell: CellQuality
    #: What could not be done, and why.
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Cut:
    """A usable sweep, cut to the part that is measured; its stimulus begins at sample `onset`."""

    number: int
    rate: float
    voltage: Samples
    current: NDArray[np.float64]
    first: int
    onset: int
    stimulus: Stimulus


def analyse(
    recording: Recording,
    quality: QualityThresholds | None = None,
    stimuli: StimulusSettings | None = None,
) -> Analysis:
    """Read a recording once and let IPFX measure its long squares, short squares and ramps.

    The voltage of other sweeps is not read, unless their test pulses are all there is to measure
    the resistance on: they are most of a file, and it may lie on the other side of a network.

    Parameters
    ----------
    recording : Recording
    quality : QualityThresholds, optional
    stimuli : StimulusSettings, optional

    Raises
    ------
    RecordingError
        If no sweep has a command waveform.
    """
    found = recognise(recording, stimuli)
    notes = [f"{name}: {reason}" for name, reason in recording.unreadable.items()]
    qualities: dict[int, SweepQuality] = {}
    cuts: dict[str, list[_Cut]] = {LONG_SQUARE: [], SHORT_SQUARE: [], RAMP: []}
    tests: list[_Cut] = []
    others: list[tuple[Sweep, Stimulus]] = []
    for sweep in recording.current_clamp:
        stimulus = found.get(sweep.number)
        if stimulus is None:
            reason = "its command cannot be read"
            qualities[sweep.number] = SweepQuality(reasons=(reason,))
            notes.append(f"sweep {sweep.number}: {reason}")
            continue
        if stimulus.disagrees:
            notes.append(
                f"sweep {sweep.number}: the command shows: {stimulus.kind}; the file's name "
                f"'{sweep.description}' stands for: {stimulus.named}; the command counts"
            )
        if stimulus.kind not in cuts:
            others.append((sweep, stimulus))
            continue
        qualities[sweep.number], voltage = _assess(sweep, stimulus, quality, notes)
        if voltage is not None:
            cuts[stimulus.kind].append(_cut(sweep, voltage, stimulus))
            pulse = _test_step(stimulus)
            if pulse is not None:
                tests.append(_cut(sweep, voltage, pulse))
    with quiet():
        long = _attempt(_long_square, cuts[LONG_SQUARE], "long squares", notes)
        short = _attempt(_short_square, cuts[SHORT_SQUARE], "short squares", notes)
        ramp = _attempt(_ramp, cuts[RAMP], "ramps", notes)
        if long is not None and "input_resistance" not in long.features:
            for sweep, stimulus in others:
                pulse = _test_step(stimulus)
                if pulse is None:
                    continue
                qualities[sweep.number], voltage = _assess(sweep, stimulus, quality, notes)
                if voltage is not None:
                    tests.append(_cut(sweep, voltage, pulse))
            membrane = _attempt(_long_square, tests, "test pulses", notes) if tests else None
            if membrane is not None and "input_resistance" in membrane.features:
                notes.append("resistance and time constant are of the test pulses")
                for name in ("input_resistance", "tau"):
                    long.features[name] = membrane.features[name]
    resistance = float("nan")
    if long is not None:
        resistance = float(long.features.get("input_resistance", np.nan))
    stimulated = {
        number: result for number, result in qualities.items() if _stimulated(found, number)
    }
    cell = assess_cell(recording, stimulated, resistance, quality)
    return Analysis(long, short, ramp, found, qualities, cell, notes)


def _assess(
    sweep: Sweep, stimulus: Stimulus, settings: QualityThresholds | None, notes: list[str]
) -> tuple[SweepQuality, Samples | None]:
    """Quality of a sweep, and its voltage if it is used."""
    try:
        points = sweep.points
        if stimulus.kind == RAMP:  # what follows is not used, and may be long
            points = min(points, round((stimulus.end + _AFTER_RAMP) * sweep.rate))
        voltage = sweep.voltage_until(points)
        result = assess_sweep(sweep, voltage, stimulus, settings)
    except RecordingError as error:
        result = SweepQuality(reasons=(str(error),))
    if result.reasons:
        notes.append(f"sweep {sweep.number} rejected: {'; '.join(result.reasons)}")
        return result, None
    return result, voltage


def _stimulated(found: dict[int, Stimulus], number: int) -> bool:
    return number in found and found[number].kind not in (NONE, OTHER)


def _cut(sweep: Sweep, voltage: Samples, stimulus: Stimulus) -> _Cut:
    rate = sweep.rate
    onset = round(stimulus.start * rate)
    last = recorded_points(voltage, rate)
    first = 0
    if stimulus.kind != RAMP:
        after = (
            stimulus.end + MARGIN if stimulus.kind == LONG_SQUARE else stimulus.end + _SHORT_AFTER
        )
        first = max(0, round((stimulus.start - MARGIN) * rate))
        last = min(last, round(min(after, stimulus.next_start) * rate))
    if stimulus.test_pulse and first < round(stimulus.test_pulse[1] * rate):
        first = min(round(stimulus.test_pulse[1] * rate), max(onset - round(0.11 * rate), 0))
    current = command_during(sweep, stimulus)
    return _Cut(
        sweep.number, rate, voltage[first:last], current[first:last], first, onset, stimulus
    )


def _test_step(stimulus: Stimulus) -> Stimulus | None:
    """A hyperpolarising test pulse long enough to show the membrane, as if it were a step."""
    if stimulus.test_pulse is None:
        return None
    start, end, amplitude = stimulus.test_pulse
    if amplitude > -10 or end - start < 0.1:
        return None
    following = min(stimulus.start if stimulus.kind != NONE else np.inf, stimulus.next_start)
    return Stimulus(LONG_SQUARE, start, end, amplitude, stimulus.holding, next_start=following)


def _attempt(
    measure: Callable[[list[_Cut], list[str]], Responses | None],
    cuts: list[_Cut],
    name: str,
    notes: list[str],
) -> Responses | None:
    if not cuts:
        notes.append(f"no usable {name}")
        return None
    try:
        return measure(cuts, notes)
    except IPFX_ERRORS as error:
        notes.append(f"{name}: {str(error) or type(error).__name__}")
        return None


def _alike(cuts: list[_Cut], name: str, notes: list[str]) -> list[_Cut]:
    """The sweeps of the commonest rate and duration; IPFX measures sweeps that are alike."""

    def kind(cut: _Cut) -> tuple[int, int]:
        return round(cut.rate), round(cut.stimulus.duration * 1e4)

    common = Counter(kind(cut) for cut in cuts).most_common(1)[0][0]
    for cut in cuts:
        if kind(cut) != common:
            notes.append(
                f"sweep {cut.number}: left out, it lasts {cut.stimulus.duration:g} s at "
                f"{cut.rate:g} Hz, most {name} last {common[1] / 1e4:g} s at {common[0]} Hz"
            )
    return [cut for cut in cuts if kind(cut) == common]


def _common_onset(cuts: list[_Cut]) -> int:
    return Counter(cut.onset for cut in cuts).most_common(1)[0][0]


def _as_ipfx(cuts: list[_Cut]) -> list[Any]:
    """IPFX's sweeps, on one time axis: where onsets differ, the later sweeps are shifted."""
    from ipfx.sweep import Sweep as IpfxSweep

    onset = _common_onset(cuts)
    sweeps = []
    for cut in cuts:
        points = len(cut.voltage)
        time = (np.arange(points) + cut.first + onset - cut.onset) / cut.rate
        whole = (0, points - 1)
        begin = cut.onset - cut.first
        epochs = {
            "test": whole,
            "sweep": whole,
            "recording": whole,
            "experiment": whole,
            "stim": (begin, begin + max(round(cut.stimulus.duration * cut.rate) - 1, 0)),
        }
        sweeps.append(
            IpfxSweep(
                time,
                cut.voltage,
                cut.current,
                "CurrentClamp",
                cut.rate,
                sweep_number=cut.number,
                epochs=epochs,
            )
        )
    return sweeps


def _interval(cuts: list[_Cut]) -> tuple[float, float]:
    onset = _common_onset(cuts)
    rate = cuts[0].rate
    points = round(cuts[0].stimulus.duration * rate)
    return onset / rate, (onset + points) / rate


def _filter(rate: float) -> float | None:
    """IPFX smooths dV/dt at 10 kHz, which a rate of 20 kHz or less cannot carry."""
    return 10.0 if rate > 20_500 else None


def _long_square(cuts: list[_Cut], notes: list[str]) -> Responses:
    from ipfx import data_set_features
    from ipfx.stimulus import StimulusType
    from ipfx.stimulus_protocol_analysis import LongSquareAnalysis
    from ipfx.sweep import SweepSet

    cuts = _alike(cuts, "long squares", notes)
    sweeps = _as_ipfx(cuts)
    start, end = _interval(cuts)
    duration = end - start
    window = min(duration, STEP_WINDOW)
    if abs(duration - STEP_WINDOW) < 0.005:
        window = duration
    elif window < STEP_WINDOW:
        window = np.floor(window * 100 + 1e-6) / 100
    if window != duration:
        end = start + round(window * cuts[0].rate) / cuts[0].rate
    if abs(duration - STEP_WINDOW) >= 0.005:
        notes.append(f"steps last {duration:g} s; their first {window:g} s are measured")
    extractor, trains = data_set_features.extractors_for_sweeps(
        SweepSet(sweeps),
        start=start,
        end=end,
        min_peak=-25,  # as in IPFX's feature vectors
        filter_frequency=_filter(cuts[0].rate),
        **data_set_features.detection_parameters(StimulusType.LONG_SQUARE),
    )
    lead = start - max(float(sweep.t[0]) for sweep in sweeps)
    if lead < trains.baseline_interval:
        trains.baseline_interval = lead
        trains.sag_baseline_interval = min(trains.sag_baseline_interval, lead)
        notes.append(f"the baseline is taken from {lead * 1e3:.0f} ms before the step")
    # The smallest steps give resistance and time constant; IPFX takes those above -100 pA.
    negative = [cut.stimulus.amplitude for cut in cuts if cut.stimulus.amplitude < 0]
    smallest = -100.0
    if negative and max(negative) <= smallest:
        smallest = max(negative) * 1.001
        notes.append(f"resistance and time constant are of steps of {max(negative):g} pA")
    responses = LongSquareAnalysis(
        extractor,
        trains,
        subthresh_min_amp=smallest,
        require_subthreshold=False,
        require_suprathreshold=False,
    )
    features = _analyse_long_square(responses, SweepSet(sweeps), notes)
    return Responses(
        sweeps, features, responses, start, end, duration, tuple(cut.number for cut in cuts)
    )


def _analyse_long_square(responses: Any, sweeps: Any, notes: list[str]) -> dict[str, Any]:
    """IPFX's analysis in its parts, so that a failure of one leaves the other."""
    extra = ["peak_deflect", "stim_amp", "v_baseline", "sag"]
    responses.analyze_basic_features(sweeps, extra_sweep_features=extra)
    table = responses.all_sweep_features()
    features: dict[str, Any] = {
        "spikes_set": responses._spikes_set,
        "sweeps": table,
        "v_baseline": float(np.nanmean(table["v_baseline"].to_numpy(dtype=float))),
    }
    try:
        features.update(responses.analyze_subthreshold(sweeps))
    except IPFX_ERRORS as error:
        notes.append(f"long squares: {str(error) or type(error).__name__}")
    features.update(_suprathreshold(responses, notes))
    small = features.get("subthreshold_membrane_property_sweeps")
    if small is not None and len(small) > 1 and small["stim_amp"].nunique() == 1:
        # IPFX fits a line through the steps; with one amplitude there is no line to fit.
        peaks = np.array([peak for peak, _ in small["peak_deflect"]])
        deflections = peaks - small["v_baseline"].to_numpy(dtype=float)
        amplitudes = small["stim_amp"].to_numpy(dtype=float)
        features["input_resistance"] = float(np.mean(deflections / amplitudes) * 1e3)
    if "rheobase_i" not in features and (table["stim_amp"] > 0).any():
        notes.append("no long square made it spike")
    if not (table["stim_amp"] < 0).any():
        # Sag, resistance and time constant are of hyperpolarising steps.
        notes.append("no hyperpolarising long square")
        for name in ("sag", "vm_for_sag", "input_resistance", "tau"):
            features.pop(name, None)
    return features


def _suprathreshold(responses: Any, notes: list[str]) -> dict[str, Any]:
    """As IPFX's `analyze_suprathreshold`, which gives nothing if only one sweep spikes."""
    from ipfx.spike_train_features import fit_fi_slope

    spiking = responses.suprathreshold_sweep_features()
    if not (spiking["stim_amp"] > 0).any():
        return {}
    rheobase = responses.find_rheobase_sweep(spiking)
    features = {
        "spiking_sweeps": spiking,
        "rheobase_sweep": rheobase,
        "rheobase_i": rheobase["stim_amp"],
        "hero_sweep": responses.find_hero_sweep(rheobase["stim_amp"], spiking),
    }
    try:
        amplitudes, rates = spiking["stim_amp"].to_numpy(), spiking["avg_rate"].to_numpy()
        features["fi_fit_slope"] = fit_fi_slope(amplitudes, rates)
    except IPFX_ERRORS as error:
        notes.append(f"fi_fit_slope: {str(error) or type(error).__name__}")
    return features


def _short_square(cuts: list[_Cut], notes: list[str]) -> Responses:
    from ipfx import data_set_features, spike_features
    from ipfx.stimulus import StimulusType
    from ipfx.stimulus_protocol_analysis import ShortSquareAnalysis
    from ipfx.sweep import SweepSet

    cuts = _alike(cuts, "short squares", notes)
    sweeps = _as_ipfx(cuts)
    start, end = _interval(cuts)
    together = SweepSet(sweeps)
    # IPFX would estimate these with its filter at 10 kHz whatever the rate.
    cutoff, share = spike_features.estimate_adjusted_detection_parameters(
        together.v, together.t, start, start + 0.001, filter=_filter(cuts[0].rate)
    )
    extractor, trains = data_set_features.extractors_for_sweeps(
        together,
        dv_cutoff=cutoff,
        thresh_frac=share,
        start=start,
        end=end + 0.05,  # as in IPFX's feature vectors
        reject_at_stim_start_interval=0.0002,
        filter_frequency=_filter(cuts[0].rate),
        **data_set_features.detection_parameters(StimulusType.SHORT_SQUARE),
    )
    responses = ShortSquareAnalysis(extractor, trains)
    features = responses.analyze(together)
    numbers = tuple(cut.number for cut in cuts)
    return Responses(sweeps, features, responses, start, end, end - start, numbers)


def _ramp(cuts: list[_Cut], notes: list[str]) -> Responses:
    from ipfx import data_set_features
    from ipfx.stimulus import StimulusType
    from ipfx.stimulus_protocol_analysis import RampAnalysis
    from ipfx.sweep import SweepSet

    rate = Counter(cut.rate for cut in cuts).most_common(1)[0][0]
    cuts = [cut for cut in cuts if cut.rate == rate]
    sweeps = _as_ipfx(cuts)
    start, end = _interval(cuts)
    extractor, trains = data_set_features.extractors_for_sweeps(
        SweepSet(sweeps),
        start=start,
        filter_frequency=_filter(rate),
        **data_set_features.detection_parameters(StimulusType.RAMP),
    )
    responses = RampAnalysis(extractor, trains)
    features = responses.analyze(SweepSet(sweeps))
    if not len(features["spiking_sweeps"]):
        notes.append("no ramp made it spike")
        return Responses(sweeps, features, responses, start, end, end - start, ())
    numbers = tuple(cut.number for cut in cuts)
    return Responses(sweeps, features, responses, start, end, end - start, numbers)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep IPFX's log lines and numpy's warnings away; what matters becomes a note."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def import_ipfx() -> None:
    """Import what is needed of IPFX now, not within the first file's time limit."""
    from ipfx import (  # noqa: F401
        data_set_features,
        feature_vectors,
        qc_features,
        stimulus_protocol_analysis,
    )
