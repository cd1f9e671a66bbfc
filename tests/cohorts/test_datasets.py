"""A dataset is one registered object in one file: loading, labelling, citing and running ask it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.cohorts import dataset, table
from crosspatch.cohorts.citations import cited_by
from crosspatch.cohorts.dataset import datasets, source_files
from crosspatch.cohorts.download import labels_of
from crosspatch.cohorts.export import export
from crosspatch.cohorts.loading import default_layout
from crosspatch.errors import CohortError, TaxonomyError
from crosspatch.evaluation.task_cohorts import load_cohorts
from crosspatch.features.layouts import load_layout
from tests import made

# All that a new dataset takes.
FILE = '''
"""Made-up cells."""

from crosspatch.cohorts.dataset import Dataset, SourceCells, register
from crosspatch.cohorts.sources import FeatureColumn, Key, SourceFile, cells_in, unique_cells
from crosspatch.features.layouts import load_layout

PATH = "toy/cells.csv"
SHA256 = "{sha256}"


def read(reader, layout):
    columns = [FeatureColumn(name, PATH, name) for name in layout.feature_names]
    rows, file = reader.read(PATH, ["cell", "animal", "type", "session"])
    rows = unique_cells(rows, file, "cell")
    cells = cells_in(rows, file, {{"t_type": "type", "session": "session"}}, rows["animal"])
    cells["label"] = rows["type"].to_numpy()
    values = reader.features(columns, layout, {{PATH: Key("cell")}})
    return SourceCells(cells, values, f"{{file}}, column 'type'")


register(
    Dataset(
        name="toy",
        species="mouse",
        layouts=("shared",),
        files=(SourceFile(PATH, SHA256, {size}, "owner/repository/raw/0123abc/cells.csv"),),
        labels={{"basket": "Pvalb", "Martinotti": "Sst", "bipolar": "Vip"}},
        outside={{"pyramidal": "excitatory"}},
        read=read,
        licence="none",
        cite=("scala2021",),
        authors="Nobody 2026",
        citation="Nobody: Made-up cells (2026).",
        dandisets=("999999",),
        session="session",
    )
)
'''


class Toy(NamedTuple):
    """Where the toy's tables are, and what stands in them."""

    directory: Path
    rows: pd.DataFrame


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    rng = np.random.default_rng(0)
    kinds = rng.permutation(["basket"] * 40 + ["Martinotti"] * 40 + ["bipolar"] * 40)
    rows = pd.DataFrame(
        {
            "cell": np.arange(120),
            "animal": [f"m{k % 24}" for k in range(120)],
            "type": [*kinds[:-1], "pyramidal"],
            "session": 500 + np.arange(120),
        }
    )
    layout = load_layout("shared")
    values = made.features(layout, kinds, missing=0)
    rows = pd.concat([rows, pd.DataFrame(values, columns=layout.feature_names)], axis=1)
    (tmp_path / "data" / "toy").mkdir(parents=True)
    file = tmp_path / "data" / "toy" / "cells.csv"
    rows.to_csv(file, index=False)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    module = tmp_path / "toy.py"
    module.write_text(FILE.format(sha256=digest, size=file.stat().st_size))
    monkeypatch.setattr(dataset, "REGISTERED", dict(datasets()))
    spec = importlib.util.spec_from_file_location("toy", module)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield Toy(tmp_path / "data", rows)
    monkeypatch.undo()
    assert "toy" not in datasets()


def test_it_is_loaded_by_its_name(toy: Toy):
    cohort = crosspatch.load_cohort("toy", data_dir=toy.directory)
    assert cohort.shape == (119, 32)
    assert set(cohort.obs["species"]) == {"mouse"}
    assert set(cohort.obs["subclass"]) == {"Pvalb", "Sst", "Vip"}
    assert cohort.uns["crosspatch"]["dropped"]["of a type outside the task"] == 1
    assert cohort.uns["crosspatch"]["verified"]
    np.testing.assert_allclose(
        cohort[:, "sag"].X[:, 0], toy.rows["sag"].iloc[:-1], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(CohortError, match="toy cannot give layout 'full'; it has: shared"):
        crosspatch.load_cohort("toy", "full", toy.directory)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("human", "full"),
        ("mouse", "shared"),
        ("allen-human+allen-human-l1", "full"),
        ("allen-human+allen-cell-types-human", None),  # the second has no more than the shared ones
        ("cells.h5ad", None),
    ],
)
def test_models_are_trained_in_the_layout_of_their_species(name: str, layout: str | None):
    assert default_layout(name) == layout


def test_a_cohort_is_loaded_from_a_file(toy: Toy, tmp_path: Path):
    file = tmp_path / "toy.h5ad"
    table.write(crosspatch.load_cohort("toy", data_dir=toy.directory), file)
    assert crosspatch.load_cohort(file).n_obs == 119
    assert crosspatch.load_cohort(str(file), "shared").n_vars == 32
    with pytest.raises(CohortError, match=r"no cohort 'tois'; give .*toy, .*\.h5ad"):
        crosspatch.load_cohort("tois")


def test_its_changed_table_is_refused(toy: Toy):
    file = toy.directory / "toy" / "cells.csv"
    toy.rows.iloc[::-1].to_csv(file, index=False)
    with pytest.raises(CohortError, match="not the pinned version"):
        crosspatch.load_cohort("toy", data_dir=toy.directory)
    assert crosspatch.load_cohort("toy", data_dir=toy.directory, verify=False).n_obs == 119


def test_its_tables_are_listed_with_the_others(toy: Toy):
    assert source_files()["toy/cells.csv"].address.endswith("0123abc/cells.csv")
    species = [each.species for each in datasets().values()]
    assert species == sorted(species, reverse=True)  # the mouse's first
    assert "toy" in datasets()


@pytest.mark.parametrize("ending", [".h5ad", ".csv"])
def test_it_is_cited(toy: Toy, ending: str, tmp_path: Path):
    file = tmp_path / f"result{ending}"
    export(crosspatch.load_cohort("toy", data_dir=toy.directory), file)
    assert "scala2021" in cited_by(file)
    assert "gouwens2020" not in cited_by(file)


def test_the_labels_of_its_recordings_are_found(toy: Toy):
    labels = labels_of("999999", data_dir=toy.directory)
    assert labels is not None
    row = toy.rows.iloc[3]
    subclass = {"basket": "Pvalb", "Martinotti": "Sst", "bipolar": "Vip"}[row["type"]]
    assert labels.loc[str(row["session"]), "subclass"] == subclass
    assert labels.loc[str(row["session"]), "specimen"] == str(row["cell"])


def test_models_are_compared_on_it(toy: Toy):
    cohorts = load_cohorts(["toy"], tasks=["mouse"], data_dir=toy.directory)
    result = crosspatch.benchmark(cohorts, models=["logistic"], protocol="quick")
    assert result.summary["macro_f1_mean"].iloc[0] > 0.5


def test_types_outside_the_task_and_missing_labels_mean_nothing():
    labels = pd.Series(["Serpinf1", None, "Sst", "L2/3"])
    found = datasets()["allen-mouse"].meaning_of(labels, "here")
    assert found.isna().tolist() == [True, True, False, False]
    assert found.tolist()[2:] == ["Sst", "Glutamatergic"]


def test_unknown_label_is_refused_with_its_place():
    labels = pd.Series(["VIP", "Chandelier", "Chandelier"])
    with pytest.raises(TaxonomyError, match=r"file\.csv.*'Chandelier' \(2 cells"):
        datasets()["allen-human"].meaning_of(labels, "file.csv")
