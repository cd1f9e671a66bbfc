"""The twelve families of feature vectors (Gouwens et al. 2020)."""

from __future__ import annotations

import numpy as np

from crosspatch.features.analysis import Analysis
from crosspatch.features.layouts import VectorSettings
from crosspatch.features.long_squares import LongSquares
from crosspatch.features.measuring.binned import Bins, filled, one_per_step, steps_at
from crosspatch.features.measuring.spikes import Spikes
from crosspatch.features.measuring.waveforms import (
    BinnedResponses,
    Vector,
    first_waveform,
    interspike_shape,
    sweep_of_intervals,
)
from crosspatch.features.ranges import limits

#: Families of binned spike features, to the feature.
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

    They are those of Gouwens et al. 2020, as IPFX (2.1.2) computes them. Vectors have the lengths
    in ``settings.lengths``; NaN where a part was not recorded. A family without any value is left
    out.
    """
    notes: list[str] = []
    long = analysis.long_square
    with np.errstate(all="ignore"):
        vectors = _first_ap(analysis, settings, notes)
        if long is not None:
            vectors |= _subthreshold_families(long, settings)
        if long is not None:
            vectors |= _isi_shape(long, settings, notes)
            vectors |= _spike_trains(long, settings, notes)
    families: dict[str, Vector] = {}
    for name, length in settings.lengths.items():
        vector = vectors.get(name)
        if vector is None or not np.isfinite(vector).any():
            continue
        if len(vector) != length:
            raise ValueError(f"{name} has {len(vector)} positions, expected {length}")
        least, most = limits(name)
        if name == "spiking_width":  # in s here, and in ms in the table
            least, most = least * 1e-3, most * 1e-3
        possible = (vector >= least) & (vector <= most)
        if beyond := int(np.sum(np.isfinite(vector) & ~possible)):
            notes.append(f"{name}: {beyond} values outside {least:g} to {most:g} are missing")
        families[name] = np.where(possible, vector, np.nan)
    return families, notes


def _first_ap(analysis: Analysis, settings: VectorSettings, notes: list[str]) -> dict[str, Vector]:
    """First action potential in short squares, at rheobase, and in ramps."""
    missing = np.full(round(settings.ap_window * settings.ap_rate), np.nan)
    potentials = []
    for name, responses in (
        ("short squares", analysis.short_square),
        ("rheobase", analysis.long_square),
        ("ramps", analysis.ramp),
    ):
        potential = None
        if responses is not None and responses.first_spikes:
            cuts, spikes = zip(*responses.first_spikes, strict=True)
            potential = first_waveform(cuts, spikes, settings)
            if potential is None:
                notes.append(f"first_ap_v, {name}: the recording ends during the first spike")
        potentials.append(missing if potential is None else potential)
    slopes = [np.diff(potential) for potential in potentials]
    if settings.average_first_ap:
        return {"first_ap_v": _mean(potentials), "first_ap_dv": _mean(slopes)}
    return {"first_ap_v": np.hstack(potentials), "first_ap_dv": np.hstack(slopes)}


def _mean(parts: list[Vector]) -> Vector:
    there = [part for part in parts if np.isfinite(part).any()]
    return np.asarray(np.mean(there, axis=0)) if there else parts[0]


def _isi_shape(long: LongSquares, settings: VectorSettings, notes: list[str]) -> dict[str, Vector]:
    """Mean potential between spikes."""
    rates = long.rates
    places = np.flatnonzero((rates > 0) & (long.amplitudes > 0))
    if not len(places):
        return {}
    counts = rates[places] * (long.end - long.start)
    place = int(places[sweep_of_intervals(long.amplitudes[places], counts)])
    points = settings.isi_points
    shape = interspike_shape(long.cuts[place], long.spikes[place], long.end, points)
    if shape is None:
        notes.append(f"isi_shape: no whole interval of at least {points} samples between spikes")
        return {}
    return {"isi_shape": shape}


def _subthreshold_families(long: LongSquares, settings: VectorSettings) -> dict[str, Vector]:
    """Responses to hyperpolarising steps, and the largest as a share of its deflection."""
    rounded = np.rint(long.amplitudes)
    # Of steps of one size the last counts; those beyond -1 nA are mistakes.
    places = (
        {}
        if long.alone
        else {
            float(rounded[k]): k
            for k in np.flatnonzero((long.rates == 0) & (long.amplitudes < 0) & (rounded >= -1000))
        }
    )
    if not places:
        return {}
    sweeps = {amplitude: long.cuts[k] for amplitude, k in places.items()}
    responses = BinnedResponses(sweeps, long.start, long.below.end, settings)
    parts = [responses.at(amplitude) for amplitude in settings.subthreshold]
    largest = responses.nearest(settings.normalised_at)
    step = long.steps[places[largest]]
    share = (responses.at(largest) - step.baseline) / (step.baseline - step.deflection)
    return {
        "step_subthresh": responses.on_reference(parts, long.below.duration),
        "subthresh_norm": responses.on_reference([share], long.below.duration),
    }


def _spike_trains(
    long: LongSquares, settings: VectorSettings, notes: list[str]
) -> dict[str, Vector]:
    """Spikes of the sweeps at given steps above rheobase, binned."""
    if not np.isfinite(long.excitability.rheobase_i):
        return {}
    steps = _above_rheobase(long, settings, notes)
    if not any(each is not None for each in steps):
        return {}
    unseen = long.excitability.rheobase is None
    rate_bins = Bins(long.start, long.end, settings.rate_bin)
    bins = Bins(long.start, long.end, settings.spike_bin)

    def times(spikes: Spikes) -> Vector:
        return spikes["threshold_t"]

    vectors = {
        "psth": _on_reference(
            [each if each is None else rate_bins.rate(times(each)) for each in steps],
            *(settings, settings.rate_bin, unseen),
        ),
        "inst_freq": _on_reference(
            [each if each is None else bins.instantaneous_rate(times(each)) for each in steps],
            *(settings, settings.spike_bin, unseen),
        ),
    }
    for family, feature in _SPIKE_FEATURES.items():
        parts = [None if each is None else _binned(each, feature, bins) for each in steps]
        if any(part is not None for part in parts):
            vectors[family] = _on_reference(parts, settings, settings.spike_bin, unseen)
    return vectors


def _binned(spikes: Spikes, feature: str, bins: Bins) -> Vector | None:
    """A feature of the spikes that are whole and have it; None where there is none."""
    usable = spikes[(spikes["clipped"] == 0) & np.isfinite(spikes[feature])]
    return bins.means(usable["threshold_t"], usable[feature]) if len(usable) else None


def _above_rheobase(
    long: LongSquares, settings: VectorSettings, notes: list[str]
) -> list[Spikes | None]:
    """The spikes of the steps that the settings ask for, None where there is no such step."""
    amplitudes, rates = long.amplitudes, long.rates
    rheobase = long.excitability.rheobase
    above = amplitudes - long.excitability.rheobase_i
    places = np.flatnonzero((rates > 0) & (above >= 0))
    places = places[one_per_step(amplitudes[places], rates[places])]
    found, targets = np.rint(above[places]), settings.above_rheobase
    spacing = float(np.diff(targets).min()) / 2
    # Steps of another size: the nearest within half a spacing will do.
    tries = [(0.0, settings.tolerance), (settings.shift, settings.tolerance), (0.0, spacing)]
    for shift, tolerance in tries:
        chosen = steps_at(found - (shift or 0.0), targets, tolerance)
        if sum(each is not None for each in chosen) > 1:
            if tolerance == spacing:
                notes.append(f"spike trains: steps within {spacing:g} pA of those of the layout")
            return [None if k is None else long.spikes[places[k]] for k in chosen]
    if rheobase is None:
        return []
    notes.append("spike trains: only the step at rheobase, the others are missing")
    return [long.spikes[rheobase]]


def _on_reference(
    parts: list[Vector | None], settings: VectorSettings, width: int, unseen: bool
) -> Vector:
    """Bins of a shorter step, or of fewer steps, at their place; the others are missing.

    So is the step at rheobase where that was not seen: it is not like those above it.
    """
    there = filled(parts)
    if unseen:
        there[0] = np.nan
    shape = (len(settings.above_rheobase), round(settings.step * 1000 / width))
    result = np.full(shape, np.nan)
    bins = min(there.shape[1], shape[1])
    result[: len(there), :bins] = there[:, :bins]
    return result.ravel()
