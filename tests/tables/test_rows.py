"""Rows that are cells, and rows that are not."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from crosspatch.errors import CohortError
from crosspatch.features.layouts import load_layout
from crosspatch.prediction.batches import Batch, ReadSettings
from crosspatch.prediction.table_cells import read_table
from crosspatch.tables.mapping import Override, Overrides
from crosspatch.tables.opened import Table

SHARED = load_layout("shared")
NUMBERS = np.random.default_rng(0).uniform(0.9, 1.1, (40, 4)) * [-70, 190, 14, 90]
HEADER = ["Cell", "RMP (mV)", "Rin (MOhm)", "tau (ms)", "Rheobase (pA)"]


def table(ids: list[str], **more: list[str]) -> pd.DataFrame:
    """Cells by their ids; their values are as text."""
    frame = pd.DataFrame(NUMBERS[: len(ids)].round(2).astype(str), columns=HEADER[1:])
    frame.insert(0, "Cell", ids)
    return frame.assign(**more)


def read(given: Table, **how) -> tuple[Batch, list[str]]:
    said: list[str] = []
    (batch,) = read_table(given, ReadSettings(SHARED, **how), said.append)
    return batch, said


def ids_of(given: Table, **how) -> list[str]:
    return read(given, **how)[0].cell_ids


CELLS = [f"c{k}" for k in range(1, 9)]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Mean",
            "MEAN",
            "mean:",
            "Average",
            "avg.",
            "Median",
            "SEM",
            "S.E.M.",
            "SD",
            "S.D.",
            "Std",
        ),
        *("n", "N", "N = 12", "n=8", "Mean (n = 8)", "Mean ± SEM", "mean+/-sd", "Min", "Max", "CV"),
        *("Std. dev.", "Standard deviation", "Standard error of the mean", "Grand mean", "Total"),
        *("Mittelwert", "Standardabweichung", "Anzahl", "moyenne", "Écart-type", "mediana"),
        *("Desviación estándar", "média", "95% CI", "p value", "IQR"),
    ],
)
def test_summaries_are_no_cells(name: str):
    assert ids_of(table([*CELLS, name])) == CELLS
    assert ids_of(table([*CELLS[:4], name, *CELLS[4:], name])) == CELLS
    assert f"'{name}'" in read(table([*CELLS, name]))[1][-1]


@pytest.mark.parametrize(
    "name",
    [
        *("N1", "n 2", "SD1", "mean1", "Mean Streets 3", "Max Planck", "Maxi", "Total Recall"),
        *("Nemo", "M", "SEM2", "Medianoche", "cell n", "Mean WT"),
    ],
)
def test_cells_with_such_names_are_cells(name: str):
    assert name in ids_of(table([*CELLS, name]))


def test_short_names_among_letters_are_cells():
    letters = ["a", "b", "k", "l", "m", "n", "sd", "se"]
    assert ids_of(table(letters)) == letters
    frame = table([*letters[:5], "n"])
    frame.iloc[-1, 1:] = "5"
    assert ids_of(frame) == letters[:5]


def test_statistics_of_groups_go_by_pairs():
    names = [*CELLS[:4], "Mean WT", "SEM WT", *CELLS[4:], "KO mean", "KO SD", "KO n"]
    assert ids_of(table(names)) == CELLS


def test_labels_are_not_taken_for_summaries():
    # Strains, and whether it was filled: "n" is no.
    frame = table(CELLS, Strain=["SD", "LE"] * 4, Filled=["y", "n"] * 4, Sex=["M", "F"] * 4)
    assert ids_of(frame) == CELLS
    # But a row without a name is called by its label.
    frame = table([*CELLS, ""], Layer=[*["L2"] * 8, "Mean"])
    assert ids_of(frame) == CELLS


def test_a_table_without_names_of_cells():
    frame = table(CELLS).drop(columns="Cell")
    assert len(ids_of(frame)) == 8
    frame.insert(0, "Zelle", [*CELLS[:6], "Mittelwert", "n"])
    assert ids_of(frame) == [f"row {k}" for k in range(1, 7)]


def test_means_below_without_a_name():
    frame = table([*CELLS, "", ""])
    whole = frame.iloc[:8, 1:].astype(float)
    frame.iloc[8, 1:] = whole.mean().round(4).astype(str)
    frame.iloc[9, 1:] = (whole.std() / np.sqrt(8)).round(4).astype(str)
    batch, said = read(frame)
    # Errors of potentials cannot be potentials; what is left of that row is not judged.
    assert batch.cell_ids[:8] == CELLS
    assert "row 9" not in batch.cell_ids
    assert any("means of the rows above" in line for line in said)
    assert ids_of(table([*CELLS, "", ""])) == [*CELLS, "row 9", "row 10"]


def test_headings_headers_again_and_notes(tmp_path: Path):
    lines = [",".join(row) for row in table(CELLS).to_numpy()]
    text = "\n".join(
        [
            ",".join(HEADER),
            "Pvalb cells,,,,",
            *lines[:4],
            "",
            "# excluded, as it was leaky",
            "Sst cells,,,,",
            ",".join(HEADER),
            ",mV,MOhm,ms,pA",
            *lines[4:],
            "* p < 0.05,,,,",
            "Data are of 3 mice.,,,,",
        ]
    )
    (tmp_path / "cells.csv").write_text(text)
    batch, said = read(tmp_path / "cells.csv")
    assert batch.cell_ids == CELLS
    (line,) = [line for line in said if "no cells" in line]
    for part in ("7 rows", "headings or notes ('Pvalb cells'", "the header again", "comments"):
        assert part in line


def test_a_cell_without_values_is_kept():
    frame = table(CELLS)
    frame.iloc[3, 1:] = np.nan
    assert ids_of(frame) == CELLS
    # Places of rows are those of the file.
    frame = table(["c1", "Mean", "", "c4"])
    assert ids_of(frame) == ["c1", "row 3", "c4"]


def test_rows_that_are_not_whole_stay_with_their_rows(tmp_path: Path):
    rows = [*table([*CELLS[:3], "Mean", *CELLS[3:]]).to_numpy().tolist()]
    rows[5].append("too much")
    text = "\n".join(map(",".join, [HEADER, *rows]))
    (tmp_path / "cells.csv").write_text(text)
    batch, _ = read(tmp_path / "cells.csv")
    assert batch.cell_ids == CELLS
    assert [bool(note) for note in batch.notes] == [k == 4 for k in range(8)]
    assert np.isnan(batch.X[4]).all()
    assert np.isfinite(batch.X[5]).any()


def test_later_chunks_have_summaries_too(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("crosspatch.tables.reading.CHUNK", 4)
    table([*CELLS, "Mean", "SEM"]).to_csv(tmp_path / "cells.csv", index=False)
    said: list[str] = []
    batches = list(read_table(tmp_path / "cells.csv", ReadSettings(SHARED), said.append))
    assert [name for batch in batches for name in batch.cell_ids] == CELLS
    assert any("2 rows are no cells" in line for line in said)


@pytest.mark.parametrize(
    ("header", "counting"),
    [
        ("Sweep", range(10)),
        ("sweep number", range(1, 11)),
        ("Current (pA)", range(-100, 400, 50)),
        ("stim_amp", range(-100, 400, 50)),
        ("Injected current", [f"{k} pA" for k in range(-100, 400, 50)]),
        ("AP number", range(10)),
        ("Step", range(10)),
    ],
)
def test_rows_of_sweeps_are_refused(header: str, counting):
    frame = table(["a"] * 10 + ["b"] * 10 + ["c"] * 10, **{header: list(counting) * 3})
    with pytest.raises(CohortError, match="one row per sweep, not per cell: cell 'a' has 10 rows"):
        read(frame)
    # Of merged fields only the first is filled.
    with pytest.raises(CohortError, match="one row per sweep"):
        read(frame.assign(Cell=[*["a", *[""] * 9], *["b", *[""] * 9], *["c", *[""] * 9]]))
    ignored = Overrides("m", {header: Override("ignore")})
    assert len(read(frame, columns=ignored)[0]) == 30
    # One sweep of each cell is named.
    assert len(read(table([f"c{k}" for k in range(10)], **{header: list(counting)}))[0]) == 10


def test_sweeps_of_one_cell_without_its_name_are_refused():
    frame = table(CELLS).drop(columns="Cell").assign(Sweep=range(8))
    with pytest.raises(CohortError, match="one row per sweep, not per cell: its 8 rows count"):
        read(frame)


def cells(**how) -> anndata.AnnData:
    return anndata.AnnData(
        obs=pd.DataFrame({"RMP (mV)": NUMBERS[:8, 0], "Layer": "L2"}, index=CELLS), **how
    )


def test_features_beside_a_matrix_that_is_not_there(tmp_path: Path):
    values = NUMBERS[:8, 1:3]
    var = pd.DataFrame(index=["Rin (MOhm)", "tau (ms)"])
    embedded = pd.DataFrame({"Rheobase (pA)": NUMBERS[:8, 3]}, index=CELLS)
    ways = {
        "obs": (cells(), {"v_baseline"}),
        "layer": (
            cells(var=var, layers={"raw": values}),
            {"v_baseline", "input_resistance", "tau"},
        ),
        "obsm": (cells(obsm={"ephys": embedded}), {"v_baseline", "rheobase_i"}),
        "array": (cells(obsm={"X_umap": values}), {"v_baseline"}),
    }
    for name, (made, expected) in ways.items():
        file = tmp_path / f"{name}.h5ad"
        made.write_h5ad(file)
        for given in (file, made):
            batch, _ = read(given)
            found = {
                n for n, x in zip(SHARED.feature_names, batch.X.T, strict=True) if x[0] == x[0]
            }
            assert found == expected
            assert batch.cell_ids == CELLS
    made = cells(var=var, layers={"raw": values, "scaled": values / 2})
    with pytest.raises(CohortError, match=r"it has no X, and several layers: 'raw', 'scaled'"):
        read(made)


def test_features_in_rows_are_said():
    frame = pd.DataFrame({"what": ["Rin (MOhm)", "tau (ms)", "RMP (mV)"], "c1": [1, 2, 3]})
    with pytest.raises(CohortError, match="it has features in rows; give one row per cell"):
        read(frame)
