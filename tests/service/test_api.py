"""The interface: what a rig or a page asks, and what it is told."""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import anndata
import h5py
import httpx
import numpy as np
import pytest

from crosspatch import open_recording
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.prediction.training import train
from crosspatch.service import traces
from tests.command import crosspatch
from tests.features.made_files import write_small
from tests.prediction.conftest import layered_cells
from tests.recordings.made_files import MadeSweep, cell, write_nwb
from tests.recordings.made_formats import inputs_of, write_pxp
from tests.recordings.made_nwb import Run, steps_of, write_converted
from tests.service import hostile
from tests.service.conftest import PATIENCE, Service, unpacked
from tests.service.made_tables import VALUES, table, values_of
from tests.tables import made_books


def by_command_line(service: Service, folder: Path, *more: object) -> bytes:
    """The csv that the command line writes of all files of a folder, with the same models."""
    out = folder.parent / f"{folder.name}.csv"
    models = [word for model in service.settings.models for word in ("--model", model)]
    done = crosspatch("predict", *sorted(folder.iterdir()), *models, *more, "--out", out)
    assert done.returncode in (0, 1), done.stderr
    return out.read_bytes()


def give_all(service: Service, client: httpx.Client, folder: Path, **options: Any) -> str:
    batch = service.batch(client, **options)
    for file in sorted(folder.iterdir()):
        answer = service.give(client, batch, file.name, file.read_bytes())
        assert answer.status_code == 201, answer.text
    service.finished(client, batch)
    return batch


def cells_of(client: httpx.Client, batch: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/batches/{batch}/cells", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["cells"]
    return found


def rows_of(content: bytes) -> list[dict[str, str]]:
    lines = [line for line in content.decode().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


# From an upload to an answer


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("c_Vm_1.ibw", "a recording of Igor binary wave, which cannot be read alone", ".pxp"),
        ("c.dat", "a recording of HEKA, which cannot be read alone", "PatchMaster"),
    ],
)
def test_recordings_that_cannot_be_sent_alone_are_named(service, client, name, words, hint):
    answer = service.give(client, service.batch(client), name, b"\x05\0")
    assert answer.status_code == 415
    assert words in answer.json()["error"]
    assert hint in str(answer.json())


def test_a_recording_of_another_program_is_predicted(service, client, tmp_path):
    with open_recording(write_small(tmp_path / "cell.nwb")) as recording:
        sweeps = [
            MadeSweep(np.asarray(each.current, float), np.asarray(each.voltage, float))
            for each in recording.sweeps
        ]
        rate = recording.sweeps[0].rate
    content = write_pxp(tmp_path / "c.pxp", {"c": (inputs_of(sweeps), rate)}, "{input}_{sweep}")
    batch = service.batch(client)
    service.give(client, batch, "cell.pxp", content.read_bytes())
    (file,) = service.finished(client, batch)["files"]
    # No Igor file says the species: a row of each.
    assert (file["kind"], file["state"], file["rows"]) == ("recording", "done", 2)
    assert {each["cell_id"] for each in cells_of(client, batch)} == {"cell"}


def test_upload_state_result_and_the_end(service, client, tmp_path):
    """As curl does it on the page of the interface."""
    content = write_small(tmp_path / "cell.nwb").read_bytes()
    made = client.post("/batches", json={"species": "mouse"})
    assert made.status_code == 201
    batch = made.json()["batch"]
    assert len(batch) >= 20
    assert made.json()["url"] == f"/batches/{batch}"
    given = client.post(f"/batches/{batch}/files?name=cell.nwb", content=content)
    assert given.status_code == 201
    assert given.json()["bytes"] == len(content)
    state = service.finished(client, batch)
    (file,) = state["files"]
    assert (file["name"], file["kind"], file["state"]) == ("cell.nwb", "recording", "done")
    assert file["rows"] == 1
    assert file == client.get(f"/batches/{batch}/files/1").json()
    (found,) = cells_of(client, batch)
    assert found["cell_id"] == "cell"
    assert found["subclass"] in ("Lamp5", "Pvalb", "Sst", "Vip")
    assert found["cell_ontology_id"] == load_taxonomy().ontology[found["subclass"]]
    assert 0 < found["probability"] <= 1
    assert found["species"] == "mouse"
    assert found["species_known"] is True
    details = client.get(f"/batches/{batch}/cells/1/0").json()
    assert details["details"]["cell"]["subclass"] == found["subclass"]
    assert details["details"]["cell"]["cell_ontology_id"] == found["cell_ontology_id"]
    assert found["cell_ontology_id"] in client.get(f"/batches/{batch}/cells/1/0").text
    assert details["recording"]["sweeps"] == 7
    assert client.delete(f"/batches/{batch}").status_code == 204
    assert client.get(f"/batches/{batch}").status_code == 404


def test_about_tells_the_models_and_the_limits(service, client):
    about = client.get("/about").json()
    assert {model["species"] for model in about["models"]} == {"mouse", "human"}
    assert about["limits"]["bytes_of_a_file"] == service.settings.upload
    points = client.get("/map").json()
    assert len(points["x"]) == len(points["cell_id"]) > 100


def test_the_csv_is_that_of_the_command_line(service, client, tmp_path):
    """Byte for byte: recordings, one that cannot be read, and tables with the same ids."""
    folder = tmp_path / "given"
    folder.mkdir()
    write_small(folder / "a.nwb", 1)
    write_nwb(folder / "b.nwb", with_stimulus=False)
    (folder / "a.csv").write_bytes(table(["a", "a", "x, y", "=1+1", "µ", "", "a#2"]))
    (folder / "b.csv").write_bytes(
        table(["a", "a", "a", "b", "a#2"], first=4, more={"Organism": ["human", *4 * [""]]})
    )
    (folder / "c.csv").write_bytes(b"cell,colour\nx,red\n")
    expected = by_command_line(service, folder)
    batch = give_all(service, client, folder)
    answer = client.get(f"/batches/{batch}/predictions.csv")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="crosspatch-predictions.csv"' in answer.headers["content-disposition"]
    assert answer.content.decode() == expected.decode()
    assert len(rows_of(answer.content)) == 1 + 1 + 2 * 7 + 1 + 2 * 4


def test_the_csv_of_real_recordings_is_that_of_the_command_line(
    service, client, tmp_path, real_data: Path
):
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("171116sh_0013_voltage_clamp.abf", "171116sh_0016.abf", "17o05027_ic_ramp.abf"):
        (folder / name).write_bytes((real_data / "recordings" / name).read_bytes())
    (folder / "a.csv").write_bytes(table(["171116sh_0016", "b"]))
    expected = by_command_line(service, folder, "--species", "mouse")
    batch = give_all(service, client, folder, species="mouse")
    given = client.get(f"/batches/{batch}/predictions.csv").content
    assert given.decode() == expected.decode()
    assert len(rows_of(given)) == 5


def test_a_recording_of_two_cells_is_two_rows(service, client, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    left, right = steps_of(), steps_of(resistance=150.0, rheobase=140.0)
    write_converted(folder / "pair.nwb", [Run("e 1", left), Run("e 2", right)], together=True)
    expected = by_command_line(service, folder)
    batch = give_all(service, client, folder)
    assert client.get(f"/batches/{batch}/predictions.csv").content.decode() == expected.decode()
    rows = cells_of(client, batch)
    assert [row["cell_id"] for row in rows] == ["pair_e_1", "pair_e_2"]
    for part, made in enumerate((left, right)):
        answer = client.get(f"/batches/{batch}/cells/1/{part}").json()
        rates = answer["recording"]["rates"]
        firing = [i for i, rate in zip(rates["current"], rates["rate"], strict=True) if rate]
        assert min(firing) == pytest.approx((180, 140)[part])
        query = {"stimulus": "long square", "part": part}
        sweeps = unpacked(client.get(f"/batches/{batch}/files/1/sweeps", params=query).content)
        lowest = min(sweeps[0]["voltage"]["values"])
        assert lowest == pytest.approx(made.sweeps[0].voltage.min(), abs=0.1)
    assert client.get(f"/batches/{batch}/files/1/sweeps?stimulus=ramp&part=2").status_code == 404


def test_the_h5ad_has_the_numbers_of_the_csv(service, client, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    write_small(folder / "a.nwb", 1)
    (folder / "a.csv").write_bytes(table(["a", "b", "c"]))
    batch = give_all(service, client, folder, species="human")
    rows = rows_of(client.get(f"/batches/{batch}/predictions.csv").content)
    out = tmp_path / "out.h5ad"
    out.write_bytes(client.get(f"/batches/{batch}/predictions.h5ad").content)
    found = anndata.read_h5ad(out)
    assert list(found.obs_names) == [row["cell_id"] for row in rows] == ["a", "a#2", "b", "c"]
    assert list(found.obs["subclass"].astype(str)) == [row["subclass"] for row in rows]
    given = found.obs["probability"].to_numpy(dtype=float)
    assert given == pytest.approx([float(row["probability"]) for row in rows], abs=1e-6)
    for name in VALUES:
        values = np.asarray(found[1:, name].X).ravel()
        assert values == pytest.approx([values_of(k)[name] for k in range(3)], rel=1e-5), name
    recorded = open_recording(folder / "a.nwb")
    assert float(found[0, "v_baseline"].X[0, 0]) == pytest.approx(
        np.median(recorded.sweeps[0].voltage[:1000]), abs=2.0
    )


def test_the_report_is_one_page_on_all_cells(service, client):
    batch = service.batch(client, species="mouse")
    service.give(client, batch, "x.csv", table([f"cell {k}" for k in range(4)]))
    service.finished(client, batch)
    answer = client.get(f"/batches/{batch}/report.html")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    for k in range(4):
        assert f"cell {k}" in answer.text
    assert "http://" not in answer.text.replace("http://www.w3.org", "")


def test_nothing_stays_of_a_download(service, client):
    batch = service.batch(client)
    service.give(client, batch, "x.csv", table(["a"]))
    service.finished(client, batch)
    folder = service.jobs.batches.get(batch).folder
    for name in ("predictions.csv", "predictions.h5ad"):
        assert client.get(f"/batches/{batch}/{name}").status_code == 200
    deadline = time.monotonic() + 10
    while list(folder.glob("export*")):
        assert time.monotonic() < deadline
    assert client.get(f"/batches/{service.batch(client)}/predictions.csv").status_code == 409


# Species


def test_where_the_species_is_unknown_both_judge(service, client):
    batch = service.batch(client)
    species = ["Mus musculus", "", "Homo sapiens", "rat"]
    service.give(client, batch, "x.csv", table(list("abcd"), more={"Organism": species}))
    service.finished(client, batch)
    found = [
        (each["cell_id"], each["species"], each["species_known"], bool(each["subclass"]))
        for each in cells_of(client, batch)
    ]
    assert sorted(found) == [
        ("a", "mouse", True, True),
        ("b", "human", False, True),
        ("b", "mouse", False, True),
        ("c", "human", True, True),
        ("d", "rat", True, False),
    ]
    for row, each in enumerate(cells_of(client, batch)):
        answer = client.get(f"/batches/{batch}/cells/1/{row}")
        assert answer.status_code == 200
        cell_ = answer.json()["details"]["cell"]
        for name in ("cell_id", "species", "subclass", "verdict"):
            assert cell_[name] == each[name]
    assert client.get(f"/batches/{batch}/cells/1/5").status_code == 404


def test_one_cell_id_in_two_files_is_two_cells(service, client):
    batch = service.batch(client, species="mouse")
    for first, name in ((0, "x.csv"), (5, "y.csv")):
        service.give(client, batch, name, table(["same", "own"], first=first))
    service.finished(client, batch)
    found = cells_of(client, batch)
    assert [(each["name"], each["cell_id"]) for each in found] == [
        ("x.csv", "same"),
        ("x.csv", "own"),
        ("y.csv", "same"),
        ("y.csv", "own"),
    ]
    assert found[0]["probability"] != found[2]["probability"]
    rows = rows_of(client.get(f"/batches/{batch}/predictions.csv").content)
    assert [row["cell_id"] for row in rows] == ["same", "own", "same#2", "own#2"]
    assert "stands more than once" in rows[2]["notes"]
    for k, row in enumerate(rows):
        assert float(row["probability"]) == pytest.approx(found[k]["probability"], abs=1e-6)


# Columns

FOREIGN = b"""Neuron,Species,Rin [GOhm],RMP (V),tau_m (s),spike width (us),AP threshold (mV),Notes
n1,mouse,0.150,-0.070,0.012,600,-40,fine
n2,mouse,0.210,-0.068,0.020,550,-41,fine
n3,mouse,0.180,-0.071,0.015,580,-39,fine
"""


def asked(service: Service, client: httpx.Client, content: bytes = FOREIGN) -> str:
    batch = service.batch(client, species="mouse")
    assert service.give(client, batch, "x.csv", content, columns="ask").status_code == 201
    state = service.finished(client, batch)
    assert state["files"][0]["state"] == "columns", state
    return f"/batches/{batch}"


def test_columns_are_shown_and_chosen(service, client):
    batch = asked(service, client)
    columns = client.get(f"{batch}/files/1/columns").json()
    found = {each["name"]: each for each in columns["columns"]}
    assert list(found) == FOREIGN.decode().splitlines()[0].split(",")
    assert found["Neuron"]["status"] == "cell id"
    assert found["Species"]["status"] == "species"
    assert (found["Rin [GOhm]"]["feature"], found["Rin [GOhm]"]["unit"]) == (
        "input_resistance",
        "GOhm",
    )
    assert found["Rin [GOhm]"]["values"] == ["0.150", "0.210", "0.180"]
    assert found["Notes"]["feature"] is None
    assert columns["rows"] == 3
    assert "sag" in columns["missing"]
    assert cells_of(client, batch.split("/")[-1]) == []
    choices = {
        "spike width (us)": {"feature": "width_rheo", "unit": "us"},
        "Notes": {"feature": "ignore"},
        "tau_m (s)": {"feature": "tau", "unit": "s"},
    }
    answer = client.put(f"{batch}/files/1/columns", json={"columns": choices})
    assert answer.status_code == 200
    now = {each["name"]: each for each in answer.json()["columns"]}
    assert now["spike width (us)"]["feature"] == "width_rheo"
    assert client.get(f"{batch}/files/1").json()["state"] == "columns"
    answer = client.put(f"{batch}/files/1/columns", json={"columns": choices, "predict": True})
    assert answer.status_code == 200
    service.finished(client, batch.split("/")[-1])
    assert client.get(f"{batch}/files/1").json()["rows"] == 3
    values = values_in(client, batch)
    assert values["input_resistance"] == pytest.approx([150, 210, 180])
    assert values["width_rheo"] == pytest.approx([0.6, 0.55, 0.58])
    assert values["tau"] == pytest.approx([12, 20, 15])
    assert values["v_baseline"] == pytest.approx([-70, -68, -71])


def test_another_sheet_of_a_workbook_is_chosen(service, client):
    rows = [line.split(",") for line in FOREIGN.decode().splitlines()]
    sheets = {"Notes": [["of whom"]], "WT": rows[:3], "KO": [rows[0], rows[3]]}
    batch = service.batch(client, species="mouse")
    service.give(client, batch, "x.xlsx", made_books.xlsx(sheets), columns="ask")
    service.finished(client, batch)
    file = f"/batches/{batch}/files/1"
    columns = client.get(f"{file}/columns").json()
    assert columns["sheets"] == ["WT", "Notes", "KO"]
    assert columns["rows"] == 2
    page = httpx.get(f"{service.address}{file}/columns").text
    assert "<option>KO</option>" in page
    answer = client.put(f"{file}/columns", json={"sheet": "KO", "predict": True})
    assert answer.json()["sheets"] == ["KO", "Notes", "WT"]
    service.finished(client, batch)
    assert client.get(file).json()["rows"] == 1
    assert client.put(f"{file}/columns", json={"sheet": "no"}).status_code == 422


def values_in(client: httpx.Client, batch: str) -> dict[str, list[float]]:
    """Features of all cells, from the h5ad."""
    content = client.get(f"{batch}/predictions.h5ad").content
    with h5py.File(io.BytesIO(content)) as file:
        names = [name.decode() for name in file["var"][file["var"].attrs["_index"]][:]]
        values = file["X"][:]
    return {name: values[:, k].tolist() for k, name in enumerate(names)}


def test_another_choice_gives_other_values_and_another_explanation(service, client):
    content = table(["a", "b"]).replace(b"input_resistance (MOhm)", b"Rin")
    batch = asked(service, client, content)

    def predicted(**choice: str) -> tuple[float, Any, Any]:
        wanted = {"columns": {"Rin": choice}, "predict": True}
        answer = client.put(f"{batch}/files/1/columns", json=wanted)
        assert answer.status_code == 200, answer.text
        service.finished(client, batch.split("/")[-1])
        assert client.get(f"{batch}/files/1").json()["state"] == "done"
        details = client.get(f"{batch}/cells/1/0").json()["details"]
        (shown,) = [
            each["value"] for each in details["values"] if each["feature"] == "input_resistance"
        ]
        return values_in(client, batch)["input_resistance"][0], shown, details["cell"]

    value, shown, first = predicted(feature="input_resistance", unit="MOhm")
    assert value == shown == pytest.approx(values_of(0)["input_resistance"])
    value, shown, second = predicted(feature="ignore")
    assert math.isnan(value)
    assert shown is None
    assert second["completeness"] < first["completeness"]
    # Of these units the values would be far from any cell's.
    for unit in ("GOhm", "kOhm"):
        choice = {"columns": {"Rin": {"feature": "input_resistance", "unit": unit}}}
        answer = client.put(f"{batch}/files/1/columns", json=choice)
        assert answer.status_code == 422
        assert "'Rin'" in answer.json()["error"]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"no such": {"feature": "tau"}}, "no such"),
        ({"Notes": {"feature": "no such feature"}}, "Notes"),
        ({"Notes": {"feature": ""}}, "Notes"),
        ({"Rin [GOhm]": {"feature": "input_resistance", "unit": "ms"}}, "Rin [GOhm]"),
        ({"Rin [GOhm]": {"feature": "input_resistance", "unit": "<b>"}}, "Rin [GOhm]"),
        ({"Rin [GOhm]": {"feature": "tau", "unit": "s"}, "tau_m (s)": {"feature": "tau"}}, "tau"),
        ({"Notes": {"feature": "cell_id"}, "Neuron": {"feature": "cell_id"}}, "cell_id"),
        ({"\u0000": {"feature": "tau"}}, "there is no column"),
        ({"Notes": {}}, "Notes"),
        ({"Notes": {"feature": "tau", "more": 1}}, "Notes"),
        ({"Notes": "tau"}, "Notes"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_said_with_its_column(service, client, choices, said):
    batch = asked(service, client)
    before = client.get(f"{batch}/files/1/columns").json()
    for go in (False, True):
        answer = client.put(f"{batch}/files/1/columns", json={"columns": choices, "predict": go})
        assert answer.status_code == 422, answer.text
        assert said in answer.json()["error"]
    assert client.get(f"{batch}/files/1/columns").json() == before
    assert client.get(f"{batch}/files/1").json()["state"] == "columns"


def test_half_a_character_is_the_name_of_no_column(service, client):
    batch = asked(service, client)
    body = b'{"columns": {"\\ud800": {"feature": "tau"}}}'
    headers = {"Content-Type": "application/json"}
    answer = client.put(f"{batch}/files/1/columns", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"] == "x.csv: there is no column '?'"


def test_without_any_feature_nothing_is_predicted(service, client):
    batch = asked(service, client, b"cell,colour\na,red\n")
    answer = client.put(f"{batch}/files/1/columns", json={"predict": True})
    assert answer.status_code == 422
    assert "no column is a feature" in answer.json()["error"]


def test_a_recording_has_no_columns_and_a_table_no_step(service, client, tmp_path):
    batch = service.batch(client)
    service.give(client, batch, "x.nwb", write_small(tmp_path / "x.nwb").read_bytes())
    service.give(client, batch, "x.csv", table(["a"]))
    service.finished(client, batch)
    step = {"step_start": 0.1, "step_end": 0.2, "amplitudes": [10]}
    for answer in (
        client.get(f"/batches/{batch}/files/1/columns"),
        client.put(f"/batches/{batch}/files/1/columns", json={}),
        client.put(f"/batches/{batch}/files/2/reading", json=step),
    ):
        assert answer.status_code == 409
        assert len(answer.json()["error"]) > 10
    assert client.get(f"/batches/{batch}/files/2/sweeps?stimulus=x").status_code == 404
    assert client.get(f"/batches/{batch}/files/3").status_code == 404


def test_a_cancelled_table_can_be_predicted_after_all(service, client):
    batch = asked(service, client)
    assert client.delete(f"{batch}/files/1").status_code == 204
    assert client.get(f"{batch}/files/1").json()["state"] == "cancelled"
    assert client.put(f"{batch}/files/1/columns", json={"predict": True}).status_code == 200
    service.finished(client, batch.split("/")[-1])
    assert client.get(f"{batch}/files/1").json()["state"] == "done"


def test_a_table_of_thousands_of_columns_is_read(service, client):
    """Its header is longer than a field may be for Python's csv reader."""
    genes = {f"expression of the gene with the number {k:020d}": ["0", "1"] for k in range(2500)}
    batch = service.batch(client, species="mouse")
    service.give(client, batch, "wide.csv", table(["a", "b"], more=genes))
    (found,) = service.finished(client, batch)["files"]
    assert found["reason"] is None
    assert [each["cell_id"] for each in cells_of(client, batch)] == ["a", "b"]


# A step in words


def test_a_step_that_is_described_is_measured(service, client, tmp_path):
    content = write_nwb(tmp_path / "x.nwb", cell()[:6], with_stimulus=False).read_bytes()
    batch = service.batch(client, species="mouse")
    service.give(client, batch, "x.nwb", content)
    (file,) = service.finished(client, batch)["files"]
    assert file["state"] == "failed"
    assert "no command" in file["reason"]
    (row,) = cells_of(client, batch)
    assert row["verdict"] == "insufficient data"
    path = f"/batches/{batch}/files/1"
    for step in (
        {"step_start": 0.6, "step_end": 0.2, "amplitudes": [10]},
        {"step_start": 0.2, "step_end": 0.6, "amplitudes": [10, 20]},
        {"step_start": 1e300, "step_end": 1e301, "amplitudes": [10]},
        {"step_start": -5, "step_end": 99, "amplitudes": [10]},
    ):
        answer = client.put(f"{path}/reading", json=step)
        assert answer.status_code in (204, 422)
        service.finished(client, batch)
        found = client.get(path).json()
        assert found["state"] == "failed", step
        assert len(found["reason"]) > 15
        assert not found["reason"].startswith("unexpected")
    step = {"step_start": 0.2, "step_end": 0.6, "amplitudes": [-100, -60, -20, 60, 140, 180]}
    assert client.put(f"{path}/reading", json=step).status_code == 204
    service.finished(client, batch)
    assert client.get(path).json()["state"] == "done"
    (row,) = cells_of(client, batch)
    assert row["subclass"]
    assert client.get(f"/batches/{batch}/cells/1/0").json()["details"]["cell"]["subclass"]


# Cancelling and removing


def test_what_waits_and_what_is_worked_on_can_be_cancelled(service, client):
    batch = service.batch(client, species="mouse")
    service.give(client, batch, "long.xlsx", hostile.xlsx_texts())
    service.give(client, batch, "waits.csv", table(["a"]))
    path = f"/batches/{batch}/files"
    deadline = time.monotonic() + PATIENCE
    while client.get(f"{path}/1").json()["state"] != "working":
        assert time.monotonic() < deadline
    assert client.get(f"{path}/2").json()["state"] == "waiting"
    assert client.delete(f"{path}/2").status_code == 204
    assert client.get(f"{path}/2").json()["state"] == "cancelled"
    assert client.delete(f"{path}/1").status_code == 204
    assert client.get(f"{path}/1").json()["state"] == "cancelled"
    service.give(client, batch, "after.csv", table(["b"]))
    files = service.finished(client, batch)["files"]
    assert [each["state"] for each in files] == ["cancelled", "cancelled", "done"]
    assert [each["cell_id"] for each in cells_of(client, batch)] == ["b"]
    assert client.delete(f"{path}/2").status_code == 204
    assert client.get(f"{path}/2").status_code == 404
    assert client.delete(f"{path}/2").status_code == 404


def test_of_a_removed_file_nothing_stays(service, client, tmp_path):
    batch = service.batch(client, species="mouse")
    service.give(client, batch, "x.nwb", write_small(tmp_path / "x.nwb").read_bytes())
    service.give(client, batch, "y.csv", table(["kept"]))
    service.finished(client, batch)
    folder = service.jobs.batches.get(batch).folder
    for file in (1, 2):
        assert client.get(f"/batches/{batch}/cells/{file}/0").status_code == 200
    assert client.delete(f"/batches/{batch}/files/1").status_code == 204
    assert [each["cell_id"] for each in cells_of(client, batch)] == ["kept"]
    names = {each.name for each in folder.iterdir() if each.is_file()}
    assert names == {"cells.sqlite", "values-2.npy", "details-2-0.json"}
    assert client.get(f"/batches/{batch}/cells/1/0").status_code == 404
    assert len(rows_of(client.get(f"/batches/{batch}/predictions.csv").content)) == 1


# Sweeps


def traced(service: Service, client: httpx.Client, file: Path) -> str:
    batch = service.batch(client, species="mouse")
    service.give(client, batch, file.name, file.read_bytes())
    (found,) = service.finished(client, batch)["files"]
    assert found["state"] == "done", found
    return f"/batches/{batch}/files/1/sweeps"


@pytest.mark.parametrize("rate", [10_000, 200_000])
def test_sweeps_are_thinned_without_losing_a_spike(service, client, tmp_path, rate):
    made = cell(rate=rate)
    made[4].voltage[-2] = 61.0  # at the very end, where no stretch is whole
    path = traced(service, client, write_nwb(tmp_path / "x.nwb", made))
    for stretches in (13, 610, 5000):  # which do not divide the sweep
        answer = client.get(path, params={"stimulus": "long square", "stretches": stretches})
        assert answer.status_code == 200
        found = unpacked(answer.content)
        assert [each["number"] for each in found] == list(range(6))
        for each in found:
            for name in ("voltage", "current"):
                raw = getattr(made[each["number"]], name)
                signal = each[name]
                values = signal["values"]
                assert len(values) <= 4 * stretches + 2
                assert values.max() == pytest.approx(raw.max(), abs=0.01)
                assert values.min() == pytest.approx(raw.min(), abs=0.01)
                # The highest value is drawn in the stretch in which it was.
                width = max(1, len(raw) // stretches)
                drawn = signal["t0"] + signal["dt"] * int(values.argmax())
                at = np.flatnonzero(raw >= raw.max() - 0.011) / rate
                assert np.abs(at - drawn).min() <= (0.75 * width + 1) / rate


def test_a_short_window_has_every_sample(service, client, tmp_path):
    rate = 200_000
    made = cell(rate=rate)
    path = traced(service, client, write_nwb(tmp_path / "x.nwb", made))
    peak = int(made[5].voltage.argmax())
    start, end = (peak - 100) / rate, (peak + 100) / rate
    query = {"stimulus": "long square", "start": start, "end": end}
    found = unpacked(client.get(path, params=query).content)
    (sweep,) = [each for each in found if each["number"] == 5]
    signal = sweep["voltage"]
    first = round(signal["t0"] * rate)
    assert signal["t0"] * rate == pytest.approx(first, abs=1e-6)
    assert signal["dt"] == pytest.approx(1 / rate)
    assert first <= peak - 100
    values = signal["values"]
    assert first + len(values) > peak + 100
    assert len(values) <= 205
    assert values == pytest.approx(made[5].voltage[first : first + len(values)], abs=0.0051)
    assert first + int(np.argmax(values)) == peak


@pytest.mark.parametrize(
    ("start", "end", "count"),
    [
        (0, 0, 2),
        (None, 0.01, 102),
        (0.01, None, None),
        (0.2, 0.1, 2),
        (5, 6, 2),
        (1e308, None, 2),
        (0, 1e308, None),
        (0.89999, 0.9, 3),
    ],
)
def test_odd_windows_are_cut_to_the_sweep(service, client, tmp_path, start, end, count):
    made = cell()
    path = traced(service, client, write_nwb(tmp_path / "x.nwb", made))
    query = {"stimulus": "long square", "stretches": 5000}
    query |= {k: v for k, v in (("start", start), ("end", end)) if v is not None}
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    for each in unpacked(answer.content):
        signal = each["voltage"]
        if count is not None:
            assert 1 <= len(signal["values"]) <= count
        assert 0 <= signal["t0"] <= 0.9
        assert signal["t0"] + signal["dt"] * (len(signal["values"]) - 1) <= 0.9


def test_sweeps_of_other_stimuli_and_of_none(service, client, tmp_path):
    path = traced(service, client, write_nwb(tmp_path / "x.nwb"))
    kinds = {}
    for kind in ("long square", "short square", "ramp"):
        answer = client.get(path, params={"stimulus": kind})
        assert answer.headers["content-type"] == "application/octet-stream"
        kinds[kind] = [each["number"] for each in unpacked(answer.content)]
    assert kinds == {"long square": [*range(6)], "short square": [6, 7], "ramp": [8]}
    answer = client.get(path, params={"stimulus": "no such"})
    assert answer.status_code == 404
    for bad in ({"stretches": 9}, {"stretches": 5001}, {"start": -1}, {"start": "nan"}):
        assert client.get(path, params={"stimulus": "ramp", **bad}).status_code == 422
    assert client.get(path).status_code == 422


def test_sweeps_in_which_nothing_was_recorded_are_empty(tmp_path):
    (tmp_path / traces.SAMPLES).write_bytes(b"")
    (tmp_path / traces.INDEX).write_text(
        '[{"number": 0, "kind": "ramp", "rate": 1e4, "amplitude": null, "passed": false, '
        '"reasons": [], "voltage": [0, 0, 0, 0, 1], '
        '"current": [0, 0, 0, 0, 1]}]'
    )
    (found,) = unpacked(traces.read_traces(tmp_path, "ramp", start=1.0, end=2.0))
    assert len(found["voltage"]["values"]) == 0
    assert math.isfinite(found["voltage"]["t0"])


def test_a_recording_with_too_many_samples_keeps_its_spikes(service, tmp_path, monkeypatch):
    """Coarser, but every lowest and highest value is there, and the times are right."""
    from crosspatch.recordings.stimuli import recognise

    made = cell()
    made[5].voltage[-1] = 70.0
    monkeypatch.setattr(traces, "MOST_SAMPLES", 20_000)
    with open_recording(write_nwb(tmp_path / "x.nwb", made)) as recording:
        stimuli = recognise(recording)
        kept = traces.keep_samples(recording, stimuli, tmp_path)
        kinds = traces.keep_index(kept, stimuli, {}, tmp_path)
    assert (tmp_path / traces.SAMPLES).stat().st_size <= 2 * 25_000
    assert [each.shown for each in kinds] == [6, 2, 1]
    for each in unpacked(traces.read_traces(tmp_path, "long square", stretches=5000)):
        raw, signal = made[each["number"]].voltage, each["voltage"]
        values = signal["values"]
        assert values.max() == pytest.approx(raw.max(), abs=0.01)
        drawn = signal["t0"] + signal["dt"] * int(values.argmax())
        at = np.flatnonzero(raw >= raw.max() - 0.011) / 10_000
        assert np.abs(at - drawn).min() < 0.002


# Sorting, filtering, paging


@pytest.fixture(scope="module")
def many(service: Service) -> str:
    """A batch of cells whose names are hard to search for."""
    client = service.client()
    batch = service.batch(client, species="mouse")
    ids = ["100%", "100x", "a_b", "axb", "it's", 'say "hi"', "back\\slash", "Ä", "*", "[a]", "a b"]
    service.give(client, batch, "odd.csv", table(ids))
    service.give(client, batch, "few_100%.csv", table(["z"], left_out=list(VALUES)[2:]))
    service.give(client, batch, "many.csv", table([f"n{k:03d}" for k in range(150)], first=3))
    service.finished(client, batch)
    return batch


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("100%", ["100%", "z"]),
        ("%", ["100%", "z"]),
        ("a_b", ["a_b"]),
        ("A_B", ["a_b"]),
        ("it's", ["it's"]),
        ('"hi"', ['say "hi"']),
        ("\\", ["back\\slash"]),
        ("*", ["*"]),
        ("[a]", ["[a]"]),
        ("Ä", ["Ä"]),
        ("' OR '1'='1", []),
        ("n14", [f"n{k}" for k in range(140, 150)]),
    ],
)
def test_a_search_finds_what_is_written_there(client, many, text, found):
    assert [each["cell_id"] for each in cells_of(client, many, text=text)] == found


def test_pages_are_parts_of_the_whole(client, many):
    whole = cells_of(client, many, limit=1000)
    assert len(whole) == 162
    for sort in ("", "cell_id", "probability", "verdict", "name"):
        for descending in (False, True):
            asked_for = {"sort": sort, "descending": descending}
            parts = [
                each
                for offset in range(0, 180, 50)
                for each in cells_of(client, many, offset=offset, limit=50, **asked_for)
            ]
            assert parts == cells_of(client, many, limit=1000, **asked_for)
            assert sorted(map(str, parts)) == sorted(map(str, whole))
    total = client.get(f"/batches/{many}/cells", params={"limit": 1, "offset": 9999}).json()
    assert total == {"total": 162, "cells": []}


def test_cells_are_sorted_with_those_without_a_value_last(client, many):
    up = [each["probability"] for each in cells_of(client, many, sort="probability", limit=1000)]
    down = cells_of(client, many, sort="probability", descending=True, limit=1000)
    assert up[-1] is None
    assert down[-1]["probability"] is None
    assert up[:-1] == sorted(up[:-1])
    assert [each["probability"] for each in down][:-1] == sorted(up[:-1], reverse=True)
    names = [each["cell_id"] for each in cells_of(client, many, sort="cell_id", limit=1000)]
    assert names.index("a b") < names.index("Ä")
    assert names.index("n001") < names.index("n002") < names.index("z")
    assert cells_of(client, many, sort="no such") == cells_of(client, many)


def test_cells_are_chosen_by_what_was_said_of_them(client, many):
    whole = cells_of(client, many, limit=1000)
    for column in ("verdict", "subclass", "species"):
        for value in {each[column] for each in whole} - {""}:
            found = cells_of(client, many, limit=1000, **{column: value})
            assert found == [each for each in whole if each[column] == value]
    assert cells_of(client, many, verdict="' OR 1=1 --") == []
    (few,) = cells_of(client, many, verdict="insufficient data", text="100")
    assert few["cell_id"] == "z"


# Many at a time


def test_many_files_of_one_do_not_hold_up_one_of_another(service, tmp_path):
    busy, quick = service.client(), service.client()
    first = service.batch(busy, species="mouse")
    content = write_small(tmp_path / "x.nwb").read_bytes()
    for number in range(30):
        service.give(busy, first, f"{number}.nwb", content)
    second = service.batch(quick, species="mouse")

    def done() -> int:
        files = busy.get(f"/batches/{first}").json()["files"]
        return sum(each["state"] == "done" for each in files)

    before = done()
    assert before < 25
    service.give(quick, second, "mine.csv", table(["a"]))
    assert service.finished(quick, second)["files"][0]["state"] == "done"
    # Its two tasks waited for one of the other's each, and the answer came meanwhile.
    assert done() - before <= 6
    assert busy.delete(f"/batches/{first}").status_code == 204


@pytest.mark.parametrize("example", ["human-lamp5", "table"])
def test_an_example_is_judged_and_says_that_it_is_simulated(service, client, example):
    batch = service.batch(client)
    answer = client.post(f"/batches/{batch}/examples/{example}")
    assert answer.status_code == 201
    assert "simulated" in answer.json()["name"]
    (found,) = service.finished(client, batch)["files"]
    if example == "table":
        assert found["state"] == "columns"
        return
    assert found["state"] == "done"
    assert found["bytes"] > 10_000
    (row,) = cells_of(client, batch)
    assert row["species"] == example.split("-")[0]
    assert "SIMULATED" in row["notes"]


def test_no_such_example_species_quality_or_batch(service, client):
    batch = service.batch(client)
    assert client.post(f"/batches/{batch}/examples/none").status_code == 404
    assert client.post("/batches", json={"species": "rat"}).status_code == 422
    answer = client.post("/batches", json={"quality": "none"})
    assert answer.status_code == 422
    assert "choose from: default, allen" in answer.json()["error"]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/cells"), ("POST", "/files?name=x")):
        assert client.request(method, f"/batches/none{path}").status_code == 404


# Layer


def test_a_batch_says_the_layer_of_cells_whose_file_does_not(
    service, client, service_with, tmp_path
):
    def refused(asked: httpx.Client, **options: str) -> str:
        answer = asked.post("/batches", json=options)
        assert answer.status_code == 422
        return str(answer.json()["error"])

    assert "do not take the cortical layer" in refused(client, layer="2/3")
    assert 'name="layer"' not in client.get(service.address).text
    for empty in ("", " ", None):  # an empty field of a form is not given
        answer = client.post("/batches", json={"layer": empty})
        assert (answer.status_code, answer.json()["layer"]) == (201, None)

    train(layered_cells(0), model="lda", out=tmp_path / "human")
    placed = service_with(models=(tmp_path / "human",))
    client = placed.client()
    assert "'deep' is not a cortical layer" in refused(client, layer="deep")
    start = client.get(placed.address).text
    assert 'name="layer"' in start
    assert "Recordings whose file" in start  # a model that takes the layer measures recordings too
    batch = placed.batch(client, species="human", layer="2/3")
    content = table(list("abc"), more={"Layer": ["L5", "", "deep"]})
    placed.give(client, batch, "x.csv", content)
    (file,) = placed.finished(client, batch)["files"]
    assert (
        "x.csv: column 'Layer', taken as missing: 1 not a cortical layer, such as 'deep'"
        in (file["messages"])
    )
    assert [each["layer"] for each in cells_of(client, batch)] == ["5", "2/3", ""]
    assert client.get(f"/batches/{batch}").json()["layer"] == "2/3"
    page = client.get(f"{placed.address}/batches/{batch}/cells/1/0")
    assert "Cortical layer: 5." in page.text
