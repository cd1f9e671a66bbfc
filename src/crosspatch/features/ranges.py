"""Which values of a feature are plausible, and which no cell can have."""

from __future__ import annotations

from functools import cache

from crosspatch.texts import data_rows

#: What stands before the feature in the names of families of spikes.
_OF_SPIKES = "spiking_"


@cache
def ranges() -> dict[str, dict[str, str]]:
    """Features without their stimulus, to the row of the table.

    Medians of a table of cells are from ``low`` to ``high`` in our units, no value is beyond
    ``least`` and ``most``; the rest is for reading tables.
    """
    return {row["feature"]: row for row in data_rows("features", "ranges")}


def range_row(feature: str) -> dict[str, str] | None:
    """The row of a feature, or of what it is of a stimulus; None if there is none."""
    name = feature.removeprefix(_OF_SPIKES)
    while name and name not in ranges():
        name = name.rpartition("_")[0]
    return ranges().get(name)


def limits(feature: str) -> tuple[float, float]:
    """The least and the largest value that a cell can have, in our unit; infinite if not known."""
    row = range_row(feature)
    return (float(row["least"]), float(row["most"])) if row else (float("-inf"), float("inf"))
