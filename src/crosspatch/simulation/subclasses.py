"""Simulated neurons of each species and subclass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.simulation.point_neuron import PointNeuron, SpikeShape, simulate_neuron
from crosspatch.species import SPECIES
from crosspatch.texts import data_rows

SUBCLASSES = ("Lamp5", "Pvalb", "Sst", "Vip")
_DONOR_SHARE = 0.15  #: part of the variance of a parameter that cells of one donor share
#: Parameters that vary together: the weights of others and of the cell's own. Within subclasses of
#: Gouwens et al. 2020 and Lee, Dalley et al. 2023 the correlations are about 0.6 (time constant and
#: resistance), 0.7 (height and upstroke), -0.65 (width and upstroke), 0.4 (width and ratio of the
#: strokes) and 0.15 (upstroke and that ratio).
_GOES_WITH = {
    "tau": ({"input_resistance": 0.6}, 0.8),
    "height": ({"upstroke": 0.7}, 0.71),
    "width": ({"upstroke": -0.65}, 0.76),
    "upstroke_downstroke_ratio": ({"width": 0.86, "upstroke": 0.71}, 0.74),
}


def simulated_neuron(
    species: str,
    subclass: str,
    rng: np.random.Generator | int,
    *,
    donor: np.random.Generator | int | None = None,
) -> PointNeuron:
    """Draw a neuron of a subclass; a `RecordingError` if species or subclass is unknown.

    `rng` is the source (or its seed) of what is the cell's own, `donor` of what cells of a donor
    share; without it the donor is a new one.
    """
    require_simulated(species, subclass)
    rng = np.random.default_rng(rng)
    of_donor = np.random.default_rng(rng.integers(2**63) if donor is None else donor)
    rows = _parameters()[species, subclass]
    own = rng.standard_normal(len(rows))
    shared = of_donor.standard_normal(len(rows))
    drawn = np.sqrt(1 - _DONOR_SHARE) * own + np.sqrt(_DONOR_SHARE) * shared
    z = {row.parameter: float(value) for row, value in zip(rows, drawn, strict=True)}
    for name, (others, rest) in _GOES_WITH.items():
        z[name] = rest * z[name] + sum(weight * z[other] for other, weight in others.items())
    values = {}
    for row in rows:
        deviation = row.spread * min(max(z[row.parameter], -2.5), 2.5)
        lognormal = row.distribution == "lognormal"
        value = row.mean * float(np.exp(deviation)) if lognormal else row.mean + deviation
        values[row.parameter] = value
    return neuron_with(values)


class _Parameter(NamedTuple):
    parameter: str
    mean: float
    spread: float
    distribution: str


@cache
def _parameters() -> dict[tuple[str, str], list[_Parameter]]:
    found: dict[tuple[str, str], list[_Parameter]] = defaultdict(list)
    for row in data_rows("simulation", "simulated_cells"):
        mean, spread = float(row["mean"]), float(row["spread"])
        parameter = _Parameter(row["parameter"], mean, spread, row["distribution"])
        found[row["species"], row["subclass"]].append(parameter)
    return found


#: Rounds in which conductance, capacitance and Ih are adjusted, and the samples of the test step.
_ROUNDS, _STEP_RATE = 8, 10_000


def neuron_with(values: Mapping[str, float]) -> PointNeuron:
    """The neuron that shows the given features; names and units as in ``simulated_cells.csv``.

    Leak, capacitance and Ih are adjusted until a hyperpolarising step shows the input resistance,
    time constant and sag; currents given in mV or in leaks are scaled by the conductance.
    """
    rest = values["rest"]
    total = 1e3 / values["input_resistance"]
    wanted_sag = float(np.clip(values["sag"], 0.0, 0.55))
    neuron = PointNeuron(
        rest=float(rest),
        slope_factor=values["slope_factor"],
        spike=SpikeShape(
            # A threshold near rest would make a cell that fires on its own.
            threshold=float(np.clip(values["threshold"], rest + 18.0, -20.0)),
            height=float(np.clip(values["height"], 35.0, 110.0)),
            trough=float(np.clip(values["trough"], 3.0, 45.0)),
            width=values["width"],
            upstroke=values["upstroke"],
            upstroke_downstroke_ratio=max(values["upstroke_downstroke_ratio"], 1.0),
        ),
        threshold_gain=min(values["threshold_gain"], 0.6),
        h_tau=values["h_tau"],
        d_conductance=values["d_current"] * total,
        adaptation_jump=values["adaptation_jump"] * total,
        adaptation_tau=values["adaptation_tau"],
        after_jump=values["after_jump"] * total,
        after_tau=values["after_tau"],
        fatigue=values["fatigue"],
        noise=values["noise"] * total,
    )
    h_rest = 1 / (1 + np.exp((rest - neuron.h_half) / neuron.h_slope))
    step = max(-110.0, (-100.0 - rest) * total)
    tau, h = values["tau"], 0.3 * wanted_sag * total
    passive = total
    for _ in range(_ROUNDS):
        # What is open at rest is part of the input conductance; most of it must stay leak.
        h = min(h, 0.7 * passive / h_rest)
        leak = passive - h * h_rest
        neuron = replace(
            neuron, leak=float(leak), capacitance=float(passive * tau), h_conductance=float(h)
        )
        resistance, found_tau, sag = step_features(neuron, step)
        passive *= resistance / values["input_resistance"]
        tau *= float(np.clip(values["tau"] / found_tau, 0.7, 1.4))
        h *= float(np.clip(wanted_sag / max(sag, 1e-3), 0.4, 2.5))
    return neuron


def step_features(neuron: PointNeuron, step: float) -> tuple[float, float, float]:
    """Input resistance (MOhm), time constant (ms) and sag of the response to a step in pA."""
    voltage, _ = simulate_neuron(neuron, np.full(_STEP_RATE, step), _STEP_RATE)
    deflection = neuron.rest - voltage
    peak = deflection.max()
    charged = np.flatnonzero(deflection >= (1 - np.exp(-1)) * peak)[0]
    steady = deflection[-_STEP_RATE * 3 // 100 :].mean()
    return -1e3 * peak / step, 1e3 * (charged + 1) / _STEP_RATE, 1 - steady / peak


def require_simulated(species: str, subclass: str | None = None) -> None:
    """Raise a `RecordingError` if no such cells can be simulated."""
    if species not in SPECIES:
        raise RecordingError(f"species '{species}' is unknown; use {' or '.join(SPECIES)}")
    if subclass is not None and subclass not in SUBCLASSES:
        raise RecordingError(f"subclass '{subclass}' is unknown; use {', '.join(SUBCLASSES)}")
