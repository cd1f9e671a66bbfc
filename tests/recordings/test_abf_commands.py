"""What ABF files say was injected, and what was measured beside it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.converting import Donor, convert_recordings
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.stimuli import current_that_counts, recognise, remarks
from tests.recordings.made_files import (
    MadeEpoch,
    MadeInput,
    MadeOutput,
    respond,
    write_abf1_of,
    write_abf2_of,
)

Write = Callable[..., Path]
WRITERS = (write_abf1_of, write_abf2_of)
POINTS = 12_800
HOLD = POINTS // 64
TABLE = (MadeEpoch(points=1000), MadeEpoch(-100.0, 40.0, 5000), MadeEpoch(points=1000))
#: Parameter of epoch A in a user list: level, duration, train period, pulse width.
FIRST = {write_abf1_of: (21, 31, 41, 51), write_abf2_of: (61, 111, 161, 211)}


def flat(sweeps: int, points: int = POINTS) -> MadeInput:
    random = np.random.default_rng(4)
    return MadeInput("IN 0", "mV", [random.normal(-70, 0.1, points) for _ in range(sweeps)])


def currents(path: Path) -> list[NDArray[np.float64]]:
    with open_recording(path) as recording:
        return [np.asarray(sweep.current) for sweep in recording.sweeps]


def made(
    write: Write, folder: Path, output: MadeOutput, sweeps: int = 6, **more: Any
) -> list[NDArray[np.float64]]:
    return currents(write(folder / "cell.abf", [flat(sweeps)], [output], **more))


def expected(*parts: tuple[float, int], points: int = POINTS) -> NDArray[np.float64]:
    """Levels and how many samples they last; the last one stays."""
    whole = np.concatenate([np.full(length, level) for level, length in parts])
    return np.append(whole, np.full(points - len(whole), parts[-1][0]))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "values", ["-100,-60,0,30,90,150", "-100 -60, 0,30 ,90,150,999", "-1e2,-60,0.0,30,90,150"]
)
def test_a_user_list_of_levels(write, values, tmp_path: Path):
    output = MadeOutput(epochs=TABLE, user_list=(FIRST[write][0] + 1, values, False))
    for current, level in zip(
        made(write, tmp_path, output), (-100, -60, 0, 30, 90, 150), strict=True
    ):
        np.testing.assert_array_equal(current, expected((0, HOLD + 1000), (level, 5000), (0, 0)))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("repeats", "levels", "words"),
    [
        (False, (50, 70, 90, 90, 90, 90), "the last one stays"),
        (True, (50, 70, 90, 50, 70, 90), "it starts again"),
    ],
)
def test_a_list_that_is_shorter_than_the_recording(write, repeats, levels, words, tmp_path: Path):
    output = MadeOutput(epochs=TABLE, user_list=(FIRST[write][0] + 1, "50,70,90", repeats))
    assert [current[HOLD + 3000] for current in made(write, tmp_path, output)] == list(levels)
    with open_recording(tmp_path / "cell.abf") as recording:
        assert f"user list of 3 values for 6 sweeps: {words}" in "; ".join(recording.notes)


@pytest.mark.parametrize("write", WRITERS)
def test_user_lists_of_times(write, tmp_path: Path):
    output = MadeOutput(
        epochs=TABLE, user_list=(FIRST[write][1] + 1, "100,200,3000,0,500,600", False)
    )
    for sweep, length in enumerate((100, 200, 3000, 0, 500, 600)):
        np.testing.assert_array_equal(
            made(write, tmp_path, output)[sweep],
            expected((0, HOLD + 1000), (-100 + 40 * sweep, length), (0, 0)),
        )
    train = (MadeEpoch(points=100), MadeEpoch(80.0, 0.0, 4000, kind=3, period=1000, width=200))
    for at, widths in ((3, (100, 300)), (2, (200, 200))):
        values = "100,300" if at == 3 else "1000,500"
        output = MadeOutput(epochs=train, user_list=(FIRST[write][at] + 1, values, True))
        for sweep, current in enumerate(made(write, tmp_path, output, sweeps=2)):
            pulses = 4 if at == 3 or sweep == 0 else 8
            assert np.count_nonzero(np.diff(current) > 0) == pulses
            assert np.count_nonzero(current) == pulses * widths[sweep]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("parameter", "values", "why"),
    [
        (lambda first: first[0] + 7, "1,2,3", "parameter .* is not understood"),
        (lambda first: first[3] + 90, "1,2,3", "parameter .* is not understood"),
        (lambda first: first[0] + 1, "a,b,c", "has no number for this sweep"),
        (lambda first: first[0] + 1, " ,", "has no values"),
        (lambda first: first[1] + 1, "900000", "do not lie inside the sweep"),
    ],
)
def test_a_list_that_is_not_understood_is_refused(write, parameter, values, why, tmp_path: Path):
    output = MadeOutput(epochs=TABLE, user_list=(parameter(FIRST[write]), values, False))
    with pytest.raises(
        RecordingError, match=f"output 0 'Cmd 0' cannot be known: .*{why}"
    ) as caught:
        made(write, tmp_path, output)
    assert "'step_start'" in str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("parameter", [3, 7, 9, 10, 12])
def test_lists_that_change_no_current(write, parameter, tmp_path: Path):
    output = MadeOutput(epochs=TABLE, user_list=(parameter, "1,2,3", False))
    assert [current[HOLD + 3000] for current in made(write, tmp_path, output)] == list(
        range(-100, 140, 40)
    )


@pytest.mark.parametrize("write", WRITERS)
def test_the_list_of_another_output_is_none_of_ours(write, tmp_path: Path):
    outputs = [
        MadeOutput(epochs=TABLE),
        MadeOutput(
            "Cmd 1", "mV", TABLE, enabled=False, user_list=(FIRST[write][0] + 1, "1,2,3", False)
        ),
    ]
    path = write(tmp_path / "cell.abf", [flat(3)], outputs)
    assert [current[HOLD + 3000] for current in currents(path)] == [-100, -60, -20]
    with open_recording(path) as recording:
        assert recording.notes == ("output 0 'Cmd 0' has no user list, output 1 has",)
    outputs[1].user_list = (8, "1,2,3", False)
    path = write(tmp_path / "cell.abf", [flat(3)], outputs)
    with pytest.raises(RecordingError, match="its holding level follows the user list of output 1"):
        currents(path)


@pytest.mark.parametrize("write", WRITERS)
def test_holding_between_sweeps(write, tmp_path: Path):
    """The level before the first epoch is the holding level, or where the last sweep ended."""
    table = (MadeEpoch(5.0, 0.0, 1000), MadeEpoch(-30.0, 10.0, 2000))
    for keeps_last in (False, True):
        output = MadeOutput(epochs=table, holding=-25.0, keeps_last=keeps_last)
        for sweep, current in enumerate(made(write, tmp_path, output, sweeps=3)):
            before = -40.0 + 10 * sweep if keeps_last and sweep else -25.0
            after = -30.0 + 10 * sweep if keeps_last else -25.0
            np.testing.assert_array_equal(
                current, expected((before, HOLD), (5, 1000), (-30 + 10 * sweep, 2000), (after, 0))
            )


@pytest.mark.parametrize("write", WRITERS)
def test_a_presweep_train_leaves_its_level(write, tmp_path: Path):
    output = MadeOutput(epochs=TABLE, holding=-25.0, after_train=(10.0, 40.0))
    current = made(write, tmp_path, output)[2]
    np.testing.assert_array_equal(current[[0, HOLD - 1, HOLD, -1]], [40, 40, 0, -25])


@pytest.mark.parametrize("write", WRITERS)
def test_deltas_of_duration(write, tmp_path: Path):
    table = (MadeEpoch(points=1000), MadeEpoch(100.0, 0.0, 400, -150), MadeEpoch(points=100))
    for sweep, current in enumerate(made(write, tmp_path, MadeOutput(epochs=table), sweeps=4)):
        assert np.count_nonzero(current) == max(400 - 150 * sweep, 0)
    longer = (MadeEpoch(points=1000), MadeEpoch(100.0, 0.0, 4000, 4000))
    with pytest.raises(RecordingError, match=r"sweep 2: .* do not lie inside the sweep"):
        made(write, tmp_path, MadeOutput(epochs=longer))


@pytest.mark.parametrize("write", WRITERS)
def test_outputs_that_take_turns(write, tmp_path: Path):
    quiet = MadeOutput("Cmd 1", "mV", TABLE)
    path = write(tmp_path / "x.abf", [flat(4)], [MadeOutput(epochs=TABLE), quiet], alternates=True)
    assert [current[HOLD + 3000] for current in currents(path)] == [-100, 0, -20, 0]
    quiet = MadeOutput("Cmd 0", "mV", TABLE)
    outputs = [quiet, MadeOutput("Cmd 1", "pA", TABLE)]
    path = write(tmp_path / "x.abf", [flat(4)], outputs, alternates=True)
    assert [current[HOLD + 3000] for current in currents(path)] == [0, -60, 0, 20]


@pytest.mark.parametrize("write", WRITERS)
def test_sweeps_that_were_added_later(write, tmp_path: Path):
    path = write(tmp_path / "x.abf", [flat(4)], [MadeOutput(epochs=TABLE)], in_run=3)
    with open_recording(path) as recording:
        assert recording.sweep(2).current[HOLD + 3000] == -20
        with pytest.raises(RecordingError, match=r"sweep 3: .* its protocol has 3 sweeps"):
            recording.sweep(3).current


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("output", "why"),
    [
        (MadeOutput(epochs=TABLE, enabled=False), "no output has its waveform switched on"),
        (MadeOutput(unit="mV", epochs=TABLE), "its waveform is that of output 0 'Cmd 0' in mV"),
        (MadeOutput(epochs=[MadeEpoch(10, 0, 100, kind=6)]), "an epoch is of kind 6"),
        (MadeOutput(epochs=TABLE, source=5), "its source is 5"),
    ],
)
def test_true_reasons(write, output, why, tmp_path: Path):
    with pytest.raises(RecordingError, match=why) as caught:
        made(write, tmp_path, output)
    assert "'step_start'" in str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
def test_leak_subtraction_is_refused(write, tmp_path: Path):
    with pytest.raises(RecordingError, match=r"output 0 'Cmd 0' has leak subtraction \(P/N\)"):
        made(write, tmp_path, MadeOutput(epochs=TABLE, leak_subtracted=True))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("mode", "words"),
    [(1, "event-driven"), (2, "event-driven"), (3, "gap-free"), (4, "oscilloscope")],
)
def test_other_modes_play_no_epochs(write, mode, words, tmp_path: Path):
    lengths = {1: (4000, 9000, 2500), 3: (20_000,)}.get(mode, (4000, 4000, 4000))
    traces = [np.full(length, -70.0 - k) for k, length in enumerate(lengths)]
    path = write(
        tmp_path / "x.abf", [MadeInput("IN 0", "mV", traces)], [MadeOutput(epochs=TABLE)], mode=mode
    )
    with open_recording(path) as recording:
        assert [sweep.points for sweep in recording.sweeps] == list(lengths)
        for k, sweep in enumerate(recording.sweeps):
            np.testing.assert_allclose(sweep.voltage, -70 - k, atol=0.01)
            with pytest.raises(RecordingError, match=f"{words} mode.*'step_start'"):
                sweep.current


def test_a_current_in_volts_is_said(tmp_path: Path):
    inputs = [flat(3), MadeInput("Im", "V", [np.full(POINTS, 0.01)] * 3)]
    path = write_abf2_of(tmp_path / "x.abf", inputs, [MadeOutput(epochs=TABLE, enabled=False)])
    with pytest.raises(RecordingError, match="input 1 'Im' is in V, not in pA or nA"):
        currents(path)


def test_rates_are_what_the_interval_says(tmp_path: Path):
    for write, channels, rate in ((write_abf1_of, 3, 33_333.333), (write_abf2_of, 1, 30_303.0303)):
        inputs = [
            flat(2),
            *(MadeInput(f"T{k}", "C", [np.ones(POINTS)] * 2) for k in range(channels - 1)),
        ]
        with open_recording(
            write(tmp_path / "x.abf", inputs, [MadeOutput()], rate=rate)
        ) as recording:
            assert abs(recording.sweeps[0].rate / rate - 1) < 1e-6


@pytest.mark.parametrize("write", WRITERS)
def test_interleaved_inputs_and_gains_by_telegraph(write, tmp_path: Path):
    traces = [np.linspace(-80, -40, POINTS), np.linspace(-60, -70, POINTS)]
    inputs = [
        MadeInput("T", "C", [np.full(POINTS, 32.0)] * 2, number=7),
        MadeInput("Vm", "mV", traces, number=3, gain=20.0),
    ]
    path = write(tmp_path / "x.abf", inputs, [MadeOutput(epochs=TABLE)])
    with open_recording(path) as recording:
        for sweep, trace in zip(recording.sweeps, traces, strict=True):
            np.testing.assert_allclose(sweep.voltage, trace, atol=0.01)
            np.testing.assert_array_equal(sweep.voltage_until(100), sweep.voltage[:100])


def test_old_headers_and_odd_clocks_are_said(tmp_path: Path):
    path = write_abf1_of(tmp_path / "x.abf", [flat(3)], [MadeOutput(epochs=TABLE)])
    content = path.read_bytes()

    def write_with(*changes: tuple[str, int, float]) -> None:
        changed = bytearray(content)
        for kind, at, value in changes:
            struct.pack_into(f"<{kind}", changed, at, value)
        path.write_bytes(changed)

    write_with(("f", 126, 20.0), ("i", 194, 5000))
    with pytest.raises(RecordingError, match="interval within each sweep, from 100 to 20 us"):
        open_recording(path)
    old = bytearray(content[:2048] + content[6144:])
    struct.pack_into("<i", old, 40, 4)
    struct.pack_into("<ii", old, 92, 0, 0)
    path.write_bytes(old)
    with open_recording(path) as recording:
        np.testing.assert_allclose(recording.sweep(2).voltage, flat(3).sweeps[2], atol=0.01)
        with pytest.raises(RecordingError, match=r"ABF before 1\.6, of which epochs are not read"):
            recording.sweep(0).current


def write_atf(path: Path, sweeps: Sequence[NDArray[np.float64]], unit: str = "pA") -> Path:
    names = "\t".join(f'"Trace #{k} ({unit})"' for k in range(len(sweeps)))
    rows = np.column_stack([np.arange(len(sweeps[0])) / 10_000, *sweeps])
    lines = ["ATF\t1.0", f"1\t{len(sweeps) + 1}", '"Comment=made up"', f'"Time (s)"\t{names}']
    text = "\n".join([*lines, *("\t".join(f"{each:.6g}" for each in row) for row in rows)])
    path.write_text(text + "\n")
    return path


@pytest.mark.parametrize("write", WRITERS)
def test_stimulus_files(write, tmp_path: Path):
    waves = [np.where((np.arange(POINTS) // 2000) == 2, 10.0 * (k + 1), 0.0) for k in range(2)]
    write_atf(tmp_path / "wave.atf", waves)
    write_abf2_of(tmp_path / "wave.abf", [MadeInput("IN 0", "pA", waves)])
    for name in ("C:\\\\protocols\\\\wave.atf", "wave.abf"):
        for sweep, heights in ((0, (25, 45, 45)), (2, (45, 45, 45))):
            output = MadeOutput(source=2, file=(name, 2.0, 5.0, sweep))
            found = made(write, tmp_path, output, sweeps=3)
            np.testing.assert_allclose([each[5000] for each in found], heights, atol=0.01)
            np.testing.assert_allclose([each[0] for each in found], 5, atol=0.01)
    for file, why in (
        ((r"D:\lost\noise.atf", 1.0, 0.0, 0), "its stimulus file noise.atf was not found"),
        (("wave.atf", 0.0, 0.0, 0), "is scaled by 0"),
        (("", 1.0, 0.0, 0), "its stimulus file without a name was not found"),
    ):
        with pytest.raises(RecordingError, match=why) as caught:
            made(write, tmp_path, MadeOutput(source=2, file=file))
        assert "'step_start'" in str(caught.value)
    write_atf(tmp_path / "wave.atf", waves, unit="nA")
    with pytest.raises(RecordingError, match=r"wave\.atf is in nA, the output in pA"):
        made(write, tmp_path, MadeOutput(source=2, file=("wave.atf", 1.0, 0.0, 0)))
    write_atf(tmp_path / "wave.atf", [waves[0][:5500]])
    with pytest.raises(RecordingError, match=r"wave\.atf ends before the sweep does"):
        made(write, tmp_path, MadeOutput(source=2, file=("wave.atf", 1.0, 0.0, 0)))


# --- a command and its measurement -----------------------------------------------------------


def pair(
    folder: Path,
    change: Callable[[int, NDArray[np.float64]], NDArray[np.float64]],
    write: Write = write_abf2_of,
    noise: float = 4.0,
    **more: Any,
) -> Any:
    """A cell that received what `change` makes of the command, with its current recorded."""
    random = np.random.default_rng(9)
    injected, measured = [], []
    for sweep in range(6):
        current = expected((0, HOLD + 1000), (-100 + 40 * sweep, 5000), (0, 0))
        injected.append(change(sweep, current))
        measured.append(injected[-1] + random.normal(0, noise, POINTS))
    more = {"epochs": TABLE} | more
    inputs = [
        MadeInput("Vm", "mV", [respond(each, seed=k) for k, each in enumerate(injected)]),
        MadeInput("Im", "pA", measured),
    ]
    return open_recording(write(folder / "pair.abf", inputs, [MadeOutput(**more)]))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("noise", [0.5, 4.0, 12.0])
def test_a_measurement_that_agrees(write, noise, tmp_path: Path):
    with pair(tmp_path, lambda _, current: current, write, noise) as recording:
        assert (
            "the command is that of output 0 'Cmd 0', input 1 'Im' measured the current"
            in recording.notes
        )
        assert not remarks(recognise(recording))
        assert set(np.unique(recording.sweep(1).current)) == {-60, 0}
        monitor = recording.sweep(1).read_monitor()
        assert abs(np.median(monitor[HOLD + 2000 : HOLD + 4000]) + 60) < 1


@pytest.mark.parametrize("write", WRITERS)
def test_a_measurement_that_disagrees_is_used_and_said(write, tmp_path: Path):
    changes: list[tuple[Any, str]] = [
        (lambda sweep, current: current * (2 if sweep == 3 else 1), "in sweep 3 20 pA from"),
        (lambda _, current: np.roll(current, 60), "disagree in 6 of 6 sweeps"),
        (lambda sweep, current: np.roll(current - 5 * sweep * (current != 0), 500), "disagree in"),
    ]
    for change, words in changes:
        with pair(tmp_path, change, write) as recording:
            stimuli = recognise(recording)
            (remark,) = remarks(stimuli)
            assert words in remark
            assert "the measured current counts: the potential follows it" in remark
            for sweep, stimulus in zip(recording.sweeps, stimuli.values(), strict=True):
                true = change(
                    sweep.number,
                    expected((0, HOLD + 1000), (-100 + 40 * sweep.number, 5000), (0, 0)),
                )
                assert stimulus.amplitude == pytest.approx(true[np.argmax(np.abs(true))], abs=2)
                assert np.std(current_that_counts(sweep, stimulus)[:HOLD]) > 1


def test_what_flowed_is_converted(tmp_path: Path):
    """Not the command, where it is known to be wrong; and none where it is not known which is."""
    with pair(tmp_path, lambda sweep, current: 2 * current if sweep == 3 else current) as recording:
        source = recording.name
    convert_recordings([source], tmp_path / "cell.nwb", Donor(session_start="2024-01-15T14:30"))
    with open_recording(tmp_path / "cell.nwb") as converted:
        middle = [np.median(sweep.current[3000:5000]) for sweep in converted.sweeps]
        np.testing.assert_allclose(middle, [-100, -60, -20, 40, 60, 100], atol=1)
        assert [each.amplitude for each in recognise(converted).values()][3] > 39
    inputs = [
        MadeInput("Vm", "mV", [respond(np.zeros(POINTS), seed=k) for k in range(6)]),
        MadeInput("Im", "pA", [0.5 * k * expected((0, 1200), (10, 5000)) for k in range(6)]),
    ]
    source = write_abf2_of(tmp_path / "dead.abf", inputs, [MadeOutput(epochs=TABLE)])
    convert_recordings([source], tmp_path / "dead.nwb", Donor(session_start="2024-01-15T14:30"))
    with pytest.raises(RecordingError, match="no command waveform"):
        recognise(open_recording(tmp_path / "dead.nwb"))


def test_a_list_that_is_not_understood_and_a_measurement(tmp_path: Path):
    list_of = (61 + 9, "1,2,3", False)
    with pair(tmp_path, lambda _, current: current, user_list=list_of) as recording:
        assert "cannot be known (its user list varies parameter 70" in "; ".join(recording.notes)
        middle = [np.median(sweep.current[3000:5000]) for sweep in recording.sweeps]
        np.testing.assert_allclose(middle, range(-100, 140, 40), atol=1)


def test_a_flat_command_and_a_measurement(tmp_path: Path):
    flat_table = [MadeEpoch(points=1000), MadeEpoch(points=5000)]
    with pair(tmp_path, lambda _, current: current, epochs=flat_table) as recording:
        (remark,) = remarks(recognise(recording))
        assert "in sweep 0 no stimulus against -100" in remark
        assert "the measured current counts" in remark


def test_scales_that_differ_are_said(tmp_path: Path):
    table = [MadeEpoch(points=1000), MadeEpoch(-200.0, 80.0, 5000), MadeEpoch(points=1000)]
    with pair(tmp_path, lambda _, current: current, epochs=table) as recording:
        (remark,) = remarks(recognise(recording))
        assert remark == (
            "the measured current is 0.5 times the command in all sweeps; the command counts"
        )


def test_a_measurement_of_another_cell_does_not_count(tmp_path: Path):
    random = np.random.default_rng(1)
    commands = [expected((0, HOLD + 1000), (-100 + 40 * k, 5000), (0, 0)) for k in range(6)]
    inputs = [
        MadeInput("Vm", "mV", [respond(each, seed=k) for k, each in enumerate(commands)]),
        MadeInput("Im", "pA", [random.normal(0, 3, POINTS) for _ in range(6)]),
    ]
    with open_recording(
        write_abf2_of(tmp_path / "x.abf", inputs, [MadeOutput(epochs=TABLE)])
    ) as made:
        (remark,) = remarks(recognise(made))
        assert "shows no stimulus, but the potential follows the command, which counts" in remark
        assert set(np.unique(made.sweep(1).current)) == {-60, 0}


def test_a_hum_and_drift_of_the_measurement_are_no_disagreement(tmp_path: Path):
    time = np.arange(POINTS) / 10_000
    with pair(tmp_path, lambda _, current: current) as plain:
        volts = [sweep.voltage for sweep in plain.sweeps]
        amps = [sweep.read_monitor() for sweep in plain.sweeps]
    rides = 8 * np.sin(2 * np.pi * 50 * time) + 40 * time
    inputs = [MadeInput("Vm", "mV", volts), MadeInput("Im", "pA", [each + rides for each in amps])]
    with open_recording(
        write_abf2_of(tmp_path / "x.abf", inputs, [MadeOutput(epochs=TABLE)])
    ) as made:
        assert not remarks(recognise(made))
