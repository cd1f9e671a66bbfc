"""Passes over the samples of a sweep, compiled by numba and kept in its cache.

Longer than 400 lines: numba compiles anew when the file of a function changes, not when that of
another one does which it calls, so all of them stand in one file. Arrays are contiguous and
float64; potentials are in mV, slopes in mV/ms, rates in Hz.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.passes import compiled, kept

if TYPE_CHECKING:
    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]
    Numbers = tuple[float, ...]


#: Samples added by reflection at both ends before filtering: three times the taps.
_PADDING = 15
#: Shares of the steepest rise, where a threshold is sought again, and fall, where a spike ends.
_THRESHOLD_AGAIN, _ENDED = 0.05, 0.01
#: A spike is cut off that does not come back to within this of its threshold, mV.
_RETURNED = 1.0
#: Filtered from so long before the first sample as high as a peak, s, and sought from half of that:
#: in the other half the filter forgets where it began.
_LEAD = 0.1


@kept
def filtered_slope(voltage: Floats, taps: Numbers, rate: float) -> Floats:
    """DV/dt between samples of the filtered potential, mV/ms, shape (samples - 1,).

    The filter runs forwards and backwards, each time from its steady state, over a potential that
    is continued at its ends by its point reflection (Gustafsson 1996, IEEE Trans Signal Process
    44:988). Taps are b0 to b4, a1 to a4, and the state that a constant input of 1 leaves.
    """
    points, factor = len(voltage), 1e-3 * rate
    result = np.empty(max(points - 1, 0))
    if points < 2:
        return result
    pad = min(_PADDING, points - 1)
    padded = np.empty(points + 2 * pad)
    padded[pad : pad + points] = voltage
    for k in range(pad):
        padded[k] = 2 * voltage[0] - voltage[pad - k]
        padded[pad + points + k] = 2 * voltage[points - 1] - voltage[points - 2 - k]
    _filter(padded, taps, 0, 1)
    _filter(padded, taps, len(padded) - 1, -1)
    for k in range(len(result)):
        result[k] = factor * (padded[pad + k + 1] - padded[pad + k])
    return result


@compiled
def _filter(values: Floats, taps: Numbers, first: int, step: int) -> None:
    """Run the filter over all values in place, from the first on (transposed direct form II)."""
    b0, b1, b2, b3, b4, a1, a2, a3, a4, z0, z1, z2, z3 = taps
    k, x = first, values[first]
    z0, z1, z2, z3 = z0 * x, z1 * x, z2 * x, z3 * x
    for _ in range(len(values)):
        x = values[k]
        y = z0 + b0 * x
        z0 = z1 + b1 * x - a1 * y
        z1 = z2 + b2 * x - a2 * y
        z2 = z3 + b3 * x - a3 * y
        z3 = b4 * x - a4 * y
        values[k] = y
        k += step


@compiled
def _highest(values: Floats, first: int, last: int) -> int:
    """Where the highest value in [first, last) is, the first of equals."""
    best = first
    for k in range(first + 1, last):
        if values[k] > values[best]:
            best = k
    return best


@compiled
def _lowest(values: Floats, first: int, last: int) -> int:
    """Where the lowest value in [first, last) is, the first of equals."""
    best = first
    for k in range(first + 1, last):
        if values[k] < values[best]:
            best = k
    return best


@compiled
def _first_at(values: Floats, first: int, last: int, least: float) -> int:
    """Where in [first, last) a value is first no less than this; -1 if none is."""
    for k in range(first, last):
        if values[k] >= least:
            return k
    return -1


@compiled
def _falls(rises: Floats, first: int, last: int) -> bool:
    """Whether the potential falls anywhere in [first, last)."""
    for k in range(first, last):  # noqa: SIM110, numba knows no generators
        if rises[k] < 0:
            return True
    return False


@compiled
def _last_below(rises: Floats, first: int, stop: int, target: float) -> int:
    """Going back from a sample to the one after `stop`: where dV/dt is down to a target, or -1."""
    for k in range(first, stop, -1):
        if rises[k] <= target:
            return k
    return -1


@compiled
def _candidates(
    voltage: Floats, rises: Floats, first: int, last: int, limits: Numbers
) -> tuple[Places, Places]:
    """Where dV/dt rises through the cutoff in a window, and the peaks that follow.

    Two of them are one if the potential does not fall in between. A peak must be high enough, and
    high enough above where it began. Limits are cutoff, mV/ms, lowest peak and least height, mV.
    """
    cutoff, lowest_peak, least_height = limits
    found = np.empty(max(last - first, 0), np.int64)
    count, before = 0, -1
    for k in range(first, last - 1):
        if rises[k] < cutoff and rises[k + 1] >= cutoff:
            if before < 0 or _falls(rises, before, k):
                found[count] = k
                count += 1
            before = k
    starts, peaks = np.empty(count, np.int64), np.empty(count, np.int64)
    kept, start = 0, found[0] if count else 0
    for k in range(count):
        stop = found[k + 1] if k + 1 < count else last
        peak = _highest(voltage, found[k], stop)
        if k + 1 < count and not _falls(rises, peak, stop):
            continue  # it still rises when the next begins: the next has its peak
        if voltage[peak] >= lowest_peak and voltage[peak] - voltage[start] >= least_height:
            starts[kept], peaks[kept] = start, peak
            kept += 1
        start = stop
    return starts[:kept], peaks[:kept]


@compiled
def _steepest(rises: Floats, starts: Places, peaks: Places) -> Places:
    """Where the potential rises fastest between each start and its peak."""
    result = np.empty_like(starts)
    for k in range(len(starts)):
        result[k] = _highest(rises, starts[k], peaks[k])
    return result


@compiled
def _mean_at(rises: Floats, places: Places) -> float:
    total = 0.0
    for k in places:
        total += rises[k]
    return total / len(places)


@kept
def upstrokes(voltage: Floats, rises: Floats, limits: Numbers) -> Floats:
    """DV/dt at its highest in every spike of a sweep, mV/ms; limits as `_candidates` has them."""
    starts, peaks = _candidates(voltage, rises, 0, len(rises), limits)
    return rises[_steepest(rises, starts, peaks)]


@compiled
def _thresholds(rises: Floats, steepest: Places, share: float) -> Places:
    """Where dV/dt was last at a share of its mean maximum, before each maximum."""
    result = np.empty_like(steepest)
    target = share * _mean_at(rises, steepest)
    before = 0
    for k in range(len(steepest)):
        found = _last_below(rises, steepest[k], before, target)
        result[k] = found if found >= 0 else before
        before = steepest[k]
    return result


@compiled
def _apart(
    thresholds: Places, peaks: Places, steepest: Places, after: float, offset: float, rate: float
) -> tuple[Places, Places, Places]:
    """Leave out spikes until a time, s; those that overlap become one, from first to last."""
    if after > -np.inf:
        late = (thresholds + offset) / rate > after
        thresholds, peaks, steepest = thresholds[late], peaks[late], steepest[late]
    begins, ends = np.ones(len(peaks), np.bool_), np.ones(len(peaks), np.bool_)
    for k in range(len(peaks) - 1):
        if thresholds[k + 1] <= peaks[k] + 1:
            begins[k + 1] = ends[k] = False
    return thresholds[begins], peaks[ends], steepest[ends]


@compiled
def _quick(
    voltage: Floats,
    rises: Floats,
    spikes: tuple[Places, Places, Places],
    longest: float,
    offset: float,
    rate: float,
) -> tuple[Places, Places]:
    """Thresholds and peaks no further apart than the longest rise, s.

    Where they are, the threshold is sought again near the peak, else the peak near the threshold,
    else the spike is left out.
    """
    thresholds, peaks, steepest = spikes
    kept = np.ones(len(peaks), np.bool_)
    target = _THRESHOLD_AGAIN * _mean_at(rises, steepest)
    span, twice = round(longest * rate), round(2 * longest * rate)
    for k in range(len(peaks)):
        if (peaks[k] + offset) / rate - (thresholds[k] + offset) / rate < longest:
            continue
        found = _last_below(rises, steepest[k], max(peaks[k] - span, 0), target)
        if found >= 0:
            thresholds[k] = found
            continue
        begin = thresholds[k]
        peak = _highest(voltage, begin, min(begin + twice, len(voltage)))
        near = (peak + offset) / rate - (begin + offset) / rate < longest
        if peak > begin and near and (k == len(peaks) - 1 or peak < thresholds[k + 1]):
            peaks[k] = peak
        else:
            kept[k] = False
    return thresholds[kept], peaks[kept]


@compiled
def _cut_off(voltage: Floats, threshold: int, peak: int, last: int) -> bool:
    """Whether the potential does not come back to threshold before the window ends."""
    for k in range(peak, last + 1):
        if voltage[k] <= voltage[threshold] + _RETURNED:
            return peak >= last - 1  # nothing to seek a trough in
    return True


@compiled
def _end_of_spike(rises: Floats, peak: int, stop: int) -> int:
    """After the steepest fall, where dV/dt is back to a share of it; -1 where it is not."""
    fall = _lowest(rises, peak, stop)
    for k in range(fall, stop):
        if rises[k] >= _ENDED * rises[fall]:
            return k
    return -1


@compiled
def _width(
    voltage: Floats, threshold: int, peak: int, trough: int, offset: float, rate: float
) -> float:
    """Time between the crossings of half the height above the fast trough, s.

    Where that lies below threshold, of half the height above threshold. NaN without crossings.
    """
    level = (voltage[peak] - voltage[trough]) / 2.0 + voltage[trough]
    if level < voltage[threshold]:
        level = (voltage[peak] - voltage[threshold]) / 2.0 + voltage[threshold]
    up = down = -1
    for k in range(peak, threshold, -1):
        if voltage[k] <= level:
            up = k
            break
    for k in range(peak, trough):
        if voltage[k] <= level:
            down = k
            break
    if up < 0 or down < 0:
        return math.nan
    return (down + offset) / rate - (up + offset) / rate


@kept
def spikes(voltage: Floats, taps: Numbers, rate: float, place: Numbers, rules: Numbers) -> Floats:
    """The spikes in a window of a sweep, one per row, in columns as `spikes.SPIKE` has them.

    Parameters
    ----------
    voltage : array, shape (samples,)
    taps : tuple
        As `filtered_slope` takes them.
    rate : float
    place : tuple
        First and last sample of the window, and the number of the first sample on the time axis.
    rules : tuple
        Cutoff, lowest peak, least height, share of the maximum of dV/dt at threshold, longest rise
        in s, and the time until which spikes are left out in s.
    """
    first, last, offset = int(place[0]), int(place[1]), place[2]
    share, longest, after = rules[3], rules[4], rules[5]
    nothing = np.empty((0, 13))
    high = _first_at(voltage, first, last, rules[1])
    if high < 0:
        return nothing  # no spike can pass, so nothing need be filtered
    # Nor need what lies long before the first sample as high as a peak: most of a ramp.
    skipped = high - round(_LEAD * rate)
    if skipped > 0:
        voltage, last, offset = voltage[skipped:], last - skipped, offset + skipped
        first = max(first - skipped, round(_LEAD / 2 * rate))
    else:
        skipped = 0
    rises = filtered_slope(voltage, taps, rate)
    starts, peaks = _candidates(voltage, rises, first, last, rules[:3])
    if len(starts) == 0:
        return nothing
    steepest = _steepest(rises, starts, peaks)
    thresholds = _thresholds(rises, steepest, share)
    found = _apart(thresholds, peaks, steepest, after, offset, rate)
    if len(found[0]) == 0:
        return nothing
    thresholds, peaks = _quick(voltage, rises, found, longest, offset, rate)
    table = _described(voltage, rises, thresholds, peaks, last, offset, rate)
    table[:, 0] += skipped
    table[:, 5] += skipped
    return table


@compiled
def _described(
    voltage: Floats,
    rises: Floats,
    thresholds: Places,
    peaks: Places,
    last: int,
    offset: float,
    rate: float,
) -> Floats:
    """What is measured on each spike."""
    count = len(peaks)
    table = np.full((count, 13), np.nan)
    for k in range(count):
        threshold, peak = thresholds[k], peaks[k]
        row = table[k]
        row[0], row[1], row[2] = threshold, (threshold + offset) / rate, voltage[threshold]
        row[3], row[4] = (peak + offset) / rate, voltage[peak]
        row[8] = rises[_highest(rises, threshold, peak)]
        row[12] = 1.0
        stop = thresholds[k + 1] if k + 1 < count else last
        if k + 1 == count and _cut_off(voltage, threshold, peak, last):
            continue
        # The spike after the last but one may be cut off: then the window's end counts.
        until = stop
        if k + 2 == count and _cut_off(voltage, thresholds[k + 1], peaks[k + 1], last):
            until = last
        trough = _lowest(voltage, peak, stop)
        row[7] = voltage[trough]
        row[9] = rises[_lowest(rises, peak, max(trough, peak + 1))]
        row[10] = row[8] / -row[9]
        ended = _end_of_spike(rises, peak, until)
        if ended >= 0:
            row[5], row[6], row[12] = ended, voltage[ended], 0.0
            row[11] = _width(voltage, threshold, peak, ended, offset, rate)
    return table


@kept
def decay(voltage: Floats, rate: float) -> tuple[float, float]:
    """The inverse time constant of an exponential fitted to samples, 1/s, and its error, mV.

    Of y + a exp(-k t) the best y and a follow from k, so only k is sought, by Gauss-Newton steps on
    the projected residual (Golub and Pereyra 1973, SIAM J Numer Anal 10:413). NaN where that does
    not converge. The error is the root mean square of the residual.
    """
    points, origin = len(voltage), voltage[-1]
    k, step, least = 50.0, 0.0, np.inf
    for _ in range(200):
        ratio, e = math.exp(-k / rate), 1.0
        se = see = ste = stee = sttee = sv = sve = svte = svv = 0.0
        for j in range(points):
            v, te = voltage[j] - origin, e * j / rate
            se, see, ste, stee, sttee = (
                se + e,
                see + e * e,
                ste + te,
                stee + te * e,
                sttee + te * te,
            )
            sv, sve, svte, svv = sv + v, sve + v * e, svte + v * te, svv + v * v
            e *= ratio
        spread = points * see - se * se
        a = (points * sve - se * sv) / spread
        y = (sv - a * se) / points
        cost = svv - a * sve - y * sv
        if not cost <= least + 1e-9 * svv:
            step /= 2
            k -= step
            continue
        # te is the derivative by k but for -a; what 1 and e cannot make of it is left to k.
        b = (points * stee - se * ste) / spread
        c = (ste - b * se) / points
        step = -(svte - y * ste - a * stee) / (a * (sttee - c * ste - b * stee))
        if not math.isfinite(step):
            break
        least = min(least, cost)
        if abs(step) <= 1e-10 * abs(k):
            return k + step, math.sqrt(max(cost, 0.0) / points)
        k += step
    return math.nan, math.nan
