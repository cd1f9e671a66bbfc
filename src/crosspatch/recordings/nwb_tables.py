"""The tables of an NWB 2 file that say which series belong together, through h5py."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.nwb_series import ICEPHYS


class WrittenRow(NamedTuple):
    """A sweep in the file."""

    description: str  # of the stimulus
    electrode: int
    simultaneous: bool  # whether it was recorded at the same time as the one before
    points: int
    response: str  # where it stands
    stimulus: str | None


def add_sweep_table(file: h5py.File, rows: Sequence[WrittenRow]) -> None:
    """Add the table in the layout of pynwb 2: one row per series, with its sweep number."""
    series = [
        (number, file[path].ref)
        for number, row in enumerate(rows)
        for path in (row.response, row.stimulus)
        if path is not None
    ]
    table = _table(
        file[ICEPHYS], "sweep_table", "SweepTable", ("series", "sweep_number"), len(series)
    )
    numbers = np.array([number for number, _ in series], dtype=np.uint32)
    add_column(table, "sweep_number", numbers, "Sweep number of the series in the row")
    _ragged(table, "series", [[reference] for _, reference in series], h5py.ref_dtype)


def add_icephys_tables(file: h5py.File, rows: Sequence[WrittenRow]) -> None:
    """Add the tables of recordings, of those made at the same time, and of those in a row."""
    recordings = _add_recordings(file, rows)
    together: list[list[int]] = []
    for number, row in enumerate(rows):
        if row.simultaneous and together:
            together[-1].append(number)
        else:
            together.append([number])
    simultaneous = _table(
        file[ICEPHYS], "simultaneous_recordings", "SimultaneousRecordingsTable", ("recordings",),
        len(together),
    )  # fmt: skip
    _ragged(simultaneous, "recordings", together, np.int64, recordings)
    _add_sequences(simultaneous, [rows[numbers[0]].description for numbers in together])


def _add_recordings(file: h5py.File, rows: Sequence[WrittenRow]) -> h5py.Group:
    """Add the table with a row for every sweep."""
    count = len(rows)
    recordings = _table(
        file[ICEPHYS], "intracellular_recordings", "IntracellularRecordingsTable", (), count
    )
    recordings.attrs["categories"] = np.array(_CATEGORIES, dtype=h5py.string_dtype())
    about = ("electrode", "stimulus", "response")
    electrodes, stimuli, responses = (
        _table(recordings, name, f"Intracellular{name.capitalize()}Table", (column,), count)
        for name, column in zip(_CATEGORIES, about, strict=True)
    )
    references = [file[f"{ICEPHYS}/electrode_{row.electrode}"].ref for row in rows]
    add_column(electrodes, "electrode", references, "Electrode of the sweep", h5py.ref_dtype)
    for table, name, places in (
        (stimuli, "stimulus", [row.stimulus for row in rows]),
        (responses, "response", [row.response for row in rows]),
    ):
        kind = [("idx_start", np.int32), ("count", np.int32), ("timeseries", h5py.ref_dtype)]
        # Without a stimulus the schema has -1 and some series.
        cells = [
            (0 if place else -1, row.points if place else -1, file[place or row.response].ref)
            for row, place in zip(rows, places, strict=True)
        ]
        values = np.array(cells, dtype=kind)
        add_column(table, name, values, f"{name.capitalize()} of the sweep", kind, _SERIES_COLUMN)
    return recordings


def _add_sequences(simultaneous: h5py.Group, descriptions: Sequence[str]) -> None:
    """Add the table of runs of one stimulus; of recordings made at once there is a description."""
    runs = [
        (kind, [number for number, _ in run])
        for kind, run in groupby(enumerate(descriptions), key=lambda each: each[1])
    ]
    columns = ("simultaneous_recordings", "stimulus_type")
    sequential = _table(
        simultaneous.parent, "sequential_recordings", "SequentialRecordingsTable", columns,
        len(runs),
    )  # fmt: skip
    _ragged(sequential, columns[0], [run for _, run in runs], np.int64, simultaneous)
    kinds = [kind for kind, _ in runs]
    add_column(sequential, columns[1], kinds, "What the stimulus is called", h5py.string_dtype())


_CATEGORIES = ("electrodes", "stimuli", "responses")
_SERIES_COLUMN = ("core", "TimeSeriesReferenceVectorData")
_REGION = ("hdmf-common", "DynamicTableRegion")


def _table(
    parent: h5py.Group, name: str, kind: str, columns: Sequence[str], rows: int
) -> h5py.Group:
    return add_table(parent, name, ("core", kind), columns, rows, name.replace("_", " "))


def add_table(
    parent: h5py.Group,
    name: str,
    kind: tuple[str, str],
    columns: Sequence[str],
    rows: int,
    about: str,
) -> h5py.Group:
    """Begin a table of a kind, by namespace and type; its columns are still to be added."""
    table = parent.create_group(name)
    named = np.array(columns, dtype=h5py.string_dtype())
    describe_item(table, *kind, about, colnames=named)
    identifiers = table.create_dataset("id", data=np.arange(rows, dtype=np.int64))
    describe_item(identifiers, "hdmf-common", "ElementIdentifiers")
    return table


def add_column(
    table: h5py.Group,
    name: str,
    values: Sequence[object] | NDArray[np.generic],
    about: str,
    dtype: object = None,
    kind: tuple[str, str] = ("hdmf-common", "VectorData"),
) -> h5py.Dataset:
    """Add a column that the table names, with what it holds."""
    if dtype is None:
        column = table.create_dataset(name, data=values)
    else:
        column = table.create_dataset(name, (len(values),), dtype=dtype)
        column[:] = values
    describe_item(column, *kind, about)
    return column


def _ragged(
    table: h5py.Group,
    name: str,
    cells: Sequence[Sequence[object]],
    dtype: object,
    rows_of: h5py.Group | None = None,
) -> None:
    """Add a column of lists, which are rows of another table where one is given."""
    flat = [each for cell in cells for each in cell]
    kind = ("hdmf-common", "VectorData") if rows_of is None else _REGION
    column = add_column(table, name, flat, f"{name.replace('_', ' ')} of the row", dtype, kind)
    if rows_of is not None:
        column.attrs["table"] = rows_of.ref
    ends = np.cumsum([len(cell) for cell in cells]).astype(np.uint32)
    index = table.create_dataset(f"{name}_index", data=ends)
    describe_item(index, "hdmf-common", "VectorIndex", f"Index for {name}", target=column.ref)


def describe_item(
    item: h5py.Group | h5py.Dataset, namespace: str, kind: str, about: str = "", **more: object
) -> None:
    """Add what tells the schema what something is."""
    attributes = {"namespace": namespace, "neurodata_type": kind, "object_id": str(uuid.uuid4())}
    if about:
        attributes["description"] = about
    item.attrs.update(attributes | more)
