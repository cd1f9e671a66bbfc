"""The current as it was commanded and as it was measured: which of them counts.

The potential is the judge: it follows what flowed, and upwards where the current is positive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording

if TYPE_CHECKING:
    from crosspatch.recordings.stimuli import Stimulus

    _Stimuli = dict[int, Stimulus]

#: Heights agree to this share or so many pA, times to so many s; a gain is right to this share.
_SHARE, _CURRENT, _TIME, _GAIN = 0.1, 5.0, 0.0015, 0.05
#: The potential follows a current with this correlation, or nearly as well as another one.
_FOLLOWS, _NEARLY = 0.7, 0.1
#: Of so many sweeps the potential is read, up to so long before a stimulus, s.
_READ, _BEFORE = 12, 0.05


def counting(recording: Recording, commanded: _Stimuli, measured: _Stimuli) -> _Stimuli:
    """What counts where both are there; what speaks against the command is noted or refused."""
    both = {
        number: (commanded[number], measured[number])
        for number in measured
        if number in commanded and not commanded[number].reason
    }
    apart = [number for number, pair in both.items() if not _agree(*pair, 1.0)]
    if not apart:
        return commanded
    heights = np.array([(one.height, other.height) for one, other in both.values()])
    gain = _gain(heights)
    scaled = [number for number, pair in both.items() if not _agree(*pair, gain)]
    by_command, by_measured = _follows(recording, commanded), _follows(recording, measured)
    if not scaled and abs(gain) > _SHARE:
        what = f"the measured current is {gain:.3g} times the command"
        if gain > 0 or by_command > 0:
            return _noted(commanded, both, f"{what} in all sweeps; the command counts")
    elif not heights[:, 1].any() and by_command >= _FOLLOWS:
        what = "the measured current shows no stimulus, but the potential follows the command"
        return _noted(commanded, both, f"{what}, which counts")
    else:
        first, (one, other) = apart[0], both[apart[0]]
        what = (
            f"command and measured current disagree in {len(apart)} of {len(both)} sweeps, in "
            f"sweep {first} {_words(one)} against {_words(other)}"
        )
    if by_measured >= max(_FOLLOWS, by_command - _NEARLY):
        counts = commanded | {number: measured[number] for number in both}
        return _noted(
            counts, both, f"{what}; the measured current counts: the potential follows it"
        )
    reason = f"{what}, and the potential does not tell which is true"
    return commanded | {number: commanded[number].refused(reason) for number in both}


def upright(recording: Recording, measured: _Stimuli) -> _Stimuli:
    """Measured currents, turned over where the potential goes the other way in all that it does."""
    if not measured or _follows(recording, measured) > -_FOLLOWS:
        return measured
    note = "the measured current has the wrong sign: the potential rises where it is negative"
    turned = {}
    for number, each in measured.items():
        test = each.test_pulse and (*each.test_pulse[:2], -each.test_pulse[2])
        turned[number] = replace(
            each,
            amplitude=-each.amplitude,
            holding=-each.holding,
            test_pulse=test,
            command=None if each.command is None else -each.command,
            note=f"{note}; it is turned over",
        )
    return turned


def _agree(command: Stimulus, measured: Stimulus, gain: float) -> bool:
    """Whether a measurement, of this gain, says what the command says."""
    height = gain * command.height
    allowed = max(_SHARE * abs(height), _CURRENT * min(abs(gain), 1.0))
    if abs(measured.height - height) > allowed:
        return False
    if not command.height or not measured.height or command.kind != measured.kind:
        return True
    late = max(abs(command.start - measured.start), abs(command.end - measured.end))
    return late <= (_TIME if command.command is None else 0.02 * command.duration)


def _gain(heights: np.ndarray) -> float:
    """What the measured heights are of the commanded ones, 1 where that is within the error."""
    there = np.abs(heights[:, 0]) > _CURRENT
    if not there.any():
        return 1.0
    gain = float(np.median(heights[there, 1] / heights[there, 0]))
    return 1.0 if abs(gain - 1) <= _GAIN else gain


def _words(stimulus: Stimulus) -> str:
    if not stimulus.height:
        return "an unclear one" if stimulus.reason else "no stimulus"
    return f"{stimulus.amplitude:.4g} pA from {stimulus.start:.4g} to {stimulus.end:.4g} s"


def _noted(stimuli: _Stimuli, numbers: Mapping[int, object], note: str) -> _Stimuli:
    return stimuli | {number: replace(stimuli[number], note=note) for number in numbers}


def _follows(recording: Recording, stimuli: _Stimuli) -> float:
    """Correlation of the potential's deflections with heights; 0 where it cannot be told."""
    times = Counter(
        (round(each.start, 3), round(each.end, 3)) for each in stimuli.values() if each.height
    )
    if not times:
        return 0.0
    usual = times.most_common(1)[0][0]
    seen: list[tuple[float, float]] = []
    ranked = sorted(stimuli, key=lambda number: stimuli[number].height)
    for number in ranked[:: -(-len(ranked) // _READ)]:
        each = stimuli[number]
        start, end = (each.start, each.end) if each.height else usual
        try:
            sweep = recording.sweep(number)
            voltage = sweep.voltage_until(min(round(end * sweep.rate), sweep.points))
        except RecordingError:
            continue
        first = round(start * sweep.rate)
        before = voltage[max(first - round(_BEFORE * sweep.rate), 0) : first]
        during = voltage[(first + len(voltage)) // 2 :]
        if len(before) and len(during):
            seen.append((each.height, float(np.median(during) - np.median(before))))
    heights, moves = np.array(seen).T if len(seen) > 1 else np.zeros((2, 2))
    if not np.isfinite(moves).all() or not np.ptp(moves) or not np.ptp(heights):
        return 0.0
    return float(np.corrcoef(heights, moves)[0, 1])
