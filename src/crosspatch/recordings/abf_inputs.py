"""The inputs of an ABF file, and what their samples say about cells.

A membrane rests below zero and follows its command with its time constant; under voltage clamp it
jumps with the command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Samples, to_millivolts, to_picoamperes

#: What inputs are called that hold no potential of a cell.
_NO_MEMBRANE = re.compile(
    r"(?<![a-z])(trig|ttl|photo|pd\b|led\b|laser|light|lamp|temp|sync|stim|v?cmd|command|clock|frame"
    r"|shutter|camera|piezo|pressure|valve|lfp|field|eeg|ecg|emg|wheel)",
    re.IGNORECASE,
)
_CURRENT = re.compile(
    r"(?<![a-z])(i(m|memb|membrane|mon|inj|clamp|patch|cmd)?|current)(?![a-z])", re.IGNORECASE
)
_MEMBRANE = re.compile(
    r"(?<![a-z])(vm|v|memb\w*|vmon|vpatch|potential|voltage)(?![a-z])", re.IGNORECASE
)
#: A potential stays within the first; nearly all of it within the second, mV. Amplifiers end at
#: 10 V behind a gain of 10 or more.
_MOST, _NEARLY_ALL = 1100.0, 250.0
#: Between which cells rest, mV.
_RESTS = (-120.0, -20.0)
#: Two inputs that follow each other this closely, sample by sample, are on the same cell.
_SAME = 0.7
#: Share of the whole change that a membrane has made after 1 ms; more is voltage clamp.
JUMPS = 0.6
#: An output drives the cell whose potential follows it at least so closely (correlation).
FOLLOWS = 0.5
#: Looked at for evidence: so many sweeps, spread evenly, and so many samples of each.
_SWEEPS, _SAMPLES = 5, 1_000_000


class Reads(Protocol):
    """Reads the samples of one sweep, at most so many, in mV or pA where the unit is one."""

    def __call__(self, sweep: int, most: int | None = None) -> Samples:
        """Of this sweep."""


@dataclass(frozen=True, eq=False)
class AnalogInput:
    """One input of the digitizer."""

    number: int
    name: str
    unit: str
    mode: int | None  # of a MultiClamp, by telegraph: 0 voltage clamp, 1 current clamp, 2 I=0
    rate: float  # Hz
    sweeps: int
    read: Reads = field(repr=False)

    @property
    def label(self) -> str:
        """For messages."""
        return f"input {self.number} {self.name!r}"

    @property
    def is_voltage(self) -> bool:
        """Whether its unit is one of voltage."""
        return to_millivolts(self.unit) is not None

    @property
    def is_current(self) -> bool:
        """Whether its unit is one of current."""
        return to_picoamperes(self.unit) is not None

    @property
    def is_named_membrane(self) -> bool:
        """Whether it is called a potential."""
        return _MEMBRANE.search(self.name) is not None

    @property
    def is_named_current(self) -> bool:
        """Whether it is called a current."""
        return _CURRENT.search(self.name) is not None

    @cached_property
    def seen(self) -> dict[int, Samples]:
        """Some of its sweeps."""
        numbers = np.unique(np.linspace(0, self.sweeps - 1, _SWEEPS).round().astype(int))
        return {number: self.read(number, _SAMPLES) for number in numbers.tolist()}

    @cached_property
    def why_no_membrane(self) -> str | None:
        """What speaks against it, None if nothing does."""
        if _NO_MEMBRANE.search(self.name):
            return "by its name no membrane"
        if self.is_named_current:
            return f"by its name a current, but in {self.unit}"
        values = np.concatenate(list(self.seen.values()))
        low, *inner, high = np.percentile(values, [0, 1, 99, 100])
        far = max(-low, high)
        if not np.isfinite(far) or far > _MOST or max(-inner[0], inner[1]) > _NEARLY_ALL:
            return f"reaches {far:.3g} mV"
        return "always the same" if low == high else None

    @cached_property
    def rests_like_a_cell(self) -> bool:
        """Whether it lies where membranes do."""
        middle = float(np.median(np.concatenate(list(self.seen.values()))))
        return _RESTS[0] <= middle <= _RESTS[1]


def same_cell(one: AnalogInput, other: AnalogInput) -> bool:
    """Judged where the potential moves most: the spikes of two cells do not coincide."""
    liveliest = max(one.seen, key=lambda sweep: float(np.ptp(one.seen[sweep])))
    pair = one.seen[liveliest], other.seen[liveliest]
    width = max(round(0.0005 * one.rate), 1)
    fast = [np.diff(_means(samples, width)) for samples in pair]
    return _correlation(*fast) > _SAME


def _means(samples: Samples, width: int) -> NDArray[np.float64]:
    """Means of so many samples each."""
    whole = len(samples) // width * width
    return np.asarray(samples[:whole], dtype=np.float64).reshape(-1, width).mean(axis=1)


def _correlation(one: Samples, other: Samples) -> float:
    """0 where one is constant or not finite."""
    one, other = one - np.mean(one), other - np.mean(other)
    size = float(np.sqrt(np.dot(one, one) * np.dot(other, other)))
    return float(np.dot(one, other)) / size if np.isfinite(size) and size > 0 else 0.0


def follows(voltage: AnalogInput, current: Callable[[int], Samples]) -> float:
    """How closely a potential follows a current: the correlation over some sweeps.

    Spikes are cut off; 0 where the current is constant or cannot be known.
    """
    width = max(round(0.001 * voltage.rate), 1)
    potentials, currents = [], []
    try:
        for sweep, samples in voltage.seen.items():
            potentials.append(_means(samples, width))
            currents.append(_means(current(sweep)[: len(samples)], width))
    except (ValueError, RecordingError):
        return 0.0
    potential = np.concatenate(potentials)
    potential = np.minimum(potential, np.median(potential) + 30.0)
    return _correlation(potential, np.concatenate(currents))


def share_after_1_ms(voltage: AnalogInput, measured: AnalogInput) -> float | None:
    """Of the change that follows the largest jump of the current, the share made after 1 ms."""
    shares = []
    ms = voltage.rate / 1000
    near, late = max(round(ms), 1), round(20 * ms)
    for sweep, potential in voltage.seen.items():
        current = measured.seen[sweep]
        if len(current) < 4 * late:
            continue
        sums = np.cumsum(np.concatenate([[0.0], current]))
        means = (sums[2 * near :] - sums[: -2 * near]) / (2 * near)
        jumps = np.abs(means[2 * near :] - means[: -2 * near])[late : -late - 2 * near]
        at = int(np.argmax(jumps)) + 2 * near + late
        before = float(np.median(potential[at - 5 * near : at - 2 * near]))
        soon = float(np.median(potential[at + near // 2 : at + near + near // 2 + 1]))
        whole = float(np.median(potential[at + late // 2 : at + late])) - before
        if abs(whole) > 2.0 and jumps.max() > 5 * np.median(jumps):
            shares.append((soon - before) / whole)
    return float(np.median(shares)) if shares else None
