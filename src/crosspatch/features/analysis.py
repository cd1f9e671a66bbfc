"""A recording's usable sweeps by stimulus, analysed by IPFX.

Longer than 400 lines: what a sweep is cut to and what IPFX makes of it depend on each other.
IPFX (Allen Institute) does the measuring. Its file layer is not used: the sweeps, the stimulus
interval and the command come from here, so that any file, rate and timing will do.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

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
    command_during,
    recognise,
)

if TYPE_CHECKING:
    from ipfx.stimulus import StimulusType
    from ipfx.stimulus_protocol_analysis import LongSquareAnalysis, StimulusProtocolAnalysis
    from ipfx.sweep import Sweep as IpfxSweep
    from ipfx.sweep import SweepSet

#: The part of a long square that is measured, s: the reference tables have steps of 1 s.
STEP_WINDOW = 1.0
#: Kept on both sides of a square, s: families need 0.2, the rest keeps filter edges away.
MARGIN = 0.25
#: Kept after the start of a short square, s.
_SHORT_AFTER = 0.3
#: Kept after the end of a ramp, s.
_AFTER_RAMP = 0.1

#: What IPFX raises where a measurement is impossible.
_IPFX_ERRORS: tuple[type[Exception], ...] = (FeatureError, ArithmeticError, AssertionError)
_IPFX_ERRORS += (AttributeError, LookupError, RuntimeError, TypeError, ValueError)

#: What IPFX says of the responses to a stimulus: numbers, tables and lists of tables, by name.
IpfxFeatures = dict[str, Any]


@dataclass(frozen=True)
class Responses:
    """Sweeps of one kind of stimulus and what IPFX measured on them."""

    #: Time in s, voltage in mV, current in pA above holding.
    sweeps: list[IpfxSweep]
    #: Result of IPFX's analysis for this stimulus.
    features: IpfxFeatures
    #: IPFX's analysis object.
    measured: StimulusProtocolAnalysis
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


def analyse(recording: Recording, quality: QualityThresholds | None = None) -> Analysis:
    """Read a recording once and let IPFX measure its long squares, short squares and ramps.

    The voltage of other sweeps is not read, unless their test pulses are all there is to measure
    the resistance on: they are most of a file, and it may lie on the other side of a network. A
    `RecordingError` if no sweep has a command waveform.
    """
    found = recognise(recording)
    usable = _Usable(recording, quality)
    others = usable.read_measured(found)
    notes = usable.notes
    with quiet():
        long = _attempt(_long_square, usable.cuts[LONG_SQUARE], "long squares", notes)
        short = _attempt(_short_square, usable.cuts[SHORT_SQUARE], "short squares", notes)
        ramp = _attempt(_ramp, usable.cuts[RAMP], "ramps", notes)
        if long is not None and "input_resistance" not in long.features:
            for sweep, stimulus in others:
                usable.read(sweep, stimulus)
            _take_membrane(long, usable.tests, notes)
    resistance = float(long.features.get("input_resistance", np.nan)) if long else float("nan")
    stimulated = {
        number: result
        for number, result in usable.qualities.items()
        if number in found and found[number].kind not in (NONE, OTHER)
    }
    cell = assess_cell(recording, stimulated, resistance, quality)
    return Analysis(long, short, ramp, found, usable.qualities, cell, notes)


class _Usable:
    """The sweeps that can be measured, by kind of stimulus, and what is wrong with the others."""

    def __init__(self, recording: Recording, thresholds: QualityThresholds | None) -> None:
        self.recording, self.thresholds = recording, thresholds
        self.notes = [f"{name}: {reason}" for name, reason in recording.unreadable.items()]
        self.qualities: dict[int, SweepQuality] = {}
        self.cuts: dict[str, list[_Cut]] = {LONG_SQUARE: [], SHORT_SQUARE: [], RAMP: []}
        self.tests: list[_Cut] = []

    def read_measured(self, found: dict[int, Stimulus]) -> list[tuple[Sweep, Stimulus]]:
        """Read the sweeps that are measured; those that have no more than a test pulse are left."""
        left = []
        for sweep in self.recording.current_clamp:
            stimulus = found.get(sweep.number)
            if stimulus is None:
                reason = "its command cannot be read"
                self.qualities[sweep.number] = SweepQuality(reasons=(reason,))
                self.notes.append(f"sweep {sweep.number}: {reason}")
                continue
            if stimulus.disagrees:
                self.notes.append(
                    f"sweep {sweep.number}: the command shows: {stimulus.kind}; the file's name "
                    f"'{sweep.description}' stands for: {stimulus.named}; the command counts"
                )
            if stimulus.kind in self.cuts:
                self.read(sweep, stimulus)
            elif _test_step(stimulus) is not None:
                left.append((sweep, stimulus))
        return left

    def read(self, sweep: Sweep, stimulus: Stimulus) -> None:
        """Read a sweep and judge it; if it passes, keep its stimulus and its test pulse."""
        try:
            points = sweep.points
            if stimulus.kind == RAMP:  # what follows is not used, and may be long
                points = min(points, round((stimulus.end + _AFTER_RAMP) * sweep.rate))
            voltage = sweep.voltage_until(points)
            quality = assess_sweep(sweep, voltage, stimulus, self.thresholds)
        except RecordingError as error:
            quality = SweepQuality(reasons=(str(error),))
        self.qualities[sweep.number] = quality
        if quality.reasons:
            self.notes.append(f"sweep {sweep.number} rejected: {'; '.join(quality.reasons)}")
            return
        if stimulus.kind in self.cuts:
            self.cuts[stimulus.kind].append(_cut(sweep, voltage, stimulus))
        pulse = _test_step(stimulus)
        if pulse is not None:
            self.tests.append(_cut(sweep, voltage, pulse))


def _take_membrane(long: Responses, tests: list[_Cut], notes: list[str]) -> None:
    """Take resistance and time constant from test pulses."""
    membrane = _attempt(_long_square, tests, "test pulses", notes) if tests else None
    if membrane is not None and "input_resistance" in membrane.features:
        notes.append("resistance and time constant are of the test pulses")
        for name in ("input_resistance", "tau"):
            long.features[name] = membrane.features[name]


def _cut(sweep: Sweep, voltage: Samples, stimulus: Stimulus) -> _Cut:
    rate = sweep.rate
    onset = round(stimulus.start * rate)
    last = recorded_points(voltage, rate)
    first = 0
    if stimulus.kind != RAMP:
        after = stimulus.end + (MARGIN if stimulus.kind == LONG_SQUARE else _SHORT_AFTER)
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
    with noting(name, notes):
        return measure(cuts, notes) if cuts else None
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


class _Together:
    """Sweeps as IPFX has them, on one time axis: where onsets differ, later ones are shifted."""

    def __init__(self, cuts: list[_Cut]) -> None:
        from ipfx.sweep import Sweep as IpfxSweep
        from ipfx.sweep import SweepSet

        self.numbers = tuple(cut.number for cut in cuts)
        self.rate = cuts[0].rate
        #: IPFX smooths dV/dt at 10 kHz, which a rate of 20 kHz or less cannot carry.
        self.filter = 10.0 if self.rate > 20_500 else None
        onset = Counter(cut.onset for cut in cuts).most_common(1)[0][0]
        self.start = onset / self.rate
        self.end = (onset + round(cuts[0].stimulus.duration * self.rate)) / self.rate
        sweeps = []
        for cut in cuts:
            points = len(cut.voltage)
            time = (np.arange(points) + cut.first + onset - cut.onset) / cut.rate
            begin = cut.onset - cut.first
            epochs = dict.fromkeys(("test", "sweep", "recording", "experiment"), (0, points - 1))
            epochs["stim"] = (begin, begin + max(round(cut.stimulus.duration * cut.rate) - 1, 0))
            basics = (time, cut.voltage, cut.current, "CurrentClamp", cut.rate)
            sweeps.append(IpfxSweep(*basics, sweep_number=cut.number, epochs=epochs))
        self.set = SweepSet(sweeps)

    def extractors(self, kind: StimulusType, **more: float) -> tuple[Any, Any]:
        """IPFX's extractors of spikes and of spike trains."""
        from ipfx import data_set_features

        parameters = data_set_features.detection_parameters(kind)
        options = {"start": self.start, "filter_frequency": self.filter} | more
        spikes, trains = data_set_features.extractors_for_sweeps(self.set, **options, **parameters)
        return spikes, trains

    def responses(
        self, features: IpfxFeatures, measured: StimulusProtocolAnalysis, end: float
    ) -> Responses:
        times = (self.start, end, self.end - self.start)
        return Responses(self.set.sweeps, features, measured, *times, self.numbers)


def _long_square(cuts: list[_Cut], notes: list[str]) -> Responses:
    from ipfx.stimulus import StimulusType
    from ipfx.stimulus_protocol_analysis import LongSquareAnalysis

    cuts = _alike(cuts, "long squares", notes)
    together = _Together(cuts)
    start, end = together.start, _measured_until(together, notes)
    # The lowest peak is that of IPFX's feature vectors.
    extractor, trains = together.extractors(StimulusType.LONG_SQUARE, end=end, min_peak=-25)
    lead = start - max(float(sweep.t[0]) for sweep in together.set.sweeps)
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
    measured = LongSquareAnalysis(
        extractor,
        trains,
        subthresh_min_amp=smallest,
        require_subthreshold=False,
        require_suprathreshold=False,
    )
    features = _analyse_long_square(measured, together.set, notes)
    return together.responses(features, measured, end)


def _measured_until(together: _Together, notes: list[str]) -> float:
    """End of the part of a step that is measured, s."""
    duration = together.end - together.start
    if abs(duration - STEP_WINDOW) < 0.005:
        return together.end
    window = min(duration, STEP_WINDOW)
    if window < STEP_WINDOW:
        window = np.floor(window * 100 + 1e-6) / 100
    notes.append(f"steps last {duration:g} s; their first {window:g} s are measured")
    if window == duration:
        return together.end
    return together.start + round(window * together.rate) / together.rate


def _analyse_long_square(
    responses: LongSquareAnalysis, sweeps: SweepSet, notes: list[str]
) -> IpfxFeatures:
    """IPFX's analysis in its parts, so that a failure of one leaves the other."""
    extra = ["peak_deflect", "stim_amp", "v_baseline", "sag"]
    responses.analyze_basic_features(sweeps, extra_sweep_features=extra)
    table = responses.all_sweep_features()
    features: IpfxFeatures = {
        "spikes_set": responses._spikes_set,
        "sweeps": table,
        "v_baseline": float(np.nanmean(table["v_baseline"].to_numpy(dtype=float))),
    }
    with noting("long squares", notes):
        features.update(responses.analyze_subthreshold(sweeps))
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


def _suprathreshold(responses: LongSquareAnalysis, notes: list[str]) -> IpfxFeatures:
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
    with noting("fi_fit_slope", notes):
        amplitudes, rates = spiking["stim_amp"].to_numpy(), spiking["avg_rate"].to_numpy()
        features["fi_fit_slope"] = fit_fi_slope(amplitudes, rates)
    return features


def _short_square(cuts: list[_Cut], notes: list[str]) -> Responses:
    from ipfx import spike_features
    from ipfx.stimulus import StimulusType
    from ipfx.stimulus_protocol_analysis import ShortSquareAnalysis

    together = _Together(_alike(cuts, "short squares", notes))
    sweeps, start = together.set, together.start
    # IPFX would estimate these with its filter at 10 kHz whatever the rate.
    cutoff, share = spike_features.estimate_adjusted_detection_parameters(
        sweeps.v, sweeps.t, start, start + 0.001, filter=together.filter
    )
    extractors = together.extractors(
        StimulusType.SHORT_SQUARE,
        dv_cutoff=cutoff,
        thresh_frac=share,
        end=together.end + 0.05,  # as in IPFX's feature vectors
        reject_at_stim_start_interval=0.0002,
    )
    measured = ShortSquareAnalysis(*extractors)
    return together.responses(measured.analyze(sweeps), measured, together.end)


def _ramp(cuts: list[_Cut], notes: list[str]) -> Responses:
    from ipfx.stimulus import StimulusType
    from ipfx.stimulus_protocol_analysis import RampAnalysis

    rate = Counter(cut.rate for cut in cuts).most_common(1)[0][0]
    together = _Together([cut for cut in cuts if cut.rate == rate])
    measured = RampAnalysis(*together.extractors(StimulusType.RAMP))
    responses = together.responses(measured.analyze(together.set), measured, together.end)
    if not len(responses.features["spiking_sweeps"]):
        notes.append("no ramp made it spike")
        return replace(responses, numbers=())
    return responses


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


@contextmanager
def noting(name: str, notes: list[str]) -> Iterator[None]:
    """Note why IPFX cannot measure something, and go on."""
    try:
        yield
    except _IPFX_ERRORS as error:
        notes.append(f"{name}: {str(error) or type(error).__name__}")


def import_ipfx() -> None:
    """Import what is needed of IPFX now, not within the first file's time limit."""
    from ipfx import data_set_features, feature_vectors, qc_features, stimulus_protocol_analysis  # noqa: F401
