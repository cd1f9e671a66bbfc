from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from crosspatch.cohorts import table
from crosspatch.errors import CohortError, EvaluationError, one_line
from crosspatch.explanation import map as module
from crosspatch.explanation.components import cells_by_species
from crosspatch.explanation.map import build_map, lay_out, reference_map
from crosspatch.explanation.reference_map import (
    MAP_FILE,
    Placed,
    ReferenceMap,
    geometric_median,
    load_map,
    neighbour_weights,
)
from crosspatch.features.layouts import Feature, Layout, load_layout
from tests import made

COLUMNS = made.SMALL.columns


class Flat:
    """The first two components, in place of UMAP, which takes longer to compile than all this."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings

    def fit_transform(self, Z):
        return Z[:, :2]

    transform = fit_transform


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umap.UMAP", Flat)


@pytest.fixture(scope="module")
def cohorts() -> dict[str, anndata.AnnData]:
    return {
        name: made.cohort(name, layout=made.SMALL, seed=seed, spread=0.3)
        for seed, name in enumerate(("mouse", "human"))
    }


@pytest.fixture(scope="module")
def reference(cohorts) -> ReferenceMap:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("umap.UMAP", Flat)
        return build_map(cohorts)


def values(cohort: anndata.AnnData) -> np.ndarray:
    return np.asarray(cohort.X, dtype=np.float64)


def assert_same(one: Placed, two: Placed) -> None:
    np.testing.assert_allclose(one.x, two.x, rtol=1e-9)
    np.testing.assert_allclose(one.y, two.y, rtol=1e-9)
    assert one.neighbours == two.neighbours


def test_the_table_is_that_of_the_map(cohorts, reference, flat):
    pd.testing.assert_frame_equal(reference.table, lay_out(cells_by_species(cohorts))[0].table)
    assert reference.species == ("mouse", "human")


def test_cells_of_the_reference_lie_where_the_map_has_them(cohorts, reference):
    mouse = cohorts["mouse"]
    for rows in (slice(None), slice(7, 8)):  # together and alone, where scores round otherwise
        placed = reference.place(values(mouse)[rows], made.SMALL, "mouse")
        at = reference.table.set_index("cell_id").loc[mouse.obs_names[rows]]
        fitted = np.isin(mouse.obs_names[rows], reference.table["cell_id"][reference.fitted])
        assert fitted.any()
        np.testing.assert_allclose(placed.x[fitted], at["x"][fitted], atol=1e-9)
        np.testing.assert_allclose(placed.y[fitted], at["y"][fitted], atol=1e-9)


@pytest.mark.parametrize("species", ["mouse", "human"])
def test_new_cells_lie_among_their_subclass(reference, species):
    new = made.cohort(species, layout=made.SMALL, seed=5, spread=0.3)
    placed = reference.place(values(new), made.SMALL, species)
    there = np.isfinite(placed.x)
    assert there.mean() > 0.9
    y = new.obs["subclass"].to_numpy().astype(str)[there]
    mouse = reference.table[reference.table["species"] == "mouse"]
    centres = mouse.groupby("subclass")[["x", "y"]].mean()
    at = np.stack([placed.x, placed.y], axis=1)[there]
    away = np.linalg.norm(at[:, None] - centres.to_numpy(), axis=2)
    assert (centres.index.to_numpy()[away.argmin(axis=1)] == y).mean() > 0.9
    neighbours = [counts for counts in placed.neighbours if counts]
    assert len(neighbours) == len(y)
    assert np.mean([next(iter(counts)) for counts in neighbours] == y) > 0.9
    assert all(sum(counts.values()) == 15 for counts in neighbours)


def test_neighbours_are_of_the_cells_own_species(cohorts, flat):
    few = {"mouse": cohorts["mouse"], "human": cohorts["human"][:9].copy()}
    found = build_map(few)
    there = found.table.loc[found.table["species"] == "human", "subclass"].value_counts().to_dict()
    new = made.cohort("human", layout=made.SMALL, seed=5)
    for counts in found.place(values(new)[:5], made.SMALL, "human").neighbours:
        assert counts == there  # no more than there are, and none from mouse
    again = found.place(values(few["human"])[:1], made.SMALL, "human")
    assert sum(again.neighbours[0].values()) == sum(there.values()) - 1  # not itself


def test_human_cells_are_moved_as_the_reference_was(cohorts, flat):
    """Human cells that differ from mouse in offset and gain only are placed as if mouse."""
    stretched = cohorts["mouse"].copy()
    stretched.obs["species"] = "human"
    stretched.X[:] = 3.0 * stretched.X + 100.0
    found = build_map({"mouse": cohorts["mouse"], "human": stretched})
    new = values(made.cohort("mouse", layout=made.SMALL, seed=5))
    mouse = found.place(new, made.SMALL, "mouse")
    human = found.place(3.0 * new + 100.0, made.SMALL, "human")
    np.testing.assert_allclose(mouse.x, human.x, atol=1e-3)
    np.testing.assert_allclose(mouse.y, human.y, atol=1e-3)
    assert not np.allclose(mouse.x, found.place(3.0 * new + 100.0, made.SMALL, "mouse").x, atol=1)


def test_a_map_that_was_kept_gives_the_same_places(cohorts, reference, tmp_path: Path):
    reference.save(tmp_path / "a" / "map")
    back = load_map(tmp_path / "a" / "map")
    assert [file.name for file in (tmp_path / "a" / "map").iterdir()] == [MAP_FILE]
    pd.testing.assert_frame_equal(back.table, reference.table)
    assert back.layout == reference.layout
    new = values(made.cohort("human", layout=made.SMALL, seed=5))
    for species in ("mouse", "human"):
        one, two = (each.place(new, made.SMALL, species) for each in (reference, back))
        np.testing.assert_array_equal(one.x, two.x)
        assert_same(one, two)
    back.save(tmp_path / "a" / "map")  # over itself
    assert_same(load_map(tmp_path / "a" / "map").place(new, made.SMALL, "human"), two)


def test_traces_are_kept_with_their_settings(flat, tmp_path: Path):
    """Of the vector layouts only some positions are used, and one family is derived."""
    layout = Layout(
        "gouwens",
        (
            *(Feature(f"isi_shape[{k}]", "isi_shape", "mV") for k in range(100)),
            *(Feature(f"inst_freq[{k}]", "inst_freq", "spikes/s") for k in range(300)),
        ),
    )
    cohort = made.cohort("mouse", {"Pvalb": 25, "Sst": 25}, layout=layout)
    cohort.X[:] = np.abs(cohort.X) + 1
    built = build_map({"mouse": cohort})
    built.save(tmp_path)
    one, two = (each.place(cohort.X, layout, "mouse") for each in (built, load_map(tmp_path)))
    assert np.isfinite(one.x).any()
    assert_same(one, two)
    with pytest.raises(EvaluationError, match="cannot be placed on a map of layout 'gouwens'"):
        built.place(cohort.X, Layout("paper", layout.features), "mouse")


def test_features_are_found_by_name(cohorts, reference):
    X = values(cohorts["human"])
    expected = reference.place(X, made.SMALL, "human")
    order = np.random.default_rng(0).permutation(X.shape[1])
    wide = Layout(
        "wide", (Feature("of no meaning", "other", "mV"), *(made.SMALL.features[k] for k in order))
    )
    assert_same(
        reference.place(np.column_stack([np.full(len(X), 1e6), X[:, order]]), wide, "human"),
        expected,
    )


def test_features_that_a_layout_lacks_are_missing(cohorts, reference):
    X = values(cohorts["mouse"])
    kept = np.r_[COLUMNS["subthreshold"], COLUMNS["spike"]]
    narrow = Layout("narrow", tuple(made.SMALL.features[k] for k in kept))
    emptied = X.copy()
    emptied[:, COLUMNS["train"]] = np.nan
    placed = reference.place(X[:, kept], narrow, "mouse")
    assert_same(placed, reference.place(emptied, made.SMALL, "mouse"))
    assert np.isfinite(placed.x).any()


def test_a_cell_with_too_little_is_not_placed_and_spoils_no_other(cohorts, reference):
    X = values(cohorts["mouse"])[:3].copy()
    whole = reference.place(X, made.SMALL, "mouse")
    X[1, np.r_[COLUMNS["spike"], COLUMNS["train"]]] = np.nan
    X[2] = np.nan
    placed = reference.place(X, made.SMALL, "mouse")
    assert np.isnan(placed.x).tolist() == np.isnan(placed.y).tolist() == [False, True, True]
    assert placed.neighbours[1:] == ({}, {})
    assert placed.x[0] == pytest.approx(whole.x[0])
    assert reference.place(X[2:], made.SMALL, "mouse").neighbours == ({},)
    assert reference.place(X[:0], made.SMALL, "human").x.shape == (0,)


def test_what_cannot_be_placed_is_said(cohorts, reference, flat):
    X = values(cohorts["mouse"])
    with pytest.raises(EvaluationError, match="no rat cells; it has mouse and human"):
        reference.place(X, made.SMALL, "rat")
    with pytest.raises(EvaluationError, match="no human cells; it has mouse"):
        build_map({"mouse": cohorts["mouse"]}).place(X, made.SMALL, "human")
    shared = load_layout("shared")
    with pytest.raises(EvaluationError, match="layout 'shared' cannot be placed on a map of"):
        reference.place(np.zeros((1, len(shared.features))), shared, "mouse")
    with pytest.raises(EvaluationError, match=r"have 21 features, but the array has shape \(21,\)"):
        reference.place(X[0], made.SMALL, "mouse")
    first, *rest = made.SMALL.features
    other = Layout("volts", (Feature(first.name, first.family, "V"), *rest))
    with pytest.raises(EvaluationError, match="is in V, the map has it in mV"):
        reference.place(X, other, "mouse")


def test_what_is_not_a_map_is_refused(reference, tmp_path: Path):
    with pytest.raises(EvaluationError, match="is not a map"):
        load_map(tmp_path)
    reference.save(tmp_path)
    file = tmp_path / MAP_FILE
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 0xFF
    for wrong in (b"", b"no archive", content[: len(content) // 2], bytes(damaged)):
        file.write_bytes(wrong)
        with pytest.raises(EvaluationError, match="cannot be read") as raised:
            load_map(tmp_path)
        assert "\n" not in str(raised.value)
    np.savez(file, about=np.asarray('{"format": 99}'))
    with pytest.raises(EvaluationError, match="it has format 99, this crosspatch reads 1"):
        load_map(tmp_path)
    np.savez(file, about=np.asarray([{"format": 1}], dtype=object))
    with pytest.raises(EvaluationError, match="allow_pickle"):
        load_map(tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(EvaluationError, match="cannot be written"):
        reference.save(tmp_path / "taken")


def test_weights_are_those_of_umap():
    from umap.umap_ import compute_membership_strengths, smooth_knn_dist

    distances = np.sort(np.random.default_rng(0).gamma(4, size=(50, 15)), axis=1)
    distances[0] = 0.0
    distances[1, :12] = 0.0
    as_umap = distances.astype(np.float32)
    widths, nearest = smooth_knn_dist(as_umap, 15.0, local_connectivity=0.0)
    rows = np.tile(np.arange(15, dtype=np.int32), (50, 1))
    expected = compute_membership_strengths(rows, as_umap, widths, nearest, bipartite=True)[2]
    expected = expected.reshape(50, 15)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(neighbour_weights(distances), expected, atol=1e-4)


def test_a_cell_between_two_groups_lies_in_the_larger_one():
    """A mean would lie where no cell is."""
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.normal(size=(1, 9, 2)), 50 + rng.normal(size=(1, 6, 2))], axis=1)
    (found,) = geometric_median(groups, np.full((1, 15), 1 / 15))
    assert np.linalg.norm(found - groups[0, :9].mean(axis=0)) < 2
    corners = np.array([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]])
    np.testing.assert_allclose(geometric_median(corners, np.ones((1, 4))), [[1.0, 1.0]])
    one = np.array([[0.0, 0.0, 1.0, 0.0]])
    np.testing.assert_allclose(geometric_median(corners, one), [[2.0, 2.0]], atol=1e-12)


@pytest.fixture
def allen(cohorts, flat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Made-up cells in place of the tables, and a cache of our own; what is loaded is noted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loaded: list[str] = []

    def load(names, features, data_dir):
        loaded.append(features)
        return cohorts

    monkeypatch.setattr("crosspatch.evaluation.task_cohorts.load_cohorts", load)
    return loaded


def test_the_map_is_made_once_and_a_damaged_one_again(allen, cohorts, tmp_path: Path):
    said: list[str] = []
    first = reference_map(say=said.append)
    (line,) = said
    assert line.startswith("making the map of 290 Allen cells, once")
    X = values(cohorts["human"])
    expected = first.place(X, made.SMALL, "human")
    assert_same(reference_map(say=said.append).place(X, made.SMALL, "human"), expected)
    assert len(said) == len(allen) == 1
    (file,) = (tmp_path / "cache").rglob(MAP_FILE)
    file.write_bytes(file.read_bytes()[:1000])
    assert_same(reference_map(say=said.append).place(X, made.SMALL, "human"), expected)
    assert said[1].endswith("; making it again")
    assert all(line == one_line(ValueError(line)) for line in said)
    reference_map(say=said.append)
    assert allen == ["shared"] * 2
    reference_map("full", say=said.append)
    assert allen[2] == "full"


def test_a_map_from_the_cache_needs_neither_umap_nor_torch(allen):
    reference_map(say=lambda line: None)
    code = (
        "import sys, numpy as np\n"
        "from crosspatch.explanation.map import reference_map\n"
        "found = reference_map(say=print)\n"
        "placed = found.place(np.ones((1, 21)), found.layout, 'human')\n"
        "assert np.isfinite(placed.x).all()\n"
        "print(sorted({'umap', 'numba', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_other_tables_or_libraries_mean_another_map(allen, monkeypatch: pytest.MonkeyPatch):
    reference_map(say=lambda line: None)
    monkeypatch.setattr(module, "library_versions", lambda: {"numpy": "0"})
    reference_map(say=lambda line: None)
    monkeypatch.setattr(module, "source_files", dict)
    reference_map(say=lambda line: None)
    monkeypatch.setattr(module, "code_digest", lambda *rooms: "edited")
    reference_map(say=lambda line: None)
    assert len(allen) == 4


def test_a_map_that_cannot_be_kept_is_given_all_the_same(allen, tmp_path: Path):
    (tmp_path / "cache").write_text("a file in the way")
    said: list[str] = []
    assert len(reference_map(say=said.append).table) == 290
    assert "could not be kept" in said[-1]


def test_absent_tables_are_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CohortError) as raised:
            reference_map(data_dir=folder, say=lambda line: None)
        assert "\n" not in str(raised.value)


def test_cells_of_a_wider_layout_lie_where_those_of_the_map_do(flat):
    """A recording is measured in the full layout; the map has the features of both species."""
    full = load_layout("full")
    wide = made.cohort("mouse", layout=full)
    shared = table.in_layout(wide, "shared")
    found = build_map({"mouse": shared})
    assert_same(
        found.place(values(wide), full, "mouse"),
        found.place(values(shared), load_layout("shared"), "mouse"),
    )
