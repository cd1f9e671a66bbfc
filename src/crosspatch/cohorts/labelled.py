"""A laboratory's own labelled table as a cohort: its cells, labels and donors."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from crosspatch.cohorts import table
from crosspatch.cohorts.own_features import (
    OwnFeatures,
    gives_label,
    own_features,
    without_giveaways,
)
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError
from crosspatch.features.cortical_layer import layer_depth, layer_name
from crosspatch.features.layouts import OWN, SCALAR_LAYOUTS, Layout, load_layout
from crosspatch.species import SPECIES, require_species, species_within
from crosspatch.tables.columns import map_columns
from crosspatch.tables.endings import CHUNK
from crosspatch.tables.mapping import Overrides, read_mapping
from crosspatch.tables.names import features as our_features
from crosspatch.tables.opened import OpenTable, Table, rows_by_what, without_rows
from crosspatch.tables.reading import PROBLEMS
from crosspatch.tables.rows import said_of, texts_of
from crosspatch.tables.values import MISSING, read_layers
from crosspatch.telling import Say

#: Least cells and donors of a class that is learnt: with fewer, folds by donor say nothing of it.
MIN_CELLS, MIN_DONORS = 10, 3

# Why cells of a class are left out; what is counted by reasons has no names with slashes.
_TOO_SMALL = f"of a class of fewer than {MIN_CELLS} cells or {MIN_DONORS} donors"
#: Names of columns that are listed at a time.
_SHOWN = 30
#: Words, in small letters, in a column of labels that say there is none.
NO_LABEL = {
    *("unknown", "unidentified", "unclassified", "unassigned", "not assigned", "undefined"),
    *("?", "nd", "n.d.", "tbd", "excluded", "low quality", "low_quality", "no label"),
}
#: Words that stand for all classes, or for something else, in tables of results.
_RESERVED = {"all", "rest", "reference"}


def load_labelled(
    cells: str | Path | pd.DataFrame | anndata.AnnData,
    *,
    label: str,
    group: str | None = None,
    species: str | None = None,
    columns: str | Path | Overrides | None = None,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    sheet: str | int | None = None,
    say: Say = print,
) -> anndata.AnnData:
    """A cohort of your own cells, from a table that has their labels: for `train` and `benchmark`.

    Its numeric columns are the layout. Those that have the names of our features, or names known
    for them, are these, in our units; the others are taken as they stand, each a family by itself.
    Text, dates, numbers of cells, what is the same for all cells of a donor, and codes that give
    the label away are left out, and said. So are classes of fewer than 10 cells or 3 donors.

    Parameters
    ----------
    cells : path, DataFrame or AnnData
        One row per cell: csv, tsv, Excel, ods, parquet.
    label : str
        Column with the classes, as they stand: subclasses, or any others.
    group : str, optional
        Column with the donors (animals, patients), of which no two folds share one. Without it
        every cell counts as a donor of its own, and scores may be too good.
    species : str, optional
        ``mouse`` or ``human``: where the table does not say, and of a table of both the one whose
        cells are taken.
    columns : path or Overrides, optional
        Which column is which of our features; see `crosspatch.tables.mapping.read_mapping`.
    only, without : sequence of str
        Columns to be taken, whatever they are called, and no others; columns to be left out.
    sheet : str or int, optional
        Of a workbook, its name or number from 1.
    say : callable
        Told what was taken for what and what was left out, line by line.

    Returns
    -------
    AnnData, shape (cells, features)

    Raises
    ------
    CohortError
        If the table cannot be read, a column is not there, or fewer than two classes are left.

    Examples
    --------
    >>> import crosspatch
    >>> own = crosspatch.load_labelled(
    ...     "own-cells.csv", label="type", group="mouse", species="mouse", say=lambda line: None
    ... )
    >>> own.shape, sorted(set(own.obs["subclass"]))
    ((120, 4), ['FS', 'RS'])
    """
    require_species(species)
    given: Table = Path(cells) if isinstance(cells, str) else cells
    overrides = columns if isinstance(columns, Overrides | None) else read_mapping(columns)
    asked = [label, *([group] if group else []), *only, *without]
    opened = OpenTable(
        given, say, sheet=sheet, known=[*asked, *(overrides.columns if overrides else ())]
    )
    return _Labelled(opened, overrides, say).cohort(label, group, species, only, without)


class _Labelled:
    """A labelled table that is made into a cohort."""

    def __init__(self, opened: OpenTable, overrides: Overrides | None, say: Say):
        self.path, self.in_memory, self.overrides = opened.path, opened.in_memory, overrides
        self._say = say
        self.dropped: dict[str, int] = {}
        self.frame = self._read(opened)

    def say(self, line: str) -> None:
        """Say something of the table."""
        self._say(f"{self.path.name}: {line}")

    def loud(self, line: str) -> None:
        """Say what must not be overlooked."""
        self.say(f"WARNING: {line}")

    def _read(self, opened: OpenTable) -> pd.DataFrame:
        """All rows that are cells."""
        chunks = opened.chunks()
        if chunks is None:
            raise CohortError(f"{self.path} is a cohort table already", "give it as {target}")
        given = self.overrides.columns if self.overrides else {}
        ignored = [name for name, said in given.items() if said.target == "ignore"]
        first, rows = opened.first(chunks, ignored)
        parts: list[pd.DataFrame] = []
        others: dict[str, list[str]] = {}
        for chunk in itertools.chain([first], chunks):
            no_cells = rows.left_out(chunk)
            for what, called in rows_by_what(chunk, rows, no_cells).items():
                others.setdefault(what, []).extend(called)
            cut = dict.fromkeys(chunk.attrs.get(PROBLEMS, {}), "")
            parts.append(without_rows(chunk, no_cells | cut))
        if others:
            self.say(said_of(others))
        for part in parts:
            part.attrs.clear()
        frame = pd.concat(parts, ignore_index=True)
        return frame.set_axis([str(name) for name in frame.columns], axis="columns")

    def cohort(
        self,
        label: str,
        group: str | None,
        species: str | None,
        only: Sequence[str],
        without: Sequence[str],
    ) -> anndata.AnnData:
        """The cohort; see `load_labelled`."""
        label = self._column(label, "label")
        group = None if group is None else self._column(group, "group")
        chosen = [self._column(name, "only") for name in only]
        left = [self._column(name, "without") for name in without]
        if both := {label, group} & set(chosen):
            raise CohortError(
                f"{self.path}: column '{both.pop()}' cannot be label or donor and a feature",
                "leave it out of {only}",
            )
        cells = self._labelled(self._cells(label, group, species, left))
        cells = self._large_enough(cells, label)
        others = {label, group, self.cell_id, self.layer, *left}
        names = [name for name in self.frame if name not in others]
        frame = self.frame[[name for name in names if not chosen or name in chosen]]
        found = own_features(frame.iloc[cells.index].reset_index(drop=True), self.overrides, chosen)
        y, donors = (cells[name].to_numpy().astype(str) for name in ("subclass", "donor"))
        found = without_giveaways(found, y, donors, chosen)
        layers = np.array([2 * layer_depth(each) for each in cells["layer"]] if self.layer else [])
        if self.layer and gives_label(layers, y):
            self.loud(f"the cortical layer, '{self.layer}', gives the label away; it is left out")
            cells = cells.drop(columns="layer")
        self._tell(found, left)
        if not found.X.shape[1]:
            raise CohortError(
                f"{self.path}: no column of numbers is left that can be a feature",
                "see above why; name them with {only}",
            )
        measured = np.asarray(np.isfinite(found.X).any(axis=1))
        self._drop("without a single value", int(np.sum(~measured)))
        cells, X = cells.loc[measured], found.X[measured]
        kept = self._large_enough(cells, label)
        X = X[cells.index.isin(kept.index)]
        self._tell_cells(kept, label, group)
        own = table.OwnTable(self.path.name, label, group)
        head = table.Head(self._source(), True, {}, self.dropped, own=own)
        return table.build(X, kept.set_index("cell_id"), found.layout, head)

    def _source(self) -> dict[str, str]:
        """The file and its checksum; nothing for a table in memory."""
        if self.in_memory:
            return {}
        with self.path.open("rb") as file:
            return {self.path.name: hashlib.file_digest(file, "sha256").hexdigest()}

    def _column(self, name: str, parameter: str) -> str:
        """The column of this name, in capitals or not; a CohortError if there is none, or two."""
        headers = list(self.frame.columns)
        alike = [each for each in headers if each.strip().casefold() == name.strip().casefold()]
        found = [each for each in alike if each == name] or alike
        if len(found) == 1:
            return found[0]
        if found:
            raise CohortError(f"{self.path}: {len(found)} columns are called '{name}'; rename them")
        lower = {each.casefold(): each for each in headers}
        near = difflib.get_close_matches(name.casefold(), lower, n=1)
        hint = f"; the nearest is '{lower[near[0]]}'" if near else f"; it has {_some(headers)}"
        raise CohortError(f"{self.path}: there is no column '{name}'{hint}", f"see {{{parameter}}}")

    def _drop(self, why: str, count: int, more: str = "") -> None:
        """Count cells that are left out, and say it, with more than the reason."""
        if count:
            self.dropped[why] = self.dropped.get(why, 0) + count
            self.say(f"left out: {count:,} {'cell' if count == 1 else 'cells'} {why}{more}")

    def _cells(
        self, label: str, group: str | None, species: str | None, without: Sequence[str]
    ) -> pd.DataFrame:
        """Ids, labels as they stand, donors, species and cortical layer of all rows, by row."""
        frame = self.frame
        every = {f.name: f for name in SCALAR_LAYOUTS for f in load_layout(name).features}
        layout = Layout(OWN, tuple(every.values())).with_layer()
        named = map_columns(frame.iloc[:CHUNK], layout, self.overrides)
        self.cell_id = named.cell_id if named.cell_id not in (label, group) else None
        self.layer = named.layer if named.layer not in (label, group, *without) else None
        ids = [""] * len(frame) if self.cell_id is None else texts_of(frame[self.cell_id])
        ids = [name or f"row {k + 1}" for k, name in enumerate(ids)]
        said = [""] * len(frame) if named.species is None else texts_of(frame[named.species])
        donors = ids if group is None else texts_of(frame[group])
        cells = pd.DataFrame(
            {
                "cell_id": table.numbered(ids),
                "species": [species_within(text) or text or species for text in said],
                "subclass": texts_of(frame[label]),
                "t_type": None,
                "donor": donors,
                "dataset": self.path.name,
            }
        )
        if self.layer is not None:
            depths, odd = read_layers(frame[self.layer])
            cells["layer"] = [layer_name(depth) or None for depth in depths]
            self.say(f"cortical layer, for models that take it: '{self.layer}'")
            if odd.total:
                self.say(f"column '{self.layer}', taken as missing: {odd}")
        if twice := len(ids) - len(set(ids)):
            self.loud(
                f"{twice:,} rows have the cell id of another row"
                + ("; cells of one id count as one donor" if group is None else "")
            )
        return self._of_species(cells, SPECIES if species is None else [species])

    def _of_species(self, cells: pd.DataFrame, wanted: Collection[str]) -> pd.DataFrame:
        known = " or ".join(wanted)
        if cells["species"].isna().all():
            raise CohortError(f"{self.path} does not say the species", f"give {{species}} {known}")
        foreign = ~cells["species"].isin(list(wanted))
        for name, count in cells["species"][foreign].fillna("").value_counts().items():
            self._drop("of another species", int(count), f": '{name}'" if name else ": not said")
        if foreign.all():
            raise CohortError(f"{self.path}: no cell is of {known}")
        return cells[~foreign]

    def _labelled(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Cells that have a label and a donor; labels in one spelling."""
        text = cells["subclass"].str.split().str.join(" ")
        lower = text.str.casefold()
        self._drop("without a label", int(lower.isin(MISSING).sum()))
        for name in sorted(set(lower) & NO_LABEL):
            self._drop(f"with label '{name}'", int(np.sum(lower == name)))
        there = ~lower.isin(MISSING | NO_LABEL)
        bare = there & cells["donor"].str.casefold().isin(MISSING)
        self._drop("without a donor", int(bare.sum()))
        there &= ~bare
        usual = text[there].groupby(lower[there]).agg(lambda some: some.value_counts().index[0])
        spelled = lower[there].map(usual)
        merged = sorted(set(text[there]) - set(usual))
        if merged:
            self.say(f"labels that differ in capitals only are one: {_some(merged)} too")
        for name in usual:
            if name.casefold() in _RESERVED or "|" in name:
                raise CohortError(f"{self.path}: '{name}' cannot be a label; write another")
        return cells[there].assign(subclass=spelled)

    def _large_enough(self, cells: pd.DataFrame, label: str) -> pd.DataFrame:
        """Cells of classes with enough cells and donors; a CohortError if there are not two."""
        sizes = cells.groupby("subclass").agg(n=("donor", "size"), donors=("donor", "nunique"))
        small = sizes[(sizes["n"] < MIN_CELLS) | (sizes["donors"] < MIN_DONORS)]
        if len(sizes) - len(small) < 2:
            raise CohortError(
                f"{self.path}: column '{label}' has {len(sizes):,} labels, and "
                f"{len(sizes) - len(small)} of at least {MIN_CELLS} cells of {MIN_DONORS} donors "
                f"({_some(_counted(sizes))}); two are needed",
                "is it the column of the labels, and is {group} that of the donors?",
            )
        for name, (count, donors) in list(small.iterrows())[:_SHOWN]:
            more = f": '{name}', of {donors} donor{'s' * (donors > 1)}"
            self._drop(_TOO_SMALL, int(count), more)
        self._drop(_TOO_SMALL, int(small["n"].iloc[_SHOWN:].sum()), ": others")
        return cells[~cells["subclass"].isin(small.index)]

    def _tell(self, found: OwnFeatures, without: Sequence[str]) -> None:
        """Say what became of the columns."""
        ours = our_features()
        own = {f.name: f.column for f in found.layout.features if f.name not in ours}
        for each in found.ours.taken:
            if each.feature in found.layout.feature_names:
                self.say(f"taken: {each.feature}: {each.source}{each.in_unit} ({each.how})")
        for column, why in found.not_ours.items():
            if column in own.values() and not why.startswith("not in layout"):
                self.say(f"not taken for a feature of ours: '{column}': {why}")
        if own:
            names = [
                f"{each.feature}{each.in_unit}"
                for each in found.columns.taken
                if each.feature in own
            ]
            self.say(f"taken as they stand, {len(own)}: {', '.join(names)}")
        self._tell_left_out(found, without)
        for column, counted in found.missing.items():
            self.say(f"column '{column}', taken as missing: {counted}")
        for line in found.loud:
            self.loud(line)

    def _tell_left_out(self, found: OwnFeatures, without: Sequence[str]) -> None:
        """Say which columns are no features, and why."""
        together: dict[str, list[str]] = {}
        for column, why in found.left_out.items():
            together.setdefault(why, []).append(column)
        for why, names in together.items():
            self.say(f"left out: {_some(names)}: {why}")
        if without:
            self.say(f"left out: {_some(without)}: as asked")

    def _tell_cells(self, cells: pd.DataFrame, label: str, group: str | None) -> None:
        """Say what the labels and donors are."""
        sizes = cells.groupby("subclass").agg(n=("donor", "size"), donors=("donor", "nunique"))
        self.say(f"labels of column '{label}': {', '.join(_counted(sizes))}")
        known = Counter(filter(None, map(load_taxonomy().known_as, sizes.index)))
        twice = [name for name, count in known.items() if count > 1]
        for name in sorted(set(twice) & set(load_taxonomy().subclasses)):
            self.loud(f"several labels are {name}; if they are one class, write them alike")
        donors = cells["donor"].nunique()
        if group is None:
            self.loud(
                "no column of donors was given, so every cell counts as a donor of its own: scores "
                "and uncertainty may be too good, as cells of one animal are alike"
            )
        elif donors == len(cells):
            self.loud(f"column '{group}' has another donor for every cell; is it that of donors?")
        else:
            self.say(f"donors of column '{group}': {donors:,}")


def _counted(sizes: pd.DataFrame) -> list[str]:
    """Classes, the largest first, with their cells and donors."""
    ordered = sizes.sort_values("n", ascending=False)
    return [f"{name} {row.n:,} ({row.donors:,} donors)" for name, row in ordered.iterrows()]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
