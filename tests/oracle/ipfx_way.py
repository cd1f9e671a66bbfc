"""IPFX, given our sweeps: the oracle of what `crosspatch.features` measures.

IPFX's own file layer expects the Allen Institute's files; here its sweeps are made of ours, in
double precision, cut and on the time axis that they are measured on. Its detection, analyses and
feature vectors do the rest.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from ipfx import data_set_features, feature_vectors, spike_features, subthresh_features
from ipfx import stimulus_protocol_analysis as protocols
from ipfx.error import FeatureError
from ipfx.stimulus import StimulusType
from ipfx.sweep import Sweep, SweepSet
from scipy.interpolate import CubicSpline
from scipy.optimize import curve_fit

from crosspatch.features.analysis import Analysis, analyse
from crosspatch.features.families import vector_families
from crosspatch.features.layouts import VECTOR_LAYOUTS, VectorSettings
from crosspatch.features.long_squares import LongSquares
from crosspatch.features.responses import Responses
from crosspatch.features.scalars import scalar_features
from crosspatch.recordings.model import Recording
from crosspatch.recordings.stimuli import ramp_current
from crosspatch.recordings.thresholds import ANY, QualityThresholds

#: What IPFX raises where a measurement is impossible.
IMPOSSIBLE: tuple[type[Exception], ...] = (FeatureError, ArithmeticError, AssertionError)
IMPOSSIBLE += (AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError)

Found = dict[str, Any]


@contextmanager
def quiet() -> Iterator[None]:
    """IPFX without its log lines and numpy's warnings; its exponential fits run to their end.

    As it calls them, they stop where a step changes the sum of squares by 1.5e-8 of it: up to 2e-5
    before the best time constant.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    subthresh_features.curve_fit = partial(curve_fit, ftol=1e-14, xtol=1e-14)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        subthresh_features.curve_fit = curve_fit


def sweeps_of(responses: Responses, currents: list[np.ndarray] | None = None) -> SweepSet:
    """IPFX's sweeps of responses; without commands they are the squares that were recognised."""
    made = []
    for k, cut in enumerate(responses.cuts):
        points = len(cut.voltage)
        time = (np.arange(points) + cut.first) / cut.rate
        stimulated = (cut.onset, cut.onset + max(round(cut.duration * cut.rate) - 1, 0))
        epochs = dict.fromkeys(("test", "sweep", "recording", "experiment"), (0, points - 1))
        epochs["stim"] = stimulated
        if currents is None:
            current = np.zeros(points)
            current[stimulated[0] : stimulated[1] + 1] = cut.amplitude
        else:
            current = currents[k]
        basics = (time, cut.voltage, current, "CurrentClamp", cut.rate)
        made.append(Sweep(*basics, sweep_number=cut.number, epochs=epochs))
    return SweepSet(made)


def _extractors(responses: Responses, sweeps: SweepSet, kind: StimulusType, **more: Any) -> Any:
    # It smooths dV/dt at 10 kHz, which a rate of 20 kHz or less cannot carry.
    smoothing = 10.0 if responses.cuts[0].rate > 20_500 else None
    options = {"start": responses.start, "filter_frequency": smoothing} | more
    parameters = data_set_features.detection_parameters(kind)
    return data_set_features.extractors_for_sweeps(sweeps, **options, **parameters)


def long_squares(long: LongSquares) -> Found:
    """What IPFX's analysis says of long squares; a part that it cannot measure is left out."""
    sweeps = sweeps_of(long)
    spikes, trains = _extractors(long, sweeps, StimulusType.LONG_SQUARE, end=long.end, min_peak=-25)
    lead = long.start - max(float(sweep.t[0]) for sweep in sweeps.sweeps)
    trains.baseline_interval = min(trains.baseline_interval, lead)
    trains.sag_baseline_interval = min(trains.sag_baseline_interval, lead)
    negative = long.amplitudes[long.amplitudes < 0]
    smallest = -100.0
    if len(negative) and negative.max() <= smallest:
        smallest = negative.max() * 1.001
    analysis = protocols.LongSquareAnalysis(
        *(spikes, trains),
        subthresh_min_amp=smallest,
        require_subthreshold=False,
        require_suprathreshold=False,
    )
    extra = ["peak_deflect", "stim_amp", "v_baseline", "sag"]
    analysis.analyze_basic_features(sweeps, extra_sweep_features=extra)
    table = analysis.all_sweep_features()
    found: Found = {
        "spikes_set": analysis._spikes_set,
        "sweeps": table,
        "sweep_set": sweeps,
        "v_baseline": float(np.nanmean(table["v_baseline"].to_numpy(dtype=float))),
    }
    if len(negative):  # sag, resistance and time constant are of hyperpolarising steps
        found |= analysis.analyze_subthreshold(sweeps)
    spiking = analysis.suprathreshold_sweep_features()
    if (spiking["stim_amp"] > 0).any():
        # IPFX sorts by an order of equals that depends on the processor.
        ranked = spiking.sort_values("stim_amp", kind="stable")
        rheobase = ranked[ranked["stim_amp"] > 0].iloc[0]
        found["spiking_sweeps"], found["rheobase_sweep"] = spiking, rheobase
        found["rheobase_i"] = rheobase["stim_amp"]
        found["hero_sweep"] = analysis.find_hero_sweep(rheobase["stim_amp"], ranked)
    return found


def short_squares(short: Responses) -> Found:
    """What IPFX's analysis says of short squares."""
    sweeps = sweeps_of(short)
    smoothing = 10.0 if short.cuts[0].rate > 20_500 else None
    cutoff, share = spike_features.estimate_adjusted_detection_parameters(
        sweeps.v, sweeps.t, short.start, short.start + 0.001, filter=smoothing
    )
    analysis = protocols.ShortSquareAnalysis(
        *_extractors(
            *(short, sweeps, StimulusType.SHORT_SQUARE),
            dv_cutoff=cutoff,
            thresh_frac=share,
            end=short.end + 0.05,
            reject_at_stim_start_interval=0.0002,
        )
    )
    return analysis.analyze(sweeps) | {"analysis": analysis, "sweep_set": sweeps}


def ramps(ramp: Responses, currents: list[np.ndarray]) -> Found:
    """What IPFX's analysis says of ramps, given the commands of their cuts."""
    sweeps = sweeps_of(ramp, currents)
    analysis = protocols.RampAnalysis(*_extractors(ramp, sweeps, StimulusType.RAMP))
    return analysis.analyze(sweeps) | {"analysis": analysis, "sweep_set": sweeps}


def scalars(long: Found | None, short: Found | None, ramp: Found | None) -> dict[str, float]:
    """The single numbers under the names of the layouts ``shared`` and ``full``."""
    values: dict[str, float] = {}
    if long is not None:
        names = ("v_baseline", "input_resistance", "sag", "vm_for_sag", "rheobase_i", "tau")
        values |= {name: long[name] for name in names if name in long}
        values["tau"] = values.get("tau", np.nan) * 1e3
        spiking = long.get("spiking_sweeps", ())
        if len(spiking) > 1:
            from ipfx.spike_train_features import fit_fi_slope

            values["fi_fit_slope"] = fit_fi_slope(
                spiking["stim_amp"].to_numpy(), spiking["avg_rate"].to_numpy()
            )
        for name in ("rheo", "hero"):
            sweep = long.get({"rheo": "rheobase_sweep", "hero": "hero_sweep"}[name])
            if sweep is None:
                continue
            values |= _of_spike(long["spikes_set"][sweep.name].iloc[0].to_dict(), name)
            trains = ["latency", "avg_rate", "mean_isi"]
            if name == "hero":
                trains += ["median_isi", "isi_cv", "adapt"]
            values |= {f"{feature}_{name}": sweep[feature] for feature in trains}
            values[f"first_isi_inv_{name}"] = 1 / sweep["first_isi"]
    for found, name in ((ramp, "ramp"), (short, "short_square")):
        spikes = [] if found is None else [each for each in found["spikes_set"] if len(each)]
        if found is None or not spikes:
            continue
        points = ("threshold", "peak", "fast_trough", "trough")
        features = [*_PLAIN, *(f"{point}_v" for point in points), "threshold_i"]
        mean = found["analysis"].mean_features_first_spike(spikes, features)
        values |= _of_spike(mean, name)
        if name == "ramp":
            values["threshold_i_ramp"] = mean["threshold_i"]
    values.pop("trough_deltav_short_square", None)
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


#: Features of a spike to the factor to our unit.
_PLAIN = dict.fromkeys(("upstroke_downstroke_ratio", "threshold_v", "upstroke", "downstroke"), 1.0)
_PLAIN["width"] = 1e3


def _of_spike(spike: Found, name: str) -> dict[str, float]:
    values = {f"{feature}_{name}": spike[feature] * by for feature, by in _PLAIN.items()}
    for point in ("peak", "fast_trough", "trough"):
        values[f"{point}_deltav_{name}"] = spike[f"{point}_v"] - spike["threshold_v"]
    return values


def families(
    long: Found | None,
    short: Found | None,
    ramp: Found | None,
    responses: LongSquares | None,
    settings: VectorSettings,
) -> dict[str, np.ndarray]:
    """Feature vectors as IPFX makes them, of sweeps that have all that it needs.

    A family that it cannot make is left out; of ``first_ap_v`` and ``first_ap_dv`` the part of a
    stimulus is NaN.
    """
    vectors = _first_ap(long, short, ramp, settings)
    if long is None or responses is None:
        return vectors
    start, end = responses.start, responses.end
    if "subthreshold_sweeps" in long:
        of_steps, deflections = feature_vectors.identify_subthreshold_hyperpol_with_amplitudes(
            long, long["sweep_set"]
        )
        bins = {
            "extend_duration": settings.around_step,
            "subsample_interval": settings.subthreshold_bin,
        }
        around = settings.around_step
        whole = [
            sweep.t[0] <= start - around and sweep.t[-1] >= end + around
            for sweep in of_steps.values()
        ]
        # Bins that one sweep lacks are missing in all: of other sweeps it has no notion.
        vectors |= (
            {}
            if not all(whole)
            else _possible(
                step_subthresh=lambda: feature_vectors.step_subthreshold(
                    of_steps, list(settings.subthreshold), start, end, **bins, amp_tolerance=5
                ),
                subthresh_norm=lambda: feature_vectors.subthresh_norm(
                    of_steps, deflections, start, end, **bins, target_amp=settings.normalised_at
                ),
            )
        )
    if "rheobase_i" in long:
        vectors |= _spike_trains(long, start, end, settings)
    return vectors


def _possible(**computed: Any) -> dict[str, np.ndarray]:
    found = {}
    for name, compute in computed.items():
        try:
            found[name] = np.asarray(compute())
        except IMPOSSIBLE:
            continue
    return found


def _first_ap(
    long: Found | None, short: Found | None, ramp: Found | None, settings: VectorSettings
) -> dict[str, np.ndarray]:
    points = round(settings.ap_window * settings.ap_rate)
    parts = []
    for found, key in ((short, "common_amp_sweeps"), (long, None), (ramp, "spiking_sweeps")):
        places = []
        if found is not None and key is not None:
            spikes = found["spikes_set"]
            places = [k for k in found[key].index if not spikes[k]["clipped"].iloc[0]]
        elif found is not None and "rheobase_sweep" in found:
            places = [found["rheobase_sweep"].name]
        part = np.full(points, np.nan)
        if found is not None and places:
            part = _first_waveform(found, places, settings)
        parts.append(part)
    slopes = [np.diff(part) for part in parts]
    if settings.average_first_ap:
        there = [k for k, part in enumerate(parts) if np.isfinite(part).any()] or [0]
        parts = [np.mean([parts[k] for k in there], axis=0)]
        slopes = [np.mean([slopes[k] for k in there], axis=0)]
    return {"first_ap_v": np.hstack(parts), "first_ap_dv": np.hstack(slopes)}


def _first_waveform(found: Found, places: list[int], settings: VectorSettings) -> np.ndarray:
    sweeps = [found["sweep_set"].sweeps[k] for k in places]
    spikes = [found["spikes_set"][k] for k in places]
    rate = float(sweeps[0].sampling_rate)
    if (rate / settings.ap_rate).is_integer():
        return feature_vectors.first_ap_vectors(
            *(sweeps, spikes, settings.ap_rate, settings.ap_window)
        )[0]
    window = settings.ap_window + 2 / rate
    potential, _ = feature_vectors.first_ap_vectors(sweeps, spikes, rate, window)
    at = np.arange(round(settings.ap_window * settings.ap_rate)) / settings.ap_rate
    return np.asarray(CubicSpline(np.arange(len(potential)) / rate, potential)(at))


def _spike_trains(
    long: Found, start: float, end: float, settings: VectorSettings
) -> dict[str, np.ndarray]:
    def isi_shape() -> np.ndarray:
        sweep, spikes = feature_vectors.identify_sweep_for_isi_shape(
            long["sweep_set"], long, end - start
        )
        return feature_vectors.isi_shape(sweep, spikes, end, n_points=settings.isi_points)

    vectors = _possible(isi_shape=isi_shape)
    targets = np.array(settings.above_rheobase)
    tries = [(settings.shift, settings.tolerance), (None, float(np.diff(targets).min()) / 2)]
    for shift, tolerance in tries:
        try:
            trains = feature_vectors.identify_suprathreshold_spike_info(
                long, targets, shift=shift, amp_tolerance=tolerance
            )
        except FeatureError:
            continue
        break
    else:
        return vectors
    by_name = {
        "psth": partial(feature_vectors.psth_vector, width=settings.rate_bin),
        "inst_freq": partial(feature_vectors.inst_freq_vector, width=settings.spike_bin),
    }
    vectors |= _possible(
        **{name: partial(make, trains, start, end) for name, make in by_name.items()}
    )
    for feature in ("threshold_v", "peak_v", "width", "fast_trough_v", "upstroke_downstroke_ratio"):
        usable = [_with_feature(each, feature) for each in trains]
        if any(each is not None for each in usable):
            make = partial(feature_vectors.spike_feature_vector, feature, usable, start, end)
            vectors |= _possible(**{f"spiking_{feature}": partial(make, width=settings.spike_bin)})
    return vectors


def _with_feature(spikes: Any, feature: str) -> Any:
    """Spikes without the feature count as clipped ones: neither can be averaged."""
    if spikes is None:
        return None
    missing = ~np.isfinite(spikes[feature].to_numpy(dtype=float))
    spikes = spikes.assign(clipped=spikes["clipped"].to_numpy(bool) | missing)
    return None if spikes["clipped"].all() else spikes


def compare(recording: Recording, quality: QualityThresholds = ANY) -> dict[str, float]:
    """The largest difference of every scalar and family from IPFX, relative where above 1."""
    analysis = analyse(recording, quality)
    long, short, ramp = analysis.long_square, analysis.short_square, analysis.ramp
    with quiet():
        of_long = None if long is None else long_squares(long)
        of_short = None if short is None else short_squares(short)
        of_ramp = None
        if ramp is not None:
            of_ramp = ramps(ramp, _commands(recording, analysis))
        expected: dict[str, dict[str, Any]] = {"scalars": scalars(of_long, of_short, of_ramp)}
        for name, settings in VECTOR_LAYOUTS.items():
            expected[name] = families(of_long, of_short, of_ramp, long, settings)
    found: dict[str, dict[str, Any]] = {"scalars": scalar_features(analysis)}
    found |= {name: vector_families(analysis, each)[0] for name, each in VECTOR_LAYOUTS.items()}
    return {
        f"{kind} {name}": _difference(values.get(name), theirs, kind, name)
        for kind, values in found.items()
        for name, theirs in expected[kind].items()
        if np.isfinite(theirs).any()
    }


def _commands(recording: Recording, analysis: Analysis) -> list[np.ndarray]:
    """The commands of ramps, cut as their sweeps are."""
    commands = []
    for cut in analysis.ramp.cuts if analysis.ramp else ():
        stimulus = analysis.stimuli[cut.number]
        first = round(stimulus.start * cut.rate) - cut.onset
        sweep = recording.sweep(cut.number)
        commands.append(ramp_current(sweep, stimulus, first, len(cut.voltage)))
    return commands


def _difference(ours: Any, theirs: Any, kind: str, name: str) -> float:
    if ours is None:
        return np.inf
    ours, theirs = np.atleast_1d(ours), np.atleast_1d(theirs)
    if len(ours) != len(theirs):  # of steps shorter than the reference's
        settings = VECTOR_LAYOUTS[kind]
        rows = {"step_subthresh": len(settings.subthreshold), "subthresh_norm": 1}
        row = (rows.get(name, len(settings.above_rheobase)), -1)
        after = round(settings.around_step / settings.subthreshold_bin) if name in rows else 0
        bins = theirs.reshape(row).shape[1] - after
        ours, theirs = ours.reshape(row)[:, :bins], theirs.reshape(row)[:, :bins]
    if (np.isnan(ours) & np.isfinite(theirs)).any():
        return np.inf
    both = np.isfinite(ours) & np.isfinite(theirs)
    off = np.abs(ours[both] - theirs[both]) / np.maximum(np.abs(theirs[both]), 1.0)
    return float(off.max()) if len(off) else 0.0
