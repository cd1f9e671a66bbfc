"""Compile what measures, once on a machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from crosspatch.features.measuring.cuts import Cut
from crosspatch.features.measuring.membrane import decaying
from crosspatch.features.measuring.spikes import SpikeRules, adjusted_rules, find_spikes
from crosspatch.telling import Say

#: The kernels that are called from outside.
_KEPT = ("filtered_slope", "upstrokes", "spikes", "decay")
_SOURCE = Path(__file__).with_name("kernels.py")


def prepare(say: Say | None = None) -> None:
    """Have machine code of the kernels in numba's cache, where all processes find it.

    Compiling takes some seconds, and is said. Where the cache has it nothing is done, without
    importing numba.
    """
    if "NUMBA_CACHE_DIR" not in os.environ and _is_cached(_SOURCE.parent / "__pycache__"):
        return
    from crosspatch.features.measuring import kernels

    # Where the package cannot be written to, or the environment says so, the cache is elsewhere.
    if say is not None and not _is_cached(Path(kernels.spikes.stats.cache_path or "")):
        say("compiling what measures recordings, once on this machine: some seconds")
    load_kernels()


def _is_cached(folder: Path) -> bool:
    """Whether numba's cache has the kernels as they are now."""
    source = _SOURCE.stat().st_mtime
    return all(
        any(each.stat().st_mtime > source for each in folder.glob(f"kernels.{name}-*.nbi"))
        for name in _KEPT
    )


def load_kernels() -> None:
    """Load the kernels, or compile them, by measuring a sweep in which nothing happens."""
    rate = 50_000.0
    cut = Cut(0, rate, np.zeros(1000), 0, 250, 0.01, 1.0)
    find_spikes(cut, 0.005, 0.015, SpikeRules())
    adjusted_rules([cut], 0.005, SpikeRules())
    decaying(cut.voltage, rate)
