"""Tables by blocks and columns against the plain way: the csv module, row by row, cell by cell."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosspatch.features.layouts import load_layout
from crosspatch.models.artifact import Artifact
from crosspatch.models.verdicts import MINIMUM_INFORMATION, OUTSIDE_P, Verdict
from crosspatch.prediction.batches import Batch, ReadSettings, SeenIds, unique
from crosspatch.prediction.output import Output, header_lines
from crosspatch.prediction.pipeline import Inputs, Listener, read_inputs
from crosspatch.prediction.prediction import Prediction
from crosspatch.prediction.predictor import Predictor
from crosspatch.prediction.training import train
from crosspatch.tables import reading, values
from crosspatch.tables.names import range_of
from tests import made

SHARED = load_layout("shared")
TERMS = {
    "Lamp5": "CL:4023011",
    "Pvalb": "CL:4023018",
    "Sst": "CL:4023017",
    "Vip": "CL:4023016",
    "Sncg": "CL:4023015",
}
MISSING = ("", "NA", "n/a", "nan", "-", ".", "None", " ")
JUNK = ("bad", "5 mV", "=1+2", "0x1A", "1_0", "#DIV/0!", "1 2", "inf", "-Infinity", "--1")


def plausible(X: np.ndarray) -> np.ndarray:
    """Standard numbers as values that the features can have."""
    ranges = [range_of(name) for name in SHARED.feature_names]
    low, high = np.array([[each.low, each.high] for each in ranges]).T
    return (low + high) / 2 + (high - low) / 14 * X


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Artifact:
    """A small model of cells with values that a table may have."""
    counts = {"Lamp5": 60, "Pvalb": 120, "Sst": 100, "Vip": 80}
    cohort = made.cohort("mouse", counts, donors=50)
    cohort.X = plausible(np.asarray(cohort.X)).astype(np.float32)
    return train(cohort, model="logistic", out=tmp_path_factory.mktemp("model") / "mouse")


def dirty_rows(n: int) -> list[list[str]]:
    """Fields of a table as it comes from another laboratory."""
    rng = np.random.default_rng(5)
    X = plausible(rng.normal(scale=1.3, size=(n, len(SHARED.features))))
    rows = []
    for k, cell in enumerate(X):
        fields = [f"{value:.{rng.integers(1, 7)}f}" for value in cell]
        for place in np.flatnonzero(rng.random(len(fields)) < 0.08):
            value = cell[place]
            fields[place] = rng.choice(
                [*MISSING, *JUNK, f" {value} ", f"{value:.3e}", f"{value * 1000}", "\u22124.5"]
            )
        if k % 40 == 7:
            fields[3:] = [""] * len(fields[3:])
        name = rng.choice([f"c{k}", f"c{k - 1}", f"=c{k}", f"-{k}", f'"c" {k}, x', "", f"c{k}\nb"])
        species = rng.choice(["mouse", "", "Mus musculus", "Rat"], p=[0.5, 0.3, 0.1, 0.1])
        rows.append([name, species, *fields])
    return rows


class Plain:
    """Predictions of a table, a row and a field at a time."""

    def __init__(self, model: Artifact):
        self.model = model
        self.counts: dict[str, int] = {}
        self.units = {feature.name: feature.unit for feature in SHARED.features}

    def number(self, feature: str, text: str) -> float:
        """The value of a field, NaN where it is none, or cannot be the feature's."""
        text = text.strip().replace("\u2212", "-")
        if self.units[feature] == "mV":
            text = text.removesuffix(" mV")
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
            return np.nan
        allowed, value = range_of(feature), float(text)
        return value if allowed.least <= value <= allowed.most else np.nan

    def row(self, line: int, fields: list[str]) -> list[object]:
        """The row of the csv that a row of the table gives."""
        given = fields[0].strip() or f"row {line}"
        name = given
        while name in self.counts:
            self.counts[given] += 1
            name = f"{given}#{self.counts[given]}"
        self.counts[name] = 1
        numbers = map(self.number, SHARED.feature_names, fields[2:])
        x = np.array(list(numbers)).astype(np.float32)
        notes = [f"cell id '{given}' stands more than once"] if name != given else []
        shares = [np.isfinite(x[columns]).mean() for columns in SHARED.columns.values()]
        families = [f for f, c in SHARED.columns.items() if np.isfinite(x[c]).any()]
        completeness = float(np.mean(shares))
        said = fields[1].strip()
        species = "Rat" if said == "Rat" else "mouse"
        head: list[object] = [self.safe(name), species, bool(said) or species == "Rat"]
        classes = self.model.classes
        enough = self.told(x) >= MINIMUM_INFORMATION
        if species == "Rat":
            verdict = Verdict.OUTSIDE if enough else Verdict.INSUFFICIENT
            notes.append("the reference is of mouse cells")
            judged: list[object] = ["", np.nan, *[np.nan] * len(classes), "", str(verdict), np.nan]
        elif not enough:
            verdict = Verdict.INSUFFICIENT
            judged = ["", np.nan, *[np.nan] * len(classes), "", str(verdict), np.nan]
        else:
            judged, unlike = self.judged(x)
            notes += unlike
        # Models of made-up cells take all for interneurons: there is no p of that.
        # With a subclass, the next one by its probability.
        chances = dict(zip(classes, judged[2 : 2 + len(classes)], strict=True))
        next_one = (
            sorted(classes, key=lambda name: float(str(chances[name])))[-2] if judged[0] else ""
        )
        judged[2:2] = [next_one, TERMS.get(next_one, ""), chances.get(next_one, np.nan)]
        judged = [self.rounded(each) for each in (*judged, np.nan)]
        judged.insert(1, TERMS.get(str(judged[0]), ""))
        measured = [self.rounded(completeness), "|".join(families), ""]
        return [*head, *judged, *measured, "", self.safe("; ".join(notes)), "cells.csv"]

    def told(self, x: np.ndarray) -> float:
        """What the features that a cell has tell of the class, whatever their values."""
        reference = self.model.classifier.reference_
        there = np.isfinite(x[reference.coordinates_.columns])
        inverse = np.linalg.inv(reference.covariance_[np.ix_(there, there)])
        p, means = reference.priors_, reference.means_[:, there]
        told = 0.0
        for one, mean in zip(p, means, strict=True):
            apart = [(mean - other) @ inverse @ (mean - other) for other in means]
            told -= one * np.log(np.sum(p * np.exp(-np.array(apart) / 8)))
        return float(told / -np.sum(p * np.log(p)))

    def judged(self, x: np.ndarray) -> tuple[list[object], list[str]]:
        """Subclass, probabilities, set, verdict, p, and what is said of a cell that is unlike."""
        found = self.model.classifier.judge(x[None])
        (p,), (inside,), (far,) = found.probabilities, found.sets, found.p_reference
        best = self.model.classes[int(np.argmax(p))]
        within = [name for name, there in zip(self.model.classes, inside, strict=True) if there]
        verdict = Verdict.CONFIDENT if within == [best] else Verdict.AMBIGUOUS
        unlike = []
        if far < OUTSIDE_P:
            verdict = Verdict.OUTSIDE
            unlike = [f"unlike mouse: {', '.join(self.odd(x, best)) or 'an unusual combination'}"]
        return [best, max(p), *p, "|".join(within), str(verdict), far], unlike

    def odd(self, x: np.ndarray, name: str) -> list[str]:
        """The three features that are farthest from those of a class, with its range."""
        reference = self.model.classifier.reference_
        code = self.model.classes.index(name)
        found = []
        for k, column in enumerate(reference.coordinates_.columns):
            feature = SHARED.features[column]
            z = (float(x[column]) - reference.center_[k]) / reference.scale_[k]
            z = min(max(z, -reference.clip), reference.clip)
            score = abs(z - reference.means_[code, k]) / np.sqrt(reference.covariance_[k, k])
            low, high = reference.middle_[code, :, k]
            if score > 2.5 and not low <= z <= high:
                ends = [reference.center_[k] + reference.scale_[k] * end for end in (low, high)]
                unit = "" if feature.unit == "ratio" else f" {feature.unit}"
                text = f"{x[column]:.3g}{unit} ({name} {ends[0]:.3g} to {ends[1]:.3g})"
                found.append((-score, k, f"{feature.name} {text}"))
        return [text for _, _, text in sorted(found)[:3]]

    @staticmethod
    def rounded(value: object) -> object:
        """As a csv has it."""
        if not isinstance(value, float):
            return value
        return "" if value != value else float(np.round(value, 6))

    @staticmethod
    def safe(text: str) -> str:
        """No formula."""
        formula = text.startswith(("=", "+", "-", "@")) and not re.fullmatch(r"-\d+", text)
        return f"'{text}" if formula else text


def by_table(file: Path, model: Artifact, said: list[str]) -> list[Prediction]:
    predictor, listener = Predictor([model]), Listener(said.append)
    batches = read_inputs(Inputs(tables=[file]), ReadSettings(SHARED), listener)
    return [predictor.predict(batch, said.append) for batch in batches]


def test_a_dirty_table_is_predicted_as_row_by_row(model, tmp_path):
    rows = dirty_rows(400)
    file = tmp_path / "cells.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["cell_id", "species", *SHARED.feature_names], *rows])
    said: list[str] = []
    parts = by_table(file, model, said)
    with Output(tmp_path / "out.csv") as output:
        for part in parts:
            output.add(part)
    plain = Plain(model)
    classes = [f"probability_{name}" for name in model.classes]
    wanted = io.StringIO()
    wanted.write("\n".join(header_lines(parts[0].header)) + "\n")
    writer = csv.writer(wanted, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(
        [
            *("cell_id", "species", "species_known", "subclass", "cell_ontology_id"),
            *("probability", "runner_up", "runner_up_cell_ontology_id", "runner_up_probability"),
            *classes,
            *("prediction_set", "verdict", "p_reference", "p_interneuron", "completeness"),
            *("families", "layer", "quality", "notes", "source"),
        ]
    )
    writer.writerows(plain.row(line, fields) for line, fields in enumerate(rows, 1))
    assert (tmp_path / "out.csv").read_text() == wanted.getvalue()
    assert set(output.verdicts) == set(Verdict) - {Verdict.NOT_INTERNEURON}
    (part,) = parts
    assert part.to_table()["notes"].tolist() == [cell.text for cell in part]
    assert [cell.unusual for cell in part] == part.cells["unusual"].tolist()


def test_chunks_give_the_same_rows(model, tmp_path, monkeypatch):
    file = tmp_path / "cells.csv"
    pd.DataFrame(dirty_rows(90), columns=["cell_id", "species", *SHARED.feature_names]).to_csv(
        file, index=False
    )
    (whole,) = by_table(file, model, [])
    monkeypatch.setattr(reading, "CHUNK", 90)
    monkeypatch.setattr(reading, "_BLOCK", 1000)
    (blocks,) = by_table(file, model, [])
    pd.testing.assert_frame_equal(blocks.cells, whole.cells)


FIELDS = st.text(st.sampled_from('ab,"\n\r \t5'), max_size=5)


def field_rows(rows: list[list[str]]) -> str:
    """A csv file of some fields, quoted where they must be, or carelessly."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


@settings(deadline=None, max_examples=300)
@given(
    text=st.one_of(
        st.lists(st.lists(FIELDS, min_size=3, max_size=3), max_size=12).map(field_rows),
        st.lists(st.lists(FIELDS, min_size=1, max_size=4).map(",".join), max_size=12).map(
            "\n".join
        ),
    ),
    block=st.integers(1, 40),
    few=st.integers(0, 40),
)
def test_text_is_cut_into_fields_as_by_the_csv_module(tmp_path_factory, text, block, few):
    file = tmp_path_factory.mktemp("cut") / "cells.csv"
    file.write_bytes(f"x,y,z\n0,1,2\n{text}".encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK", block)
        patch.setattr(reading, "_ONE_BY_ONE", few)
        patch.setattr(reading, "_delimiter", lambda *_: ",")
        chunks = list(reading.read_chunks(file, lambda line: None))
    found = [
        ["" if pd.isna(field) else field for field in row]
        for chunk in chunks
        for row in chunk.itertuples(index=False)
    ]
    problems = {place for chunk in chunks for place in chunk.attrs[reading.PROBLEMS]}
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, row))]
    rows = [["0", "1", "2"], *rows]
    assert found == [[*row[:3], *[""] * (3 - len(row))] for row in rows]
    assert problems == {k for k, row in enumerate(rows) if any(map(str.strip, row[3:]))}


@settings(deadline=None, max_examples=300)
@given(
    texts=st.lists(
        st.one_of(
            st.floats(allow_nan=False).map(str),
            st.integers(-9999, 9999).map(str),
            st.sampled_from(
                [
                    *MISSING,
                    *JUNK,
                    "1,5",
                    "-2,25",
                    "1,234",
                    "1.234,5",
                    "0,3 nA",
                    "5 %",
                    "+3",
                    "0",
                    "1.",
                    "\u22122",
                ]
            ),
            st.text(st.sampled_from("0123456789.,eE+- "), max_size=6),
        ),
        min_size=1,
        max_size=12,
    ),
    marks=st.sampled_from(["plain", "point", "comma"]),
    no_zero=st.booleans(),
)
def test_columns_of_text_are_read_as_field_by_field(texts, marks, no_zero):
    """The numbers of Arrow's text, and of Python's, which pandas and the patterns read."""
    of_arrow = pd.Series(texts, dtype=pd.ArrowDtype(pa.string()))
    found = values.read_column(of_arrow, marks=marks, no_zero=no_zero)
    plain = values.read_column(pd.Series(texts, dtype=object), marks=marks, no_zero=no_zero)
    # Of more than seventeen digits pandas drops some; Arrow gives the nearest number.
    np.testing.assert_allclose(found.numbers, plain.numbers, rtol=1e-12)
    assert found.counted == plain.counted
    assert (found.filled, found.units) == (plain.filled, plain.units)
    np.testing.assert_array_equal(found.unit_of, plain.unit_of)
    np.testing.assert_array_equal(found.zeros, plain.zeros)


def test_ids_are_named_as_one_by_one():
    rng = np.random.default_rng(3)
    seen = SeenIds()
    counts: dict[str, int] = {}
    for _ in range(20):
        ids = [f"c{k}" for k in rng.integers(0, 60, 30)]
        ids[::7] = [f"c{k}#2" for k in rng.integers(0, 60, 5)]
        wanted = []
        for cell_id in ids:
            name = cell_id
            while name in counts:
                counts[cell_id] += 1
                name = f"{cell_id}#{counts[cell_id]}"
            counts[name] = 1
            wanted.append(name)
        batch = Batch("cells", ids, [None] * 30, np.zeros((30, 1), dtype=np.float32))
        assert unique(batch, seen, lambda line: None).cell_ids == wanted


def test_distances_of_many_patterns_are_those_of_each(model):
    reference = model.classifier.reference_
    rng = np.random.default_rng(0)
    X = plausible(rng.normal(size=(500, len(SHARED.features))))
    X[rng.random(X.shape) < 0.1] = np.nan
    X[3] = np.nan
    alone = [reference.compare(x[None]) for x in X]
    for together, each in zip(reference.compare(X), zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(together, np.concatenate(each), rtol=1e-10, atol=1e-12)
