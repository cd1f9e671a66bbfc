"""Passes over the samples of a sweep, compiled by numba and kept in its cache; rates are in Hz."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from crosspatch.recordings.model import Samples


def _can_keep() -> bool:
    """Whether numba finds a folder for its cache: beside this file, or of the user."""
    try:
        njit(cache=True)(_can_keep)
    except RuntimeError:
        return False
    return True


#: What is called from Python (the cache keeps it, with all that it calls), and the rest.
kept = njit(cache=_can_keep(), nogil=True, error_model="numpy")
compiled = njit(nogil=True, error_model="numpy")


@kept
def unshuffle(planes: NDArray[np.uint8], values: NDArray[np.unsignedinteger]) -> None:
    """Put together values of which the first bytes, the second bytes … are given one by one."""
    if len(planes) == 4:  # of which compilers make one fast pass
        for k in range(len(values)):
            values[k] = (planes[0, k] | planes[1, k] << 8) | (
                planes[2, k] | planes[3, k] << 8
            ) << 16
        return
    values[:] = planes[0]
    for place in range(1, len(planes)):
        for k in range(len(values)):
            values[k] |= np.uint64(planes[place, k]) << np.uint64(8 * place)


@kept
def recorded(voltage: Samples, at: int, pause: float) -> tuple[int, int]:
    """First sample, and the one after the last, around a sample that were recorded without a gap.

    A gap is a value that is not finite, or more zeros in a row than a pause has; trailing ones are.
    """
    first, last, broken = 0, -1, False
    for k in range(len(voltage)):
        if not np.isfinite(voltage[k]):
            broken = True
        elif voltage[k] != 0:
            if broken or (last >= 0 and k - last > pause):
                if k > at and last >= 0:
                    return first, last + 1
                first = k
            last, broken = k, False
    return first, last + 1


@kept
def departures(values: Samples) -> tuple[float, float, float]:
    """How much values span, how far they are from a straight line, and their largest step.

    The line goes from the first value to the last.
    """
    first, rise = float(values[0]), float(values[-1]) - float(values[0])
    steep = rise / (len(values) - 1)
    lowest = highest = before = first
    off = step = 0.0
    for k in range(len(values)):
        value = float(values[k])
        lowest, highest = min(lowest, value), max(highest, value)
        off = max(off, abs(value - (k * steep + first)))
        step = max(step, abs(value - before))
        before = value
    return highest - lowest, off, step


@kept
def close_rises(voltage: Samples, level: float, below: float, within: float) -> int:
    """How many rises through a level, after the potential was below a lower one, come too soon.

    That is within so many samples of another.
    """
    close, last = 0, -1
    above, fallen = True, False
    for k in range(len(voltage)):
        before, above = above, voltage[k] > level
        if above and not before and fallen:
            if last >= 0 and k - last < within:
                close += 1
            last, fallen = k, False
        fallen |= voltage[k] < below
    return close


@kept
def spreads(voltage: Samples, width: int) -> NDArray[np.float64]:
    """Standard deviation in every stretch of so many samples."""
    result = np.empty(len(voltage) // width)
    for block in range(len(result)):
        first = voltage[block * width]
        total = squares = 0.0
        for k in range(block * width, (block + 1) * width):
            off = float(voltage[k] - first)
            total += off
            squares += off * off
        result[block] = np.sqrt(max(squares / width - (total / width) ** 2, 0.0))
    return result


#: A spike rises within this time, s, by the height asked for, falls by it within this one, and is
#: so wide at half its height: a switch that couples into the potential is shorter.
_RISE, _FALL, _WIDE = 0.005, 0.03, 0.00015
#: It begins where the potential rises less than this, mV/ms, over this time, s.
_BEGINS, _OVER = 5.0, 0.0002


@kept
def peaks_of_height(voltage: Samples, rate: float, height: float) -> NDArray[np.int64]:
    """Where spikes begin and peak, at whatever level and slope, one per row: steep and high peaks.

    Turning points are those from which the potential moves away by the height, mV.
    """
    found = np.empty((len(voltage) // 4 + 1, 2), np.int64)
    count, top, rising = 0, 0, True
    low = 0
    for k in range(len(voltage)):
        if rising:
            if voltage[k] > voltage[top]:
                top = k
            elif voltage[k] <= voltage[top] - height:
                begin = _beginning(voltage, top, k, rate, height)
                if begin >= 0:
                    found[count] = begin, top
                    count += 1
                rising, low = False, k
        elif voltage[k] < voltage[low]:
            low = k
        elif voltage[k] >= voltage[low] + height:
            rising, top = True, k
    return found[:count]


@compiled
def _beginning(voltage: Samples, top: int, fallen: int, rate: float, height: float) -> int:
    """Where a spike begins that has its peak and its fall at these samples; -1 if it is none."""
    if fallen - top > _FALL * rate:
        return -1
    begin = top
    while begin >= 0 and voltage[begin] > voltage[top] - height:
        begin -= 1
    if begin < 0 or top - begin > _RISE * rate:
        return -1
    apart = max(int(_OVER * rate), 1)
    least = _BEGINS * apart / rate * 1e3
    while begin >= apart and voltage[begin] - voltage[begin - apart] > least:
        begin -= 1
    return begin if _width(voltage, begin, top) >= _WIDE * rate else -1


@compiled
def _width(voltage: Samples, begin: int, top: int) -> int:
    """How many samples of a spike are above half its height."""
    level = (voltage[begin] + voltage[top]) / 2
    wide = 0
    for k in range(begin, len(voltage)):
        if voltage[k] > level:
            wide += 1
        elif k > top:
            break
    return wide
