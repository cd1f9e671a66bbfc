"""IPFX's single numbers, under the names of the Allen Institute's human table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from crosspatch.features.analysis import Analysis, Responses, quiet

#: None or NaN where something cannot be measured.
Values = dict[str, float | None]

#: Features of the first spike: our name to (IPFX's name, factor to our unit).
_SPIKE = {
    "upstroke_downstroke_ratio": ("upstroke_downstroke_ratio", 1.0),
    "threshold_v": ("threshold_v", 1.0),
    "width": ("width", 1e3),
    "upstroke": ("upstroke", 1.0),
    "downstroke": ("downstroke", 1.0),
}
#: Potentials relative to threshold: our name to IPFX's.
_RELATIVE = {
    "peak_deltav": "peak_v",
    "fast_trough_deltav": "fast_trough_v",
    "trough_deltav": "trough_v",
}


def scalar_features(analysis: Analysis) -> dict[str, float]:
    """The single numbers that the recording allows.

    Definitions are IPFX's (2.1.2). Rheobase is the smallest depolarising long square with a
    spike; the hero sweep is the first between 39 and 61 pA above it. Features of the action
    potential are of the first spike: of the rheobase and hero sweeps, and averaged over sweeps
    for short squares and ramps.

    Parameters
    ----------
    analysis : Analysis
        From `crosspatch.features.analysis.analyse`.

    Returns
    -------
    dict
        Feature to value in the units of the layouts ``shared`` and ``full`` (mV, ms for widths
        and time constant, s for latencies and intervals, pA, MOhm). Those that cannot be
        measured are not in it.
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
    values = {
        name: features.get(name)
        for name in ("v_baseline", "input_resistance", "sag", "vm_for_sag", "rheobase_i")
    }
    values["fi_fit_slope"] = features.get("fi_fit_slope")
    if features.get("tau") is not None:
        values["tau"] = features["tau"] * 1e3
    for name, sweep in (
        ("rheo", features.get("rheobase_sweep")),
        ("hero", features.get("hero_sweep")),
    ):
        if sweep is None:
            continue
        spikes = features["spikes_set"][sweep.name]
        values.update(_of_spike(spikes.iloc[0].to_dict(), name))
        values.update(_of_train(sweep, name))
    return values


def _of_train(sweep: pd.Series, name: str) -> Values:
    train = {
        f"{feature}_{name}": sweep.get(feature)
        for feature in ("latency", "avg_rate", "mean_isi", "median_isi", "isi_cv", "adapt")
    }
    first = sweep.get("first_isi")
    train[f"first_isi_inv_{name}"] = 1 / first if first else None
    if name == "rheo":  # the human table has these of the hero sweep only
        for feature in ("median_isi", "isi_cv", "adapt"):
            del train[f"{feature}_rheo"]
    return train


def _mean_first_spike(responses: Responses, *more: str) -> dict[str, float]:
    names = [name for name, _ in _SPIKE.values()]
    features = [*names, *_RELATIVE.values(), *more]
    spikes = [each for each in responses.features["spikes_set"] if len(each)]
    return dict(responses.measured.mean_features_first_spike(spikes, features))


def _of_spike(spike: Mapping[str, float], name: str) -> Values:
    values: Values = {}
    for feature, (theirs, factor) in _SPIKE.items():
        value = spike.get(theirs)
        values[f"{feature}_{name}"] = None if value is None else value * factor
    threshold = spike.get("threshold_v", np.nan)
    for feature, theirs in _RELATIVE.items():
        if f"{feature}_{name}" == "trough_deltav_short_square":
            continue  # neither table has it: there is no step to end the search at
        value = spike.get(theirs)
        values[f"{feature}_{name}"] = None if value is None else value - threshold
    return values
