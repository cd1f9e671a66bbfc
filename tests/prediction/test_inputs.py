"""Tables of all kinds, with what goes wrong in them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosspatch.cohorts import table
from crosspatch.errors import CohortError
from crosspatch.features.layouts import Feature, Layout, load_layout
from crosspatch.prediction.batches import Batch, ReadSettings
from crosspatch.prediction.pipeline import Listener, Pipeline, find_inputs, read_inputs, request
from crosspatch.tables.mapping import read_mapping
from tests import made

SHARED = load_layout("shared")
# A table as another laboratory has it: names, units in brackets, two species.
FRAME = pd.DataFrame(
    {
        "Cell": [f"c{k}" for k in range(6)],
        "Vrest (mV)": [-70.0, -68, -71, -66, -73, -69],
        "Rin (GOhm)": [0.15, 0.2, 0.12, 0.3, 0.25, 0.18],
        "Membrane time constant (ms)": [10.0, 12, 15, 9, 20, 14],
        "Rheobase (pA)": [100.0, 60, 150, 40, 80, 90],
        "AP half-width (ms)": [0.5, 0.6, 0.4, 0.7, 0.8, 0.55],
    }
)


def read(*paths: Path, **settings) -> tuple[list[Batch], list[str]]:
    said: list[str] = []
    how = ReadSettings(settings.pop("layout", SHARED), **settings)
    listener = Listener(said.append, spell="--{}".format)
    return list(read_inputs(find_inputs(paths, listener), how, listener)), said


def column(batch: Batch, name: str) -> np.ndarray:
    return batch.X[:, SHARED.feature_names.index(name)]


def write(folder: Path, kind: str, frame: pd.DataFrame = FRAME) -> Path:
    file = folder / f"cells{kind}"
    text = frame.to_csv(index=False, sep="\t" if "tsv" in kind else ",")
    if kind.endswith(".gz"):
        file.write_bytes(gzip.compress(text.encode()))
    elif kind == ".xlsx":
        frame.to_excel(file, index=False)
    elif kind == ".parquet":
        frame.to_parquet(file)
    else:
        file.write_text(text)
    return file


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".csv.gz", ".xlsx", ".parquet"])
def test_every_kind_of_table_gives_the_same_cells(kind: str, tmp_path):
    (batch,), said = read(write(tmp_path, kind))
    assert batch.cell_ids == list(FRAME["Cell"])
    np.testing.assert_allclose(column(batch, "input_resistance"), FRAME["Rin (GOhm)"] * 1000)
    np.testing.assert_allclose(column(batch, "tau"), FRAME["Membrane time constant (ms)"])
    assert batch.species == [None] * 6
    assert any("input_resistance" in line and "GOhm" in line for line in said)
    assert any("missing" in line and "sag" in line for line in said)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_encodings_and_semicolons(encoding: str, tmp_path):
    text = FRAME.rename(columns={"Rheobase (pA)": "Rhéobase µ"}).to_csv(index=False, sep=";")
    (tmp_path / "cells.csv").write_bytes(text.encode(encoding))
    (batch,), _ = read(tmp_path / "cells.csv")
    np.testing.assert_allclose(column(batch, "v_baseline"), FRAME["Vrest (mV)"])


def test_a_table_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("crosspatch.tables.reading.CHUNK", 4)
    for kind in (".csv", ".xlsx", ".parquet"):
        batches, _ = read(write(tmp_path, kind))
        assert [len(batch.cell_ids) for batch in batches] == [4, 2]
        assert [i for b in batches for i in b.cell_ids] == list(FRAME["Cell"])


def test_duplicate_ids_are_kept_apart(tmp_path):
    frame = FRAME.assign(Cell=["a", "a", "b", "a", "", "b"])
    (batch,), said = read(write(tmp_path, ".csv", frame))
    assert batch.cell_ids == ["a", "a#2", "b", "a#3", "row 5", "b#2"]
    frame = FRAME.assign(Cell=["a", "a", "a#2", "c", "d", "e"])
    (batch,), _ = read(write(tmp_path, ".csv", frame))
    assert len(set(batch.cell_ids)) == 6
    (batch,), _ = read(write(tmp_path, ".csv", FRAME.assign(Cell=["a", "a", "b", "a", "", "b"])))
    assert batch.given_ids[1] == "a"
    assert sum("more than once" in line for line in said) == 1


def test_text_in_numbers_and_formulas_are_missing_and_said(tmp_path):
    frame = FRAME.astype(object)
    frame.loc[0, "Rheobase (pA)"] = "=B2*2"
    frame.loc[1, "Rheobase (pA)"] = "#DIV/0!"
    frame.loc[2, "Rheobase (pA)"] = "40 mV"
    (batch,), said = read(write(tmp_path, ".csv", frame))
    assert np.isnan(column(batch, "rheobase_i")).tolist() == [True, True, True, False, False, False]
    line = next(line for line in said if "taken as missing" in line)
    assert "2 not a number" in line
    assert "1 in no unit of current, such as '40 mV'" in line
    assert "=B2*2" in line


def test_a_row_with_too_many_fields_is_named_and_the_rest_read(tmp_path):
    lines = FRAME.to_csv(index=False).splitlines()
    lines[2] += ",7,8"
    lines[3] += ",,"
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    (batch,), said = read(tmp_path / "cells.csv")
    assert len(batch.cell_ids) == 6
    assert np.isnan(batch.X[1]).all()
    assert "line 3 has 8 fields" in batch.notes[1][0]
    assert np.isfinite(batch.X[2]).any()
    assert any("line 3" in line for line in said)


def test_comments_and_empty_lines_are_passed_over(tmp_path):
    text = "# made by hand\n\n" + FRAME.to_csv(index=False) + "\n\n"
    (tmp_path / "cells.csv").write_text(text)
    (batch,), _ = read(tmp_path / "cells.csv")
    assert batch.cell_ids == list(FRAME["Cell"])


def test_an_all_missing_column_is_no_feature(tmp_path):
    (batch,), _ = read(write(tmp_path, ".csv", FRAME.assign(Sag=np.nan)))
    assert np.isnan(column(batch, "sag")).all()


def test_species_are_read_and_other_words_kept(tmp_path):
    species = ["Mus musculus", "human", "Rat", "", "HUMAN", "Mouse (C57BL/6)"]
    (batch,), _ = read(write(tmp_path, ".csv", FRAME.assign(species=species)), species="human")
    assert batch.species == ["mouse", "human", "Rat", "human", "human", "mouse"]


def test_a_mapping_file_overrides(tmp_path):
    frame = FRAME.rename(columns={"Rin (GOhm)": "R", "Cell": "Neuron no."})
    (tmp_path / "mapping.yaml").write_text(
        '"R": {feature: input_resistance, unit: GOhm}\n"Neuron no.": cell_id\n'
    )
    columns = read_mapping(tmp_path / "mapping.yaml")
    (batch,), _ = read(write(tmp_path, ".csv", frame), columns=columns)
    assert batch.cell_ids == list(FRAME["Cell"])
    np.testing.assert_allclose(column(batch, "input_resistance"), FRAME["Rin (GOhm)"] * 1000)


def test_an_ambiguous_column_is_asked_about(tmp_path):
    file = write(tmp_path, ".csv", FRAME.assign(Latency=[0.02, 0.05, 0.03, 0.1, 0.02, 0.04]))
    (batch,), said = read(file)
    assert np.isnan(column(batch, "latency_hero")).all()
    assert any("refused" in line and "Latency" in line for line in said)
    asked: list[str] = []

    def ask(name, candidates):
        asked.append(name)
        return "latency_hero"

    (batch,) = read_inputs(
        find_inputs([file], Listener(said.append)), ReadSettings(SHARED), Listener(said.append, ask)
    )
    assert asked == ["Latency"]
    assert np.isfinite(column(batch, "latency_hero")).all()


def test_a_cohort_table_gives_its_own_features(tmp_path):
    cohort = made.cohort()
    table.write(cohort, tmp_path / "cells.h5ad")
    (batch,), _ = read(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(batch.X, np.asarray(cohort.X))
    assert batch.cell_ids == cohort.obs_names.tolist()
    assert set(batch.species) == {"human"}


def test_a_cohort_table_with_more_or_fewer_features(tmp_path):
    full = made.cohort(layout=load_layout("full"))
    table.write(full, tmp_path / "full.h5ad")
    (batch,), _ = read(tmp_path / "full.h5ad")
    np.testing.assert_array_equal(column(batch, "tau"), np.asarray(full[:, "tau"].X).ravel())
    few = Layout("few", SHARED.features[:12])
    table.write(made.cohort(layout=few), tmp_path / "few.h5ad")
    (batch,), said = read(tmp_path / "few.h5ad")
    assert np.isnan(batch.X[:, 12:]).all()
    assert any("20 features are missing" in line for line in said)


def test_a_cohort_table_in_other_units_is_refused(tmp_path):
    features = [
        Feature(f.name, f.family, "s" if f.name == "tau" else f.unit) for f in SHARED.features
    ]
    table.write(made.cohort(layout=Layout("odd", tuple(features))), tmp_path / "odd.h5ad")
    batches, said = read(tmp_path / "odd.h5ad")
    assert not batches
    assert any("'tau' is in s" in line for line in said)


def test_any_anndata_is_mapped(tmp_path):
    import anndata

    numbers = FRAME.drop(columns="Cell")
    cells = anndata.AnnData(
        X=numbers.to_numpy(np.float32),
        obs=pd.DataFrame({"organism": "mouse"}, index=FRAME["Cell"].to_numpy()),
        var=pd.DataFrame(index=numbers.columns),
    )
    cells.write_h5ad(tmp_path / "cells.h5ad")
    (batch,), _ = read(tmp_path / "cells.h5ad")
    np.testing.assert_allclose(column(batch, "tau"), FRAME["Membrane time constant (ms)"])
    assert set(batch.species) == {"mouse"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", "no rows"),
        ("header.csv", b"cell_id,tau\n", "no rows"),
        ("words.csv", b"a,b\nx,y\n", "--columns"),
        ("zip.xlsx", b"PK\x03\x04 no workbook", "workbook"),
        ("text.parquet", b"hello", "parquet"),
        ("text.h5ad", b"hello", "h5ad"),
        ("text.csv.gz", b"hello", "cannot be read"),
        ("binary.csv", bytes(range(256)) * 40, ""),
        ("long.csv", b"a,b\n" + b"x" * 400_000 + b",1\n", "cannot be read"),
        ("picture.png", b"\x89PNG", "not a file that can be read"),
    ],
)
def test_a_bad_file_costs_a_line_and_not_the_others(name: str, content: bytes, says: str, tmp_path):
    (tmp_path / name).write_bytes(content)
    batches, said = read(tmp_path / name, write(tmp_path, ".csv"), tmp_path / "nothing.csv")
    assert [batch.cell_ids for batch in batches][-1] == list(FRAME["Cell"])
    assert any(name in line and says in line for line in said)
    assert any("nothing.csv does not exist" in line for line in said)
    assert not any("\n" in line for line in said)


def test_recordings_cannot_be_measured_in_a_foreign_layout(real_data: Path):
    batches, said = read(real_data / "recordings" / "18713001.abf", layout=made.SMALL)
    assert not batches
    assert any("cannot be measured on recordings" in line for line in said)


def test_a_file_given_twice_is_read_once(tmp_path):
    file = write(tmp_path, ".csv")
    batches, said = read(file, tmp_path / "." / file.name)
    assert len(batches) == 1
    assert any("given twice" in line for line in said)


def test_excel_formulas_without_a_saved_value_are_counted(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    for row in [list(FRAME.columns), *FRAME.to_numpy().tolist()]:
        book.active.append(row)
    book.active["E2"] = "=B2*2"
    book.save(tmp_path / "cells.xlsx")
    (batch,), said = read(tmp_path / "cells.xlsx")
    assert np.isnan(column(batch, "rheobase_i")).tolist() == [True] + [False] * 5
    assert any("1 cells hold an error, or a formula without its value" in line for line in said)


def test_a_header_that_begins_with_a_hash(tmp_path):
    text = "# by hand\n#" + FRAME.rename(columns={"Cell": ""}).to_csv(index=False)
    (tmp_path / "cells.csv").write_text(text)
    (batch,), _ = read(tmp_path / "cells.csv")
    assert len(batch.cell_ids) == 6
    np.testing.assert_allclose(column(batch, "v_baseline"), FRAME["Vrest (mV)"])


def test_commas_in_a_tab_separated_header(tmp_path):
    frame = FRAME.rename(columns={"Cell": "Cell, as in the book, page 3, 4, 5, 6, 7"})
    for name in ("cells.tsv", "cells.txt"):
        frame.to_csv(tmp_path / name, index=False, sep="\t")
        (batch,), _ = read(tmp_path / name)
        np.testing.assert_allclose(column(batch, "v_baseline"), FRAME["Vrest (mV)"])


def test_a_row_of_units_under_the_header(tmp_path):
    bare = FRAME.rename(columns=lambda name: name.split(" (")[0])
    units = ["", "mV", "GOhm", "ms", "pA", "ms"]
    lines = bare.to_csv(index=False).splitlines()
    (tmp_path / "cells.csv").write_text("\n".join([lines[0], ",".join(units), *lines[1:]]))
    book = pd.DataFrame([units, *bare.to_numpy().tolist()], columns=bare.columns)
    book.to_excel(tmp_path / "cells.xlsx", index=False)
    for name in ("cells.csv", "cells.xlsx"):
        (batch,), said = read(tmp_path / name)
        assert len(batch.cell_ids) == 6
        np.testing.assert_allclose(column(batch, "input_resistance"), FRAME["Rin (GOhm)"] * 1000)
        assert any("taken for the columns' units" in line for line in said)


def test_whole_numbers_as_ids(tmp_path):
    frame = FRAME.assign(Cell=np.arange(6) + 567737682.0)
    (batch,), _ = read(write(tmp_path, ".parquet", frame))
    assert batch.cell_ids[0] == "567737682"


def test_recordings_that_were_measured_are_not_measured_again(real_data: Path, monkeypatch):
    files = [real_data / "recordings" / f"{n}.abf" for n in ("18713001", "171116sh_0018")]
    (first,), _ = read(*files)
    from crosspatch.features.many import Readers

    monkeypatch.setattr(Readers, "extract", None)
    (again,), _ = read(*files)
    np.testing.assert_array_equal(first.X, again.X)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("words.csv", b"Notes,Colour\nx,y\n", "no column is a feature"),
        ("empty.csv", b"", "no rows"),
        ("torn.xlsx", b"PK\x03\x04 no workbook", "workbook"),
        ("sweeps.csv", b"Cell,Sweep,tau\n" + b"".join(b"a,%d,12\n" % k for k in range(9)), "sweep"),
    ],
)
def test_a_table_is_checked_before_a_model_is_loaded(name, content, says, tmp_path, monkeypatch):
    def load(*settings, **more):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("crosspatch.prediction.pipeline.load_predictor", load)
    (tmp_path / name).write_bytes(content)
    said: list[str] = []
    with pytest.raises(CohortError, match="no cell could be read"):
        Pipeline(request(tmp_path / name), Listener(said.append))
    assert any(name in line and says in line for line in said)
    # One that can be read is not given up for another.
    with pytest.raises(AssertionError):
        Pipeline(request([tmp_path / name, write(tmp_path, ".csv")]), Listener(said.append))


def test_a_table_for_a_model_of_ones_own_may_have_any_names(tmp_path, monkeypatch):
    def load(*settings, **more):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("crosspatch.prediction.pipeline.load_predictor", load)
    (tmp_path / "own.csv").write_text("Cell,psth[0],our depth\na,1,2\n")
    with pytest.raises(AssertionError, match="a model is loaded"):
        Pipeline(request(tmp_path / "own.csv", "own-model"), Listener(print))
