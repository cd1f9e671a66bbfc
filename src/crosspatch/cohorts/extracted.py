"""A cohort table of recordings: features from files, labels from beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts import sources, table
from crosspatch.cohorts.dataset import datasets
from crosspatch.errors import CohortError
from crosspatch.features.cortical_layer import layer_in, layer_name
from crosspatch.features.extraction import ExtractionSettings
from crosspatch.features.finding import Source
from crosspatch.features.layouts import load_layout
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.features.store import CellStore
from crosspatch.recordings.opening import species_of_file
from crosspatch.species import SPECIES
from crosspatch.writing import replacing

if TYPE_CHECKING:
    import anndata

LABELS_FILE = "cells.csv"  #: labels in a folder of recordings, found without being named


@dataclass(frozen=True)
class Extracted:
    """A cohort and the files that gave no cell."""

    cohort: anndata.AnnData | None  #: None if no file gave a cell
    failures: pd.DataFrame  #: columns ``file`` and ``reason``


def cohort_of(
    files: Sequence[Source],
    store_file: str | Path,
    settings: ExtractionSettings,
    *,
    labels: pd.DataFrame | None = None,
    species: str | None = None,
    drop_failed: bool = False,
    unsaid: Mapping[Source, CohortError] | None = None,
) -> Extracted:
    """Put cells that `crosspatch.features.many.extract_many` stored into a cohort table.

    Labels are from `read_labels`, else from the files named ``cells.csv`` beside the recordings;
    the species is for files that do not say. Cells that fail quality control are left out and
    listed as failures if so wanted (`drop_failed`), and so are those of no known species, and files
    that `without_species` found (`unsaid`). A `CohortError` if labels cannot be read.
    """
    layout = load_layout(settings.layout)
    values, rows, ids, hashes = [], [], [], {}
    failures = [{"file": str(file), "reason": str(why)} for file, why in (unsaid or {}).items()]
    tools, labels_near = settings.tools, cache(_labels_near)
    with CellStore(store_file) as store:
        for path, outcome in store.cells(files, settings.key):
            if isinstance(outcome, Failure):
                which = f"electrode {outcome.electrode}: " if outcome.electrode else ""
                failures.append({"file": str(path), "reason": which + outcome.reason})
                continue
            if drop_failed and not outcome.head["qc_passed"]:
                reason = f"quality control: {outcome.head['qc_reasons']}"
                failures.append({"file": str(path), "reason": reason})
                continue
            row = _row(path, outcome, _labels_of(path, labels, labels_near), species)
            if row["species"] not in SPECIES:
                failures.append({"file": str(path), "reason": str(_unsaid(row["species"]))})
                continue
            rows.append(row | {"extracted_with": tools})
            values.append(outcome.values)
            ids.append(outcome.cell_id)
            hashes[str(path)] = outcome.head["sha256"]
    failed = pd.DataFrame(failures, columns=["file", "reason"])
    if not rows:
        return Extracted(None, failed)
    cells = pd.DataFrame(rows, index=pd.Index(table.numbered(ids), name="cell_id"))
    # A column that is empty throughout says nothing.
    optional = [name for name in cells if name not in table.REQUIRED_OBS]
    cells = cells.drop(columns=[name for name in optional if cells[name].isna().all()])
    joined = {str(name): count for name, count in cells["subclass"].value_counts().items()}
    head = table.Head(hashes, True, joined, {"gave no features": len(failed)})
    described = json.dumps(settings.described(), sort_keys=True)
    return Extracted(table.build(np.stack(values), cells, layout, head, described), failed)


def without_species(
    files: Sequence[Source], *, labels: pd.DataFrame | None = None, species: str | None = None
) -> dict[Source, CohortError]:
    """Files whose cells are of no known species, and why; little of them is read.

    Files of the archive, and damaged ones, are not among them: they are measured first.
    """
    found: dict[Source, CohortError] = {}
    labels_near = cache(_labels_near)
    for file in files if species is None else ():
        if isinstance(file, Path):
            row = dict[str, object]()
            _add_labels(row, file.name, _labels_of(file, labels, labels_near))
            with suppress(Exception):  # what is wrong with it is told when it is measured
                said = row.get("species") or species_of_file(file)
                if said not in SPECIES:
                    found[file] = _unsaid(said)
    return found


def _unsaid(said: object) -> CohortError:
    known = " or ".join(SPECIES)
    if said is None:
        hint = f"give {{species}} {known}"
        return CohortError("it does not say the species of the cell", hint)
    return CohortError(f"its species is {said}, not one that crosspatch knows ({known})")


def _labels_of(
    file: Source, labels: pd.DataFrame | None, labels_near: Callable[[Path], pd.DataFrame | None]
) -> pd.DataFrame | None:
    """Labels that are given, else those beside a file."""
    if labels is None and isinstance(file, Path):
        return labels_near(file.parent)
    return labels


def _labels_near(folder: Path) -> pd.DataFrame | None:
    """Labels in a folder, or in the one above it: a dandiset has a folder for every donor."""
    for place in (folder, folder.parent):
        file = place / LABELS_FILE
        if file.is_file():
            return read_labels(file)
    return None


def _row(
    path: Source, cell: CellFeatures, labels: pd.DataFrame | None, species: str | None
) -> dict[str, object]:
    head = dict(cell.head) | {"notes": "; ".join(cell.head["notes"])}
    row: dict[str, object] = dict.fromkeys(table.REQUIRED_OBS)
    row["species"] = head.pop("species", None)
    row["donor"] = head.pop("donor", None)
    row["dataset"] = "simulated recordings" if head["simulated"] else "recordings"
    row["layer"] = layer_name(layer_in(str(head.get("location") or ""))) or None
    several = head.get("electrode") is not None
    _add_labels(row, path.name, labels, cell.cell_id if several else None)
    row["species"] = row["species"] or species
    row["recording_file"] = path.name
    return row | head


def _add_labels(
    row: dict[str, object], file: str, labels: pd.DataFrame | None, cell_id: str | None = None
) -> None:
    """Add what labels say of a cell; those of a file of several are not of a single one's type."""
    if labels is None:
        return
    key = match(file, labels.index)
    of_type: tuple[str, ...] = ()
    if cell_id is not None:
        of_type = ("subclass", "t_type")
        if cell_id in labels.index:
            key, of_type = cell_id, ()
    if key is not None:
        for name, value in labels.loc[key].items():
            if pd.notna(value) and name not in of_type:
                row[str(name)] = value


def match(name: str, keys: pd.Index) -> str | None:
    """The key of a recording among those of labels, by its file's name.

    It is that name, such as ``sub-1_ses-2_icephys.nwb``, with or without ending, or the session or
    cell in it.
    """
    stem = name.rsplit(".", 1)[0]
    parts = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
    for key in (name, stem, parts.get("ses"), parts.get("cell")):
        # Names in the archive have dashes where sources have underscores.
        for written in (key, key.replace("-", "_")) if key else ():
            if written in keys:
                return written
    return None


def read_labels(name: str | Path, data_dir: str | Path | None = None) -> pd.DataFrame:
    """Labels of recordings by their keys, from a csv file or the tables of a dataset.

    The file has a column ``file`` (file name, with or without ending, or DANDI session; the name of
    the cell where a file has several) and any of ``species``, ``subclass``, ``t_type``, ``donor``,
    ``dataset``, ``layer``. A dataset, such as ``allen-mouse``, has labels of the recordings of its
    dandisets, with ``specimen``, the cell's number in its tables. A `CohortError` if the file
    cannot be read or has no column ``file``.
    """
    labelled = {each.name: each for each in datasets().values() if each.session}
    if str(name) in labelled:
        return labelled[str(name)].labels_of_recordings(data_dir)
    path = Path(name)
    if not path.is_file():
        raise CohortError(f"no labels in {name}: give a csv file, or one of {', '.join(labelled)}")
    frame = sources.read_source(path, ["file"], optional=[*table.REQUIRED_OBS, "layer"])
    frame = frame.drop(columns=sources.LINE)
    twice = frame["file"][frame["file"].duplicated()]
    if len(twice):
        raise CohortError(f"{path}: file '{twice.iloc[0]}' stands in more than one row; keep one")
    return frame.set_index("file")


def write_failures(failures: pd.DataFrame, file: Path) -> None:
    """Write ``failures.csv``, none without failures; a `CohortError` if it cannot be written."""
    if failures.empty:
        file.unlink(missing_ok=True)
        return
    with replacing(file, CohortError) as temporary:
        failures.to_csv(temporary, index=False)
