"""A file of several cells: a row each, from the file to the table."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from crosspatch.cohorts.extracted import cohort_of, read_labels, without_species
from crosspatch.errors import RecordingError
from crosspatch.features.extraction import ExtractionSettings, extract_cells, extract_file
from crosspatch.features.finding import find_recordings
from crosspatch.features.layouts import load_layout
from crosspatch.features.many import Readers, extract_many
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.features.store import CellStore, stamp_of
from crosspatch.prediction.batches import ReadSettings, recordings_batch
from crosspatch.recordings.reading_options import Reading
from tests.features.made_files import write_small
from tests.recordings.made_nwb import Run, Written, steps_of, write_converted, write_series

SHARED = ExtractionSettings("shared")


def feature(cell, name):
    return dict(zip(load_layout("shared").feature_names, cell.values, strict=True))[name]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two cells recorded at once, of which the second has a rheobase of 140 pA."""
    runs = [Run("e 1", steps_of()), Run("e 2", steps_of(resistance=150.0, rheobase=140.0))]
    path = tmp_path_factory.mktemp("pair") / "pair.nwb"
    return write_converted(path, runs, together=True)


def test_a_row_for_each(pair):
    found = extract_cells(pair, SHARED)
    cells = [each for each in found if isinstance(each, CellFeatures)]
    assert len(cells) == len(found) == 2
    assert [cell.cell_id for cell in cells] == ["pair_e_1", "pair_e_2"]
    assert [cell.head["electrode"] for cell in cells] == ["e 1", "e 2"]
    assert [feature(cell, "rheobase_i") for cell in cells] == [180, 140]
    assert [feature(cell, "input_resistance") for cell in cells] == pytest.approx([200, 150], 0.02)
    assert len({cell.head["sha256"] for cell in cells}) == 1
    with pytest.raises(RecordingError, match=r"holds 2 cells \(electrodes e 1, e 2\)"):
        extract_file(pair, SHARED)
    one = extract_file(pair, ExtractionSettings("shared", Reading(electrode="e 2")))
    assert one.cell_id == "pair_e_2"
    np.testing.assert_array_equal(one.values, cells[1].values)


def test_one_of_two_cells_may_have_no_feature(tmp_path):
    made = steps_of()
    quiet = steps_of(amplitudes=[0] * 10)
    responses: dict[str, Written] = {}
    stimuli: dict[str, Written] = {}
    for end, recording in (("0", quiet), ("1", made)):
        for k, sweep in enumerate(recording.sweeps):
            how: dict[str, Any] = {"start": 3.0 * k, "electrode": f"electrode_{end}", "number": k}
            responses[f"data_{k:05d}_AD{end}"] = Written(sweep.voltage, **how)
            stimuli[f"data_{k:05d}_DA{end}"] = Written(sweep.current, **how)
    path = write_series(tmp_path / "pair.nwb", responses, stimuli)
    first, second = extract_cells(path, SHARED)
    assert isinstance(first, Failure)
    assert (first.cell_id, first.species) == ("pair_electrode_0", "mouse")
    # Its species is known, so that it does not stand once for each of the models.
    batch = recordings_batch([(path, first)], ReadSettings(load_layout("shared")), print)
    assert batch.species == ["mouse"]
    assert isinstance(second, CellFeatures)
    assert feature(second, "rheobase_i") == 180


def test_a_cohort_of_them(pair, tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    (folder / "pair.nwb").write_bytes(pair.read_bytes())
    write_small(folder / "single.nwb")
    store = tmp_path / "c.sqlite"
    for _ in range(2):
        state = extract_many([folder], store, SHARED)
        assert (state.done, state.failed) == (2, 0)
    assert state.kept == 2
    labels = tmp_path / "labels.csv"
    rows = {"pair": "Sst", "pair_e_2": "Pvalb", "single": "Vip"}
    pd.DataFrame({"file": list(rows), "subclass": list(rows.values())}).to_csv(labels, index=False)
    result = cohort_of(find_recordings([folder]), store, SHARED, labels=read_labels(labels))
    assert result.cohort is not None
    obs = result.cohort.obs
    assert list(obs.index) == ["pair_e_1", "pair_e_2", "single"]
    # What is said of the file is not said of either cell.
    assert list(obs["subclass"].astype(object).fillna("")) == ["", "Pvalb", "Vip"]
    assert list(obs["electrode"].astype(object).fillna("")) == ["e 1", "e 2", ""]


def test_a_store_keeps_every_outcome(pair, tmp_path):
    with CellStore(tmp_path / "c.sqlite") as store, closing(Readers()) as readers:
        cells = list(readers.extract(pair, SHARED, 60))
        cells[0] = Failure("too quiet", False, "shout", "pair_e_1", "e 1", "mouse")
        store.put(pair, SHARED.key, cells, stamp_of(pair))
        kept = [cell for _, cell in store.cells([pair], SHARED.key)]
        assert kept[0] == cells[0]
        assert kept[1].cell_id == "pair_e_2"
        assert store.failures([pair], SHARED.key) == 0
        store.put(pair, SHARED.key, [Failure("late", again=True)], stamp_of(pair))
        assert len(list(store.cells([pair], SHARED.key))) == 1
        assert not store.has(pair, SHARED.key)


def test_files_that_do_not_say_the_species_are_named_first(tmp_path):
    for name, species in (
        ("said", "Mus musculus - House mouse"),
        ("rat", "Rattus norvegicus"),
        ("nothing", ""),
        ("labelled", "unknown"),
    ):
        write_small(tmp_path / f"{name}.nwb", species=species)
    (tmp_path / "damaged.nwb").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    labels = pd.DataFrame({"species": ["human"]}, index=["labelled"])
    files = find_recordings([tmp_path])
    found = {file.stem: str(why) for file, why in without_species(files, labels=labels).items()}
    assert set(found) == {"rat", "nothing"}
    assert "its species is rat (Rattus norvegicus), not one that crosspatch knows" in found["rat"]
    assert "does not say the species of the cell; give 'species'" in found["nothing"]
    with h5py.File(tmp_path / "nothing.nwb", "a") as file:
        del file["general/subject/species"]
    assert len(without_species(files, labels=labels)) == 2
