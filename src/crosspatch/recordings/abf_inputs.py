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
_MEMBRANE = re.compile(r"(?<![a-z])(vm|memb\w*|vmon|vpatch|potential)(?![a-z])", re.IGNORECASE)
#: A potential stays within the first; nearly all of it within the second, mV. Amplifiers end at
#: 10 V behind a gain of 10 or more.
_MOST, _NEARLY_ALL = 1100.0, 250.0
#: Between which cells rest, mV.
_RESTS = (-120.0, -20.0)
#: Two inputs that follow each other this closely, sample by sample, are on the same cell.
_SAME = 0.7
#: Share of the whole change that a membrane has made after 1 ms, or in the middle of a pulse of
#: less than 5 ms; more is voltage clamp.
_JUMPS = 0.85
#: Changes of the potential below do not count, mV.
_SEEN_MV = 1.0
#: An output drives the cell whose potential follows it at least so closely (correlation).
FOLLOWS = 0.5
#: What stays within so many mV is held, and what moves by so many pA is a response.
STILL_MV, STILL_PA = 5.0, 20.0
#: Looked at for evidence: so many sweeps, spread evenly, and so many samples of each.
_SWEEPS, _SAMPLES = 5, 300_000


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
        if _NO_MEMBRANE.search(self.name) and not self.is_named_membrane:
            return "by its name it is no membrane"
        if self.is_named_current:
            return f"by its name it is a current, but in {self.unit}"
        found = [_why_no_membrane(samples) for samples in self.seen.values()]
        against = [why for why in found if why]
        return against[0] if 2 * len(against) > len(found) else None

    @cached_property
    def rest(self) -> float:
        """Where it lies, mV."""
        return float(np.median(np.concatenate(list(self.seen.values()))))

    @property
    def rests_like_a_cell(self) -> bool:
        """Whether it lies where membranes do."""
        return _RESTS[0] <= self.rest <= _RESTS[1]


def _why_no_membrane(samples: Samples) -> str | None:
    low, *inner, high = np.percentile(samples, [0, 1, 99, 100])
    far = max(-low, high)
    if not np.isfinite(far) or far > _MOST or max(-inner[0], inner[1]) > _NEARLY_ALL:
        return f"it reaches {far:.3g} mV"
    return "it is always the same" if low == high else None


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


def share_in_common(current: AnalogInput, command: Callable[[int], Samples]) -> float:
    """The share of a command that a measured current explains; 0 where there is none."""
    width = max(round(0.001 * current.rate), 1)
    off, size = 0.0, 0.0
    try:
        for sweep, samples in current.seen.items():
            wanted = _means(command(sweep)[: len(samples)], width)
            wanted -= np.median(wanted)
            found = _means(samples, width)
            off += float(np.sum((found - np.median(found) - wanted) ** 2))
            size += float(np.sum(wanted**2))
    except (ValueError, RecordingError):
        return 0.0
    return 1 - off / size if size > 0 and off < size else 0.0


def jumps_with(voltage: AnalogInput, measured: AnalogInput) -> bool | None:
    """Whether a potential is at its end as soon as the current jumps, as under voltage clamp.

    None where no sweep has a jump that the potential follows.
    """
    found = [
        _jumps(potential, measured.seen[sweep], voltage.rate)
        for sweep, potential in voltage.seen.items()
    ]
    votes = [each for each in found if each is not None]
    return 2 * sum(votes) > len(votes) if votes else None


def _jumps(potential: Samples, current: Samples, rate: float) -> bool | None:
    near, late = max(round(0.001 * rate), 1), round(0.02 * rate)
    if len(current) < 4 * late:
        return None
    sums = np.cumsum(np.concatenate([[0.0], current]))
    means = (sums[near:] - sums[:-near]) / near
    jumps = np.abs(means[2 * near :] - means[: -2 * near])[late:-late]
    at = int(np.argmax(jumps)) + late + near
    jump = float(jumps.max())
    before = slice(at - 5 * near, at - near)
    if not jump > 5 * np.median(jumps):
        return None
    # From where to where the current is on the other side of its jump.
    over = np.abs(current[at - near : at + late] - np.median(current[before])) > jump / 2
    first = at - near + int(np.argmax(over))
    rest, stays = float(np.median(potential[before])), over[first - at + near :]
    last = at + late if stays.all() else first + int(np.argmin(stays))
    if last - first < 5 * near:  # a short pulse, or what charges the membrane under voltage clamp
        soon, end = (first + last) // 2, potential[first : last + near] - rest
        whole = float(end[np.argmax(np.abs(end))])
    else:
        soon, end = first + near, potential[(first + last) // 2 : last] - rest
        whole = float(np.median(end))
    if abs(whole) < _SEEN_MV:
        return None
    return (float(np.median(potential[soon : soon + near // 4 + 1])) - rest) / whole > _JUMPS


def stays_still(signal: AnalogInput, within: float) -> bool:
    """Whether nearly all of it lies within so many mV or pA, but for noise."""
    width = max(round(0.005 * signal.rate), 1)
    means = np.concatenate([_means(samples, width) for samples in signal.seen.values()])
    low, high = np.percentile(means, [1, 99]) if len(means) else (0.0, 0.0)
    return bool(high - low < within)
