"""Tables of made-up cells, in our own names or in those of another laboratory."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

#: A plausible value of some features in the layout's units, and how cells differ.
VALUES = {
    "v_baseline": (-70.0, 2.0),
    "input_resistance": (160.0, 30.0),
    "tau": (12.0, 2.0),
    "vm_for_sag": (-95.0, 4.0),
    "rheobase_i": (90.0, 20.0),
    "threshold_v_rheo": (-40.0, 2.0),
    "peak_deltav_rheo": (70.0, 5.0),
    "width_rheo": (0.6, 0.1),
    "upstroke_rheo": (300.0, 40.0),
    "upstroke_downstroke_ratio_rheo": (2.2, 0.3),
    "avg_rate_hero": (30.0, 8.0),
    "isi_cv_hero": (0.3, 0.05),
}
UNITS = {
    "v_baseline": "mV",
    "input_resistance": "MOhm",
    "tau": "ms",
    "vm_for_sag": "mV",
    "rheobase_i": "pA",
    "threshold_v_rheo": "mV",
    "peak_deltav_rheo": "mV",
    "width_rheo": "ms",
    "upstroke_rheo": "mV/ms",
    "avg_rate_hero": "Hz",
}


def values_of(row: int) -> dict[str, float]:
    """Features of a cell, each time the same."""
    return {
        name: round(middle + spread * ((7 * row + 3 * k) % 11 - 5) / 5, 4)
        for k, (name, (middle, spread)) in enumerate(VALUES.items())
    }


def table(
    ids: Sequence[str],
    *,
    first: int = 0,
    more: Mapping[str, Sequence[str]] | None = None,
    left_out: Sequence[str] = (),
) -> bytes:
    """A csv of cells with enough features to be judged.

    Parameters
    ----------
    ids : sequence of str
    first : int
        Number of the first cell, which decides its values.
    more : mapping, optional
        Columns besides.
    left_out : sequence of str
        Features that are not in it.
    """
    more = more or {}
    names = [name for name in VALUES if name not in left_out]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    units = [f"{name} ({UNITS[name]})" if name in UNITS else name for name in names]
    writer.writerow(["cell_id", *more, *units])
    for row, cell_id in enumerate(ids):
        values = values_of(first + row)
        given = [column[row] for column in more.values()]
        writer.writerow([cell_id, *given, *(values[name] for name in names)])
    return out.getvalue().encode()
