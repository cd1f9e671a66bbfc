"""One long sweep with many steps: cut into one sweep a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording, Samples, Sweep
from crosspatch.recordings.pulses import FLAT, changes_of, is_measured, pulses_of

#: A sweep is looked at that lasts as long as this, s, in a recording of no more sweeps.
_LONG, _FEW = 3.0, 1
#: So many steps are a family.
_LEAST = 3
#: Their lengths and periods are equal to within this, s, or this share.
_EQUAL, _EQUAL_SHARE = 0.003, 0.002

_Span = tuple[float, float]  # start and end, s


def cut_into_steps(recording: Recording) -> Recording:
    """A recording whose only sweep is cut where steps of one length come with one period.

    Where they do not, it stays as it is and a note says so.
    """
    sweeps = recording.current_clamp
    if len(sweeps) > _FEW or not sweeps or sweeps[0].duration < _LONG:
        return recording
    spans = _steps(sweeps[0])
    family = _family(spans)
    if len(family) < 2:
        return recording
    longest = max(end - start for start, end in family)
    period = _period(family)
    if period is None or period < longest:
        note = (
            f"its only sweep has {len(family)} long steps that do not come with one period and "
            "length: only the first is measured; save every step as a sweep to have all"
        )
        return replace(recording, notes=(*recording.notes, note))
    parts = _parts(sweeps[0], _cuts(spans, family, period, sweeps[0].duration))
    note = (
        f"its only sweep of {sweeps[0].duration:.4g} s has a step of {longest:.3g} s every "
        f"{period:.4g} s: it is cut into {len(parts)} sweeps"
    )
    others = tuple(sweep for sweep in recording.sweeps if sweep is not sweeps[0])
    return replace(recording, sweeps=(*parts, *others), notes=(*recording.notes, note))


def _steps(sweep: Sweep) -> list[_Span]:
    """When current steps away and comes back, s."""
    try:
        current, rate = np.asarray(sweep.current), sweep.rate
    except RecordingError:
        return []  # what cannot be read is said where stimuli are recognised
    if not np.isfinite(current).all():
        return []
    changes = changes_of(current)
    if is_measured(current, changes, rate):
        from crosspatch.recordings.measured import steps_within

        return steps_within(np.asarray(current, np.float64), rate)
    pulses = pulses_of(current, changes, rate)
    return [pulse.times for pulse in pulses if pulse.shape == FLAT and pulse.alone]


def _family(spans: list[_Span]) -> list[_Span]:
    """The long steps: those that are as long as the longest."""
    longest = max((end - start for start, end in spans), default=0.0)
    return [span for span in spans if _alike(span[1] - span[0], longest)]


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= max(_EQUAL, _EQUAL_SHARE * other)


def _period(family: list[_Span]) -> float | None:
    """What all times between starts are a multiple of: steps of 0 pA leave gaps."""
    if len(family) < _LEAST:
        return None
    apart = np.diff([start for start, _ in family])
    times = np.round(apart / apart.min())
    period = float(apart.sum() / times.sum())
    even = all(_alike(float(each), float(k) * period) for each, k in zip(apart, times, strict=True))
    return period if even else None


def _cuts(spans: list[_Span], family: list[_Span], period: float, end: float) -> list[float]:
    """Where the sweep is cut: in the longest pause that comes in every period, s."""
    first = family[0][0]
    inside = [start - period * np.floor((start - first) / period) for start, _ in spans]
    busy = sorted(
        (start, start + stop - begin) for start, (begin, stop) in zip(inside, spans, strict=True)
    )
    reached, pauses = busy[0][0], []
    for start, stop in [*busy, (busy[0][0] + period, 0.0)]:
        pauses.append((start - reached, reached))
        reached = max(reached, stop)
    pause, begin = max(pauses)
    cut = begin + 0.5 * pause
    count = round((family[-1][0] - first) / period)
    cuts = [max(cut + (k - 1) * period, 0.0) for k in range(count + 2)]
    return [*cuts[:-1], min(cuts[-1], end)]


def _parts(sweep: Sweep, cuts: list[float]) -> tuple[Sweep, ...]:
    """The sweep between cuts, s, numbered from 0; its samples are read once."""

    def part(read: Callable[[], Samples], first: int, last: int) -> Callable[[], Samples]:
        return lambda: read()[first:last]

    voltage = cache(sweep.read_voltage)
    current = sweep.read_current and cache(sweep.read_current)
    monitor = sweep.read_monitor and cache(sweep.read_monitor)
    return tuple(
        replace(
            sweep,
            number=number,
            points=last - first,
            read_voltage=part(voltage, first, last),
            read_current=current and part(current, first, last),
            read_monitor=monitor and part(monitor, first, last),
            read_voltage_until=None,
        )
        for number, (first, last) in enumerate(pairwise(round(cut * sweep.rate) for cut in cuts))
    )
