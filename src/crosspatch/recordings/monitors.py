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
    _Pairs = dict[int, tuple[Stimulus, Stimulus]]  # command and measurement, by sweep

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
    if not _apart(both, 1.0):
        return commanded
    by_command, by_measured = _follows(recording, commanded), _follows(recording, measured)
    what, known = _difference(both, by_command)
    if known:
        return _noted(commanded, both, what)
    if by_measured >= max(_FOLLOWS, by_command - _NEARLY):
        counts = commanded | {n: replace(measured[n], by_monitor=True) for n in both}
        return _noted(
            counts, both, f"{what}; the measured current counts: the potential follows it"
        )
    reason = f"{what}, and the potential does not tell which is true"
    refused = {n: replace(commanded[n].refused(reason), by_monitor=None) for n in both}
    return commanded | refused


def _difference(both: _Pairs, by_command: float) -> tuple[str, bool]:
    """How a measurement differs from the command, and whether the command counts nevertheless.

    The potential follows the command with this correlation.
    """
    heights = np.array([(one.height, other.height) for one, other in both.values()])
    gain = _gain(heights)
    if abs(gain) > _SHARE and not _apart(both, gain):
        what = f"the measured current is {gain:.3g} times the command"
        if gain > 0 or by_command > 0:
            return f"{what} in all sweeps; the command counts", True
        return what, False
    shows = heights[:, 1].any()
    if (abs(gain) <= _SHARE or not shows) and by_command >= _FOLLOWS:
        what = f"the measured current {'hardly shows the' if shows else 'shows no'} stimulus"
        return f"{what}, but the potential follows the command, which counts", True
    apart = _apart(both, 1.0)
    one, other = both[apart[0]]
    what = f"command and measured current disagree in {len(apart)} of {len(both)} sweeps, in sweep"
    return f"{what} {apart[0]} {_words(one)} against {_words(other)}", False


def _apart(both: _Pairs, gain: float) -> list[int]:
    """The sweeps whose measurement, of this gain, does not say what the command says."""
    return [number for number, pair in both.items() if not _agree(*pair, gain)]


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
    ranked = sorted(stimuli, key=lambda number: stimuli[number].height)
    few = ranked[:: -(-len(ranked) // _READ)]
    found = (_deflection(recording, number, stimuli[number], usual) for number in few)
    seen = list(filter(None, found))
    heights, moves = np.array(seen).T if len(seen) > 1 else np.zeros((2, 2))
    if not np.isfinite(moves).all() or not np.ptp(moves) or not np.ptp(heights):
        return 0.0
    return float(np.corrcoef(heights, moves)[0, 1])


def _deflection(
    recording: Recording, number: int, stimulus: Stimulus, usual: tuple[float, float]
) -> tuple[float, float] | None:
    """The height of a stimulus, pA, and how far the potential moves, mV, if that was recorded.

    Where there is no stimulus, that between the usual times, s.
    """
    start, end = (stimulus.start, stimulus.end) if stimulus.height else usual
    try:
        sweep = recording.sweep(number)
        voltage = sweep.voltage_until(min(round(end * sweep.rate), sweep.points))
    except RecordingError:
        return None
    first = round(start * sweep.rate)
    before = voltage[max(first - round(_BEFORE * sweep.rate), 0) : first]
    during = voltage[(first + len(voltage)) // 2 :]
    if not len(before) or not len(during):
        return None
    return stimulus.height, float(np.median(during) - np.median(before))
