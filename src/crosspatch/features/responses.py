"""Sweeps of one kind of stimulus, measured: what all kinds share, short squares and ramps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.measuring.cuts import Cut, on_one_axis
from crosspatch.features.measuring.spikes import (
    SpikeRules,
    Spikes,
    adjusted_rules,
    find_spikes,
    slope,
)
from crosspatch.features.measuring.trains import Train, measure_train
from crosspatch.recordings.quality import steep_peaks

#: Spikes of a short square come at most this long after it, s.
_AFTER_SHORT = 0.05
#: So long after its end, s, what the pulse itself does to the potential is over.
_SETTLED = 0.0005
#: Spikes slower or lower than usual are counted from this share of the slowest upstroke, and this
#: far below the lowest peak, mV; they are so high, mV, and rise for at most so long, s.
_SLOW_SHARE, _LOW_MARGIN, _SLOW_HEIGHT, _SLOW_RISE = 0.5, 5.0, 10.0, 0.02

#: Slow spikes are sought in means of so long, s.
_SMOOTH = 0.0005
#: Of spikes that are seen, this share has to be found.
_MOST = 0.8

_NAN = float("nan")


@dataclass(frozen=True)
class Responses:
    """Sweeps of one kind of stimulus and what was measured on them, one entry per sweep."""

    cuts: tuple[Cut, ...]
    spikes: tuple[Spikes, ...]
    trains: tuple[Train, ...]
    #: Stimulus interval on the sweeps' time axis, s; the end of a long square is at most
    #: `crosspatch.features.long_squares.STEP_WINDOW` after its start.
    start: float
    end: float
    duration: float  # how long the stimulus really lasts, s
    numbers: tuple[int, ...]  # the sweeps' numbers in the file; none where no ramp made it spike
    #: Sweeps with the spikes of which the first make the mean first action potential.
    first_spikes: tuple[tuple[Cut, Spikes], ...]


@dataclass(frozen=True)
class Ramps(Responses):
    """Responses to ramps."""

    #: Current at the first spike's threshold, pA; NaN without a spike.
    threshold_currents: tuple[float, ...]


@dataclass(frozen=True)
class FoundSpikes:
    """The spikes of sweeps."""

    spikes: list[Spikes]
    trains: list[Train]
    rules: SpikeRules  # by which they were found
    missed: tuple[int, ...] = ()  # places of sweeps with spikes that these rules do not find


def found_spikes(
    cuts: Sequence[Cut],
    start: float,
    ends: Sequence[float | None],
    rules: SpikeRules,
    notes: list[str],
) -> FoundSpikes:
    """The spikes of sweeps from a time in s to others, to the end of a sweep where that is None.

    Where steps show spikes that rise more slowly or peak lower than the rules have it, these are
    relaxed for all sweeps, and that is noted.
    """
    spikes = _spikes_of(cuts, start, ends, rules)
    seen = _seen(cuts, start, ends)
    missed = _missed(cuts, spikes, seen)
    if missed:
        smooth = [_smoothed(cut) for cut in cuts]
        relaxed = _relaxed([smooth[k] for k in missed], [seen[k] for k in missed], rules)
        again = _spikes_of(smooth, start, ends, relaxed)
        usual = f"{rules.cutoff:g} mV/ms and a peak of {rules.lowest_peak:g} mV"
        if not _missed(cuts, again, seen):
            notes.append(
                f"slow or low spikes: they are counted from {relaxed.cutoff:.2g} mV/ms and a peak "
                f"of {relaxed.lowest_peak:.0f} mV on (usually {usual})"
            )
            spikes, rules, missed = again, relaxed, []
        else:
            told = ", ".join(str(cuts[k].number) for k in missed)
            notes.append(f"spikes slower than {usual} were not counted (sweeps {told})")
    lasts = [
        cut.time(len(cut.voltage) - 1) if end is None else end
        for cut, end in zip(cuts, ends, strict=True)
    ]
    trains = [measure_train(each, start, last) for each, last in zip(spikes, lasts, strict=True)]
    return FoundSpikes(spikes, trains, rules, tuple(missed))


def _spikes_of(
    cuts: Sequence[Cut], start: float, ends: Sequence[float | None], rules: SpikeRules
) -> list[Spikes]:
    return [find_spikes(cut, start, end, rules) for cut, end in zip(cuts, ends, strict=True)]


def _seen(
    cuts: Sequence[Cut], start: float, ends: Sequence[float | None]
) -> list[NDArray[np.int64]]:
    """Beginnings and peaks of the steep peaks in the windows of depolarised sweeps."""
    found = []
    for cut, end in zip(cuts, ends, strict=True):
        first = cut.nearest(start)
        last = len(cut.voltage) if end is None else cut.nearest(end)
        part = cut.voltage[first:last] if cut.amplitude > 0 else cut.voltage[:0]
        found.append(steep_peaks(part, cut.rate) + first)
    return found


def _missed(
    cuts: Sequence[Cut], spikes: Sequence[Spikes], seen: Sequence[NDArray[np.int64]]
) -> list[int]:
    """Places of sweeps with fewer spikes than are seen, if that matters.

    It does where most of them are missed, and where smaller steps than those with spikes have some.
    """
    short = [k for k, each in enumerate(spikes) if len(each) < len(seen[k])]
    few = sum(map(len, spikes)) < _MOST * sum(map(len, seen))
    pairs = zip(cuts, spikes, strict=True)
    spiking = (cut.amplitude for cut, each in pairs if len(each) and cut.amplitude > 0)
    least = min(spiking, default=np.inf)
    smaller = any(not len(spikes[k]) and cuts[k].amplitude < least for k in short)
    return short if few or smaller else []


def _smoothed(cut: Cut) -> Cut:
    """A sweep whose noise is so small that slow spikes can be told from it."""
    width = max(round(_SMOOTH * cut.rate), 1)
    padded = np.pad(cut.voltage, (width // 2, width - 1 - width // 2), mode="edge")
    return replace(cut, voltage=np.convolve(padded, np.full(width, 1 / width), "valid"))


def _relaxed(
    cuts: Sequence[Cut], seen: Sequence[NDArray[np.int64]], rules: SpikeRules
) -> SpikeRules:
    """Rules that find spikes which begin and peak at these samples of sweeps."""
    speeds, peaks = [], []
    for cut, places in zip(cuts, seen, strict=True):
        rises = slope(cut.voltage, cut.rate)
        speeds += [float(rises[begin : peak + 1].max()) for begin, peak in places.tolist()]
        peaks += cut.voltage[places[:, 1]].tolist()
    return replace(
        rules,
        cutoff=min(rules.cutoff, _SLOW_SHARE * min(speeds)),
        lowest_peak=min(rules.lowest_peak, min(peaks) - _LOW_MARGIN),
        least_height=_SLOW_HEIGHT,
        longest_rise=_SLOW_RISE,
    )


def measure_short_squares(cuts: Sequence[Cut], notes: list[str]) -> Responses | None:
    """Measure sweeps of short squares; None where none spikes.

    First spikes are of the amplitude at which most sweeps spike, the smallest of several.
    """
    chosen, start, end = on_one_axis(_alike(cuts, "short squares", notes))
    until = end + _AFTER_SHORT
    rules = adjusted_rules(chosen, start, SpikeRules())
    spikes = [find_spikes(cut, start, until, rules) for cut in chosen]
    trains = [measure_train(each[each["clipped"] == 0], start, until) for each in spikes]
    spiking = [k for k, train in enumerate(trains) if train.rate]
    if not spiking:
        seen = [len(steep_peaks(c.voltage[c.nearest(end + _SETTLED) :], c.rate)) for c in chosen]
        untold = "their spikes cannot be told from the pulse: none is measured"
        notes.append(f"short squares: {untold}" if any(seen) else "no short square made it spike")
        return None
    return Responses(
        cuts=tuple(chosen),
        spikes=tuple(spikes),
        trains=tuple(trains),
        start=start,
        end=end,
        duration=end - start,
        numbers=tuple(cut.number for cut in chosen),
        first_spikes=_not_clipped(_commonest(spiking, chosen), chosen, spikes),
    )


def _commonest(places: Sequence[int], cuts: Sequence[Cut]) -> list[int]:
    """Those of sweeps that have the commonest amplitude, the smallest of several."""
    counts = Counter(max(cuts[k].amplitude, 0.0) for k in places)
    most = max(counts.values())
    common = min(amplitude for amplitude, count in counts.items() if count == most)
    return [k for k in places if max(cuts[k].amplitude, 0.0) == common]


def measure_ramps(
    cuts: Sequence[Cut], current_at: Callable[[int, int], float], notes: list[str]
) -> Ramps:
    """Measure sweeps of ramps; `current_at` gives a sweep's command at a sample of its cut, pA."""
    rate = Counter(cut.rate for cut in cuts).most_common(1)[0][0]
    chosen, start, end = on_one_axis([cut for cut in cuts if cut.rate == rate])
    found = found_spikes(chosen, start, [None] * len(chosen), SpikeRules(), notes)
    spikes, trains = found.spikes, found.trains
    spiking = [k for k, train in enumerate(trains) if train.rate]
    if not spiking and not found.missed:
        notes.append("no ramp made it spike")
    return Ramps(
        cuts=tuple(chosen),
        spikes=tuple(spikes),
        trains=tuple(trains),
        start=start,
        end=end,
        duration=end - start,
        numbers=tuple(cut.number for cut in chosen) if spiking else (),
        first_spikes=_not_clipped(spiking, chosen, spikes),
        threshold_currents=tuple(
            current_at(cut.number, int(each["threshold_index"][0])) if len(each) else _NAN
            for cut, each in zip(chosen, spikes, strict=True)
        ),
    )


def _not_clipped(
    places: Sequence[int], cuts: Sequence[Cut], spikes: Sequence[Spikes]
) -> tuple[tuple[Cut, Spikes], ...]:
    """Those whose first spike is not cut off."""
    return tuple((cuts[k], spikes[k]) for k in places if not spikes[k]["clipped"][0])


def _alike(cuts: Sequence[Cut], name: str, notes: list[str]) -> list[Cut]:
    """The sweeps of the commonest rate and duration."""

    def kind(cut: Cut) -> tuple[int, int]:
        return round(cut.rate), round(cut.duration * 1e4)

    common = Counter(kind(cut) for cut in cuts).most_common(1)[0][0]
    for cut in cuts:
        if kind(cut) != common:
            notes.append(
                f"sweep {cut.number}: left out, it lasts {cut.duration:g} s at "
                f"{cut.rate:g} Hz, most {name} last {common[1] / 1e4:g} s at {common[0]} Hz"
            )
    return [cut for cut in cuts if kind(cut) == common]
