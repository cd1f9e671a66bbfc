"""The Allen Institute's Patch-seq tables of mouse visual cortex and human neocortex."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from crosspatch.cohorts import sources, table
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError
from crosspatch.features.layouts import Layout, load_layout

#: Datasets and the layouts each can give.
LAYOUTS_OF = {"allen-mouse": ("shared",), "allen-human": ("shared", "full")}

_MOUSE = "allen_mouse_visp"
_MOUSE_METADATA = f"{_MOUSE}/20200711_patchseq_metadata_mouse.csv"
_MOUSE_EFEATURE = f"{_MOUSE}/efeature.csv"
_MOUSE_QC = f"{_MOUSE}/ephys_features_gouwens_w_QC.csv"
_MOUSE_BY_CELL = f"{_MOUSE}/gouwens_tasic_byCell.csv.gz"
_HUMAN = "allen_human_gaba"
_HUMAN_FEATURES = f"{_HUMAN}/LeeDalley_ephys_fx.csv"
_HUMAN_METADATA = f"{_HUMAN}/LeeDalley_manuscript_metadata_v2.csv"
_HUMAN_DONORS = f"{_HUMAN}/DataS1_Donor_table.csv"
_HUMAN_BY_CELL = f"{_HUMAN}/LeeDalley_byCell.csv"

# Our name in obs to the column of the source.
_MOUSE_OBS = {
    "t_type": "T-type Label",
    "met_type": "MET-type Label",
    "structure": "structure",
    "sex": "biological_sex",
    "age": "age",
    "genotype": "full_genotype",
    "ephys_session_id": "ephys_session_id",
}
_HUMAN_OBS = {
    "t_type": "Transcriptomic_type ",  # the source's name ends in a blank
    "cross_species_type": "M_H_Hodge_cross_species_types",
    "layer": "Cortical_layer",
    "structure": "structure",
    "lobe": "lobe",
    "condition": "condition",
    "condition_detail": "condition2",
    "disease": "disease_category",
    "days_in_culture": "Days_In_culture",
    "original_subclass": "subclass_label",
    "nwb_id": "nwb_id",
}


@dataclass(frozen=True)
class _FeatureColumn:
    """How a feature is computed from a column of a source file."""

    feature: str
    file: str
    column: str
    operation: str
    operand: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs."""
        other = self.operation == "subtract" and not _is_number(self.operand)
        return (self.column, self.operand) if other else (self.column,)

    def compute(self, source: pd.DataFrame, file: Path) -> pd.Series:
        """The feature's values, in the order of the source's rows."""
        values = sources.numeric(source, self.column, file)
        if self.operation == "multiply":
            return values * float(self.operand)
        if self.operation == "reciprocal":
            return 1 / values.where(values != 0)
        if self.operation == "subtract" and _is_number(self.operand):
            return values - float(self.operand)
        if self.operation == "subtract":
            return values - sources.numeric(source, self.operand, file)
        return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@cache
def _feature_columns(dataset: str) -> tuple[_FeatureColumn, ...]:
    package = files("crosspatch.cohorts") / "data" / "allen_columns.csv"
    rows = csv.DictReader(package.read_text(encoding="utf-8").splitlines())
    return tuple(
        _FeatureColumn(row["feature"], row["file"], row["column"], row["operation"], row["operand"])
        for row in rows
        if row["dataset"] == dataset
    )


@dataclass
class _Reader:
    """Reads source files of one data directory and remembers their checksums."""

    directory: Path
    verify: bool
    found: dict[str, str]

    def read(
        self, path: str, columns: list[str], encoding: str = "utf-8-sig"
    ) -> tuple[pd.DataFrame, Path]:
        file, self.found[path] = sources.locate(self.directory, path, verify=self.verify)
        return sources.read_source(file, columns, encoding=encoding), file

    def features(self, dataset: str, layout: Layout, keys: Mapping[str, _Key]) -> pd.DataFrame:
        """The layout's features, indexed by each file's own key."""
        wanted = set(layout.feature_names)
        columns = [column for column in _feature_columns(dataset) if column.feature in wanted]
        parts: dict[str, pd.Series] = {}
        for path in dict.fromkeys(column.file for column in columns):
            here = [column for column in columns if column.file == path]
            key = keys[path]
            names = [name for column in here for name in column.columns]
            source, file = self.read(path, [key.column, *names], key.encoding)
            index = key.of(source, file)
            for column in here:
                values = column.compute(source, file).to_numpy()
                parts[column.feature] = pd.Series(values, index=index)
        return pd.DataFrame({name: parts[name] for name in layout.feature_names})


@dataclass(frozen=True)
class _Key:
    """The column of a file that says which cell a row is about, and how to read the id in it."""

    column: str
    pattern: str = r"^(\d+)$"
    translate: Mapping[str, str] | None = None
    encoding: str = "utf-8-sig"

    def of(self, source: pd.DataFrame, file: Path) -> pd.Index:
        ids = source[self.column].str.extract(self.pattern, expand=False)
        if ids.isna().any():
            row = source[ids.isna()].iloc[0]
            raise CohortError(
                f"{file}, line {row[sources.LINE]}, column '{self.column}': '{row[self.column]}' "
                "holds no cell id; correct it or get the file again"
            )
        if self.translate is not None:
            ids = ids.map(self.translate).fillna("unknown id " + ids)
        if ids.duplicated().any():
            twice = ids[ids.duplicated()].iloc[0]
            raise CohortError(f"{file}: cell {twice} has more than one row; keep one of them")
        return pd.Index(ids)


def load_allen(
    dataset: str,
    layout: str = "shared",
    data_dir: str | Path | None = None,
    *,
    verify: bool = True,
) -> anndata.AnnData:
    """Build the cohort table of an Allen dataset from its public tables.

    ``uns["crosspatch"]["joined"]`` counts, by subclass, the labelled cells that have a row in a
    feature file. Cells without a label, of a type outside the task, without a row, or with a row
    that holds no value are left out and counted in ``uns["crosspatch"]["dropped"]``. The quality
    control of arXiv 2603.11000 (3,699 mouse and 506 human cells) needs the recordings and cannot
    be rebuilt from tables.

    Parameters
    ----------
    dataset : str
        ``allen-mouse`` (Gouwens et al. 2020) or ``allen-human`` (Lee, Dalley et al. 2023).
    layout : str
        ``shared``: the 32 features both species have; ``full``: the 93 of the human table.
    data_dir : path, optional
        Data directory; see `crosspatch.cohorts.sources.data_directory`.
    verify : bool
        Whether source files other than the pinned ones are refused.

    Returns
    -------
    AnnData, shape (cells, features)

    Raises
    ------
    CohortError
        If the dataset or layout is unknown, or a source file is not as expected.
    """
    if dataset not in LAYOUTS_OF:
        raise CohortError(f"no dataset '{dataset}'; choose from: {', '.join(LAYOUTS_OF)}")
    features = load_layout(layout)
    if layout not in LAYOUTS_OF[dataset]:
        raise CohortError(
            f"{dataset} cannot give layout '{layout}'; it has: {', '.join(LAYOUTS_OF[dataset])}"
        )
    reader = _Reader(sources.data_directory(data_dir), verify, {})
    cells, values = (_mouse if dataset == "allen-mouse" else _human)(reader, features)
    labelled = cells["label"].notna()
    inside = cells["subclass"].notna()
    joined = inside & cells.index.isin(values.index)
    values = values.reindex(cells.index)
    keep = joined & values.notna().any(axis=1)
    dropped = {
        "without a label": int((~labelled).sum()),
        "of a type outside the task": int((labelled & ~inside).sum()),
        "not in a feature file": int((inside & ~joined).sum()),
        "without a single feature": int((joined & ~keep).sum()),
    }
    if not keep.any():
        raise CohortError(f"{dataset}: no cell has both a label and a feature; get the files again")
    by_subclass = cells.loc[joined, "subclass"].value_counts()
    cells = cells.loc[keep].drop(columns="label")
    cells["dataset"] = dataset
    first = list(table.REQUIRED_OBS)
    cells = cells[first + [name for name in cells.columns if name not in first]]
    return table.build(
        values.loc[keep].to_numpy(dtype=np.float32),
        cells,
        features,
        sources=reader.found,
        verified=verify,
        joined={str(name): int(count) for name, count in by_subclass.items()},
        dropped=dropped,
    )


def _unique_cells(rows: pd.DataFrame, file: Path, column: str) -> pd.DataFrame:
    """Index rows by cell; identical rows of one cell count once, contradicting ones are refused."""
    content = [name for name in rows.columns if name != sources.LINE]
    rows = rows.drop_duplicates(content).set_index(column)
    if rows.index.hasnans:
        raise CohortError(f"{file}: a row has no '{column}'; remove it or get the file again")
    if rows.index.duplicated().any():
        cell = rows.index[rows.index.duplicated()][0]
        raise CohortError(f"{file}: cell {cell} has rows that contradict each other; keep one")
    return rows


def _obs(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    cells = pd.DataFrame({ours: rows[theirs] for ours, theirs in names.items()})
    cells.index = cells.index.astype(str).rename("cell_id")
    return cells


def _mouse(reader: _Reader, layout: Layout) -> tuple[pd.DataFrame, pd.DataFrame]:
    columns = ["cell_specimen_id", "donor_id", *_MOUSE_OBS.values()]
    rows, file = reader.read(_MOUSE_METADATA, columns)
    rows = _unique_cells(rows, file, "cell_specimen_id")
    cells = _obs(rows, _MOUSE_OBS)
    cells["species"] = "mouse"
    cells["donor"] = rows["donor_id"].to_numpy()
    _require_donors(cells, file)
    cells["label"] = cells["t_type"].str.split().str[0]
    cells["subclass"] = load_taxonomy().subclass_of(
        cells["label"], "mouse", f"{file}, column '{_MOUSE_OBS['t_type']}'"
    )
    session = r"ses-(\d+)"
    cell_of = dict(zip(cells["ephys_session_id"], cells.index, strict=True))
    by_cell = _Key("cell_id", r"#(\d+)$", encoding="latin-1")
    values = reader.features(
        "allen-mouse",
        layout,
        {
            _MOUSE_EFEATURE: _Key("ID", session, cell_of),
            _MOUSE_QC: _Key("filename", session, cell_of),
            _MOUSE_BY_CELL: by_cell,
        },
    )
    more = {"layer": "Cortical layer", "t_type_confidence": "T type assignment probability"}
    extra, file = reader.read(_MOUSE_BY_CELL, ["cell_id", *more.values()], by_cell.encoding)
    extra.index = by_cell.of(extra, file)
    cells["layer"] = extra[more["layer"]].reindex(cells.index)
    confidence = sources.numeric(extra, more["t_type_confidence"], file)
    cells["t_type_confidence"] = confidence.reindex(cells.index)
    return cells, values


def _human(reader: _Reader, layout: Layout) -> tuple[pd.DataFrame, pd.DataFrame]:
    key, label = "specimen_id_x", "Revised_subclass_label"
    columns = [key, "Donor", label, *_HUMAN_OBS.values()]
    rows, file = reader.read(_HUMAN_METADATA, columns)
    rows = _unique_cells(rows, file, key)
    cells = _obs(rows, _HUMAN_OBS)
    cells["species"] = "human"
    # h19.03.002 is the only one in lower case; a second spelling must never split a donor.
    cells["donor"] = rows["Donor"].str.upper().to_numpy()
    _require_donors(cells, file)
    cells["days_in_culture"] = sources.numeric(rows, "Days_In_culture", file).to_numpy()
    cells["label"] = rows[label].to_numpy()
    cells["subclass"] = load_taxonomy().subclass_of(
        cells["label"], "human", f"{file}, column '{label}'"
    )
    values = reader.features("allen-human", layout, {_HUMAN_FEATURES: _Key("specimen_id")})
    donors, file = reader.read(_HUMAN_DONORS, ["Donor", "Sex", "Age"])
    donors["Donor"] = donors["Donor"].str.upper()
    donors = _unique_cells(donors, file, "Donor")
    cells["sex"] = cells["donor"].map(donors["Sex"])
    cells["age"] = cells["donor"].map(donors["Age"])
    mapped, file = reader.read(_HUMAN_BY_CELL, [key, "bootstrap_probability"])
    mapped = _unique_cells(mapped, file, key)
    confidence = sources.numeric(mapped, "bootstrap_probability", file)
    cells["t_type_confidence"] = confidence.reindex(cells.index)
    return cells, values


def _require_donors(cells: pd.DataFrame, file: Path) -> None:
    without = cells.index[cells["donor"].isna()]
    if len(without):
        raise CohortError(
            f"{file}: cell {without[0]} has no donor ({len(without)} such cells); folds are "
            "grouped by donor, so give each cell one"
        )
