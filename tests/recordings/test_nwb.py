"""NWB as MIES, the DANDI archive and pynwb write it."""

from __future__ import annotations

from datetime import UTC, datetime

import h5py
import numpy as np
import pytest

from crosspatch.errors import RecordingError
from crosspatch.recordings.cell_quality import assess_cell
from crosspatch.recordings.opening import close_all, open_recording, open_recordings

RATE = 20_000.0
POINTS = 30_000


def command(amplitude: float) -> np.ndarray:
    current = np.zeros(POINTS)
    current[8_000:18_000] = amplitude
    return current


def response(amplitude: float) -> np.ndarray:
    return -70.0 + 0.1 * command(amplitude)


def add(file, path, kind, values, unit, *, conversion=1.0, number=None, electrode=None, **attrs):
    group = file.create_group(path)
    group.attrs["neurodata_type"] = kind
    group.attrs.update(attrs)
    if number is not None:
        group.attrs["sweep_number"] = np.uint32(number)
    data = group.create_dataset("data", data=values)
    data.attrs["unit"], data.attrs["conversion"] = unit, conversion
    group.create_dataset("starting_time", data=0.0).attrs["rate"] = RATE
    if electrode is not None:
        place = f"general/intracellular_ephys/{electrode}"
        group["electrode"] = file.require_group(place)
    return group


@pytest.fixture
def empty(tmp_path):
    path = tmp_path / "cell.nwb"
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.5.0"
        file.create_group("acquisition")
        file.create_group("stimulus/presentation")
    return path


@pytest.mark.parametrize(
    ("unit", "conversion", "factor"),
    [("volts", 1.0, 1e-3), ("volts", 1e-3, 1.0), ("mV", 1.0, 1.0), ("V", 0.5, 2e-3)],
)
@pytest.mark.parametrize(
    ("amperes", "times", "of_pa"),
    [("amperes", 1.0, 1e-12), ("A", 1e-12, 1.0), ("pA", 1.0, 1.0), ("nA", 1.0, 1e-3)],
)
def test_units_and_conversions(empty, unit, conversion, factor, amperes, times, of_pa):
    with h5py.File(empty, "a") as file:
        place = "stimulus/presentation/x"
        values = response(-50) * factor
        add(
            file,
            "acquisition/x",
            "CurrentClampSeries",
            values,
            unit,
            conversion=conversion,
            number=3,
        )
        add(
            file, place, "CurrentClampStimulusSeries", command(-50) * of_pa, amperes,
            conversion=times, number=3,
        )  # fmt: skip
    with open_recording(empty) as recording:
        (sweep,) = recording.sweeps
        assert (sweep.number, sweep.rate, sweep.points) == (3, RATE, POINTS)
        np.testing.assert_allclose(sweep.voltage, response(-50), rtol=1e-9)
        np.testing.assert_allclose(sweep.current, command(-50), rtol=1e-9)


def test_an_offset_is_added_before_the_unit(empty):
    with h5py.File(empty, "a") as file:
        raw = np.rint(response(0) - 5).astype(np.int16)
        series = add(file, "acquisition/x", "CurrentClampSeries", raw, "volts", conversion=1e-3)
        series["data"].attrs["offset"] = 0.005
    with open_recording(empty) as recording:
        np.testing.assert_allclose(recording.sweeps[0].voltage, response(0), atol=1e-9)


def test_series_are_paired_by_number_name_or_electrode(empty, tmp_path):
    names: dict[str, list[tuple[str, str, int | None]]] = {
        "number": [("a", "p", 7), ("b", "q", 4)],
        "name": [
            ("data_00007_AD0", "data_00007_DA0", None),
            ("data_00004_AD0", "data_00004_DA0", None),
        ],
    }
    for how, pairs in names.items():
        path = tmp_path / f"{how}.nwb"
        path.write_bytes(empty.read_bytes())
        with h5py.File(path, "a") as file:
            for (ours, theirs, number), amplitude in zip(pairs, (-50, 80), strict=True):
                add(
                    file,
                    f"acquisition/{ours}",
                    "CurrentClampSeries",
                    response(amplitude),
                    "mV",
                    number=number,
                )
                add(
                    file,
                    f"stimulus/presentation/{theirs}",
                    "CurrentClampStimulusSeries",
                    command(amplitude),
                    "pA",
                    number=number,
                )
        with open_recording(path) as recording:
            assert [sweep.number for sweep in recording.sweeps] == [4, 7]
            assert recording.sweep(4).current.max() == 80
            assert recording.sweep(7).current.min() == -50
    path = tmp_path / "electrode.nwb"
    path.write_bytes(empty.read_bytes())
    with h5py.File(path, "a") as file:
        for name, electrode, amplitude in (("left", "one", -50), ("right", "two", 80)):
            add(
                file,
                f"acquisition/{name}",
                "CurrentClampSeries",
                response(amplitude),
                "mV",
                number=0,
                electrode=electrode,
            )
            add(
                file,
                f"stimulus/presentation/{name}",
                "CurrentClampStimulusSeries",
                command(amplitude),
                "pA",
                number=0,
                electrode=electrode,
            )
    cells = open_recordings(path)  # two electrodes at a time
    assert [cell.electrode for cell in cells] == ["one", "two"]
    assert cells[0].sweep(0).current.min() == -50
    assert cells[1].sweep(0).current.max() == 80
    close_all(cells)


def test_the_newer_tables_written_by_pynwb(tmp_path):
    import pynwb
    from pynwb.icephys import CurrentClampSeries, CurrentClampStimulusSeries

    path = tmp_path / "new.nwb"
    session = pynwb.NWBFile("made", "id", datetime(2026, 1, 1, tzinfo=UTC))
    device = session.create_device("amplifier")
    electrode = session.create_icephys_electrode(name="e", description="a pipette", device=device)
    for order, amplitude in enumerate((-50.0, 80.0)):
        common = {"rate": RATE, "electrode": electrode, "gain": 1.0}
        # Names that would mislead: only the table says what belongs together.
        stimulus = CurrentClampStimulusSeries(
            f"s{1 - order}", data=command(amplitude) * 1e-12, **common
        )
        measured = CurrentClampSeries(f"r{order}", data=response(amplitude) * 1e-3, **common)
        session.add_intracellular_recording(
            electrode=electrode, stimulus=stimulus, response=measured
        )
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(session)
    with open_recording(path) as recording:
        assert [sweep.current[10_000] for sweep in recording.sweeps] == pytest.approx([-50, 80])
        assert [sweep.voltage[10_000] for sweep in recording.sweeps] == pytest.approx([-75, -62])


def test_sweeps_of_both_clamps(empty):
    with h5py.File(empty, "a") as file:
        test = np.zeros(POINTS)
        test[200:400] = test[2_000:4_000] = test[8_000:10_000] = 10e-3  # V
        current = test / 2e9 * 1e12  # pA through 2 GOhm
        text = {"stimulus_description": "EXTPCllATT141203_DA_0"}
        add(file, "acquisition/data_00000_AD0", "VoltageClampSeries", current, "pA", **text)
        add(
            file,
            "stimulus/presentation/data_00000_DA0",
            "VoltageClampStimulusSeries",
            test,
            "volts",
        )
        add(file, "acquisition/data_00001_AD0", "CurrentClampSeries", response(-50), "mV")
        add(
            file,
            "stimulus/presentation/data_00001_DA0",
            "CurrentClampStimulusSeries",
            command(-50),
            "pA",
        )
    with open_recording(empty) as recording:
        assert [sweep.clamp for sweep in recording.sweeps] == ["voltage clamp", "current clamp"]
        assert len(recording.current_clamp) == 1
        assert assess_cell(recording, {}).seal == pytest.approx(2.0, rel=0.01)


def test_what_does_not_fit_is_left_out_and_told(empty):
    with h5py.File(empty, "a") as file:
        for number in range(4):
            add(file, f"acquisition/r{number}", "CurrentClampSeries", response(-50), "mV")
            add(
                file,
                f"stimulus/presentation/s{number}",
                "CurrentClampStimulusSeries",
                command(-50),
                "pA",
            )
        del file["stimulus/presentation/s1/data"]
        short = file["stimulus/presentation/s1"].create_dataset("data", data=command(-50)[:99])
        short.attrs["unit"] = "pA"
        file["acquisition/r2/data"].attrs["unit"] = "kelvin"
        del file["acquisition/r3/starting_time"]
    with open_recording(empty) as recording:
        assert [sweep.number for sweep in recording.sweeps] == [0]
        told = " ".join(recording.unreadable.values())
    assert "30,000 samples of response, but 99 of stimulus" in told
    assert "its unit is 'kelvin', expected a unit of voltage" in told
    assert "neither a starting time nor time stamps" in told


def test_time_stamps_stand_for_a_rate_if_they_are_even(empty):
    with h5py.File(empty, "a") as file:
        for name in ("even", "uneven"):
            series = add(file, f"acquisition/{name}", "CurrentClampSeries", response(0), "mV")
            del series["starting_time"]
            stamps = 5 + np.arange(POINTS) / RATE
            stamps[-1] += 0 if name == "even" else 3
            series["timestamps"] = stamps
    with open_recording(empty) as recording:
        assert recording.sweeps[0].rate == pytest.approx(RATE)
        (told,) = recording.unreadable.values()
        assert "its time stamps are not evenly spaced" in told


def test_what_is_said_of_the_cell(empty):
    with h5py.File(empty, "a") as file:
        add(file, "acquisition/data_1", "CurrentClampSeries", response(0), "mV", electrode="e")
        file["general/subject/species"] = "Homo sapiens"
        file["general/subject/subject_id"] = "H16.06.010"
        file["session_start_time"] = "2016-01-01T00:00:00Z"
        file["general/intracellular_ephys/e/seal"] = "1.4 GOhm"
        file["general/intracellular_ephys/e/initial_access_resistance"] = "12.5"
    with open_recording(empty) as recording:
        said = recording.recorded
    assert (said.species, said.donor) == ("human", "H16.06.010")
    assert said.session == "2016-01-01T00:00:00Z"
    assert (said.seal, said.access_resistance) == (1.4, 12.5)
    assert not said.simulated


def test_reading_after_closing_says_so(empty):
    with h5py.File(empty, "a") as file:
        add(file, "acquisition/data_1", "CurrentClampSeries", response(0), "mV")
    with open_recording(empty) as recording:
        sweep = recording.sweeps[0]
        assert sweep.voltage.shape == (POINTS,)
    with pytest.raises(RecordingError, match="sweep 1: cannot be read: the file was closed"):
        sweep.voltage
