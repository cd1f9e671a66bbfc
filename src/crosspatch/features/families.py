"""The twelve families of feature vectors (Gouwens et al. 2020), computed by IPFX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.features.analysis import Analysis, Responses, noting, quiet
from crosspatch.features.layouts import VectorSettings

if TYPE_CHECKING:
    from ipfx.sweep import Sweep as IpfxSweep

Vector = NDArray[np.float64]

#: Family of a binned spike feature to IPFX's name for the feature.
_SPIKE_FEATURES = {
    "spiking_threshold_v": "threshold_v",
    "spiking_peak_v": "peak_v",
    "spiking_width": "width",
    "spiking_fast_trough_v": "fast_trough_v",
    "spiking_upstroke_downstroke_ratio": "upstroke_downstroke_ratio",
}


def vector_families(
    analysis: Analysis, settings: VectorSettings
) -> tuple[dict[str, Vector], list[str]]:
    """Compute the families that the recording allows, and note why parts of them are missing.

    Vectors have the lengths in ``settings.lengths``; NaN where a part was not recorded. A family
    without any value is left out.
    """
    notes: list[str] = []
    with quiet():
        vectors = _first_ap(analysis, settings, notes)
        for name, compute in _of_long_squares(analysis.long_square, settings, notes):
            with noting(name, notes):
                vectors[name] = compute()
    families: dict[str, Vector] = {}
    for name, length in settings.lengths.items():
        vector = vectors.get(name)
        if vector is None or not np.isfinite(vector).any():
            continue
        if len(vector) != length:
            raise ValueError(f"{name} has {len(vector)} positions, expected {length}")
        families[name] = np.where(np.isfinite(vector), vector, np.nan)
    return families, notes


def _of_long_squares(
    long: Responses | None, settings: VectorSettings, notes: list[str]
) -> Iterator[tuple[str, Callable[[], Vector | None]]]:
    """Family to what computes it."""
    if long is None:
        return
    if "rheobase_i" in long.features:
        yield "isi_shape", partial(_isi_shape, long, settings)
    for name in ("step_subthresh", "subthresh_norm"):
        yield name, partial(_subthreshold_family, name, long, settings)
    if "rheobase_i" in long.features:
        trains = _Trains(long, settings, notes)
        for name in ("psth", "inst_freq"):
            yield name, partial(trains.rates, name)
        for name, feature in _SPIKE_FEATURES.items():
            yield name, partial(trains.spike, feature)


def _first_ap(
    analysis: Analysis, settings: VectorSettings, notes: list[str]
) -> dict[str, Vector | None]:
    """First action potential in short squares, at rheobase, and in ramps."""
    potentials = []
    for name, responses, key in (
        ("short squares", analysis.short_square, "common_amp_sweeps"),
        ("rheobase", analysis.long_square, "rheobase_sweep"),
        ("ramps", analysis.ramp, "spiking_sweeps"),
    ):
        potential = np.full(round(settings.ap_window * settings.ap_rate), np.nan)
        unspiking = key == "rheobase_sweep" and responses and key not in responses.features
        if responses is not None and not unspiking:
            with noting(f"first_ap_v, {name}", notes):
                potential = _waveform(responses, _places(responses, key), settings)
        potentials.append(potential)
    slopes = [np.diff(potential) for potential in potentials]
    if settings.average_first_ap:
        return {"first_ap_v": _mean(potentials), "first_ap_dv": _mean(slopes)}
    return {"first_ap_v": np.hstack(potentials), "first_ap_dv": np.hstack(slopes)}


def _mean(parts: list[Vector]) -> Vector:
    there = [part for part in parts if np.isfinite(part).any()]
    return np.mean(there, axis=0) if there else parts[0]


def _places(responses: Responses, key: str) -> list[int]:
    """Where the sweeps are whose first spike is taken: the one at rheobase, or the unclipped."""
    chosen = responses.features[key]
    if key == "rheobase_sweep":
        return [chosen.name]
    spikes_set = responses.features["spikes_set"]
    return [k for k in chosen.index if not bool(spikes_set[k]["clipped"].to_numpy()[0])]


def _waveform(responses: Responses, places: list[int], settings: VectorSettings) -> Vector:
    """Mean first action potential of some of the sweeps."""
    from ipfx import feature_vectors

    spikes_set = responses.features["spikes_set"]
    sweeps = [responses.sweeps[k] for k in places]
    spikes = [spikes_set[k] for k in places]
    if not sweeps:  # IPFX would give zeros
        return np.full(round(settings.ap_window * settings.ap_rate), np.nan)
    rate = float(sweeps[0].sampling_rate)
    factor = rate / settings.ap_rate
    native = factor >= 1 and abs(factor - round(factor)) < 1e-6
    window = settings.ap_window if native else settings.ap_window + 2 / rate
    potential, _ = feature_vectors.first_ap_vectors(
        sweeps,
        spikes,
        target_sampling_rate=settings.ap_rate if native else rate,
        window_length=window,
    )
    return np.asarray(potential, np.float64) if native else _resampled(potential, rate, settings)


def _resampled(potential: Vector, rate: float, settings: VectorSettings) -> Vector:
    from scipy.interpolate import CubicSpline

    at = np.arange(round(settings.ap_window * settings.ap_rate)) / settings.ap_rate
    return np.asarray(CubicSpline(np.arange(len(potential)) / rate, potential)(at))


def _isi_shape(long: Responses, settings: VectorSettings) -> Vector:
    from ipfx import feature_vectors
    from ipfx.sweep import SweepSet

    sweep, spikes = feature_vectors.identify_sweep_for_isi_shape(
        SweepSet(long.sweeps), long.features, long.end - long.start
    )
    return np.asarray(
        feature_vectors.isi_shape(sweep, spikes, long.end, n_points=settings.isi_points)
    )


def _subthreshold_family(name: str, long: Responses, settings: VectorSettings) -> Vector | None:
    """Responses to hyperpolarising steps: ``step_subthresh`` or ``subthresh_norm``."""
    from ipfx import feature_vectors

    steps, deflections = _subthreshold(long, settings)
    if not steps:
        return None
    width = settings.subthreshold_bin
    step = {
        "start": long.start,
        "end": long.start + round((long.end - long.start) / width) * width,  # in whole bins
        "extend_duration": settings.around_step,
        "subsample_interval": width,
    }
    if name == "step_subthresh":
        targets: list[float] = list(settings.subthreshold)
        vector = feature_vectors.step_subthreshold(steps, targets, **step, amp_tolerance=5)
    else:
        targets = [settings.normalised_at]
        vector = feature_vectors.subthresh_norm(steps, deflections, **step, target_amp=targets[0])
    parts = np.asarray(vector).reshape(len(targets), -1)
    return _on_reference(parts, steps.values(), long, settings)


def _subthreshold(
    long: Responses, settings: VectorSettings
) -> tuple[dict[float, _Padded], dict[float, tuple[float, float]]]:
    """Amplitude of a hyperpolarising step to its sweep, and to its baseline and deflection."""
    from ipfx import feature_vectors
    from ipfx.sweep import SweepSet

    if "subthreshold_sweeps" not in long.features:
        return {}, {}
    sweeps, deflections = feature_vectors.identify_subthreshold_hyperpol_with_amplitudes(
        long.features, SweepSet(long.sweeps)
    )
    return {each: _Padded(long, sweep, settings) for each, sweep in sweeps.items()}, deflections


class _Padded:
    """A sweep that reaches over the whole window, for IPFX to average into bins.

    Time `t` in s and voltage `v` in mV, in which the baseline stands in where nothing was recorded;
    `recorded` tells of which bins something was.
    """

    def __init__(self, long: Responses, sweep: IpfxSweep, settings: VectorSettings):
        voltage, rate = np.asarray(sweep.v), float(sweep.sampling_rate)
        onset = (long.start - float(sweep.t[0])) * rate
        width = round(settings.subthreshold_bin * rate)
        if abs(width / settings.subthreshold_bin - rate) > 1e-6 * rate:
            # Bins that are not whole samples: onto the nearest rate at which they are.
            fitting = width / settings.subthreshold_bin
            points = int(len(voltage) / rate * fitting)
            voltage = np.interp(
                np.arange(points) / fitting, np.arange(len(voltage)) / rate, voltage
            )
            onset, rate = onset * fitting / rate, fitting
        begin = round(onset)
        around = round(settings.around_step * rate)
        points = round((long.end - long.start) / settings.subthreshold_bin) * width
        # Two samples more on both sides: IPFX looks for the samples nearest to the window's ends.
        first, last = begin - around - 2, begin + points + around + 2
        lead, tail = max(-first, 0), max(last - len(voltage), 0)
        baseline = voltage[max(begin - round(0.1 * rate), 0) : begin].mean()
        padded = np.pad(voltage, (lead, tail), constant_values=baseline)
        self.v = padded[first + lead : last + lead]
        self.t = long.start + (np.arange(len(self.v)) - around - 2) / rate
        there = np.zeros(len(padded), dtype=bool)
        there[lead : len(padded) - tail] = True
        there = there[first + lead + 2 : last + lead - 2]
        bins = len(there) // width
        self.recorded = there[: bins * width].reshape(bins, width).all(axis=1)


def _on_reference(
    parts: Vector, sweeps: Iterable[_Padded], long: Responses, settings: VectorSettings
) -> Vector:
    """Put bins, (amplitudes, bins), where the reference has them; others are missing."""
    recorded = np.all([sweep.recorded for sweep in sweeps], axis=0)
    parts = np.where(recorded, parts, np.nan)
    around = round(settings.around_step / settings.subthreshold_bin)
    step = round(settings.step / settings.subthreshold_bin)
    measured = parts.shape[1] - 2 * around
    result = np.full((len(parts), step + 2 * around), np.nan)
    result[:, : around + measured] = parts[:, : around + measured]
    if abs(long.duration - settings.step) < settings.subthreshold_bin:
        # Only then does what follows follow the same step.
        result[:, around + step :] = parts[:, around + measured :]
    return result.ravel()


def _origin(long: Responses) -> float:
    """A start of the step at which IPFX counts its milliseconds right.

    IPFX divides a duration that it rounded by 0.001 and cuts off decimals: by the last bit of a
    number, a step of 1 s may have 999 ms, and its vectors a bin too few.
    """
    duration = long.end - long.start
    for start in (long.start, *map(float, range(16))):
        rounded = np.round(start + duration, decimals=3) - np.round(start, decimals=3)
        if int(rounded / 0.001) == round(duration * 1000):
            return start
    return long.start


class _Trains:
    """Spikes of the sweeps at given steps above rheobase, binned."""

    def __init__(self, long: Responses, settings: VectorSettings, notes: list[str]):
        from ipfx import feature_vectors
        from ipfx.error import FeatureError

        self.settings = settings
        targets = np.array(settings.above_rheobase)
        self.levels = len(targets)
        find = partial(feature_vectors.identify_suprathreshold_spike_info, long.features, targets)
        try:
            spikes = find(shift=settings.shift, amp_tolerance=settings.tolerance)
        except FeatureError:
            # Steps of another size: the nearest within half a spacing will do.
            tolerance = float(np.diff(targets).min()) / 2
            try:
                spikes = find(shift=None, amp_tolerance=tolerance)
                notes.append(f"spike trains: steps within {tolerance:g} pA of those of the layout")
            except FeatureError:
                spikes = [long.features["spikes_set"][long.features["rheobase_sweep"].name]]
                notes.append("spike trains: only the step at rheobase, the others are missing")
        self.start = _origin(long)
        self.end = self.start + long.end - long.start
        moved = self.start - long.start
        self.spikes = [
            None if each is None else each.assign(threshold_t=each["threshold_t"] + moved)
            for each in spikes
        ]

    def rates(self, name: str) -> Vector:
        """Spike rate (``psth``) or instantaneous frequency (``inst_freq``)."""
        from ipfx import feature_vectors

        width = self.settings.rate_bin if name == "psth" else self.settings.spike_bin
        compute = getattr(feature_vectors, f"{name}_vector")
        return self._on_reference(compute(self.spikes, self.start, self.end, width=width), width)

    def spike(self, feature: str) -> Vector | None:
        from ipfx import feature_vectors

        usable: list[pd.DataFrame | None] = []
        for spikes in self.spikes:
            if spikes is not None:
                missing = ~np.isfinite(spikes[feature].to_numpy(dtype=float))
                if missing.any():  # neither they nor clipped ones can be averaged
                    spikes = spikes.assign(clipped=spikes["clipped"].to_numpy(bool) | missing)
                if spikes["clipped"].all():
                    spikes = None
            usable.append(spikes)
        if all(spikes is None for spikes in usable):
            return None
        vector = feature_vectors.spike_feature_vector(
            feature, usable, self.start, self.end, width=self.settings.spike_bin
        )
        return self._on_reference(vector, self.settings.spike_bin)

    def _on_reference(self, vector: Vector, width: int) -> Vector:
        """Bins of a shorter step, or of fewer steps, at their place; the others are missing."""
        parts = np.asarray(vector, dtype=np.float64).reshape(len(self.spikes), -1)
        result = np.full((self.levels, round(self.settings.step * 1000 / width)), np.nan)
        bins = min(parts.shape[1], result.shape[1])
        result[: len(parts), :bins] = parts[:, :bins]
        return result.ravel()
