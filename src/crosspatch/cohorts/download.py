"""Where the data come from: the tables into the data directory, recordings with their labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from crosspatch.archive.dandi import Asset
from crosspatch.archive.fetching import FetchProgress
from crosspatch.archive.web import Web, digests_of
from crosspatch.cohorts.dataset import datasets, source_files
from crosspatch.cohorts.extracted import LABELS_FILE, match, read_labels
from crosspatch.cohorts.sources import SourceFile
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError, in_words
from crosspatch.texts import data_rows
from crosspatch.writing import replacing


def fetch_tables(
    directory: Path,
    *,
    web: Web | None = None,
    progress: Callable[[FetchProgress], None] | None = None,
) -> list[Path]:
    """Get the public tables into a data directory; returned are those that were fetched now.

    A file has its name only when its checksum is right; what is there is not fetched again. A
    `NetworkError` if a table cannot be had, a `CohortError` if the directory has another file under
    the name of a table, or cannot be written.
    """
    import pooch

    # pooch says on its own what we say with a bar.
    pooch.get_logger().setLevel(logging.ERROR)
    web = web or Web()
    tables = list(source_files().values())
    missing = [table for table in tables if not _is_there(directory, table)]
    done = len(tables) - len(missing)
    whole = sum(table.size for table in tables)
    came = whole - sum(table.size for table in missing)

    def tell(more: int = 0) -> None:
        nonlocal came
        came += more
        if progress is not None:
            progress(FetchProgress(done, len(tables), came, whole))

    tell()
    for table in missing:

        def download(address: str, out: str, _: object, table: SourceFile = table) -> None:
            file = directory / table.path
            arriving = file.with_name(f".{file.name}.whole")
            digests = {"sha256": table.sha256}
            web.download(address, arriving, size=table.size, digests=digests, told=tell)
            arriving.replace(out)

        # pooch checks and moves into place; the download itself is ours, which can go on where
        # it was.
        known = f"sha256:{table.sha256}"
        try:
            pooch.retrieve(table.address, known, table.path, directory, downloader=download)
        except OSError as error:
            raise CohortError(
                f"{directory} cannot be written: {error.strerror or error}"
            ) from error
        done += 1
        tell()
    return [directory.absolute() / table.path for table in missing]


def _is_there(directory: Path, table: SourceFile) -> bool:
    file = directory / table.path
    if not file.exists():
        return False
    try:
        right = digests_of(file, ["sha256"])["sha256"] == table.sha256
    except OSError as error:
        raise CohortError(f"{file} cannot be read: {error.strerror or error}") from error
    if not right:
        raise CohortError(
            f"{file} is there, but is not the pinned version; move it away and give the same "
            "command again"
        )
    return True


def _labelling(dandiset: str) -> str | None:
    return next((name for name, each in datasets().items() if dandiset in each.dandisets), None)


@dataclass(frozen=True)
class Dandiset:
    """A set of recordings that is known here."""

    dandiset: str
    species: str
    about: str
    files: int
    gigabytes: float
    version: str  # the published version that the numbers are of; empty if they are of the draft
    licence: str
    cite: tuple[str, ...]  #: keys of `crosspatch.cohorts.citations`

    @property
    def labels(self) -> str | None:
        """Dataset whose tables have the labels of its cells."""
        return _labelling(self.dandiset)


@cache
def dandisets() -> Mapping[str, Dandiset]:
    """The sets of recordings that are known here, by number."""
    return {
        row["dandiset"]: Dandiset(
            files=int(row.pop("files")),
            gigabytes=float(row.pop("gigabytes")),
            cite=tuple(row.pop("cite").split()),
            **row,
        )
        for row in data_rows("cohorts", "dandisets")
    }


@dataclass(frozen=True)
class CellSelection:
    """Which recordings of a dandiset are wanted."""

    subclasses: tuple[str, ...] = ()  #: only cells of these; all by default
    cells: tuple[str, ...] = ()  #: only these: specimen, session, donor, or file name
    limit: int | None = None  #: at most so many, the first in the order of their paths
    unlabelled: bool = False  #: whether cells without a label are wanted too


def labels_of(
    dandiset: str, labels: str | None = None, data_dir: str | Path | None = None
) -> pd.DataFrame | None:
    """Labels of the recordings of a dandiset; None if none are known.

    `labels` is what `crosspatch.cohorts.extracted.read_labels` reads, by default what is known to
    belong to the dandiset. A `CohortError`, which says how to go on, if they cannot be read.
    """
    name = labels or _labelling(dandiset)
    if name is None:
        return None
    try:
        return read_labels(name, data_dir)
    except CohortError as error:
        if labels is not None:
            raise
        raise CohortError(
            f"the labels of dandi:{dandiset} cannot be read ({error.message})",
            hint="get them with `crosspatch fetch tables`, or take all cells with {unlabelled}",
        ) from error


def choose(
    assets: Sequence[Asset], labels: pd.DataFrame | None, choice: CellSelection
) -> dict[Asset, str | None]:
    """The recordings that are wanted, each with its key in the labels, None where it has none.

    Labels are from `labels_of`. A `CohortError` if nothing is left, a subclass is unknown, or a
    cell is not there or has no label.
    """
    where = f"dandi:{assets[0].dandiset}"
    _require_choosable(choice, labels, where)
    known = {asset: _known_of(asset, labels) for asset in assets}
    named = known
    if choice.cells:
        named = {k: each for k, each in known.items() if each.names & set(choice.cells)}
    wanted = named
    if not choice.unlabelled:
        wanted = {k: each for k, each in named.items() if each.subclass is not None}
    _require_cells(choice.cells, where, named.values(), wanted.values())
    if choice.subclasses:
        wanted = {k: each for k, each in wanted.items() if each.subclass in choice.subclasses}
    if not wanted:
        none = f"none of the {len(assets):,} recordings of {where} is wanted: none "
        if choice.subclasses:
            raise CohortError(f"{none}is of subclass {' or '.join(choice.subclasses)}")
        raise CohortError(f"{none}has a label", hint="take all cells with {unlabelled}")
    return {k: each.key for k, each in list(wanted.items())[: choice.limit]}


def _require_cells(
    cells: Sequence[str], where: str, named: Iterable[_Known], wanted: Iterable[_Known]
) -> None:
    """Refuse cells that are not there, or have no label although it is asked for."""
    there = set[str]().union(*(each.names for each in named))
    lost = [cell for cell in cells if cell not in there]
    if lost:
        raise CohortError(
            f"no recording of cell {lost[0]} in {where} ({len(lost)} of {len(cells)} cells are not "
            "there); cells are named by specimen, session, donor or file"
        )
    labelled = set[str]().union(*(each.names for each in wanted))
    bare = [cell for cell in cells if cell not in labelled]
    if bare:
        why = f"cell {bare[0]} of {where} has no label"
        raise CohortError(why, hint="take it with {unlabelled}")


def _require_choosable(choice: CellSelection, labels: pd.DataFrame | None, where: str) -> None:
    """Refuse a choice that needs labels which are not known, or subclasses that do not exist."""
    if labels is None and not choice.unlabelled:
        hint = "give a csv with {labels}, or take all cells with {unlabelled}"
        raise CohortError(f"no labels of {where} are known", hint)
    if choice.subclasses and labels is None:
        raise CohortError(f"no labels of {where} are known, so no subclass can be chosen")
    known = load_taxonomy().subclasses
    for name in choice.subclasses:
        if name not in known:
            raise CohortError(f"no subclass '{name}'; choose from: {', '.join(known)}")


class _Known(NamedTuple):
    """What is known of a recording."""

    key: str | None  #: of the labels
    subclass: str | None
    names: set[str]  #: what a user may call the cell


def _known_of(asset: Asset, labels: pd.DataFrame | None) -> _Known:
    parts = [part.split("-", 1)[1] for part in asset.stem.split("_") if "-" in part]
    names = {asset.name, asset.stem, asset.path, *parts}
    names |= {part.replace("-", "_") for part in parts}
    key = None if labels is None else match(asset.name, labels.index)
    if key is None or labels is None:
        return _Known(None, None, names)
    row = labels.loc[key]
    if "specimen" in row:
        names.add(str(row["specimen"]))
    subclass = row.get("subclass")
    return _Known(key, subclass if isinstance(subclass, str) else None, names)


def write_labels(
    folder: Path, chosen: Mapping[Asset, str | None], labels: pd.DataFrame | None
) -> Path:
    """Write what is known of fetched recordings to ``cells.csv``, where `extract` finds it.

    Rows of other recordings stay. A `CohortError` if the file cannot be read or written.
    """
    rows = []
    for asset, key in chosen.items():
        known = dandisets().get(asset.dandiset)
        row: dict[str, object] = {"file": asset.name, "species": known.species if known else None}
        row["dataset"] = f"dandi:{asset.dandiset}"
        if key is not None and labels is not None:
            row |= {str(name): value for name, value in labels.loc[key].dropna().items()}
        row |= {"recording_source": str(asset), "sha256": asset.digests.get("sha256")}
        rows.append(row)
    table = pd.DataFrame(rows)
    file = folder / LABELS_FILE
    if file.exists():
        try:
            before = pd.read_csv(file, dtype=str)
            table = pd.concat([before[~before["file"].isin(table["file"])], table])
        except (ValueError, KeyError) as error:
            raise CohortError(
                f"{file} is no table of cells: {in_words(error)}; move it away"
            ) from error
        except OSError as error:
            raise CohortError(f"{file} cannot be read: {error.strerror or error}") from error
    with replacing(file, CohortError) as temporary:
        table.sort_values("file").to_csv(temporary, index=False)
    return file
