"""The same cells in whatever way a laboratory writes its tables."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosspatch.errors import CohortError
from crosspatch.features.layouts import load_layout
from crosspatch.prediction.batches import Batch, ReadSettings
from crosspatch.prediction.table_cells import first_rows, read_table
from crosspatch.tables.mapping import Override, Overrides
from crosspatch.tables.workbook import Workbook
from tests.tables import made_books

SHARED = load_layout("shared")

#: Feature, header, unit, and what values it has.
COLUMNS = [
    ("v_baseline", "Resting membrane potential", "mV", (-74.9, -62.1, 1)),
    ("input_resistance", "Input resistance", "MOhm", (80.2, 1450.7, 1)),
    ("tau", "Membrane time constant", "ms", (5.71, 19.64, 2)),
    ("rheobase_i", "Rheobase", "pA", (51, 1246, 0)),
    ("threshold_v_rheo", "AP threshold", "mV", (-45.5, -38.3, 1)),
    ("width_rheo", "AP half-width", "ms", (0.272, 0.856, 3)),
    ("upstroke_rheo", "Max rise slope", "mV/ms", (258, 430, 0)),
    ("sag", "Sag ratio", "", (0.011, 0.162, 3)),
]
FEATURES = [feature for feature, *_ in COLUMNS]


def cells_of(seed: int, count: int = 12) -> np.ndarray:
    """Values of cells, rounded as they are written."""
    rng = np.random.default_rng(seed)
    columns = [
        np.round(rng.uniform(low, high, count), digits) for *_, (low, high, digits) in COLUMNS
    ]
    # The ends are always there.
    for column, (*_, (low, high, _)) in zip(columns, COLUMNS, strict=True):
        column[:2] = low, high
    return np.column_stack(columns)


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    delimiter: str = ","
    decimal: str = "."
    thousands: str = ""
    units: str = "header"  # or ``row``, ``cells``, ``none``
    encoding: str = "utf-8"
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()  # rows of statistics
    groups: bool = False
    minus: str = "-"
    ends: str = "\n"
    quoted: bool = False

    def number(self, value: float, digits: int) -> str:
        text = f"{abs(value):,.{digits}f}".replace(",", "\0").replace(".", self.decimal)
        return (self.minus if value < 0 else "") + text.replace("\0", self.thousands)

    def rows(self, cells: np.ndarray) -> list[list[str]]:
        names = [
            f"{name} ({unit})" if unit and self.units == "header" else name
            for _, name, unit, _ in COLUMNS
        ]
        rows = [["", "Passive", *[""] * 2, "Active", *[""] * 4]] if self.groups else []
        rows.append(["Cell", *names])
        if self.units == "row":
            rows.append(["", *(f"({unit})" if unit else "" for _, _, unit, _ in COLUMNS)])
        statistics = {
            "Mean": cells.mean(axis=0),
            "SEM": cells.std(axis=0) / 3,
            "n": np.full(len(COLUMNS), len(cells)),
        }
        named = [(f"c{k:02d}", row) for k, row in enumerate(cells, 1)]
        named += [(name, statistics.get(name, cells.mean(axis=0))) for name in self.below]
        for name, row in named:
            fields = [
                self.number(v, digits) for v, (*_, (_, _, digits)) in zip(row, COLUMNS, strict=True)
            ]
            if self.units == "cells":
                fields = [
                    f"{f} {u}".strip() for f, (_, _, u, _) in zip(fields, COLUMNS, strict=True)
                ]
            rows.append([name, *fields])
        return rows

    def text(self, cells: np.ndarray) -> bytes:
        out = io.StringIO(newline="")
        for line in self.above:
            out.write(line + self.ends)
        made = pd.DataFrame(self.rows(cells))
        quoting: Literal[0, 1] = 1 if self.quoted else 0
        made.to_csv(
            out,
            sep=self.delimiter,
            lineterminator=self.ends,
            quoting=quoting,
            header=False,
            index=False,
        )
        return out.getvalue().encode(self.encoding)


def read(file: Path, **how) -> tuple[Batch, list[str]]:
    said: list[str] = []
    (batch,) = read_table(file, ReadSettings(SHARED, **how), said.append)
    return batch, said


def values(batch: Batch) -> np.ndarray:
    return batch.X[:, [SHARED.feature_names.index(name) for name in FEATURES]]


def require_same(file: Path, cells: np.ndarray, **how) -> list[str]:
    batch, said = read(file, **how)
    assert batch.cell_ids == [f"c{k:02d}" for k in range(1, len(cells) + 1)]
    np.testing.assert_allclose(values(batch), cells, rtol=1e-6)
    return said


CASES = {
    "German with thousands": Dialect(";", ",", "."),
    "German, tabs": Dialect("\t", ",", ".", encoding="cp1252", ends="\r\n"),
    "English with thousands, quoted": Dialect(",", ".", ",", quoted=True),
    "thin spaces": Dialect(";", ",", "\u2009"),
    "narrow spaces": Dialect(";", ",", "\u202f", encoding="utf-16"),
    "Swiss": Dialect(";", ".", "'"),
    "a line for Excel": Dialect(";", ",", above=("sep=;",), encoding="utf-8-sig"),
    "a title": Dialect(above=("Table S1. Intrinsic properties of recorded cells", "")),
    "a title with commas": Dialect(above=("Table S1, of cells, their properties",)),
    "comments": Dialect("|", above=("# made, by hand", "#", "")),
    "a title, groups and units": Dialect(";", ",", ".", "row", above=("Tabelle 1",), groups=True),
    "units in cells": Dialect(units="cells"),
    "units in cells, German": Dialect(";", ",", ".", "cells"),
    "no units": Dialect("\t", units="none"),
    "statistics": Dialect(below=("Mean", "SEM", "n")),
    "German statistics": Dialect(";", ",", ".", below=("Mittelwert", "Standardfehler", "Median")),
    "a minus of typesetters": Dialect(minus="\u2212"),
    "a dash": Dialect(";", ",", minus="\u2013", encoding="cp1252"),
    "utf-16 without a mark": Dialect(";", ",", encoding="utf-16-le"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_cells_in_every_dialect(name: str, tmp_path: Path):
    cells = cells_of(0)
    (tmp_path / "cells.csv").write_bytes(CASES[name].text(cells))
    require_same(tmp_path / "cells.csv", cells)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    marks=st.sampled_from([".", ",", ".,", ",.", ". ", ",\u202f", ",\u2009", ".'", ",\u00a0"]),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    units=st.sampled_from(["header", "row", "cells", "none"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    above=st.sampled_from([(), ("Table 1",), ("# comment", ""), ("Cells, of 3 mice", "by hand")]),
    below=st.sampled_from([(), ("Mean", "SEM", "n"), ("Average", "Std", "N"), ("MEAN", "S.D.")]),
    groups=st.booleans(),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoted=st.booleans(),
)
def test_any_dialect_gives_the_same_cells(tmp_path_factory, seed, marks, **how):
    dialect = Dialect(decimal=marks[0], thousands=marks[1:], **how)
    cells = cells_of(seed)
    file = tmp_path_factory.mktemp("dialect") / "cells.csv"
    file.write_bytes(dialect.text(cells))
    require_same(file, cells)


BOOKS: dict[str, Callable[..., bytes]] = {
    ".xlsx": made_books.xlsx,
    ".xls": made_books.xls,
    ".ods": made_books.ods,
}


def sheet_of(cells: np.ndarray, dialect: Dialect | None = None) -> list[list[str | float | None]]:
    """The rows of a sheet, with numbers as numbers."""
    written: list[list[str | float | None]] = []
    named = iter(cells)
    for row in (dialect or Dialect()).rows(cells):
        if row[0][1:].isdigit():
            written.append([row[0], *map(float, next(named))])
        else:
            written.append([field or None for field in row])
    return written


def test_a_workbook_that_ends_its_reader_is_refused(tmp_path: Path):
    """A cell far away from the others makes the reader ask for more memory than there is."""
    content = made_books.xls({"A": [["cell id", "rin"], ["a", 7.0]]})
    far = content.replace(struct.pack("<HHH", 1, 1, 0), struct.pack("<HHH", 65535, 65535, 0))
    (tmp_path / "far.xls").write_bytes(far)
    with pytest.raises(CohortError, match="takes its reader too much memory or time"):
        Workbook(tmp_path / "far.xls")
    (tmp_path / "near.xls").write_bytes(content)
    near = Workbook(tmp_path / "near.xls")
    assert list(near.rows("A")) == [(1, ["cell id", "rin"]), (2, ["a", 7.0])]


@pytest.mark.parametrize("ending", BOOKS)
def test_the_sheet_with_the_features_is_read(ending: str, tmp_path: Path):
    cells, file = cells_of(3), tmp_path / f"cells{ending}"
    title: list[list[str | float | None]] = [["Table S1"], []]
    sheets = {
        "Notes": [["Legend"], ["Cell", "what is recorded"]],
        "Data": [*title, *sheet_of(cells, Dialect(units="row", groups=True))],
        "WT": sheet_of(cells_of(4)),
    }
    file.write_bytes(BOOKS[ending](sheets))
    said = require_same(file, cells)
    assert any("of 3 sheets 'Data' is read" in line and "'WT' may" in line for line in said)
    assert any("row 4 is taken for the header" in line for line in said)
    for sheet in ("wt", "3", 3):
        require_same(file, cells_of(4), sheet=sheet)
    with pytest.raises(CohortError, match=r"no column is a feature|no rows"):
        read(file, sheet="Notes")
    with pytest.raises(CohortError, match="there is no sheet 'Date' among its 3; give 'sheet' one"):
        read(file, sheet="Date")


def test_a_sheet_with_merged_fields_and_texts_for_numbers(tmp_path: Path):
    cells = cells_of(5)
    rows = Dialect(";", ",", ".", "row", groups=True).rows(cells)
    content = made_books.xlsx({"S": [["Title"], *rows]}, merged=["A1:I1", "B2:D2", "E2:I2"])
    (tmp_path / "cells.xlsx").write_bytes(content)
    require_same(tmp_path / "cells.xlsx", cells)


def test_a_sheet_of_a_file_without_sheets_is_refused(tmp_path: Path):
    (tmp_path / "cells.csv").write_bytes(Dialect().text(cells_of(0)))
    with pytest.raises(CohortError, match="has no sheets; leave out 'sheet'"):
        read(tmp_path / "cells.csv", sheet=1)


def test_workbooks_that_span_too_much_are_refused(tmp_path: Path):
    one = '<table:table-cell office:value-type="float" office:value="1"'
    wide = f'{one} table:number-columns-repeated="16384"/>'
    bombs = [
        f'<table:table-row table:number-rows-repeated="1048576">{wide}</table:table-row>',
        "<table:table-row/>" * 100_000 + "<table:table-row><table:table-cell "
        f'table:number-columns-repeated="999999999"/>{one}/></table:table-row>',
    ]
    for bomb in bombs:
        content = made_books.ods_of(f'<table:table table:name="S">{bomb}</table:table>')
        (tmp_path / "cells.ods").write_bytes(content)
        with pytest.raises(CohortError, match=r"spans .* rows and .* columns"):
            read(tmp_path / "cells.ods")


def test_names_in_two_rows(tmp_path: Path):
    text = (
        "Cell,RMP (mV),AP,,,Ramp,Short square\n"
        ",,threshold (mV),half-width (ms),rise,threshold (mV),threshold (mV)\n"
        "a,-70,-40,0.5,1,-35,-42\nb,-71,-41,0.6,2,-36,-43\n"
    )
    (tmp_path / "cells.csv").write_text(text)
    batch, said = read(tmp_path / "cells.csv")
    assert any("line 1 is taken for the header's upper row" in line for line in said)
    found = {
        name: batch.X[:, k].tolist()
        for k, name in enumerate(SHARED.feature_names)
        if np.isfinite(batch.X[:, k]).any()
    }
    assert set(found) == {
        *("v_baseline", "threshold_v_rheo", "width_rheo"),
        *("threshold_v_ramp", "threshold_v_short_square"),
    }
    assert found["threshold_v_ramp"] == [-35, -36]


@pytest.mark.parametrize(
    ("header", "texts", "feature", "expected"),
    [
        ("Rheobase", ["0.35 nA", "350 pA", "120pA"], "rheobase_i", [350, 350, 120]),
        ("Rheobase (pA)", ["0,35 nA", "350", "120,5"], "rheobase_i", [350, 350, 120.5]),
        ("Rheobase (nA)", ["0.35", "350 pA", "0.2"], "rheobase_i", [350, 350, 200]),
        ("Rin", ["1.2e2 MOhm", "210 MΩ", "0.19 GOhm"], "input_resistance", [120, 210, 190]),
        ("Rin", ["1.060,5 MΩ", "380,0 MΩ", "n.a."], "input_resistance", [1060.5, 380, np.nan]),
        ("sag", ["8 %", "12%", "3.5 %"], "sag", [0.08, 0.12, 0.035]),
        ("first ISI", ["25 ms", "0.02 s", "40 ms"], "first_isi_inv_hero", [40, 50, 25]),
        # One without a unit is of the unit that the others have, but not of one of several.
        ("RMP", ["-70.1 mV", "-68", "-71 mV"], "v_baseline", [-70.1, -68, -71]),
        ("Rheobase", ["0.35 nA", "350 pA", "120"], "rheobase_i", [350, 350, np.nan]),
        ("RMP", ["-70.1 mV", "-68 ms", "-71 mV"], "v_baseline", [-70.1, np.nan, -71]),
        # What most values are is told by them; a unit in one cell is of that cell.
        ("RMP", ["-0.07", "-0.068", "-71 mV", "-0.07"], "v_baseline", [-70, -68, -71, -70]),
    ],
)  # fmt: skip
def test_units_in_cells(header, texts, feature, expected, tmp_path: Path):
    with (tmp_path / "cells.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["Cell", header], *enumerate(texts)])
    batch, said = read(tmp_path / "cells.csv")
    found = batch.X[:, SHARED.feature_names.index(feature)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    missing = any("taken as missing" in line for line in said)
    assert missing == (np.isnan(expected).any() and "n.a." not in texts)


def test_units_of_another_kind_and_deviations_are_refused(tmp_path: Path):
    rows = "Cell;Rin;tau;RMP\na;20 mV;20±3;-70\nb;21 mV;18.5 ± 2.1 ms;-71\n"
    (tmp_path / "cells.csv").write_text(rows)
    _, said = read(tmp_path / "cells.csv")
    assert any("refused: Rin: says mV, but input_resistance is a resistance" in s for s in said)
    assert any("refused: tau: its values are means with their deviations" in s for s in said)


SAG = ["1.08", "1.32", "1.02", "1.16", "1.21", "1.0", "1.05", "1.4", "1.11", "1.07", "1.9"]


@pytest.mark.parametrize("header", ["Sag ratio", "sag", "Sag", "sag_ratio1", "Sag index"])
@pytest.mark.parametrize("texts", [SAG, SAG[:1], ["1,08", "1,5"], ["2.1", "1.7", "3.0"]])
def test_a_sag_from_one_up_is_no_percentage(header: str, texts: list[str], tmp_path: Path):
    lines = [f"Cell;{header};RMP (mV)", *(f"c{k};{text};-70" for k, text in enumerate(texts))]
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    batch, said = read(tmp_path / "cells.csv")
    sag = SHARED.feature_names.index("sag")
    assert np.isnan(batch.X[:, sag]).all()
    assert any("peak over the steady state or per cent" in line for line in said)
    numbers = np.array([float(text.replace(",", ".")) for text in texts])
    for override, expected in (
        (Override("sag", None, "one_minus_reciprocal"), 1 - 1 / numbers),
        (Override("sag", "%"), numbers / 100),
    ):
        batch, _ = read(tmp_path / "cells.csv", columns=Overrides("m", {header: override}))
        np.testing.assert_allclose(batch.X[:, sag], expected, rtol=1e-5)


def test_a_sag_is_converted_where_its_name_says_how(tmp_path: Path):
    for header, expected in (
        ("Sag ratio (peak/steady-state)", 1 - 1 / 1.25),
        ("Sag ratio (steady state/peak)", None),
        ("Sag (%)", 0.0125),
    ):
        (tmp_path / "cells.csv").write_text(f"Cell,{header},tau (ms)\na,1.25,12\nb,1.25,13\n")
        batch, _ = read(tmp_path / "cells.csv")
        found = batch.X[0, SHARED.feature_names.index("sag")]
        assert np.isnan(found) if expected is None else found == pytest.approx(expected)


def test_the_rows_that_are_shown_are_cells(tmp_path: Path):
    (tmp_path / "cells.csv").write_bytes(Dialect(below=("Mean", "SEM", "n")).text(cells_of(0)))
    said: list[str] = []
    frame = first_rows(tmp_path / "cells.csv", ReadSettings(SHARED), said.append)
    assert frame is not None
    assert len(frame) == 12
    assert any(
        "3 rows are no cells and are left out: summaries ('Mean', 'SEM', 'n')" in s for s in said
    )
