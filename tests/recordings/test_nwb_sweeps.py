"""Which samples of an NWB file are a sweep, whose they are, and when: as converters write it."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest

from crosspatch.errors import RecordingError
from crosspatch.features.analysis import analyse
from crosspatch.features.scalars import scalar_features
from crosspatch.recordings.nwb_sweeps import numbers_in_names
from crosspatch.recordings.opening import close_all, open_recording, open_recordings
from crosspatch.recordings.reading_options import Reading
from tests.recordings.made_nwb import STEPS, Run, Written, steps_of, write_converted, write_series

RATE = 20_000.0


def require_right(recording, *, rheobase=180.0, resistance=200.0):
    """Measure a cell of `steps_of`."""
    found = scalar_features(analyse(recording))
    assert found["rheobase_i"] == pytest.approx(rheobase)
    assert found["input_resistance"] == pytest.approx(resistance, rel=0.02)
    assert found["tau"] == pytest.approx(20, rel=0.05)


def require_alike(recording, made):
    assert len(recording.sweeps) == len(made.sweeps)
    for ours, theirs in zip(recording.sweeps, made.sweeps, strict=True):
        assert (ours.rate, ours.points) == (theirs.rate, theirs.points)
        np.testing.assert_allclose(ours.voltage, theirs.voltage, atol=0.02)
        np.testing.assert_allclose(ours.current, theirs.current, atol=0.2)


@pytest.mark.parametrize("rate", [5_000.0, 20_000.0, 50_000.0])
@pytest.mark.parametrize("gap", [0.0, 1.7])
@pytest.mark.parametrize("compressed", [True, False])
def test_one_row_is_one_sweep(tmp_path, rate, gap, compressed):
    made = steps_of(rate)
    run = Run("electrode_0", made, gap=gap, start=3.25)
    path = write_converted(tmp_path / "cell.nwb", [run], compressed=compressed)
    with open_recording(path) as recording:
        require_alike(recording, made)
        assert [sweep.number for sweep in recording.sweeps] == list(range(len(STEPS)))
        assert {sweep.description for sweep in recording.sweeps} == {"steps"}
        assert any("numbered by their rows" in note for note in recording.notes)
        assert not recording.unreadable
        np.testing.assert_array_equal(
            recording.sweeps[4].voltage_until(99), recording.sweeps[4].voltage[:99]
        )
        if rate == RATE:
            require_right(recording)


def test_a_row_reads_only_its_chunks(tmp_path, monkeypatch):
    from crosspatch.recordings.chunks import Unpacker

    path = write_converted(tmp_path / "cell.nwb", [Run("electrode_0")])
    read = []
    samples = Unpacker.samples

    def counted(self, data, chunks, *rest):
        read.append(len(chunks))
        return samples(self, data, chunks, *rest)

    monkeypatch.setattr(Unpacker, "samples", counted)
    with open_recording(path) as recording:
        recording.sweeps[3].voltage
    assert read == [5]  # of 10,000 samples each; 38,000 that begin at 114,000


def test_a_series_that_jumps_between_sweeps_needs_no_table(tmp_path):
    made = steps_of()
    path = write_converted(tmp_path / "cell.nwb", [Run("electrode_0", made, gap=2.2)])
    with h5py.File(path, "a") as file:
        for name in list(file["general/intracellular_ephys"]):
            if "recordings" in name:
                del file[f"general/intracellular_ephys/{name}"]
    with open_recording(path) as recording:
        require_alike(recording, made)
        require_right(recording)
        assert any("read as 10 sweeps, between which" in note for note in recording.notes)


def test_a_stimulus_with_a_bad_clock_is_the_reason(tmp_path):
    stamps = np.cumsum(np.random.default_rng(0).uniform(2e-5, 8e-5, 38_000))
    path = written(tmp_path / "cell.nwb", steps_of(), of_stimulus=lambda k: {"stamps": stamps})
    with (
        open_recording(path) as recording,
        pytest.raises(RecordingError, match="DA0: its time stamps are not evenly spaced"),
    ):
        assert len(recording.sweeps) == 10
        analyse(recording)


def test_two_protocols_with_one_electrode(tmp_path):
    halves = [steps_of(amplitudes=STEPS[:6]), steps_of(amplitudes=STEPS[6:])]
    runs = [Run("e", halves[0], gap=1.0), Run("e", halves[1], name="more", start=90.0)]
    path = write_converted(tmp_path / "cell.nwb", runs)
    with open_recording(path) as recording:
        assert [sweep.number for sweep in recording.sweeps] == list(range(10))
        assert recording.sweep(9).description == "more"
        require_right(recording)


def test_samples_that_stand_in_a_column(tmp_path):
    made = steps_of()
    path = written(tmp_path / "cell.nwb", made, "response-{:02d}-ch-0", "stimulus-{:02d}-ch-0")
    with h5py.File(path, "a") as file:
        for name, group in file["acquisition"].items():
            values, unit = group["data"][()], group["data"].attrs["unit"]
            del group["data"]
            how = {"compression": "gzip", "chunks": (5_000, 1)} if "1" in name else {}
            group.create_dataset("data", data=values[:, None], **how).attrs["unit"] = unit
    with open_recording(path) as recording:
        require_alike(recording, made)


def test_stimuli_put_end_to_end_by_other_lengths(tmp_path):
    made = steps_of()
    path = write_converted(tmp_path / "cell.nwb", [Run("electrode_0", made, short=500)])
    with open_recording(path) as recording:
        require_alike(recording, made)
        require_right(recording)
        assert any("25 ms short" in note for note in recording.notes)


def test_rows_without_a_stimulus_and_rows_out_of_range(tmp_path):
    path = write_converted(tmp_path / "cell.nwb", [Run("electrode_0")])
    with h5py.File(path, "a") as file:
        table = file["general/intracellular_ephys/intracellular_recordings"]
        stimuli, responses = table["stimuli/stimulus"], table["responses/response"]
        rows = stimuli[()]
        rows["idx_start"][2], rows["count"][2] = -1, -1
        stimuli[...] = rows
        rows = responses[()]
        rows["count"][9] += 1
        rows["count"][3] = 0
        responses[...] = rows
    with open_recording(path) as recording:
        assert [sweep.number for sweep in recording.sweeps] == [0, 1, 2, 4, 5, 6, 7, 8]
        assert recording.sweep(2).read_current is None
        told = "; ".join(f"{name}: {why}" for name, why in recording.unreadable.items())
    assert "row 3" in told
    assert "row 9: its samples 342,000 to 380,001 are asked for, but it has 380,000" in told


def test_two_cells_recorded_at_once(tmp_path):
    left, right = steps_of(), steps_of(resistance=150.0, rheobase=140.0)
    runs = [Run("left", left), Run("right", right), Run("monitor", left, stimulated=False)]
    path = write_converted(tmp_path / "pair.nwb", runs, together=True)
    cells = open_recordings(path)
    assert [cell.cell_id for cell in cells] == ["pair_left", "pair_right"]
    require_right(cells[0])
    cells[0].close()  # the other stays open
    require_right(cells[1], rheobase=140.0, resistance=150.0)
    assert any("without a stimulus in current clamp: monitor" in note for note in cells[1].notes)
    close_all(cells)
    with pytest.raises(RecordingError, match="file was closed"):
        cells[1].sweeps[0].voltage
    with pytest.raises(RecordingError, match=r"holds 2 cells \(electrodes left, right\)"):
        open_recording(path)
    with open_recording(path, reading=Reading(electrode="right")) as recording:
        assert recording.cell_id == "pair_right"
        require_alike(recording, right)
        assert any("not read: left, monitor" in note for note in recording.notes)
    with pytest.raises(RecordingError, match=r"no electrode 'middle' \(it has left, right"):
        open_recording(path, reading=Reading(electrode="middle"))


def test_protocols_of_one_cell_with_an_electrode_each(tmp_path):
    halves = [steps_of(amplitudes=STEPS[:6]), steps_of(amplitudes=STEPS[6:])]
    runs = [
        Run("e0", halves[0], name="negative"),
        Run("e1", halves[1], name="positive", start=60.0),
    ]
    path = write_converted(tmp_path / "cell.nwb", runs)
    cells = open_recordings(path)
    assert len(cells) == 2  # nothing says that they are one
    assert any("never recorded at the same time" in note for note in cells[0].notes)
    close_all(cells)
    with open_recording(path, reading=Reading(electrode="e0,e1")) as recording:
        require_right(recording)
        assert [sweep.number for sweep in recording.sweeps] == list(range(10))
    path = write_converted(tmp_path / "named.nwb", runs, cell_ids=("c7", "c7"))
    with open_recording(path) as recording:
        assert recording.cell_id == "named"
        require_right(recording)
        assert {sweep.description for sweep in recording.sweeps} == {"negative", "positive"}


def written(path, made, response="data_{:05d}_AD0", stimulus="data_{:05d}_DA0", **how):
    """Sweeps of a recording as series; what is to be changed comes from functions of the number."""
    makes = {name: how.pop(name) for name in ("of_response", "of_stimulus") if name in how}
    nothing: dict[str, Any] = {"of_response": lambda k: {}, "of_stimulus": lambda k: {}} | makes
    responses: dict[str, Written] = {}
    stimuli: dict[str, Written] = {}
    for k, sweep in enumerate(made.sweeps):
        start = 3.0 * k
        for place, name, values, of in (
            (responses, response, sweep.voltage, nothing["of_response"](k)),
            (stimuli, stimulus, sweep.current, nothing["of_stimulus"](k)),
        ):
            place[name.format(k)] = Written(
                **{"values": values, "rate": sweep.rate, "start": start} | of
            )
    return write_series(path, responses, stimuli, **how)


@pytest.mark.parametrize(
    ("response", "stimulus"),
    [
        ("20240115_cell2_sweep{:03d}_Vm", "20240115_cell2_sweep{:03d}_Im"),
        ("data_{:05d}_AD0", "data_{:05d}_DA0"),
        ("c7-response-{:02d}-ch-0", "stimulus-{:02d}-ch-0"),
        ("2024-01-15_{:d}_V", "2024-01-15_{:d}_I"),
        ("sweep{:d}", "sweep{:d}"),
    ],
)
def test_the_number_that_counts_the_sweeps(tmp_path, response, stimulus):
    made = steps_of()
    path = written(tmp_path / "cell.nwb", made, response, stimulus)
    with open_recording(path) as recording:
        assert [sweep.number for sweep in recording.sweeps] == list(range(10))
        require_right(recording)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["20240115_c2_s007", "20240115_c2_s008"], [7, 8]),
        (["c1_20240115_9", "c1_20240116_10", "c1_20240115_10", "c1_20240116_9"], [9, 10, 10, 9]),
        (["data_00004_AD0", "data_00007_AD0"], [4, 7]),
        (["20240115_Vm"], [None]),
        (["data_00012_AD0"], [12]),
        (["Vm_a", "Vm_b"], [None, None]),
        (["20240115143210", "20240115143220"], [None, None]),
    ],
)
def test_numbers_in_names(names, numbers):
    found = numbers_in_names(names)
    assert [found[name][1] for name in names] == numbers


@pytest.mark.parametrize("clock", [True, False])
@pytest.mark.parametrize(
    ("first", "second"), [("20240115_", "20240116_"), ("ProtA_", "ProtB_"), ("", "b")]
)
def test_runs_that_both_begin_at_0_are_both_kept(tmp_path, clock, first, second):
    made = steps_of()
    halves = made.sweeps[:5], made.sweeps[5:]
    responses, stimuli = {}, {}
    for run, sweeps in zip((first, second), halves, strict=True):
        for k, sweep in enumerate(sweeps):
            start = 3.0 * k if clock else 0.0
            responses[f"{run}data_{k:05d}_AD0"] = Written(sweep.voltage, start=start)
            stimuli[f"{run}data_{k:05d}_DA0"] = Written(sweep.current, start=start)
    path = write_series(tmp_path / "cell.nwb", responses, stimuli)
    with open_recording(path) as recording:
        assert [sweep.number for sweep in recording.sweeps] == list(range(10))
        assert not recording.unreadable
        assert any("stands more than once" in note for note in recording.notes)
        require_right(recording)


def test_two_inputs_of_one_electrode_are_not_one_cell(tmp_path):
    made = steps_of()
    path = written(tmp_path / "cell.nwb", made)
    other = steps_of(resistance=100.0)
    with h5py.File(path, "a") as file:
        for k, sweep in enumerate(other.sweeps):
            name = f"acquisition/data_{k:05d}_AD"
            file.copy(name + "0", name + "1")
            file[name + "1/data"][...] = sweep.voltage * 1e-3
    with open_recording(path) as recording:
        require_right(recording)
        assert "at the same time; only data_00000_AD0" in next(iter(recording.unreadable.values()))
    with open_recording(path, reading=Reading(channel="AD1")) as recording:
        require_alike(recording, other)
    with pytest.raises(RecordingError, match="no series of channel 'AD7'"):
        open_recording(path, reading=Reading(channel="AD7"))


def test_a_cell_is_not_given_the_stimulus_of_another(tmp_path):
    made = steps_of()
    path = written(tmp_path / "cell.nwb", made, of_stimulus=lambda k: {"electrode": "other"})
    with h5py.File(path, "a") as file:
        for k in range(len(made.sweeps)):
            file.copy(f"acquisition/data_{k:05d}_AD0", f"acquisition/data_{k:05d}_AD1")
            group = file[f"acquisition/data_{k:05d}_AD1"]
            del group["electrode"]
            group["electrode"] = h5py.SoftLink("/general/intracellular_ephys/other")
    with open_recording(path) as recording:
        assert any("left out, without a stimulus" in note for note in recording.notes)
        require_alike(recording, made)


# Clocks


@pytest.mark.parametrize("rate", [10_000.0, 20_000.0, 50_000.0, 200_000.0])
@pytest.mark.parametrize("jitter", [0.0, 0.02, 0.4])
def test_jittered_time_stamps_are_even(tmp_path, rate, jitter):
    made = steps_of(rate, amplitudes=(-60, 60, 180))
    rng = np.random.default_rng(1)

    def stamped(k):
        points = made.sweeps[k].points
        noise = rng.uniform(-jitter, jitter, points)
        return {"stamps": 11.0 * k + (np.arange(points) + noise) / rate}

    path = written(tmp_path / "cell.nwb", made, of_response=stamped, of_stimulus=stamped)
    with open_recording(path) as recording:
        require_alike(recording, made)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: np.sort(t + np.random.default_rng(0).uniform(0, 2e-4, len(t))), "not evenly"),
        (lambda t: np.where(np.arange(len(t)) > 9000, t + 0.3, t), "jump 1 times, first by 0.3"),
        (lambda t: np.where(np.arange(len(t)) == 9, np.nan, t), "do not go on"),
        (lambda t: t[::-1], "do not go on"),
        (lambda t: t[:-1], "38,000 samples, but 37,999 time stamps"),
    ],
)
def test_uneven_time_stamps_are_told(tmp_path, change, told):
    made = steps_of(amplitudes=(60, 180))

    def stamped(k):
        stamps = np.arange(made.sweeps[k].points) / RATE
        return {"stamps": change(stamps) if k else stamps}

    path = written(tmp_path / "cell.nwb", made, of_response=stamped)
    with open_recording(path) as recording:
        assert [sweep.number for sweep in recording.sweeps] == [0]
        assert told in next(iter(recording.unreadable.values()))


@pytest.mark.parametrize("rate", [10_000.0, 20_000.0, 50_000.0])
@pytest.mark.parametrize(
    ("late", "short", "told"),
    [
        (4, 0, "0.2 ms late"),
        (0, 4, "0.2 ms short"),
        (2000, 0, "100 ms late"),
        (0, 6000, "300 ms short"),
        (1000, 4000, "50 ms late and 200 ms short"),
        (-2000, -2000, ""),
    ],
)
@pytest.mark.parametrize("holding", [0.0, -30.0])
def test_a_stimulus_is_placed_by_its_starting_time(tmp_path, rate, late, short, told, holding):
    made = steps_of(rate)
    late, short = (round(n * rate / RATE) for n in (late, short))

    def changed(k):
        current = np.concatenate([np.zeros(max(-late, 0)), made.sweeps[k].current])
        current = np.concatenate([current, np.zeros(max(-short, 0))]) + holding
        last = len(current) - max(short, 0)
        return {"values": current[max(late, 0) : last], "start": 3.0 * k + late / rate}

    path = written(tmp_path / "cell.nwb", made, of_stimulus=changed)
    with open_recording(path) as recording:
        for ours, theirs in zip(recording.sweeps, made.sweeps, strict=True):
            np.testing.assert_allclose(ours.current, theirs.current + holding, atol=0.01)
        assert any(told in note for note in recording.notes) or not told
        require_right(recording)


def test_a_stimulus_that_is_the_step_and_no_more(tmp_path):
    made = steps_of()
    onset = 6_000

    def cut(k):
        return {"values": made.sweeps[k].current[onset : onset + 20_000], "start": 3 * k + 0.3}

    path = written(tmp_path / "cell.nwb", made, of_stimulus=cut)
    with open_recording(path) as recording:
        require_alike(recording, made)
        require_right(recording)


@pytest.mark.parametrize("factor", [0.5, 0.4, 2.5])
def test_a_stimulus_at_another_rate(tmp_path, factor):
    made, other = steps_of(), steps_of(RATE * factor)

    def at_rate(k):
        return {"values": other.sweeps[k].current, "rate": RATE * factor}

    path = written(tmp_path / "cell.nwb", made, of_stimulus=at_rate)
    with open_recording(path) as recording:
        require_alike(recording, made)
        require_right(recording)
        assert any(f"at {RATE * factor:g} Hz, put on the 20000 Hz" in n for n in recording.notes)


def test_clocks_that_do_not_fit_together(tmp_path):
    made = steps_of()
    path = written(tmp_path / "cell.nwb", made, of_stimulus=lambda k: {"start": 0.0})
    with open_recording(path) as recording:
        require_alike(recording, made)
        assert any("their times do not fit together" in note for note in recording.notes)


# Units and clamps


@pytest.mark.parametrize("unit", ["V", "volts", "mV", "unknown"])
def test_a_stimulus_in_another_unit_is_the_reason(tmp_path, unit):
    path = written(tmp_path / "cell.nwb", steps_of(), of_stimulus=lambda k: {"unit": unit})
    with (
        open_recording(path) as recording,
        pytest.raises(RecordingError, match=f"its unit is '{unit}', expected a unit of current"),
    ):
        analyse(recording)


def test_current_clamp_that_is_written_as_voltage_clamp(tmp_path):
    made = steps_of()
    path = written(
        tmp_path / "cell.nwb",
        made,
        clamp="VoltageClamp",
        of_response=lambda k: {"unit": "amperes"},
        of_stimulus=lambda k: {"unit": "volts"},
    )
    for measured_only in (True, False):
        with pytest.raises(RecordingError, match="10 sweeps are in voltage clamp") as caught:
            open_recording(path, measured_only=measured_only)
        assert "{clamp} current" in caught.value.hint
        reading = Reading(clamp="current")
        with open_recording(path, measured_only=measured_only, reading=reading) as recording:
            require_alike(recording, made)


def test_a_current_that_is_written_as_a_potential(tmp_path):
    path = written(tmp_path / "cell.nwb", steps_of())
    with h5py.File(path, "a") as file:
        group = file["acquisition/data_00004_AD0"]
        del group["data"]
        data = group.create_dataset("data", data=np.arange(38_000, dtype=np.int16))
        data.attrs.update({"unit": "volts", "conversion": 1e-12})
    with open_recording(path) as recording:
        assert len(recording.sweeps) == 9
        assert "as no membrane potential does" in next(iter(recording.unreadable.values()))


@pytest.mark.parametrize("version", ["NWB-1.0.6", "1.0.5_beta", "NWB-0.8.2"])
@pytest.mark.parametrize("as_attribute", [True, False])
def test_nwb_1_is_refused_by_name(tmp_path, version, as_attribute):
    path = tmp_path / "old.nwb"
    with h5py.File(path, "w") as file:
        if as_attribute:
            file.attrs["nwb_version"] = version
        else:
            file["nwb_version"] = version
    with pytest.raises(RecordingError, match=rf"is NWB 1 \({version}\); convert it to NWB 2"):
        open_recording(path)


@pytest.mark.parametrize(
    ("written_as", "species"),
    [
        ("Mus musculus - House mouse", "mouse"),
        ("http://purl.obolibrary.org/obo/NCBITaxon_9606", "human"),
        ("Rattus norvegicus", "rat (Rattus norvegicus)"),
        ("unknown", None),
    ],
)
def test_species(tmp_path, written_as, species):
    path = written(tmp_path / "cell.nwb", steps_of(amplitudes=(60,)), species=written_as)
    with open_recording(path) as recording:
        assert recording.recorded.species == species
