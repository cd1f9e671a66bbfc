"""The limits of quality control, by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from crosspatch.errors import RecordingError


@dataclass(frozen=True)
class QualityThresholds:
    """Thresholds; a sweep or cell beyond one of them is rejected with its reason.

    The Allen Institute's criteria (IPFX 2.1.2, defaults/qc_criteria.json) are `ALLEN`. Its limits
    on drift and noise within a sweep are for its own rigs and reject most sweeps of others, so the
    defaults here are wider; those for seal and resistances are the Allen's.
    """

    drift: float = 10.0  # difference of the potential before and after the stimulus, mV (Allen: 1)
    slow_noise: float = 2.0  # root mean square over the baseline, mV (Allen: 0.5)
    fast_noise: float = 1.0  # root mean square in 1.5 ms of the baseline, mV (Allen: 0.07)
    #: Resting potential, mV; outside, the cell is not healthy or not a neuron.
    baseline_low: float = -110.0
    baseline_high: float = -35.0
    #: Samples at one extreme value for this long are a saturated amplifier, s.
    clipped: float = 0.001
    clipped_above: float = 15.0  # … if that value is above or below, mV
    clipped_below: float = -120.0
    after_square: float = 0.2  # recorded after a square, s; IPFX needs it to see how a step ends
    seal: float = 1.0  # seal resistance, GOhm
    access_low: float = 1.0  # access resistance, MOhm
    access_high: float = 20.0
    access_share: float = 0.15  # access as a share of input resistance
    #: Jump of the potential at the edge of a step, MOhm: the bridge was not balanced.
    bridge: float = 20.0


#: The Allen Institute's limits on sweeps.
ALLEN = QualityThresholds(drift=1.0, slow_noise=0.5, fast_noise=0.07)
#: Every sweep is used that can be.
ANY = QualityThresholds(
    **dict.fromkeys(("drift", "slow_noise", "fast_noise", "clipped", "bridge"), math.inf),
    **dict.fromkeys(("baseline_high", "access_high", "access_share"), math.inf),
    baseline_low=-math.inf,
    seal=0.0,
    access_low=0.0,
)

THRESHOLDS = {"default": QualityThresholds(), "allen": ALLEN, "any": ANY}


def thresholds_named(text: str) -> QualityThresholds:
    """Thresholds in words: a set's name, single limits (``drift=5,seal=0.5``), or both.

    A `RecordingError` if there are none of this name, or a limit is not a number.
    """
    chosen, limits = THRESHOLDS["default"], {}
    names = [each.name for each in fields(QualityThresholds)]
    for place, part in enumerate(filter(None, map(str.strip, text.split(",")))):
        name, equals, value = map(str.strip, part.partition("="))
        if not equals and name in THRESHOLDS and not place:
            chosen = THRESHOLDS[name]
        elif not equals or name not in names:
            raise RecordingError(
                f"no quality settings '{part}'; choose from: {', '.join(THRESHOLDS)}, and limits: "
                f"{', '.join(names)} (such as drift=5)"
            )
        else:
            limits[name] = _limit(name, value)
    return replace(chosen, **limits)


def _limit(name: str, value: str) -> float:
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise RecordingError(f"quality {name}={value}: not a number")
    return limit
