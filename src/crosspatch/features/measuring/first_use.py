"""Compile what measures, once on a machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from crosspatch.features.measuring.cuts import Cut
from crosspatch.features.measuring.membrane import decaying
from crosspatch.features.measuring.spikes import SpikeRules, adjusted_rules, find_spikes
from crosspatch.recordings import quality
from crosspatch.telling import Say

#: The kernels that are called from Python, by the file that they stand in.
_KEPT = {
    Path(__file__).with_name("kernels.py"): ("filtered_slope", "upstrokes", "spikes", "decay"),
    Path(quality.__file__).with_name("passes.py"): (
        *("recorded", "close_rises", "spreads", "peaks_of_height", "departures", "unshuffle"),
    ),
}


def prepare(say: Say | None = None) -> None:
    """Have machine code of the kernels in numba's cache, where all processes find it.

    Compiling takes some seconds, and is said. Where the cache has it nothing is done, without
    importing numba.
    """
    beside = [source.parent / "__pycache__" for source in _KEPT]
    if "NUMBA_CACHE_DIR" not in os.environ and _are_cached(beside):
        return
    from crosspatch.features.measuring import kernels
    from crosspatch.recordings import passes

    # Where the package cannot be written to, or the environment says so, the cache is elsewhere.
    folders = [Path(each.stats.cache_path or "") for each in (kernels.spikes, passes.spreads)]
    if say is not None and not _are_cached(folders):
        say("compiling what measures recordings, once on this machine: some seconds")
    load_kernels()
    for index in (each for folder in folders for each in folder.glob("*.nbi")):
        with suppress(OSError):  # numba keeps what it has of a file that is newer, but the same
            index.touch()


def _are_cached(folders: Sequence[Path]) -> bool:
    """Whether numba's cache has the kernels as they are now, those of each file in its folder."""
    return all(
        any(
            each.stat().st_mtime > source.stat().st_mtime
            for each in folder.glob(f"{source.stem}.{name}-*.nbi")
        )
        for folder, (source, names) in zip(folders, _KEPT.items(), strict=True)
        for name in names
    )


def load_kernels() -> None:
    """Load the kernels, or compile them, by measuring a sweep in which nothing happens."""
    rate = 50_000.0
    cut = Cut(0, rate, np.zeros(1000), 0, 250, 0.01, 1.0)
    find_spikes(cut, 0.005, 0.015, SpikeRules())
    adjusted_rules([cut], 0.005, SpikeRules())
    decaying(cut.voltage, rate)
    from crosspatch.recordings import passes

    for samples in (np.zeros(1000, np.float32), cut.voltage):
        passes.recorded(samples, 0, 1.0)
        passes.close_rises(samples, 0.0, 0.0, 1.0)
        passes.spreads(samples, 10)
        passes.peaks_of_height(samples, rate, 1.0)
        passes.departures(samples)
    for width, values in ((4, np.zeros(10, np.uint32)), (2, np.zeros(10, np.uint16))):
        passes.unshuffle(np.zeros((width, 10), np.uint8), values)
