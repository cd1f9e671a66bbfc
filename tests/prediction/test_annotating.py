"""Answers in copies of NWB files."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from nwbinspector import inspect_nwbfile
from pynwb import NWBHDF5IO, validate

import crosspatch as package
from crosspatch.errors import RecordingError
from crosspatch.prediction.output import write_csv
from crosspatch.recordings.nwb_annotating import require_place
from tests.command import crosspatch
from tests.recordings import made_files

TABLES = ("crosspatch_predictions", "crosspatch_features")


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """A whole recording and one of two electrodes, as archives take them, and no NWB."""
    folder = tmp_path_factory.mktemp("cells")
    one, two = (made_files.write_abf2(folder / f"{name}.abf") for name in ("one", "two"))
    about = (
        "--subject",
        "m1",
        "--age",
        "P60D",
        "--sex",
        "F",
        "--session-start",
        "2024-01-15T14:30",
    )
    for name, inputs in (("one", [one]), ("pair", [one, two])):
        done = crosspatch("convert", *inputs, folder / f"{name}.nwb", "--species", "mouse", *about)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def copies(cells, tmp_path_factory, model_folders) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    files = [cells / "one.nwb", cells / "pair.nwb"]
    done = crosspatch("annotate", *files, "--model", model_folders["mouse"], "--out", folder)
    assert done.returncode == 0, done.stderr
    assert f"wrote {folder / 'one.nwb'}" in done.stdout
    assert "pair_electrode_1: " in done.stdout
    return folder


def tables(file: Path) -> list[pd.DataFrame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(str(file), "r") as io:
            module = io.read().processing["icephys"]
            return [module[name].to_dataframe() for name in TABLES]


@pytest.fixture(scope="module")
def prediction(cells, model_folders) -> package.Prediction:
    files = [cells / "one.nwb", cells / "pair.nwb"]
    return package.predict(files, model=model_folders["mouse"], say=print)


def test_what_is_written_is_what_predict_says(copies, prediction, model_folders, tmp_path):
    with (tmp_path / "p.csv").open("wb") as out:  # as `predict` writes it
        write_csv(prediction.written(), (), out)
    told = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert len(told) == 3
    ours = pd.concat([tables(copies / "one.nwb")[0], tables(copies / "pair.nwb")[0]])
    first = ours[ours["rank"] == 1].reset_index(drop=True)
    single = [name for name in map(str, told) if not name.startswith("probability_")]
    missing = set(single) - set(first)
    assert missing == {"p_interneuron"}  # these models know no excitatory cells
    for name in first.columns.intersection(told.columns):
        if first[name].dtype == float:
            np.testing.assert_allclose(first[name], told[name].astype(float), atol=1e-6)
        else:
            assert first[name].astype(str).tolist() == told[name].astype(str).tolist(), name
    for cell in prediction:
        of_cell = ours[ours["cell_id"] == cell.cell_id].set_index("class")
        for name, chance in cell.probabilities.items():
            assert of_cell.loc[name, "class_probability"] == chance
            assert of_cell.loc[name, "is_class_in_set"] == (name in cell.prediction_set)
        assert of_cell["class_probability"].is_monotonic_decreasing
    digest = package.load_model(model_folders["mouse"]).digest
    assert set(ours["model_digest"]) == {digest}
    assert set(ours["crosspatch_version"]) == {package.__version__}


def test_features_are_written_with_their_units(copies, prediction):
    ours = tables(copies / "one.nwb")[1].set_index("feature")
    assert next(iter(prediction)).cell_id == "one"
    measured = np.isfinite(prediction.X[0])
    assert ours["value"].tolist() == prediction.X[0][measured].tolist()
    assert len(ours) > 20
    assert ours.loc["input_resistance", "unit"] == "MOhm"
    assert ours.loc["input_resistance", "value"] == pytest.approx(200, rel=0.1)


def test_a_copy_is_predicted_and_inspected_as_its_original(
    cells, copies, prediction, model_folders
):
    again = package.predict(copies, model=model_folders["mouse"], say=print)
    pd.testing.assert_frame_equal(prediction.to_table(), again.to_table())
    np.testing.assert_array_equal(prediction.X, again.X)
    said = [
        crosspatch("inspect", "one.nwb", "--no-png", cwd=folder).stdout
        for folder in (cells, copies)
    ]
    assert said[0] == said[1]
    assert "Features" in said[0]


def contents(file: Path) -> dict[str, object]:
    """All a file holds, but the processing module."""
    found: dict[str, object] = {}
    with h5py.File(file) as opened:

        def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if name.startswith("processing"):
                return
            for key, value in item.attrs.items():
                value = opened[value].name if isinstance(value, h5py.Reference) else value
                found[f"{name}@{key}"] = np.asarray(value).tolist()
            if isinstance(item, h5py.Dataset):
                references = item.dtype.hasobject and h5py.check_string_dtype(item.dtype) is None
                found[name] = str(item.dtype) if references else np.asarray(item[()]).tolist()

        opened.visititems(look)
        look("", opened)
    return found


def test_all_else_stays_as_it_was(cells, copies):
    for name in ("one.nwb", "pair.nwb"):
        assert contents(cells / name) == contents(copies / name)
    assert len(contents(cells / "one.nwb")) > 100


def complaints(file: Path) -> Counter[str]:
    return Counter(str(each.message) for each in inspect_nwbfile(nwbfile_path=str(file)))


@pytest.mark.filterwarnings("ignore")
def test_archives_find_nothing_new_to_complain_of(cells, copies):
    assert not validate(path=str(copies / "pair.nwb"))
    assert complaints(copies / "pair.nwb") == complaints(cells / "pair.nwb")


def test_an_annotation_is_replaced_only_when_asked(copies, model_folders, tmp_path):
    file = Path(shutil.copy(copies / "one.nwb", tmp_path))
    command = "annotate", file, "--model", model_folders["mouse"], "--in-place"
    before = file.read_bytes()
    done = crosspatch(*command)
    assert done.returncode == 2
    assert "was annotated already" in done.stderr
    assert "give --replace" in done.stderr
    assert file.read_bytes() == before
    done = crosspatch(*command, "--replace", "--sets", "by-class")
    assert done.returncode == 0, done.stderr
    assert f"wrote {file}, in place of what was there" in done.stdout
    with h5py.File(file) as opened:
        assert sorted(opened["processing/icephys"]) == sorted(TABLES)
        about = opened[f"processing/icephys/{TABLES[0]}"].attrs["description"]
    assert '"sets": "by-class"' in about


def test_a_file_is_whole_whatever_goes_wrong(cells, model_folders, tmp_path, monkeypatch):
    file = Path(shutil.copy(cells / "one.nwb", tmp_path))
    before = file.read_bytes()

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crosspatch.recordings.nwb_annotating.add_table", full)
    done = crosspatch("annotate", file, "--model", model_folders["mouse"], "--in-place")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["one.nwb"]


@pytest.mark.parametrize(
    ("inputs", "options", "says"),
    [
        (["one.nwb"], [], "give --out for a copy or --in-place"),
        (["one.nwb"], ["--out", "one.nwb"], "is an input and would be written over"),
        (["one.nwb"], ["--out", "pair.nwb"], "pair.nwb is there already"),
        (["one.nwb", "pair.nwb"], ["--out", "x.nwb"], "2 files go into a folder"),
        (["one.abf"], ["--out", "x.nwb"], "`crosspatch convert`"),
        (["t.csv"], ["--out", "x.nwb"], "a table is none"),
    ],
)
def test_mistakes_are_told(cells, model_folders, tmp_path, inputs, options, says):
    for name in ("one.nwb", "pair.nwb", "one.abf"):
        (tmp_path / name).symlink_to(cells / name)
    (tmp_path / "t.csv").write_text("input_resistance,tau,rheobase_i\n200,20,100\n")
    if options[-1:] in (["one.nwb"], ["pair.nwb"]):  # a link is not what would be written over
        for name in ("one.nwb", "pair.nwb"):
            (tmp_path / name).unlink()
            shutil.copy(cells / name, tmp_path)
    given = "annotate", *inputs, "--model", model_folders["mouse"], *options
    done = crosspatch(*given, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x.nwb").exists()


def test_one_bad_file_costs_a_line(cells, model_folders, tmp_path):
    files = [cells / "one.abf", cells / "one.nwb"]
    done = crosspatch("annotate", *files, "--model", model_folders["mouse"], "--out", tmp_path)
    assert done.returncode == 1
    assert "one.abf is not an NWB file" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["one.nwb"]


def test_data_in_another_file_are_not_left_behind(cells, tmp_path):
    (tmp_path / "a").mkdir()
    file = Path(shutil.copy(cells / "one.nwb", tmp_path / "a"))
    with h5py.File(file, "r+") as opened:
        opened["scratch/far"] = h5py.ExternalLink("other.h5", "/data")
    assert not require_place(file, tmp_path / "a" / "copy.nwb", TABLES, replace=False)
    with pytest.raises(RecordingError, match=r"takes data from another file, other\.h5"):
        require_place(file, tmp_path / "copy.nwb", TABLES, replace=False)


def test_a_cell_that_is_given_no_subclass_is_annotated_with_the_reason(
    cells, model_folders, tmp_path
):
    other = model_folders["human"]
    done = crosspatch("annotate", cells / "one.nwb", "--model", other, "--out", tmp_path / "c.nwb")
    assert done.returncode == 0, done.stderr
    (said,) = tables(tmp_path / "c.nwb")[0].query("rank == 1").to_dict("records")
    assert said["verdict"] in ("outside reference", "insufficient data")
    assert said["subclass"] == ""
    assert "the reference is of human cells" in said["notes"]
    assert "class_probability" not in said


def test_a_prediction_writes_itself(prediction, tmp_path):
    found = prediction.first(1)
    assert found.to_nwb(tmp_path / "c.nwb") == [tmp_path / "c.nwb"]
    assert tables(tmp_path / "c.nwb")[0]["subclass"][0] == next(iter(found)).subclass
    with pytest.raises(RecordingError, match="is there already"):
        found.to_nwb(tmp_path / "c.nwb")
