"""Simulated cells: what is planted comes back, and other people's readers open the files."""

import logging
import os
import warnings
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from benchmarks import whole_set

from crosspatch.errors import RecordingError
from crosspatch.recordings import cell_quality, nwb_writer
from crosspatch.recordings.model import VOLTAGE_CLAMP
from crosspatch.recordings.opening import open_recording
from crosspatch.simulation import cells as simulated
from crosspatch.simulation import rig
from crosspatch.simulation.cells import plan_cells, simulate_cells
from crosspatch.simulation.point_neuron import PointNeuron, SpikeShape, simulate_neuron
from crosspatch.simulation.rig import record
from crosspatch.simulation.subclasses import SUBCLASSES, simulated_neuron
from crosspatch.species import SPECIES

RATE = 50_000
STEP = slice(31_000, 81_000)


def step(amplitude):
    current = np.zeros(111_000)
    current[STEP] = amplitude
    return current


def spikes_in_step(neuron, amplitude, seed=0):
    _, spikes = simulate_neuron(neuron, step(amplitude), RATE, rng=seed)
    return spikes[(spikes >= 0.62) & (spikes < 1.62)] - 0.62


def rheobase(neuron):
    amplitude = 10.0
    while not len(spikes_in_step(neuron, amplitude)) and amplitude < 700:
        amplitude += 10.0
    return amplitude


@pytest.mark.parametrize(("leak", "capacitance"), [(4.0, 90.0), (10.0, 60.0)])
def test_without_ih_resistance_and_time_constant_are_those_of_the_membrane(leak, capacitance):
    neuron = PointNeuron(leak=leak, capacitance=capacitance)
    voltage, spikes = simulate_neuron(neuron, step(-50.0), RATE)
    assert len(spikes) == 0
    assert voltage[STEP.start - 1] == pytest.approx(neuron.rest, abs=1e-6)
    settled = voltage[STEP.stop - 1]
    assert (settled - neuron.rest) / -50.0 == pytest.approx(1 / leak, rel=1e-4)
    charging = np.log(voltage[31_000:33_000] - settled)
    tau = -1 / np.polyfit(np.arange(2000) * 0.02, charging, 1)[0]
    assert tau == pytest.approx(capacitance / leak, rel=1e-3)


@pytest.mark.parametrize("rate", [10_000, 20_000, 200_000])
def test_the_sampling_rate_does_not_change_the_response(rate):
    neuron = PointNeuron()
    current = np.zeros(rate // 2)
    current[rate // 10 :] = 120.0
    _, spikes = simulate_neuron(neuron, current, rate)
    fine = np.zeros(RATE // 2)
    fine[RATE // 10 :] = 120.0
    _, expected = simulate_neuron(neuron, fine, RATE)
    assert len(spikes) == len(expected)
    assert spikes == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    "shape",
    [
        SpikeShape(-38.0, 53.0, 23.0, 0.42, 310.0, 1.4),
        SpikeShape(-36.0, 59.0, 15.0, 1.04, 221.0, 3.5),
        SpikeShape(-40.0, 70.0, 9.0, 0.70, 300.0, 3.1),
    ],
)
def test_the_spike_comes_back_in_the_shape_asked_for(shape):
    extractor = pytest.importorskip("ipfx.feature_extractor")
    current = step(160.0)
    voltage, times = simulate_neuron(PointNeuron(spike=shape), current, RATE)
    time = np.arange(len(voltage)) / RATE
    found = extractor.SpikeFeatureExtractor(start=0.62, end=1.62).process(time, voltage, current)
    assert len(found) == len(times)
    assert found["threshold_t"].to_numpy() == pytest.approx(times, abs=2e-4)
    middle = found.iloc[1]
    assert middle["threshold_v"] == pytest.approx(shape.threshold, abs=1.0)
    assert middle["peak_v"] - middle["threshold_v"] == pytest.approx(shape.height, abs=1.0)
    assert middle["threshold_v"] - middle["fast_trough_v"] == pytest.approx(shape.trough, abs=1.0)
    assert middle["width"] * 1e3 == pytest.approx(shape.width, abs=0.041)
    assert middle["upstroke"] == pytest.approx(shape.upstroke, rel=0.06)
    ratio = middle["upstroke_downstroke_ratio"]
    assert ratio == pytest.approx(shape.upstroke_downstroke_ratio, rel=0.06)


@pytest.fixture(scope="module")
def groups():
    """Nine neurons of each subclass and species."""
    return {
        (species, subclass): [simulated_neuron(species, subclass, seed) for seed in range(9)]
        for species in SPECIES
        for subclass in SUBCLASSES
    }


@pytest.mark.parametrize("species", SPECIES)
def test_subclasses_have_their_hallmarks(groups, species):
    rows = []
    for subclass in SUBCLASSES:
        for neuron in groups[species, subclass]:
            voltage, _ = simulate_neuron(neuron, step(-100.0), RATE)
            peak, steady = voltage[STEP].min(), voltage[STEP.stop - 1]
            lowest = rheobase(neuron)
            first = spikes_in_step(neuron, lowest)
            rows.append(
                {
                    "subclass": subclass,
                    "resistance": (neuron.rest - peak) / 100.0,
                    "sag": (steady - peak) / (neuron.rest - peak),
                    "latency": first[0],
                    "rate": len(spikes_in_step(neuron, lowest + 100.0)),
                    "width": neuron.spike.width,
                }
            )
    table = pd.DataFrame(rows)
    middle = {
        subclass: table[table["subclass"] == subclass].median(numeric_only=True).to_dict()
        for subclass in SUBCLASSES
    }
    assert middle["Pvalb"]["rate"] > middle["Sst"]["rate"]
    assert middle["Sst"]["sag"] > middle["Pvalb"]["sag"]
    assert max(SUBCLASSES, key=lambda name: middle[name]["resistance"]) == "Vip"
    assert max(SUBCLASSES, key=lambda name: middle[name]["latency"]) == "Lamp5"
    assert min(SUBCLASSES, key=lambda name: middle[name]["width"]) == "Pvalb"


def test_human_cells_sag_more_and_fire_at_less_current(groups):
    for subclass in SUBCLASSES:
        mouse, human = groups["mouse", subclass], groups["human", subclass]
        assert np.median([n.h_conductance / n.leak for n in human]) > np.median(
            [n.h_conductance / n.leak for n in mouse]
        )
        assert np.median([rheobase(n) for n in human]) < np.median([rheobase(n) for n in mouse])


def test_donors_are_shared_between_subclasses_and_cells_do_not_depend_on_their_number():
    plan = plan_cells(60, "human", seed=3)
    assert plan_cells(25, "human", seed=3) == plan[:25]
    assert {cell.subclass for cell in plan} == set(SUBCLASSES)
    donors = {cell.donor for cell in plan}
    assert 60 / 7 <= len(donors) < 60
    subclasses = {(cell.donor, cell.subclass) for cell in plan}
    assert len(subclasses) > len(donors)
    # A donor makes its cells alike: the same cell with another donor is another cell.
    alike = simulated_neuron("mouse", "Sst", 1, donor=5)
    assert alike == simulated_neuron("mouse", "Sst", 1, donor=5)
    assert alike != simulated_neuron("mouse", "Sst", 1, donor=6)


def test_the_stimulus_set_is_the_one_asked_for():
    sweeps = record(simulated_neuron("mouse", "Vip", 4), 4)
    codes = [sweep.description.removesuffix("_DA_0") for sweep in sweeps]
    assert codes.count(rig.RAMP_NAME) == 2
    assert codes.count(rig.SHORT_SQUARE_FINE) == 3
    coarse = [s.current[31_000] for s in sweeps if s.description.startswith(rig.LONG_SQUARE_COARSE)]
    assert coarse == [-110.0 + 20.0 * place for place in range(len(coarse))]
    for sweep in sweeps:
        changes = np.flatnonzero(np.diff(sweep.current))
        assert list(changes[:3]) == [999, 1499, 30_999]
        assert len(sweep.current) == len(sweep.voltage)
        assert np.isfinite(sweep.voltage).all()
    ramp = sweeps[codes.index(rig.RAMP_NAME)]
    end = np.flatnonzero(ramp.voltage)[-1]
    assert len(ramp.voltage) - end > 25_000
    assert np.diff(ramp.current[31_000:end]) == pytest.approx(25 / RATE, rel=0.2)


def samples(path):
    with h5py.File(path) as file:
        return {
            f"{folder}/{name}": file[folder][name]["data"][:]
            for folder in ("acquisition", "stimulus/presentation")
            for name in file[folder]
        }


def test_the_same_seed_gives_the_same_samples(tmp_path):
    calls = []
    table = simulate_cells(
        tmp_path / "a", 3, "mouse", seed=2, jobs=2, progress=lambda *args: calls.append(args)
    )
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    simulate_cells(tmp_path / "b", 2, "mouse", seed=2, jobs=1)
    for name in ("sim-mouse-0001.nwb", "sim-mouse-0002.nwb"):
        one, other = samples(tmp_path / "a" / name), samples(tmp_path / "b" / name)
        assert list(one) == list(other)
        assert all(np.array_equal(one[key], other[key]) for key in one)
    cells = pd.read_csv(table)
    assert list(cells.columns) == ["file", "species", "subclass", "t_type", "donor", "dataset"]
    assert set(cells["t_type"]) == {"simulated"}
    assert set(cells["dataset"]) == {"simulated-mouse"}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["cells.csv", *cells["file"]]
    # Again: only what is missing is written.
    (tmp_path / "a" / "sim-mouse-0002.nwb").unlink()
    kept = os.stat(tmp_path / "a" / "sim-mouse-0001.nwb").st_mtime_ns
    calls.clear()
    simulate_cells(
        tmp_path / "a", 3, "mouse", seed=2, jobs=1, progress=lambda *args: calls.append(args)
    )
    assert calls == [(2, 3), (3, 3)]
    assert os.stat(tmp_path / "a" / "sim-mouse-0001.nwb").st_mtime_ns == kept
    with pytest.raises(RecordingError, match="choose another folder or seed"):
        simulate_cells(tmp_path / "a", 3, "mouse", seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file of each species and subclass, with the whole protocol and nothing wrong."""
    folder = tmp_path_factory.mktemp("cells")
    paths = {}
    for species in SPECIES:
        for number, subclass in enumerate(SUBCLASSES, start=1):
            cell = simulated.PlannedCell(number, species, subclass, donor=1, seed=0)
            paths[species, subclass] = simulated.write_cell(cell, folder, rig.NO_TROUBLE)
    return paths


def test_files_are_valid_and_say_that_they_are_simulated(written):
    pynwb = pytest.importorskip("pynwb")
    for path in list(written.values())[::4]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert pynwb.validate(path=str(path)) == []
        with pynwb.NWBHDF5IO(str(path), "r") as io:
            file = io.read()
            assert "imulated" in file.session_description
            assert "imulated" in file.experiment_description
            assert "simulated" in list(file.keywords)
            assert "imulated" in file.subject.description
            assert file.subject.subject_id.startswith("sim-")
            series = file.acquisition["data_00000_AD0"]
            assert series.conversion == 1e-5
            assert len(file.acquisition) == len(file.stimulus)


def test_ipfx_reads_every_family(written):
    extraction = pytest.importorskip("ipfx.bin.run_feature_vector_extraction")
    stimulus = pytest.importorskip("ipfx.stimulus")
    ontology = stimulus.StimulusOntology.default()
    logging.disable(logging.CRITICAL)
    try:
        for cell, path in written.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                families = extraction.data_for_specimen_id(
                    0, "none", "filesystem", ontology, ap_window_length=0.003, file_list=[str(path)]
                )
            assert "error" not in families, (cell, families)
            lengths = {name: len(values) for name, values in families.items()}
            assert lengths["first_ap_v"] == 450
            assert lengths["step_subthresh"] == 700
            assert lengths["psth"] == 120
            assert lengths["spiking_width"] == 300
            # IPFX leaves this family empty where the lowest depolarising step fires.
            families.pop("subthresh_depol_norm")
            assert all(np.isfinite(values).all() for values in families.values()), cell
    finally:
        logging.disable(logging.NOTSET)


MEASURED = ("C1LS", "C1SS", "C1RP")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The last cell of `written` with the whole set; one of its ramps was interrupted."""
    cell = simulated.PlannedCell(4, "human", "Vip", donor=1, seed=0)
    folder = tmp_path_factory.mktemp("whole")
    return simulated.write_cell(cell, folder, rig.NO_TROUBLE, style=whole_set.WHOLE_SET)


def test_the_whole_set_has_tests_and_what_is_not_measured(whole):
    with open_recording(whole) as recording:
        assert not recording.unreadable
        assert all(sweep.read_current is not None for sweep in recording.sweeps)
        codes = [sweep.description.removesuffix("_DA_0") for sweep in recording.sweeps]
        clamped = [sweep for sweep in recording.sweeps if sweep.clamp == VOLTAGE_CLAMP]
        assert [sweep.description.startswith("EXTP") for sweep in recording.sweeps] == [
            sweep.clamp == VOLTAGE_CLAMP for sweep in recording.sweeps
        ]
        assert len(clamped) == 18
        assert all(0.1 <= sweep.duration <= 0.5 for sweep in clamped)
        assert codes[:5] == [
            whole_set.SMOKE,
            whole_set.IN_BATH,
            *(whole_set.CELL_ATTACHED, whole_set.CELL_ATTACHED),
            whole_set.BREAK_IN,
        ]
        assert codes[-1] == whole_set.END
        assert codes.count(whole_set.SHORT_SQUARE_TRIPLE) == 3
        assert codes.count(whole_set.CAPACITANCE_CHECK) == 2
        points = {code: sweep.points for code, sweep in zip(codes, recording.sweeps, strict=True)}
        assert points[whole_set.CHIRP] == 1_180_000
        assert points[whole_set.NOISE] == 1_200_000
        noted = recording.recorded
        seal, access, resistance = (
            cell_quality._clamp_test(recording, test) for test in ("seal", "access", "input")
        )
        assert seal == pytest.approx(noted.seal, rel=0.05)
        assert access == pytest.approx(noted.access_resistance, rel=0.05)
        step = next(s for s in recording.current_clamp if s.current[STEP.start] == -10.0)
        settled = step.voltage[STEP.stop - 25_000 : STEP.stop].mean()
        membrane = (step.voltage[20_000 : STEP.start].mean() - settled) * 100.0
        assert resistance - access == pytest.approx(membrane, rel=0.1)
        # The noise makes the cell spike, the chirp swings around rest.
        noise, chirp = (
            recording.sweep(codes.index(code)).voltage
            for code in (whole_set.NOISE, whole_set.CHIRP)
        )
        assert noise.max() > 0
        assert 5 < np.ptp(chirp) < 30


def test_codes_of_the_whole_set_are_in_the_ontology():
    stimulus = pytest.importorskip("ipfx.stimulus")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ontology = stimulus.StimulusOntology.default()
    known = {code for each in ontology.stimuli for tags in each.tags("code") for code in tags}
    for code in (
        *(whole_set.SMOKE, whole_set.IN_BATH, whole_set.CELL_ATTACHED, whole_set.BREAK_IN),
        *(whole_set.RESISTANCE_CHECK, whole_set.END, whole_set.SHORT_SQUARE_TRIPLE),
        *(whole_set.CAPACITANCE_CHECK, whole_set.CHIRP, whole_set.NOISE),
    ):
        assert code in known


def test_the_whole_set_leaves_what_is_measured_as_it_is(written, whole):
    def measured(path):
        with open_recording(path) as recording:
            return [
                (sweep.description, sweep.voltage, sweep.current)
                for sweep in recording.current_clamp
                if sweep.description.startswith(MEASURED)
            ]

    interrupted = 0
    plain = measured(written["human", "Vip"])
    for (code, voltage, current), (other, found, command) in zip(
        plain, measured(whole), strict=True
    ):
        assert code == other
        stopped = np.flatnonzero(voltage)[-1] + 1
        assert np.abs(found[:stopped] - voltage[:stopped]).max() < 0.01
        assert np.array_equal(command[:stopped], current[:stopped])
        if code.startswith(rig.RAMP_NAME) and found[-1]:
            interrupted += 1
            on = stopped + np.flatnonzero(found[stopped:])[0]
            assert 960 <= on - stopped <= 1983
            assert not command[stopped:].any()
            assert np.abs(found[on:] - found[:900].mean()).max() < 3.0
        else:
            assert not found[stopped:].any()
            assert np.array_equal(command, current)
    assert interrupted == 1


def test_the_whole_set_is_stored_as_in_the_archive_and_valid(whole):
    pynwb = pytest.importorskip("pynwb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pynwb.validate(path=str(whole)) == []
    with h5py.File(whole) as file:
        for folder in ("acquisition", "stimulus/presentation"):
            for series in file[folder].values():
                data, kind = series["data"], series.attrs["neurodata_type"]
                assert data.dtype == np.float32
                assert data.chunks == (min(8192, len(data)),)
                assert data.shuffle
                assert data.compression == "gzip"
                is_voltage = kind in ("CurrentClampSeries", "VoltageClampStimulusSeries")
                assert data.attrs["unit"] == ("volts" if is_voltage else "amperes")
                assert data.attrs["conversion"] == (1e-3 if is_voltage else 1e-12)
                if kind == "CurrentClampSeries":
                    codes = np.rint(data[:] * 160)
                    assert np.array_equal(data[:], (codes / 160).astype(np.float32))


def test_ipfx_reads_the_whole_set(whole):
    extraction = pytest.importorskip("ipfx.bin.run_feature_vector_extraction")
    stimulus = pytest.importorskip("ipfx.stimulus")
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ontology = stimulus.StimulusOntology.default()
            families = extraction.data_for_specimen_id(
                0, "none", "filesystem", ontology, ap_window_length=0.003, file_list=[str(whole)]
            )
        assert "error" not in families
        assert len(families["first_ap_v"]) == 450
    finally:
        logging.disable(logging.NOTSET)


def test_files_with_and_without_the_whole_set_are_told_apart(tmp_path, monkeypatch):
    short = record(simulated_neuron("mouse", "Pvalb", 1), 1)[:1]
    monkeypatch.setattr(simulated, "record", lambda *_, **__: short)
    calls: list[int] = []

    def made(style):
        calls.clear()
        simulate_cells(
            *(tmp_path, 1, "mouse"),
            jobs=1,
            style=style,
            progress=lambda done, _: calls.append(done),
        )
        return calls == [0, 1]

    plain, whole = simulated.PLAIN, whole_set.WHOLE_SET
    assert [made(style) for style in (plain, plain, whole, whole, plain)] == [
        *(True, False, True, False, True)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"species": "rat"}, "species 'rat' is unknown"),
        ({"cells": 0}, "cells must be"),
        ({"cells": 2.5}, "cells must be"),
        ({"seed": -1}, "seed must be"),
        ({"jobs": 0}, "jobs must be"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(RecordingError, match=message):
        simulate_cells(tmp_path / "new", **{"cells": 1, "species": "mouse", **arguments})
    assert not (tmp_path / "new").exists()


def test_a_stranger_in_the_folder_and_a_file_as_folder_are_refused(tmp_path):
    (tmp_path / "sim-mouse-0001.nwb").write_text("no recording")
    with pytest.raises(RecordingError, match="no simulated recording"):
        simulate_cells(tmp_path, 1, "mouse")
    with pytest.raises(RecordingError, match="cannot be made"):
        simulate_cells(tmp_path / "sim-mouse-0001.nwb", 1, "mouse")


def test_bad_currents_and_neurons_are_refused():
    with pytest.raises(RecordingError, match="finite"):
        simulate_neuron(PointNeuron(), np.array([0.0, np.nan]))
    with pytest.raises(RecordingError, match="rate"):
        simulate_neuron(PointNeuron(), np.zeros(5), 0.0)
    with pytest.raises(RecordingError, match="leak"):
        simulate_neuron(replace(PointNeuron(), leak=0.0), np.zeros(5))
    with pytest.raises(RecordingError, match="subclass 'Sncg' is unknown"):
        simulated_neuron("mouse", "Sncg", 0)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nwb_writer, "add_sweep_table", full)
    with pytest.raises(RecordingError, match="No space left on device"):
        simulate_cells(tmp_path, 1, "mouse", jobs=1)
    assert list(tmp_path.iterdir()) == []
