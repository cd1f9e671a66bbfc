"""IPFX's single numbers, under the names of the Allen Institute's human table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crosspatch.features.analysis import Analysis, Responses, quiet

#: None or NaN where something cannot be measured.
Values = dict[str, float | None]

#: Features of the first spike, as IPFX names them too, to the factor to our unit.
_SPIKE = {
    "upstroke_downstroke_ratio": 1.0,
    "threshold_v": 1.0,
    "width": 1e3,
    "upstroke": 1.0,
    "downstroke": 1.0,
}
#: Potentials relative to threshold: our name to IPFX's.
_RELATIVE = {
    "peak_deltav": "peak_v",
    "fast_trough_deltav": "fast_trough_v",
    "trough_deltav": "trough_v",
}
#: Features of a train of spikes: the human table has some of the hero sweep only.
_TRAIN = {
    "rheo": ("latency", "avg_rate", "mean_isi"),
    "hero": ("latency", "avg_rate", "mean_isi", "median_isi", "isi_cv", "adapt"),
}


def scalar_features(analysis: Analysis) -> dict[str, float]:
    """The single numbers that the recording allows.

    Definitions are IPFX's (2.1.2). Rheobase is the smallest depolarising long square with a
    spike; the hero sweep is the first between 39 and 61 pA above it. Features of the action
    potential are of the first spike: of the rheobase and hero sweeps, and averaged over sweeps
    for short squares and ramps. Values are in the units of the layouts ``shared`` and ``full`` (mV,
    ms for widths and time constant, s for latencies and intervals, pA, MOhm); those that cannot be
    measured are left out.
    """
    values: Values = {}
    with quiet():
        if analysis.long_square is not None:
            values.update(_of_long_squares(analysis.long_square))
        if analysis.ramp is not None and len(analysis.ramp.features["spiking_sweeps"]):
            spike = _mean_first_spike(analysis.ramp, "threshold_i")
            values.update(_of_spike(spike, "ramp"))
            values["threshold_i_ramp"] = spike.get("threshold_i")
        if analysis.short_square is not None:
            spike = _mean_first_spike(analysis.short_square)
            values.update(_of_spike(spike, "short_square"))
    return {
        name: float(value)
        for name, value in values.items()
        if value is not None and np.isfinite(value)
    }


def _of_long_squares(long: Responses) -> Values:
    features = long.features
    names = ("v_baseline", "input_resistance", "sag", "vm_for_sag", "rheobase_i", "fi_fit_slope")
    values: Values = {name: features.get(name) for name in names}
    if features.get("tau") is not None:
        values["tau"] = features["tau"] * 1e3
    for name, key in (("rheo", "rheobase_sweep"), ("hero", "hero_sweep")):
        sweep = features.get(key)
        if sweep is None:
            continue
        spikes = features["spikes_set"][sweep.name]
        values.update(_of_spike(spikes.iloc[0].to_dict(), name))
        values |= {f"{feature}_{name}": sweep.get(feature) for feature in _TRAIN[name]}
        first = sweep.get("first_isi")
        values[f"first_isi_inv_{name}"] = 1 / first if first else None
    return values


def _mean_first_spike(responses: Responses, *more: str) -> dict[str, float]:
    features = [*_SPIKE, *_RELATIVE.values(), *more]
    spikes = [each for each in responses.features["spikes_set"] if len(each)]
    return dict(responses.measured.mean_features_first_spike(spikes, features))


def _of_spike(spike: Mapping[str, float], name: str) -> Values:
    values: Values = {}
    for feature, factor in _SPIKE.items():
        value = spike.get(feature)
        values[f"{feature}_{name}"] = None if value is None else value * factor
    threshold = spike.get("threshold_v", np.nan)
    for feature, theirs in _RELATIVE.items():
        if f"{feature}_{name}" == "trough_deltav_short_square":
            continue  # neither table has it: there is no step to end the search at
        value = spike.get(theirs)
        values[f"{feature}_{name}"] = None if value is None else value - threshold
    return values
