"""Pulses of a current that was measured: fitted as a whole, whatever rides on them.

An amplifier's measurement of the current carries noise, hum, the crosstalk of spikes, transients at
the edges, and a slow drift. The samples become medians of a millisecond, which spikes do not move;
an edge is where the medians of 20 ms on both sides differ; pulses between edges are fitted together
with the drift. Sweeps bear witness for each other: pulses that start and end together do so at one
time, which the tall ones tell, and those near the noise are measured there. A sweep counts as
explained if what is left of it is slower and larger than what rides on a current nowhere.

Longer than 400 lines, as the steps of one fit share what they know of a trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from crosspatch.recordings.model import Samples
from crosspatch.recordings.pulses import (
    FLAT,
    RAMP_LENGTH,
    RISING,
    SHAPELESS,
    SMALLEST,
    STRAIGHT,
    TEST_PULSE_BEFORE,
    Pulse,
)

_Floats = NDArray[np.floating]

#: Medians are of so long, s; levels beside an edge of so long: a period of the mains.
_BLOCK, _WINDOW = 0.001, 0.02
#: An edge, or a pulse, stands out so far from the noise.
_EDGE, _PULSE = 6.0, 5.0
#: More edges than this are a wave.
_MOST_EDGES = 40
#: Test pulses differ by no more than this share.
_ONE_TEST = 0.15
#: Segments, and returns to the base, are equal to within this share of the pulse.
_ALIKE = 0.06
#: A fit explains a sweep from which it departs for no longer than half a window by more than this
#: share of the pulse; in between, the noise inside is no more than so many times that outside.
_DEPARTS, _ROUGHER = 0.1, 3.0
#: A current without a pulse departs from a constant one by less than this, pA.
_QUIET = 2.0
#: Its noise is compared in sections of so many blocks.
_SECTION = 40
#: Starts and ends that are no further apart than this are one, s; of short pulses; of the starts of
#: ramps, which noise hides, as a share of their length.
_ONE, _ONE_SHORT, _ONE_START = 0.002, 0.0005, 0.2
#: Shorter pulses are sought in finer medians, s, of so long.
_SHORT, _FINE = 0.025, 0.00025
#: … if they are at least this share of the longer ones.
_SEEN = 0.03
#: … and this share of the hum, which is not taken off to the last.
_OF_HUM = 0.5
#: A transient at an edge has gone after this, s.
_TRANSIENT = 0.005
#: The mains, Hz, and how far they may be off.
_MAINS, _MAINS_OFF = (50.0, 60.0), 0.6


@dataclass(frozen=True)
class Fit:
    """What explains a measured current."""

    pulses: tuple[Pulse, ...]
    holding: float  # pA, where the first pulse begins
    reason: str = ""  # why nothing explains it; empty if something does


def fit_pulses(currents: Sequence[tuple[Samples, float]]) -> list[Fit]:
    """The pulses of the measured currents of a recording, each in pA with its rate in Hz."""
    traces = [_Trace(np.asarray(current, np.float64), rate) for current, rate in currents]
    own = [_own(trace) for trace in traces]
    slots = _slots(own)
    first = [_best(trace, each, slots, 0.0) for trace, each in zip(traces, own, strict=True)]
    allowed = _riding(first)
    found = [
        each if each.explained else _best(trace, mine, slots, allowed)
        for trace, mine, each in zip(traces, own, first, strict=True)
    ]
    return [_as_fit(each) for each in _tests_alike(_with_shorts(_ramps_together(found, allowed)))]


def _riding(found: Sequence[_Found]) -> float:
    """What rides on the well explained traces, and may ride on the others, pA."""
    riding = [each.departs for each in found if each.explained and each.pieces]
    return 1.5 * float(np.median(riding)) if riding else 0.0


def steps_within(current: _Floats, rate: float) -> list[tuple[float, float]]:
    """When a current of minutes, in pA, steps away and comes back, s."""
    trace = _Trace(current, rate, hums=False)  # its phase does not last
    found: list[tuple[float, float]] = []
    for edge, back in pairwise(_edges(trace)):
        apart = abs(edge.jump + back.jump)
        free = not found or edge.sample / rate > found[-1][1]
        if free and apart <= max(_DEPARTS * abs(edge.jump), _EDGE * trace.slow_noise):
            found.append((edge.sample / rate, back.sample / rate))
    return found


@dataclass(frozen=True)
class _Piece:
    """A pulse on the way: times in s, height in pA and how well it is known."""

    start: float
    end: float
    height: float = 0.0
    error: float = 0.0
    rising: bool = False
    open: bool = False  # goes on to the end of the sweep
    seen: int = 1  # in how many sweeps

    @property
    def short(self) -> bool:
        return self.end - self.start < _SHORT

    def near(self, other: _Piece, within: float = _ONE) -> bool:
        """Whether it starts and ends together with another."""
        apart = max(abs(self.start - other.start), abs(self.end - other.end))
        return apart <= within

    def overlaps(self, other: _Piece) -> bool:
        return self.start < other.end + _ONE and other.start < self.end + _ONE


@dataclass(frozen=True)
class _Found:
    """How well some pieces explain a trace."""

    trace: _Trace = field(repr=False)
    pieces: tuple[_Piece, ...]
    base: _Floats = field(repr=False)  # of the drift, at every block
    departs: float  # of medians of a window from the fit, at most, pA
    reason: str = ""

    @property
    def explained(self) -> bool:
        return not self.reason

    @property
    def ramp(self) -> _Piece | None:
        return next((piece for piece in self.pieces if piece.rising), None)


class _Trace:
    """A measured current in medians, without the hum."""

    def __init__(self, samples: _Floats, rate: float, *, hums: bool = True) -> None:
        self.samples, self.rate = samples, rate
        self.width = max(round(_BLOCK * rate), 1)
        count = len(samples) // self.width
        blocks = _midmeans(samples[: count * self.width].reshape(count, self.width))
        self.step = self.width / rate
        self.time = (np.arange(count) + 0.5) * self.step
        self.wide = min(max(round(_WINDOW / self.step), 4), max(count // 4, 2))
        self.hum = _Hum(blocks if hums else blocks[:0], self.time, self.wide)
        self.blocks = blocks - self.hum.at(self.time)
        steps = np.abs(np.diff(samples[: self.width * 100]))
        #: Of the digitiser.
        self.grain = float(np.min(steps[steps > 0], initial=SMALLEST))
        #: Of the blocks, and of medians of a window.
        self.noise = max(_deviation(np.diff(self.blocks)) / np.sqrt(2), 0.3 * self.grain)
        self.slow_noise = 1.25 * self.noise / np.sqrt(self.wide)
        self.duration = len(samples) / rate

    def clean(self, first: int, last: int) -> _Floats:
        """Samples without the hum."""
        return self.samples[first:last] - self.hum.at(np.arange(first, last) / self.rate)

    def inside(self, start: float, end: float, margin: float = 0.0) -> NDArray[np.bool_]:
        """The blocks of a time, s."""
        half = 0.5 * self.step
        return (self.time - half >= start + margin) & (self.time + half <= end - margin)


def _midmeans(rows: _Floats) -> _Floats:
    """Mean of the middle half of every row: outliers do not move it, nor is it coarse."""
    quarter = rows.shape[1] // 4
    return np.sort(rows, axis=1)[:, quarter : rows.shape[1] - quarter].mean(axis=1)


def _deviation(values: _Floats) -> float:
    """A standard deviation that outliers do not move."""
    if not len(values):
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


class _Hum:
    """Of the mains, with two harmonics, where it stands out."""

    def __init__(self, blocks: _Floats, time: _Floats, wide: int) -> None:
        self.frequency = 0.0
        self.weights: _Floats = np.zeros(6)
        if len(blocks) < 4 * wide:
            return
        quick, good = self._quick(blocks, wide)
        line = 0.3 / (time[-1] - time[0])  # of the spectrum, Hz
        tried: _Floats = np.add.outer(
            _MAINS, np.arange(-_MAINS_OFF, _MAINS_OFF + line, line)
        ).ravel()
        for finer in (1.0, 0.2, 0.04, 0.008):
            power = [abs(np.exp(2j * np.pi * each * time[good]) @ quick) for each in tried]
            self.frequency = float(tried[int(np.argmax(power))])
            tried = self.frequency + finer * line * np.linspace(-1, 1, 11)
        least = 4 * np.sqrt(2 / len(quick)) * max(_deviation(quick), 1e-12)
        if 2 * max(power) / len(quick) < least:
            self.frequency = 0.0
            return
        # The medians of a whole period are those of what is below.
        quick, good = self._quick(blocks, round(1 / (self.frequency * (time[1] - time[0]))))
        waves = self._waves(time[good])
        self.weights = np.linalg.solve(waves.T @ waves, waves.T @ quick)

    def _quick(self, blocks: _Floats, wide: int) -> tuple[_Floats, NDArray[np.intp]]:
        """What is quicker than the medians, but for jumps and spikes, and where that is."""
        quick = blocks - _medians(blocks, wide)
        good = np.abs(quick) <= 4 * max(_deviation(quick), 1e-9)
        good[:wide] = good[-wide:] = False  # the medians are not whole
        return quick[good], np.flatnonzero(good)

    def _waves(self, time: _Floats) -> _Floats:
        phases = 2 * np.pi * self.frequency * np.multiply.outer(time, [1, 2, 3])
        return np.concatenate([np.sin(phases), np.cos(phases)], axis=1)

    def at(self, time: _Floats) -> _Floats:
        return self._waves(time) @ self.weights if self.frequency else np.zeros(len(time))


def _medians(values: _Floats, wide: int) -> _Floats:
    """Running medians, as many as there are values."""
    before = wide // 2
    padded = np.pad(values, (before, wide - 1 - before), mode="symmetric")
    return np.median(sliding_window_view(padded, wide), axis=1)


@dataclass(frozen=True)
class _Edge:
    sample: int
    jump: float


def _edges(trace: _Trace) -> list[_Edge]:
    """Where the medians on both sides differ, located among the samples."""
    jumps, left = _jumps(trace.blocks, trace.wide)
    jumps = jumps - np.median(jumps)
    height = np.abs(jumps)
    noise = max(_EDGE * max(_deviation(jumps), trace.slow_noise), 1.5 * trace.grain)
    least = max(noise, 0.01 * float(height.max(initial=0.0)), 0.5 * SMALLEST)
    # At the ends, the medians are of fewer blocks.
    place = np.arange(len(jumps))
    fewer = np.clip(np.minimum(place, len(jumps) - place) / trace.wide, 0.05, 1)
    over = np.flatnonzero(height > least / np.sqrt(fewer))
    breaks = np.flatnonzero((np.diff(over) > 1) | (np.diff(np.sign(jumps[over])) != 0)) + 1
    found: list[_Edge] = []
    last = 0
    for run in np.split(over, breaks):
        if not len(run):
            continue
        top = run[height[run] >= 0.5 * height[run].max()]
        if len(top) > 1.6 * trace.wide:  # it rises slowly
            continue
        middle = round(float(top.mean()))
        low, jump = float(left[middle]), float(jumps[middle])
        # A transient fades in the windows after its edge.
        if found and run[0] - last <= trace.wide and abs(jump) < 0.25 * abs(found[-1].jump):
            continue
        last = run[-1]
        found.append(_Edge(_located(trace, middle * trace.width, low, jump), jump))
    return found


def _jumps(blocks: _Floats, wide: int) -> tuple[_Floats, _Floats]:
    """Median of the window after every block's beginning less that before it, and the latter."""
    count = len(blocks)
    mids = np.median(sliding_window_view(blocks, wide), axis=1)
    left, right = np.empty(count), np.empty(count)
    left[wide:], right[: count - wide + 1] = mids[: count - wide], mids
    for k in range(2, wide):
        left[k] = np.median(blocks[:k])
        right[count - k] = np.median(blocks[count - k :])
    left[:2] = left[2]
    jumps = right - left
    jumps[:2] = jumps[-1] = 0.0
    return jumps, left


def _located(trace: _Trace, near: int, low: float, jump: float, span: float = 0.75) -> int:
    """The first sample after an edge, where two levels explain the samples around it best."""
    if jump == 0.0:
        return near
    reach = max(round(span * _WINDOW * trace.rate), 3)
    first, last = max(near - reach, 0), min(near + reach, len(trace.samples))
    sides = np.clip(2 * (trace.clean(first, last) - low) / jump - 1, -1, 1)
    return first + int(np.argmin(np.cumsum(sides))) + 1


def _own(trace: _Trace) -> tuple[_Piece, ...] | None:
    """The pulses that a trace shows by itself; None if it has too many edges for that."""
    edges = _edges(trace)
    if len(edges) > _MOST_EDGES:
        return None
    times = _cuts(trace, edges)
    pieces = [replace(each, open=each.end >= times[-1]) for each in _runs(trace, times)]
    return tuple(_relocated(trace, each) if each.short else each for each in pieces)


def _cuts(trace: _Trace, edges: Sequence[_Edge]) -> list[float]:
    """Times between which a trace has one level, s."""
    cuts = sorted({0, *(edge.sample for edge in edges), len(trace.samples)})
    cuts = [0] + [b for a, b in pairwise(cuts) if b - a > 0.001 * trace.rate]
    if cuts[-1] != len(trace.samples):
        cuts[-1] = len(trace.samples)
    return [cut / trace.rate for cut in cuts]


def _runs(trace: _Trace, times: Sequence[float]) -> list[_Piece]:
    """What lies between times, s, and is not at the base; neighbours of one level are one pulse."""
    levels = _levels(trace, times)
    pieces: list[_Piece] = []
    height = 0.0  # of the run of pulses that is not yet back at the base
    for (start, end), level in zip(pairwise(times), levels - levels[0], strict=True):
        noise = 4 * trace.slow_noise
        if abs(level) <= max(_ALIKE * abs(height), noise, 0.5 * SMALLEST):
            height = 0.0
            continue
        last = pieces[-1] if pieces and pieces[-1].end == start else None
        if last and abs(last.height - level) <= max(_ALIKE * abs(level), noise):
            pieces[-1] = replace(last, end=end)
        else:
            pieces.append(_Piece(start, end, float(level)))
        height = max(height, level, key=abs)
    return pieces


def _relocated(trace: _Trace, piece: _Piece) -> _Piece:
    """A pulse that is shorter than a window, between the blocks of half its height."""
    sign = np.sign(piece.height)
    near = trace.inside(piece.start - 2 * _WINDOW, piece.end + 2 * _WINDOW)
    beside = near & ~trace.inside(piece.start - 0.6 * _WINDOW, piece.end + 0.6 * _WINDOW)
    if not beside.any() or piece.open:
        return piece
    base = float(np.median(trace.blocks[beside]))
    above = np.where(near, sign * (trace.blocks - base), -np.inf)
    peak = int(np.argmax(above))
    low = np.flatnonzero(above <= 0.5 * above[peak])
    first, last = (
        int(low[low < peak].max(initial=-1)) + 1,
        int(low[low > peak].min(initial=len(above))),
    )
    level = float(np.median(trace.blocks[first:last])) - base
    return _short(trace, base, (first * trace.step, last * trace.step), level)


def _levels(trace: _Trace, times: Sequence[float]) -> _Floats:
    """Levels between times, s, on one straight drift."""
    inside = [trace.inside(start, end, 0.002) for start, end in pairwise(times)]
    inside = [
        each if each.any() else trace.inside(start, end, -trace.step)
        for each, (start, end) in zip(inside, pairwise(times), strict=True)
    ]
    bases = np.stack([*inside, trace.time / trace.duration - 0.5], axis=1).astype(np.float64)
    used = np.any(inside, axis=0)
    return _robust(bases[used], trace.blocks[used])[0][:-1]


def _robust(bases: _Floats, values: _Floats) -> tuple[_Floats, _Floats]:
    """Weights of bases that explain values, not moved by outliers, and their standard errors."""
    weighed = bases.T
    for _ in range(4):
        inverse = np.linalg.pinv(weighed @ bases, hermitian=True)
        found = inverse @ (weighed @ values)
        left = values - bases @ found
        scale = 4.685 * max(_deviation(left), 1e-12)
        weighed = bases.T * np.clip(1 - (left / scale) ** 2, 0, None) ** 2
    return found, _deviation(left) * np.sqrt(np.clip(np.diag(inverse), 0, None))


def _slots(own: Sequence[tuple[_Piece, ...] | None], within: float = _ONE) -> list[_Piece]:
    """When pulses start and end, in s: by the tall among those that do so together."""
    pieces = [each for found in filter(None, own) for each in found if not each.open]
    pieces.sort(key=lambda each: -abs(each.height))
    slots: list[_Piece] = []
    while pieces:
        together = [each for each in pieces if each.near(pieces[0], within)]
        slots.append(_slot(together))
        pieces = [each for each in pieces if each not in together]
    return sorted(slots, key=lambda slot: (-slot.seen, -abs(slot.height)))


def _slot(together: Sequence[_Piece]) -> _Piece:
    """When pulses that come together, the tallest first, start and end."""
    tall = [each for each in together if abs(each.height) >= 0.5 * abs(together[0].height)]
    start = float(np.median([each.start for each in tall]))
    end = float(np.median([each.end for each in tall]))
    return replace(together[0], start=start, end=end, seen=len(together))


def _best(
    trace: _Trace, own: tuple[_Piece, ...] | None, slots: list[_Piece], allowed: float
) -> _Found:
    """What explains a trace: its own pulses, those of other sweeps, or a ramp."""
    tried: list[_Found] = []
    if own is not None:
        mine = _in_slots(own, slots)
        tried.append(_explain(trace, _with_others(mine, slots, trace), allowed))
    if not (tried and tried[0].explained):
        tried.append(_explain(trace, _with_others([], slots, trace), allowed))
    if not tried[-1].explained and own is not None:
        tried += filter(None, [_ramp(trace, slots, allowed)])
    return next((each for each in tried if each.explained), tried[min(1, len(tried) - 1)])


def _in_slots(own: Sequence[_Piece], slots: Sequence[_Piece]) -> list[_Piece]:
    """A trace's own pulses, at the times of all sweeps; small ones only if others have them."""
    mine = [next((slot for slot in slots if slot.near(each)), each) for each in own]
    mine = [replace(slot, open=each.open) for slot, each in zip(mine, own, strict=True)]
    least = _SEEN * max((abs(slot.height) for slot in slots), default=0.0)
    return [each for each in mine if each.seen > 1 or each.open or abs(each.height) > least]


def _with_others(mine: list[_Piece], slots: list[_Piece], trace: _Trace) -> list[_Piece]:
    """Pulses, and those of other sweeps that they leave room for, the common ones first."""
    pieces = list(mine)
    for slot in slots:
        if slot.end < trace.duration - trace.step and not any(map(slot.overlaps, pieces)):
            pieces.append(slot)
    return sorted(pieces, key=lambda each: each.start)


def _explain(
    trace: _Trace, pieces: Sequence[_Piece], allowed: float, *, sure: bool = False
) -> _Found:
    """Fit pulses and a drift together; those that do not stand out are dropped."""
    pieces = list(pieces)
    while True:
        fitted, base, left = _fitted(trace, pieces)
        noise = max(trace.slow_noise, _deviation(_medians(left, trace.wide)))
        kept = [each for each in fitted if _stands_out(trace, each, base, noise)]
        if len(kept) == len(pieces):
            break
        pieces = kept
    return _judged(trace, fitted, base, left, allowed, sure=sure)


def _stands_out(trace: _Trace, piece: _Piece, base: _Floats, noise: float) -> bool:
    """Whether a pulse is higher than noise can be, at its edges as well."""
    if piece.short:
        return abs(piece.height) > max(_PULSE * piece.error, SMALLEST)
    if abs(piece.height) <= max(_PULSE * piece.error, 4 * noise, SMALLEST):
        return False
    if piece.rising:
        return True
    above = trace.blocks - base
    allowed = 0.35 * abs(piece.height) + 4 * noise
    for edge, sign in ((piece.start, 1), (piece.end, -1)):
        before = above[trace.inside(edge - _WINDOW, edge - trace.step)]
        after = above[trace.inside(edge + trace.step, edge + _WINDOW)]
        if len(before) and len(after):
            jump = sign * float(np.median(after) - np.median(before))
            if abs(jump - piece.height) > allowed:
                return False
    return True


def _fitted(trace: _Trace, pieces: Sequence[_Piece]) -> tuple[list[_Piece], _Floats, _Floats]:
    """The pulses with their heights, the base and what is left, at every block."""
    time = trace.time / trace.duration - 0.5
    outside = ~np.any([trace.inside(p.start, p.end, -2 * trace.step) for p in pieces], axis=0)
    outside = np.broadcast_to(outside, time.shape)
    curved = outside[: len(time) // 2].any() and outside[len(time) // 2 :].any()
    drift = [time**power for power in range(3 if curved else 2)]
    rises = [_shape(trace, piece) for piece in pieces]
    bases = np.stack([*drift, *rises], axis=1)
    used = np.ones(len(time), bool)
    for piece in pieces:
        for edge in (piece.start, piece.end):
            used &= ~((trace.time > edge - trace.step) & (trace.time < edge + 2 * trace.step))
    if used.sum() < bases.shape[1] + 2:
        used[:] = True
    found, errors = _robust(bases[used], trace.blocks[used])
    base = bases[:, : len(drift)] @ found[: len(drift)]
    fitted = [
        replace(piece, height=float(height), error=float(error))
        for piece, height, error in zip(
            pieces, found[len(drift) :], errors[len(drift) :], strict=True
        )
    ]
    left = trace.blocks - bases @ found
    left[~used] = 0.0
    return fitted, base, left


def _shape(trace: _Trace, piece: _Piece) -> _Floats:
    """A pulse of 1 pA at every block."""
    low, high = trace.time - 0.5 * trace.step, trace.time + 0.5 * trace.step
    share = (np.minimum(high, piece.end) - np.maximum(low, piece.start)) / trace.step
    share = np.clip(share, 0, 1)
    if piece.rising:
        share = share * np.clip((trace.time - piece.start) / (piece.end - piece.start), 0, 1)
    return share


def _judged(
    trace: _Trace,
    pieces: Sequence[_Piece],
    base: _Floats,
    left: _Floats,
    allowed: float,
    *,
    sure: bool,
) -> _Found:
    """Whether what is left only rides on the pulses."""
    departs = float(np.abs(_medians(left, trace.wide)).max())
    height = max((abs(piece.height) for piece in pieces), default=0.0)
    shape, share, least = _demands(pieces)
    most = max(share * height, _EDGE * trace.slow_noise, allowed, least)
    if departs > most:
        reason = f"the measured current departs by {departs:.3g} pA from a {shape}"
    elif shape == RISING and most > 2 * share * height and not sure:
        reason = f"a ramp of {height:.3g} pA is too close to the noise to be told"
    elif pieces:
        reason = _unending(trace, pieces, base) or _rougher(trace, pieces, left, height)
    else:
        reason = _louder(left)
    return _Found(trace, tuple(pieces), base, departs, reason)


def _demands(pieces: Sequence[_Piece]) -> tuple[str, float, float]:
    """What pulses are, and the departures that are allowed: as a share of the height, and in pA."""
    if not pieces:
        return "constant current", _DEPARTS, _QUIET
    if any(piece.rising for piece in pieces):
        return RISING, STRAIGHT, SMALLEST
    return "step", _DEPARTS, SMALLEST


def _unending(trace: _Trace, pieces: Sequence[_Piece], base: _Floats) -> str:
    """Why pulses are none: they go on to the end of the sweep. Empty if they do not."""
    if any(piece.open for piece in pieces):
        return "the step does not end within the sweep"
    if any(piece.rising and _is_drift(trace, piece, base) for piece in pieces):
        return "the current changes before the ramp as well, and the ramp does not end"
    return ""


def _is_drift(trace: _Trace, ramp: _Piece, base: _Floats) -> bool:
    """Whether a ramp to the end of the sweep is hardly steeper than the drift."""
    drift = abs(float(base[-1] - base[0])) / trace.duration
    steep = abs(ramp.height) / (ramp.end - ramp.start)
    return ramp.end > trace.duration - _ONE and drift > 0.25 * steep


def _louder(left: _Floats) -> str:
    """Why a current without a pulse is none: part of it varies more than the rest. Or empty."""
    sections = left[: len(left) // _SECTION * _SECTION].reshape(-1, _SECTION)
    loud = np.sort([_deviation(section) for section in sections])
    few = len(loud) // 5
    if few and loud[-few] > max(_ROUGHER * loud[few], _QUIET):
        return f"the current varies by {loud[-few]:.3g} pA in a part of the sweep"
    return ""


def _rougher(trace: _Trace, pieces: Sequence[_Piece], left: _Floats, height: float) -> str:
    """Why noise within pulses is not that outside: it was put there. Empty if it is."""
    within = np.any([trace.inside(p.start, p.end, 0.003) for p in pieces], axis=0)
    if not within.any():
        return ""
    blocks = _deviation(left[within]), _deviation(left[~within])
    rows = trace.samples[: len(left) * trace.width].reshape(len(left), trace.width)
    every = max(len(left) // 2000, 1)  # noise of single samples, in some of the blocks
    quick = np.diff(rows[::every]) / np.sqrt(2)
    samples = (
        _deviation(quick[within[::every]].ravel()),
        _deviation(quick[~within[::every]].ravel()),
    )
    for inside, outside in (blocks, samples):
        if inside > max(_ROUGHER * outside, _DEPARTS * height):
            return f"the current varies by {inside:.3g} pA during the step"
    return ""


def _ramp(trace: _Trace, slots: Sequence[_Piece], allowed: float) -> _Found | None:
    """What explains a trace with a ramp, if one may."""
    early = [slot for slot in slots if slot.end <= TEST_PULSE_BEFORE]
    start, end = _likeliest_ramp(trace, early)
    if end - start < RAMP_LENGTH:
        return None
    ramp = _Piece(start, end, rising=True)
    found = _explain(trace, _with_others([ramp], early, trace), allowed)
    most = 1.2 * float(np.ptp(trace.blocks))  # a drift looks like a small part of a tall ramp
    return found if any(p.rising and abs(p.height) <= most for p in found.pieces) else None


def _likeliest_ramp(trace: _Trace, early: Sequence[_Piece]) -> tuple[float, float]:
    """When the ramp that explains most of a trace beside early pulses starts and ends, s.

    It ends with a drop or with the sweep.
    """
    every = -(-len(trace.time) // 1500)
    count = len(trace.time) // every * every
    time = trace.time[:count].reshape(-1, every).mean(axis=1)
    values = trace.blocks[:count].reshape(-1, every).mean(axis=1)
    fixed = [(time / trace.duration - 0.5) ** power for power in range(3)]
    fixed += [((time > slot.start) & (time < slot.end)).astype(float) for slot in early]
    basis = np.linalg.qr(np.stack(fixed, axis=1))[0]
    values = values - basis @ (basis.T @ values)
    drops = sorted(_edges(trace), key=lambda edge: -abs(edge.jump))[:3]
    best = (0.0, 0.0, 0.0)
    for end in (*(edge.sample / trace.rate for edge in drops), trace.duration):
        first, last = 0.0, end - RAMP_LENGTH
        for _ in range(4):
            if last <= first:
                break
            starts = np.linspace(first, last, 60)
            rises = np.clip((time[:, None] - starts) / (end - starts), 0, 1) * (time < end)[:, None]
            rises = rises - basis @ (basis.T @ rises)
            gains = (values @ rises) ** 2 / np.maximum((rises**2).sum(axis=0), 1e-12)
            near = float(starts[int(np.argmax(gains))])
            best = max(best, (float(gains.max()), near, end))
            span = (last - first) / 30
            first, last = max(near - span, 0.0), min(near + span, end - RAMP_LENGTH)
    return best[1:]


def _ramps_together(found: list[_Found], allowed: float) -> list[_Found]:
    """Ramps that end together start together, where the tall ones do; others may be near noise."""
    ramps = [each.ramp for each in found if each.explained and each.ramp]
    slots = _slots([each.pieces for each in found if each.explained])
    early = [slot for slot in slots if not slot.rising]
    return [_with_ramp(each, ramps, early, allowed) for each in found]


def _with_ramp(found: _Found, ramps: list[_Piece], early: list[_Piece], allowed: float) -> _Found:
    """A trace with the first ramp that explains it at the times of all; as it is if none does.

    One that is explained has its own or none.
    """
    own = [found.ramp] if found.ramp else []
    may_be = own if found.explained else ramps
    for start, end in dict.fromkeys(_times_of(ramp, ramps) for ramp in may_be):
        pieces = _with_others([_Piece(start, end, rising=True)], early, found.trace)
        again = _explain(found.trace, pieces, allowed, sure=True)
        if again.explained and again.ramp:
            return again
    return found


def _times_of(ramp: _Piece, ramps: Sequence[_Piece]) -> tuple[float, float]:
    """When a ramp starts and ends by all those like it, s."""
    alike = [
        other
        for other in ramps
        if abs(other.end - ramp.end) <= _ONE
        and abs(other.start - ramp.start) <= _ONE_START * (ramp.end - ramp.start)
    ]
    weights = np.square([other.height for other in alike])
    start = float(np.average([other.start for other in alike], weights=weights))
    return start, float(np.median([other.end for other in alike]))


def _with_shorts(found: list[_Found]) -> list[_Found]:
    """The same with short pulses, which the medians of a window hide.

    The crosstalk of a spike looks like one, but no two come at one time: a short pulse counts
    that several sweeps have, or the only one.
    """
    found = [_without_hum(each) for each in found]
    heights = [abs(piece.height) for each in found if each.explained for piece in each.pieces]
    least = _SEEN * max(heights, default=0.0)
    own = [_shorts(each, least) for each in found]
    # Some sweeps' short pulses were fitted already, as pieces.
    fitted = [tuple(p for p in each.pieces if p.end - p.start <= _SHORT) for each in found]
    slots = _shared_shorts([mine + their for mine, their in zip(own, fitted, strict=True)])
    tests = [slot for slot in slots if slot.seen >= 0.4 * len(found)]
    return [
        _with_own_shorts(each, mine, tests if each.pieces else slots)
        for each, mine in zip(found, own, strict=True)
    ]


def _least_beside_hum(found: _Found) -> float:
    """A pulse shorter than a period of the hum is no lower, pA."""
    return _OF_HUM * 0.5 * float(np.ptp(found.trace.hum.at(found.trace.time)))


def _without_hum(found: _Found) -> _Found:
    """The same without what may be left of the hum."""
    least = _least_beside_hum(found)
    kept = [p for p in found.pieces if abs(p.height) >= least or p.end - p.start >= _SHORT]
    return replace(found, pieces=tuple(kept))


def _shared_shorts(own: Sequence[tuple[_Piece, ...]]) -> list[_Piece]:
    """When short pulses come, of those that count, by those that every sweep shows."""
    slots: list[_Piece] = []
    for slot in _slots(own, _ONE_SHORT):  # a transient comes right after a pulse
        if (slot.seen > 1 or len(own) == 1) and not any(map(slot.overlaps, slots)):
            slots.append(slot)
    return slots


def _with_own_shorts(found: _Found, mine: Sequence[_Piece], slots: Sequence[_Piece]) -> _Found:
    """A trace with the short pulses that it has at these times, if those explain it."""
    free = [slot for slot in slots if not any(map(slot.overlaps, found.pieces))]
    shorts = _measured_shorts(found, free)
    height = max((abs(short.height) for short in shorts), default=0.0)
    if not (found.explained or found.departs <= _DEPARTS * height):
        return found
    reason = ""
    if mine and not shorts and not found.pieces:
        length = 1e3 * (mine[0].end - mine[0].start)
        reason = f"it has a pulse of {length:.2g} ms that no other sweep has"
    pieces = sorted([*shorts, *found.pieces], key=lambda piece: piece.start)
    return replace(found, pieces=tuple(pieces), reason=reason)


def _measured_shorts(found: _Found, slots: Sequence[_Piece]) -> list[_Piece]:
    """Short pulses with their heights, of those that stand out."""
    shorts = [_measured_short(found, slot) for slot in slots]
    return [short for short in shorts if abs(short.height) > max(short.error, SMALLEST)]


def _fine(found: _Found) -> tuple[_Floats, float]:
    """What is left outside the pulses in fine medians, and their step, s."""
    trace = found.trace
    width = max(round(_FINE * trace.rate), 1)
    count, step = len(trace.samples) // width, width / trace.rate
    time = (np.arange(count) + 0.5) * step
    means = trace.samples[: count * width].reshape(count, width).mean(axis=1)
    means = means - trace.hum.at(time) - np.interp(time, trace.time, found.base)
    covered = [(piece.start, piece.end) for piece in found.pieces]
    for start, end in (*covered, (-1.0, 0.0), (time[-1], time[-1] + 1)):
        means[(time > start - _TRANSIENT) & (time < end + _TRANSIENT)] = 0.0
    return _medians(means, max(round(0.001 / step) | 1, 3)), step


def _shorts(found: _Found, least: float) -> tuple[_Piece, ...]:
    """Flat pulses that are shorter than a window."""
    left, step = _fine(found)
    least = max(8 * _deviation(left), 2 * SMALLEST, least, _least_beside_hum(found))
    pieces: list[_Piece] = []
    for _ in range(12):
        peak = int(np.argmax(np.abs(left)))
        height = float(left[peak])
        if abs(height) <= least:
            break
        low = np.flatnonzero(left * np.sign(height) <= 0.5 * abs(height))
        first = int(low[low < peak].max(initial=-1)) + 1
        last = int(low[low > peak].min(initial=len(left)))
        part = left[first:last].copy()
        left[max(first - 2, 0) : last + 2] = 0.0
        level = float(np.median(part))
        length = (last - first) * step
        if 0.0006 <= length < _SHORT and _deviation(part) <= 0.15 * abs(level):
            base = float(np.interp(first * step, found.trace.time, found.base))
            pieces.append(_short(found.trace, base, (first * step, last * step), level))
    return tuple(pieces)


def _short(trace: _Trace, base: float, times: tuple[float, float], level: float) -> _Piece:
    """A short pulse of about these times, s, whose edges are located among the samples."""
    start, end = times
    span = min(0.4 * (end - start), 0.003) / _WINDOW
    first = _located(trace, round(start * trace.rate), base, level, span)
    last = _located(trace, round(end * trace.rate), base + level, -level, span)
    return _Piece(first / trace.rate, last / trace.rate, level)


def _measured_short(found: _Found, slot: _Piece) -> _Piece:
    """A short pulse with its height and the noise of it."""
    trace = found.trace
    first, last = round(slot.start * trace.rate), round(slot.end * trace.rate)
    before = trace.clean(max(first - round(0.5 * _WINDOW * trace.rate), 0), first)
    during = trace.clean(first, last)
    during = during[len(during) * 2 // 5 :]
    if not len(before) or not len(during):
        return slot
    noise = 1.25 * _deviation(before) * np.sqrt(1 / len(before) + 1 / len(during))
    height = float(np.median(during) - np.median(before))
    return replace(slot, height=height, error=_PULSE * noise)


def _tests_alike(found: list[_Found]) -> list[_Found]:
    """Pulses that are followed by another and differ by noise only are of one height."""
    firsts = [each.pieces[0] for each in found if each.explained and len(each.pieces) > 1]
    return [
        _with_first_like(firsts, each) if each.explained and each.pieces else each for each in found
    ]


def _with_first_like(firsts: Sequence[_Piece], found: _Found) -> _Found:
    """A trace whose first pulse has the height of those like it, if it is one of them."""
    first, *others = found.pieces
    alike = [other.height for other in firsts if first.near(other)]
    level = float(np.median(alike)) if alike else first.height
    if abs(first.height - level) > max(_ONE_TEST * abs(level), 4 * first.error, SMALLEST):
        return found
    return replace(found, pieces=(replace(first, height=level), *others))


def _as_fit(found: _Found) -> Fit:
    trace, rate = found.trace, found.trace.rate
    starts = {round(piece.start * rate) for piece in found.pieces}
    ends = {round(piece.end * rate) for piece in found.pieces}
    pulses = []
    for piece in found.pieces:
        first, last = round(piece.start * rate), min(round(piece.end * rate), len(trace.samples))
        alone = first not in ends and last not in starts and not piece.open
        shape = RISING if piece.rising else FLAT
        pulses.append(Pulse(first, last, rate, piece.height, shape, alone))
    begin = found.pieces[0].start if found.pieces else 0.0
    holding = float(np.interp(begin, trace.time, found.base))
    if found.reason:
        pulses = [_shapeless(trace, pulses)]
    return Fit(tuple(pulses), holding, found.reason)


def _shapeless(trace: _Trace, pulses: Sequence[Pulse]) -> Pulse:
    """One pulse in place of those that do not explain a trace."""
    first = pulses[0].first if pulses else 0
    last = pulses[-1].last if pulses else len(trace.samples)
    level = max((pulse.level for pulse in pulses), key=abs, default=0.0)
    return Pulse(first, last, trace.rate, level, SHAPELESS)
