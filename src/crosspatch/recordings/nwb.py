"""NWB 2, read through h5py on the schema's layout.

pynwb builds an object for every series of a file before the first sample can be read; going
to the groups directly opens a file in milliseconds, which matters for thousands of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import PurePath

import h5py
import numpy as np

from crosspatch.errors import NetworkError, RecordingError, in_words
from crosspatch.recordings.hdf5 import Bytes, Closing, DoubtfulBytesError, GuardedFile
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    VOLTAGE_CLAMP,
    Recorded,
    Recording,
    named_cell,
)
from crosspatch.recordings.nwb_series import (
    ICEPHYS,
    Opened,
    Series,
    Unwanted,
    all_series,
    attribute,
    content_of,
    noting,
    require_bytes,
    text_of,
)
from crosspatch.recordings.nwb_sweeps import Electrode, sweep_of, sweeps_by_electrode
from crosspatch.recordings.reading_options import Reading
from crosspatch.species import species_told

#: How a file of the first version is converted.
_CONVERT = (
    "convert it to NWB 2: read it with pynwb and the type map of pynwb.legacy and write it with "
    "pynwb.NWBHDF5IO, or export the recording again from its source as NWB 2"
)
_SPECIES = "general/subject/species"
#: No rig has more electrodes.
_MOST_CELLS = 64
#: So many sweeps are named in a note.
_NAMED = 5


def read_nwb(
    content: Bytes, path: str, unwanted: Unwanted | None = None, reading: Reading | None = None
) -> list[Recording]:
    """Open an NWB 2 file, one recording for each cell; samples are not read.

    Series are paired by the table ``intracellular_recordings``, of which each row is a sweep, by
    ``sweep_table`` or ``sweep_number``, by the number in their names, or by electrode and order.
    Every electrode is a cell, but those without a stimulus in current clamp where others have one;
    electrodes that name the same ``cell_id`` are one.

    The content is closed with the last of the recordings; the path is what messages call it, and
    cells are named after its last part and, where there are several, their electrodes. Of series
    that are `unwanted` little more than the name is read.

    A `RecordingError` if the file is damaged, not an NWB 2 file, or holds no patch-clamp series; a
    `NetworkError` if it is not here and bytes of it cannot be had, or (`DoubtfulBytesError`) do not
    make a sound file.
    """
    try:
        recordings = _open(content, path, unwanted, reading or Reading())
    except RecordingError as error:
        if content.doubtful():
            raise DoubtfulBytesError(str(error)) from error
        raise
    reasons = chain.from_iterable(each.unreadable.values() for each in recordings)
    if content.doubtful() and (reason := next(reasons, None)):
        for each in recordings:
            each.close()
        raise DoubtfulBytesError(f"{path}: {reason}")
    return recordings


def _open(
    content: Bytes, path: str, unwanted: Unwanted | None, reading: Reading
) -> list[Recording]:
    with ExitStack() as opened:
        try:
            source = opened.enter_context(GuardedFile(content))
            file = opened.enter_context(h5py.File(source, "r"))
        except (OSError, RuntimeError, ValueError) as error:
            require_bytes(content)
            raise RecordingError(
                f"{path} is a damaged HDF5 file: {in_words(error)}; copy it again from its source"
            ) from error
        try:
            recordings = _recordings(Opened(path, file, source, reading), unwanted)
        except (RecordingError, NetworkError):
            require_bytes(content)
            raise
        except Exception as error:  # h5py raises many kinds for damaged groups
            require_bytes(content)
            raise RecordingError(f"{path} is a damaged NWB file: {in_words(error)}") from error
        require_bytes(content)
        close = Closing(opened.pop_all().close, len(recordings))
        return [replace(each, close_file=close.once()) for each in recordings]


def _recordings(nwb: Opened, unwanted: Unwanted | None) -> list[Recording]:
    if "nwb_version" not in nwb.file.attrs:
        from crosspatch.recordings.hdf5_formats import read_others

        if others := read_others(nwb.path, nwb.file, nwb.reading):
            return others
    version = _version(nwb.path, nwb.file)
    series = _of_channel(nwb, _usable(nwb, unwanted))
    cells = _of_one_cell(nwb, sweeps_by_electrode(nwb, series, unwanted))
    if len(cells) > _MOST_CELLS:
        raise RecordingError(f"{nwb.path} is damaged: it has sweeps of {len(cells):,} electrodes")
    chosen, notes = _chosen(nwb, cells)
    several = len(chosen) > 1 or (nwb.reading.electrode is not None and len(cells) > 1)
    found = [_recording(nwb, cell, version, notes, several=several) for cell in chosen]
    found = [each for each in found if each.sweeps]
    if not found:
        first, reason = next(iter(nwb.unreadable.items()), ("acquisition", "no response series"))
        raise RecordingError(f"{nwb.path} has no readable sweep; {first}: {reason}")
    return found


def _usable(nwb: Opened, unwanted: Unwanted | None) -> list[Series]:
    """The series that can be used; a `RecordingError` if there are none."""
    series = list(all_series(nwb, unwanted))
    if nwb.source.content.doubtful():
        _require_alike(nwb.path, series)
    if not series and nwb.unreadable:
        first, reason = next(iter(nwb.unreadable.items()))
        raise RecordingError(f"{nwb.path} has no readable patch-clamp series; {first}: {reason}")
    if not series:
        raise _nothing(nwb)
    return series


def _nothing(nwb: Opened) -> RecordingError:
    """Why there is no series."""
    if nwb.left_out:
        count = sum(nwb.left_out.values())
        return RecordingError(
            f"{nwb.path} has no current-clamp sweep that is measured (its {count} sweeps are "
            "noise, chirps or the like); nothing to analyse"
        )
    if nwb.left_out_clamped:
        return RecordingError(
            f"{nwb.path} has no current-clamp sweep (its {nwb.left_out_clamped} sweeps are in "
            f"{VOLTAGE_CLAMP}); nothing to analyse",
            hint="if the file says it wrong, give {clamp} current",
        )
    return RecordingError(f"{nwb.path} has no patch-clamp series; is it another kind of recording?")


def _recording(
    nwb: Opened, cell: Electrode, version: str, notes: Sequence[str], *, several: bool
) -> Recording:
    decided: dict[str, list[int]] = {}
    sweeps = []
    for pair in cell.pairs:
        with noting(pair.response.series.path, nwb.unreadable):
            sweeps.append(sweep_of(nwb, pair, decided))
    placed = [f"{_listed(numbers, len(sweeps))}: {note}" for note, numbers in decided.items()]
    electrodes = list(nwb.electrodes.values())
    if cell.name in electrodes:
        electrodes = [cell.name]
    electrode = (nwb.reading.electrode or cell.name) if several else None
    return Recording(
        name=nwb.path,
        cell_id=named_cell(PurePath(nwb.path).stem, electrode),
        format=f"NWB {version}",
        sweeps=tuple(sweeps),
        unreadable=nwb.unreadable,
        recorded=_recorded(nwb.file, electrodes),
        left_out=nwb.left_out[cell.name] + nwb.left_out[None] * (cell.name is not None),
        electrode=electrode,
        notes=(*notes, *cell.notes, *placed),
    )


def _listed(numbers: Sequence[int], of: int) -> str:
    """Sweeps in words."""
    if len(numbers) == of:
        return "all sweeps"
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"sweeps {', '.join(map(str, numbers[:_NAMED]))}{more}"


def _of_channel(nwb: Opened, series: list[Series]) -> list[Series]:
    """Without the responses of other inputs than the one that the user names."""
    channel = nwb.reading.channel
    if channel is None:
        return series
    whole = re.compile(rf"(?<![0-9A-Za-z]){re.escape(channel)}(?![0-9A-Za-z])", re.IGNORECASE)
    kept = [each for each in series if not each.is_response or whole.search(each.name)]
    if not any(each.is_response for each in kept):
        names = ", ".join(each.name for each in series if each.is_response)
        raise RecordingError(
            f"{nwb.path} has no series of channel '{channel}' (its series are {names[:200]})",
            hint="give a part of the name of the series with {channel}",
        )
    return kept


def _chosen(nwb: Opened, cells: list[Electrode]) -> tuple[list[Electrode], list[str]]:
    """The cells that are read, and what is to be said of that."""
    if nwb.reading.electrode is not None:
        return _asked_for(nwb, cells, nwb.reading.electrode)
    if len(cells) < 2:
        return cells, []
    stimulated = [cell for cell in cells if cell.stimulated] or cells
    without = [cell.label for cell in cells if cell not in stimulated]
    notes = []
    if without:
        notes.append(f"left out, without a stimulus in current clamp: {', '.join(without)}")
    if len(stimulated) > 1:
        notes.append(_taken_for_cells(stimulated))
    return stimulated, notes


def _asked_for(
    nwb: Opened, cells: list[Electrode], wanted: str
) -> tuple[list[Electrode], list[str]]:
    """The one cell of the electrodes that the user names, and what is not read."""
    chosen = [_called(nwb, cells, part.strip()) for part in wanted.split(",")]
    names = [cell.name for cell in chosen]
    rest = [cell.label for cell in cells if cell.label not in names]
    notes = [f"electrode {wanted} was chosen; not read: {', '.join(rest)}"] if rest else []
    return [_joined(chosen)], notes


def _taken_for_cells(cells: list[Electrode]) -> str:
    names = ", ".join(str(cell.name) for cell in cells)
    words = f"{len(cells)} electrodes ({names}) are taken for {len(cells)} cells"
    if _at_once(cells):
        return words
    return (
        f"{words}; they were never recorded at the same time: where they are one cell, give "
        "their names, separated by commas, as 'electrode'"
    )


def _of_one_cell(nwb: Opened, cells: list[Electrode]) -> list[Electrode]:
    """Cells, of which several electrodes are one where the file gives them one ``cell_id``."""
    if len(cells) < 2:
        return cells
    groups: dict[str, list[Electrode]] = {}
    for cell in cells:
        item = nwb.file.get(f"{ICEPHYS}/{cell.name}/cell_id")
        named = text_of(content_of(item)) if isinstance(item, h5py.Dataset) else None
        groups.setdefault(f"cell {named}" if named else f"electrode {cell.name}", []).append(cell)
    return [_joined(each) for each in groups.values()]


def _joined(cells: list[Electrode]) -> Electrode:
    """Several electrodes as one cell, whose sweeps follow one another."""
    first = cells[0]
    if len(cells) == 1:
        return first
    names = ", ".join(str(cell.name) for cell in cells)
    whole = Electrode(first.name, notes=[f"electrodes {names} are read as one cell"])
    for cell in cells:
        numbers = [pair.number for pair in whole.pairs]
        shift = max(numbers, default=-1) + 1
        if not set(numbers).isdisjoint(pair.number for pair in cell.pairs):
            for pair in cell.pairs:
                pair.number += shift
            whole.notes.append(f"sweeps of {cell.name} are numbered from {shift}")
        whole.pairs += cell.pairs
        whole.notes += cell.notes
    return whole


def _called(nwb: Opened, cells: list[Electrode], wanted: str) -> Electrode:
    """The cell of an electrode that the user names, or numbers."""
    names = [str(cell.name) for cell in cells]
    for fits in (
        [name == wanted for name in names],
        [name.lower() == wanted.lower() for name in names],
        [re.search(r"\d+$", name) is not None and _last(name) == wanted for name in names],
    ):
        if sum(fits) == 1:
            return cells[fits.index(True)]
    raise RecordingError(
        f"{nwb.path} has no electrode '{wanted}' (it has {', '.join(names)})",
        hint="give one of them with {electrode}",
    )


def _last(name: str) -> str:
    """The number a name ends with, without leading zeros."""
    return str(int(re.findall(r"\d+", name)[-1]))


def _at_once(cells: Sequence[Electrode]) -> bool:
    """Whether sweeps of two of the cells were recorded at the same time."""
    spans = sorted(
        (pair.response.start, pair.response.start + pair.response.duration, str(cell.name))
        for cell in cells
        for pair in cell.pairs
    )
    end, name = -np.inf, ""
    for start, last, other in spans:
        if start < end and other != name:
            return True
        if last > end:
            end, name = last, other
    return False


def _version(path: str, file: h5py.File) -> str:
    """The version of NWB, which must be 2."""
    version = text_of(attribute(file, "nwb_version"))
    if version is None and isinstance(file.get("nwb_version"), h5py.Dataset):
        version = text_of(content_of(file["nwb_version"])) or "NWB-1"
    if version is None:
        raise RecordingError(
            f"{path} is an HDF5 file but no NWB file: it has no nwb_version; export it as NWB 2"
        )
    number = version.upper().removeprefix("NWB").strip(" -_")
    if re.match(r"[01](\.|$)", number):
        raise RecordingError(f"{path} is NWB 1 ({version}); {_CONVERT}")
    if not number.startswith("2"):
        raise RecordingError(f"{path} has NWB version {version}, which is not known; {_CONVERT}")
    return number


def _require_alike(path: str, series: list[Series]) -> None:
    """One sweep in another unit or at another rate than all others may be a byte come wrong."""
    for is_response in (True, False):
        scales = Counter(
            (each.rate, each.factor, each.offset, each.conversion)
            for each in series
            if each.clamp == CURRENT_CLAMP and each.is_response == is_response
        )
        if len(scales) > 1 and min(scales.values()) == 1:
            raise DoubtfulBytesError(f"{path}: a sweep is scaled unlike all others")


def _recorded(file: h5py.File, electrodes: Sequence[str]) -> Recorded:
    def text(name: str) -> str | None:
        item = file.get(name)
        return text_of(content_of(item)) if isinstance(item, h5py.Dataset) else None

    words = " ".join(
        text(name) or "" for name in ("session_description", "general/experiment_description")
    )
    keywords = file.get("general/keywords")
    if isinstance(keywords, h5py.Dataset):
        words += " " + " ".join(text_of(word) or "" for word in np.ravel(content_of(keywords)))

    def noted(name: str, unit: float) -> float | None:
        """Of the first electrode of which it is known."""
        values = (_resistance(text(f"{ICEPHYS}/{each}/{name}"), unit) for each in electrodes)
        return next((value for value in values if value is not None), None)

    said = text(_SPECIES)
    places = dict.fromkeys(text(f"{ICEPHYS}/{each}/location") for each in electrodes)
    return Recorded(
        species=species_told(said),
        donor=text("general/subject/subject_id"),
        session=text("session_start_time"),
        location="; ".join(filter(None, places)) or None,
        seal=noted("seal", 1e9),
        access_resistance=noted("initial_access_resistance", 1e6),
        simulated="simulated" in words.lower(),
    )


def species_in_nwb(content: Bytes) -> str | None:
    """What a file says the species is; of the file nothing else is read.

    An exception of h5py's if it is damaged.
    """
    with GuardedFile(content) as source, h5py.File(source, "r") as file:
        item = file.get(_SPECIES)
        return species_told(text_of(content_of(item))) if isinstance(item, h5py.Dataset) else None


def _resistance(text: str | None, unit: float) -> float | None:
    """A resistance noted in words, in the unit asked for; bare numbers are in that unit already."""
    match = re.match(r"\s*([0-9.]+(?:[eE][-+]?\d+)?)\s*([GMk]?)", text or "")
    if not match:
        return None
    try:
        value = float(match.group(1))
    except ValueError:
        return None
    prefix = {"G": 1e9, "M": 1e6, "k": 1e3}.get(match.group(2))
    return value * prefix / unit if prefix else value
