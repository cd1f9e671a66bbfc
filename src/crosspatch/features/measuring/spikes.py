"""Spikes: where they are in a sweep, and what is measured on each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.measuring.cuts import Cut

#: One row per spike; NaN where something cannot be measured. Indexes are samples of the sweep,
#: times (``_t``, ``width``) in s, potentials (``_v``) in mV, upstroke and downstroke in mV/ms.
#: Threshold is where dV/dt reached a share of the mean upstroke, the fast trough where dV/dt is
#: back to 1 % of the downstroke, the trough the lowest point before the next spike; a clipped spike
#: (1) is cut off by the end of the window, before its fast trough.
SPIKE = np.dtype(
    [
        (name, np.float64)
        for name in (
            *("threshold_index", "threshold_t", "threshold_v", "peak_t", "peak_v"),
            *("fast_trough_index", "fast_trough_v", "trough_v", "upstroke", "downstroke"),
            *("upstroke_downstroke_ratio", "width", "clipped"),
        )
    ]
)

#: Rows of `SPIKE`, shape (spikes,).
Spikes = NDArray[np.void]

#: Rates of which dV/dt is smoothed are above, Hz.
_FILTERED_ABOVE = 20_500.0
_FILTER = 10_000.0
#: What is filtered of a sweep besides a window, on both sides, s: the filter has forgotten by then
#: where it began, and two longest rises fit in.
_BESIDE = 0.012


@dataclass(frozen=True)
class SpikeRules:
    """What counts as a spike, with the defaults of the Allen Institute."""

    cutoff: float = 20.0  # DV/dt that it must reach, mV/ms
    lowest_peak: float = -30.0  # of the peak, mV
    least_height: float = 2.0  # of the peak above where dV/dt reached the cutoff, mV
    share: float = 0.05  # of the mean upstroke, where the threshold is
    longest_rise: float = 0.005  # from threshold to peak, s
    after: float = -math.inf  # spikes until then are left out, s on the time axis


def find_spikes(cut: Cut, start: float, end: float | None, rules: SpikeRules) -> Spikes:
    """The spikes of a sweep from one time to another, in s; None is the sweep's end.

    A spike begins where dV/dt, low-pass filtered at 10 kHz, rises through a cutoff (Allen Cell
    Types Database, Electrophysiology, 2017; Gouwens et al. 2019).
    """
    from crosspatch.features.measuring import kernels

    first = cut.nearest(start)
    last = len(cut.voltage) - 1 if end is None else cut.nearest(end)
    beside = round(_BESIDE * cut.rate)
    begin = max(first - beside, 0)
    table = kernels.spikes(
        cut.voltage[begin : last + beside + 1],
        taps(cut.rate),
        cut.rate,
        (float(first - begin), float(last - begin), float(begin + cut.first)),
        astuple(rules),
    )
    found = table.view(SPIKE)[:, 0]
    found["threshold_index"] += begin
    found["fast_trough_index"] += begin
    return found


def adjusted_rules(cuts: Sequence[Cut], start: float, rules: SpikeRules) -> SpikeRules:
    """Rules for sweeps in which a strong pulse alone makes the potential rise fast.

    The cutoff is above what the first millisecond of the pulse shows, and so is the threshold's
    share of the upstroke (IPFX 2.1.2 does so for short squares).
    """
    from crosspatch.features.measuring import kernels

    slopes = [slope(cut.voltage, cut.rate) for cut in cuts]
    highest, at_end = [], []
    for cut, rises in zip(cuts, slopes, strict=True):
        first, last = cut.nearest(start), cut.nearest(start + 0.001)
        highest.append(rises[first : max(last, first + 1)].max())
        at_end.append(rises[min(last, len(rises) - 1)])
    cutoff = float(np.median(highest)) * 1.1
    limits = (cutoff, rules.lowest_peak, rules.least_height)
    both = zip(cuts, slopes, strict=True)
    found = np.concatenate([kernels.upstrokes(cut.voltage, rises, limits) for cut, rises in both])
    share = float(np.median(at_end)) * 1.2 / float(found.mean()) if len(found) else math.nan
    return SpikeRules(
        cutoff, rules.lowest_peak, rules.least_height, max(0.1, share), after=start + 0.0002
    )


def slope(voltage: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """DV/dt of a contiguous potential in mV, as `find_spikes` has it; shape (samples - 1,)."""
    from crosspatch.features.measuring import kernels

    return np.asarray(kernels.filtered_slope(voltage, taps(rate), rate))


@cache
def taps(rate: float) -> tuple[float, ...]:
    """The filter of a sampling rate in Hz, four-pole Bessel at 10 kHz, as the kernels take it.

    The analogue filter is that of the reverse Bessel polynomial, scaled so that high frequencies
    fall off as in a Butterworth filter; the bilinear transform makes it digital. Rates that cannot
    carry 10 kHz have one that does nothing.
    """
    if not rate > _FILTERED_ABOVE:
        return (1.0, *(0.0,) * 12)
    scale = 105.0**0.25
    analogue = [1.0, scale, 45.0 * scale**2 / 105.0, 10.0 * scale**3 / 105.0, 1.0]
    stretch = math.tan(math.pi * _FILTER / rate)
    less, more = np.polynomial.Polynomial([1.0, -1.0]), np.polynomial.Polynomial([1.0, 1.0])
    terms = [
        factor / stretch**power * less**power * more ** (4 - power)
        for power, factor in enumerate(analogue)
    ]
    below = sum(terms[1:], terms[0]).coef
    b, a = (more**4).coef / below[0], below / below[0]
    state = np.cumsum((b[1:] - a[1:])[::-1])[::-1]
    return tuple(float(each) for each in (*b, *a[1:], *state))
