"""Single numbers, under the names of the Allen Institute's human table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np

from crosspatch.features.analysis import Analysis
from crosspatch.features.long_squares import LongSquares
from crosspatch.features.measuring.spikes import SPIKE, Spikes
from crosspatch.features.ranges import limits

#: Features of the first spike, to the factor to our unit.
_SPIKE = {
    "upstroke_downstroke_ratio": 1.0,
    "threshold_v": 1.0,
    "width": 1e3,
    "upstroke": 1.0,
    "downstroke": 1.0,
}
#: Potentials that are named relative to threshold.
_RELATIVE = ("peak", "fast_trough", "trough")
#: Features of a train of spikes: the human table has some of the hero sweep only.
_TRAIN = {
    "rheo": {"latency": "latency", "avg_rate": "rate", "mean_isi": "mean_isi"},
    "hero": {
        "latency": "latency",
        "avg_rate": "rate",
        "mean_isi": "mean_isi",
        "median_isi": "median_isi",
        "isi_cv": "isi_cv",
        "adapt": "adaptation",
    },
}


def scalar_features(analysis: Analysis, notes: list[str] | None = None) -> dict[str, float]:
    """The single numbers that the recording allows.

    Definitions are the Allen Institute's, as IPFX (2.1.2) has them. Rheobase is the smallest
    depolarising long square with a spike; the hero sweep is the first between 39 and 61 pA above
    it. Features of the action potential are of the first spike: of the rheobase and hero sweeps,
    and averaged over sweeps for short squares and ramps. Values are in the units of the layouts
    ``shared`` and ``full`` (mV, ms for widths and time constant, s for latencies and intervals, pA,
    MOhm); those that cannot be measured are left out, and those that no cell can have, which is
    noted.
    """
    values: dict[str, float] = {}
    ramp = analysis.ramp
    if analysis.long_square is not None:
        values |= _of_long_squares(analysis.long_square)
    if ramp is not None and ramp.numbers:
        values |= _of_spike(_mean_first_spike(ramp.spikes), "ramp")
        values["threshold_i_ramp"] = _mean(ramp.threshold_currents)
    if analysis.short_square is not None:
        spike = _mean_first_spike(analysis.short_square.spikes)
        values |= _of_spike(spike, "short_square")
        # Neither table has it: there is no step to end the search at.
        del values["trough_deltav_short_square"]
    there = {name: value for name, value in values.items() if np.isfinite(value)}
    for name in [name for name, value in there.items() if not _possible(name, value)]:
        least, most = limits(name)
        told = f"{name}: {there.pop(name):.4g} is outside {least:g} to {most:g}, which no cell is"
        if notes is not None:
            notes.append(f"{told}: missing")
    return there


def _possible(name: str, value: float) -> bool:
    least, most = limits(name)
    return least <= value <= most


def _of_long_squares(long: LongSquares) -> dict[str, float]:
    excitability = long.excitability
    values = asdict(long.membrane) | {
        "v_baseline": long.v_baseline,
        "tau": long.membrane.tau * 1e3,
        "fi_fit_slope": excitability.fi_fit_slope,
        "rheobase_i": excitability.rheobase_i,
    }
    if long.first_spikes:
        values |= _of_spike(_mean_first_spike(spikes for _, spikes in long.first_spikes), "rheo")
    if excitability.hero is not None:
        values |= _of_spike(_mean_first_spike([long.spikes[excitability.hero]]), "hero")
    for name, place in (("rheo", excitability.rheobase), ("hero", excitability.hero)):
        if place is None:
            continue
        train = long.trains[place]
        values |= {f"{ours}_{name}": getattr(train, field) for ours, field in _TRAIN[name].items()}
        values[f"first_isi_inv_{name}"] = 1 / train.first_isi
    return values


def _mean(values: Iterable[float]) -> float:
    """Of those that are numbers."""
    there = [value for value in values if value == value]
    return float(np.mean(there)) if there else float("nan")


def _mean_first_spike(spikes: Iterable[Spikes]) -> dict[str, float]:
    """Features of the first spikes of sweeps, averaged."""
    first = np.array([each[0] for each in spikes if len(each)], dtype=SPIKE)
    return {name: _mean(first[name].tolist()) for name in SPIKE.names or ()}


def _of_spike(spike: Mapping[str, float], name: str) -> dict[str, float]:
    values = {f"{feature}_{name}": spike[feature] * factor for feature, factor in _SPIKE.items()}
    for point in _RELATIVE:
        values[f"{point}_deltav_{name}"] = spike[f"{point}_v"] - spike["threshold_v"]
    return values
