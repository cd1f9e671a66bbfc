"""Cells as any lab records them: the right value, or the true reason why it is missing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from crosspatch.features.analysis import Analysis, analyse
from crosspatch.features.families import vector_families
from crosspatch.features.layouts import VECTOR_LAYOUTS
from crosspatch.features.ranges import limits
from crosspatch.features.scalars import scalar_features
from crosspatch.recordings.cell_quality import rest_rate as rest_rate_of
from crosspatch.recordings.model import Recording
from crosspatch.recordings.reading_options import Reading
from tests.features.made_cell import MadeCell, changed, joined, made_recording, made_sweep

#: Of the hero sweep and at rheobase, without those of the action potential.
TRAINS = ("latency_rheo", "avg_rate_rheo", "mean_isi_rheo", "avg_rate_hero", "latency_hero")


def measured(recording: Recording) -> tuple[dict[str, float], str, Analysis]:
    analysis = analyse(recording)
    notes = list(analysis.notes)
    found = scalar_features(analysis, notes)
    return found, "; ".join(notes), analysis


@pytest.mark.parametrize("rate", [10_000.0, 50_000.0])
@pytest.mark.parametrize("resistance", [90.0, 200.0, 600.0])
def test_steps_that_are_nearly_equal_show_no_slope(rate, resistance):
    rng = np.random.default_rng(2)
    sweeps = [
        made_recording(
            MadeCell(resistance=resistance, noise=0.05),
            amplitudes=(amplitude,),
            rate=rate,
            shift=rng.normal(0, 0.7),
        )
        for amplitude in (-60.1, -59.8, -60.3, -60.0, -59.9, -180, -240, 80, 120, 160)
    ]
    found, _, _ = measured(joined(*sweeps))
    assert found["input_resistance"] == pytest.approx(resistance, rel=0.1)
    assert found["tau"] == pytest.approx(15, rel=0.1)


def test_a_slope_needs_more_spread_where_the_potential_wanders():
    steps = (-50, -60, -70, -55, -65)
    shifts = (0, 6, -5, 4, -7)
    sweeps = [
        made_recording(amplitudes=(step,), shift=shift)
        for step, shift in zip(steps, shifts, strict=True)
    ]
    found, _, _ = measured(joined(*sweeps))
    assert found["input_resistance"] == pytest.approx(200, rel=0.05)


def test_what_no_cell_can_have_is_missing_with_the_reason():
    # The potential rises with hyperpolarising current: the command's sign is wrong, say.
    upside_down = made_recording(MadeCell(resistance=-150.0), amplitudes=(-90, -50, -10, 20))
    found, notes, _ = measured(upside_down)
    assert "input_resistance" not in found
    assert "is outside 1 to 20000, which no cell is: missing" in notes
    assert limits("upstroke_downstroke_ratio_ramp") == limits("spiking_upstroke_downstroke_ratio")


@pytest.mark.parametrize(("rest_rate", "rate"), [(8.0, 20_000.0), (3.0, 50_000.0), (15, 10_000.0)])
def test_a_cell_that_fires_on_its_own(rest_rate, rate):
    cell = MadeCell(rest=-60.0, rest_rate=rest_rate, rheobase=20, noise=0.05)
    steps = (-100, -75, -50, -25, 25, 50, 75, 100)
    recording = made_recording(cell, amplitudes=steps, rate=rate)
    found, notes, analysis = measured(recording)
    assert analysis.cell.passed
    assert all(quality.passed for quality in analysis.qualities.values())
    assert rest_rate_of(analysis.qualities) == pytest.approx(rest_rate, rel=0.25)
    assert f"fires without current ({rest_rate_of(analysis.qualities):.2g} Hz)" in notes
    assert "has no rheobase" in notes
    assert not {"rheobase_i", "sag", *TRAINS} & set(found)
    quiet = scalar_features(analyse(made_recording(replace(cell, rest_rate=0), rate=rate)))
    assert found["threshold_v_rheo"] == pytest.approx(-60, abs=1)
    for name in ("width_rheo", "upstroke_rheo", "peak_deltav_rheo"):
        assert found[name] == pytest.approx(quiet[name], rel=0.1), name
    assert found["input_resistance"] == pytest.approx(200, rel=0.05)
    assert found["tau"] == pytest.approx(15, rel=0.1)
    families, _ = vector_families(analysis, VECTOR_LAYOUTS["gouwens"])
    assert {"first_ap_v", "first_ap_dv"} <= set(families)
    assert not {"psth", "step_subthresh", "subthresh_norm"} & set(families)


def shifted(by, _, voltage):
    """A potential that is higher throughout."""
    return voltage + by


def test_a_rest_that_wanders_from_sweep_to_sweep_does_not_bend_the_resistance():
    cell = MadeCell(rest=-60.0, rest_rate=8.0, rheobase=20, noise=0.05)
    recording = made_recording(cell, amplitudes=(-100, -50, -25, 25, 50), rate=20_000)
    for number, shift in ((0, 3.0), (1, -1.0), (2, -2.5)):
        recording = changed(recording, [number], partial(shifted, shift))
    found, _, _ = measured(recording)
    assert found["input_resistance"] == pytest.approx(200, rel=0.05)


def test_a_single_spike_at_rest_does_not_take_the_rheobase():
    recording = made_recording(MadeCell(rheobase=60))
    spike = MadeCell()._spike

    def spiking(time, voltage):
        return voltage + spike(time - 0.2)

    found, notes, _ = measured(changed(recording, [4], spiking))
    assert found["rheobase_i"] == 60
    assert "fires without current (0.18 Hz)" in notes


def wandering(time, voltage):
    """Slow noise before the step, which a limit of 2 mV rejects."""
    return voltage + 3.2 * np.sin(2 * np.pi * 3 * time) * (time < 0.5)


STEPS = (-100, -60, -20, 20, 60, 100, 140, 180, 220, 260)


def test_a_rejected_step_that_spikes_gives_the_rheobase():
    steps = (-100, -60, -20, 20, 60, 100, 140, 160, 180, 200)
    recording = made_recording(MadeCell(rheobase=100), amplitudes=steps)
    found, notes, analysis = measured(changed(recording, [4, 5, 6], wandering))
    assert [n for n, quality in analysis.qualities.items() if not quality.passed] == [4, 5, 6]
    assert found["rheobase_i"] == 100
    assert (
        "rheobase_i is of sweep 5 (100 pA), which spikes but is not measured (slow noise" in notes
    )
    assert not {"threshold_v_rheo", "latency_rheo", "avg_rate_rheo"} & set(found)
    assert analysis.long_square is not None
    assert found["avg_rate_hero"] == analysis.long_square.rates[4]  # 60 pA above, as 40 would do
    families, _ = vector_families(analysis, VECTOR_LAYOUTS["gouwens"])
    assert "first_ap_v" not in families
    coarse = changed(made_recording(MadeCell(rheobase=100), amplitudes=STEPS), [5, 6], wandering)
    found, notes, _ = measured(coarse)
    assert "what is measured in the hero sweep is missing: that sweep is rejected" in notes
    assert not {"threshold_v_hero", "avg_rate_hero"} & set(found)
    # The steps above are at their place: 60 to 100 pA above rheobase.
    whole, _ = vector_families(analyse(recording), VECTOR_LAYOUTS["gouwens"])
    bins = slice(3 * 20, 6 * 20)
    np.testing.assert_allclose(families["psth"][bins], whole["psth"][bins])
    assert np.isnan(families["psth"][:20]).all()


@pytest.mark.parametrize("hidden", [[5], [4, 5], [5, 6]])
def test_a_step_that_cannot_be_seen_leaves_the_rheobase_unknown(hidden):
    recording = made_recording(MadeCell(rheobase=100), amplitudes=STEPS)

    def lost(time, voltage):
        return np.where(time < 0.9, voltage, np.nan)

    found, notes, _ = measured(changed(recording, [n for n in hidden if n != 5] or [5], lost))
    if hidden == [5]:  # it spikes before it is lost
        assert found["rheobase_i"] == 100
    elif hidden == [4, 5]:  # 60 pA: nothing is seen until it is lost
        assert "rheobase_i" not in found
        assert "it is at most 100 pA" in notes
        assert "sweep 4 of 60 pA (stopped at 0.9 s, before the stimulus ended)" in notes
        assert not {"threshold_v_rheo", *TRAINS} & set(found)
    else:
        assert found["rheobase_i"] == 100


def test_a_depolarised_sweep_says_nothing_of_the_rheobase():
    recording = made_recording(MadeCell(rheobase=100), amplitudes=STEPS)
    found, notes, _ = measured(changed(recording, [5, 6], lambda time, voltage: voltage + 45))
    assert "rheobase_i" not in found
    assert "it is at most 180 pA" in notes


@pytest.mark.parametrize(
    ("membrane", "firing"), [(1.0, 2.0), (2.0, 1.0), (0.5, 1.0), (1.0, 1.5), (0.4, 0.8)]
)
@pytest.mark.parametrize("onset", [0.5, 0.2])
def test_membrane_and_firing_steps_of_two_lengths(membrane, firing, onset):
    cell = MadeCell(rheobase=160, tau=0.02)
    below = made_recording(cell, amplitudes=(-100, -80, -60, -40, -20) * 2, duration=membrane)
    above = made_recording(
        cell, amplitudes=(40, 80, 120, 160, 200, 240), duration=firing, onset=onset
    )
    found, _, analysis = measured(joined(below, above))
    assert found["input_resistance"] == pytest.approx(200, rel=0.03)
    assert found["tau"] == pytest.approx(20, rel=0.05)
    assert found["rheobase_i"] == 160
    window = min(firing, 1.0)
    expected = len(cell.spike_times(160, window + 0.02)) / window
    assert found["avg_rate_rheo"] == pytest.approx(expected, abs=1.01)
    assert found["latency_rheo"] == pytest.approx(0.063, abs=0.001)
    families, _ = vector_families(analysis, VECTOR_LAYOUTS["gouwens"])
    assert {"step_subthresh", "psth"} <= set(families)


def test_a_shorter_step_that_spikes_bounds_the_rheobase():
    cell = MadeCell(rheobase=100)
    long = made_recording(cell, amplitudes=(-100, -60, -20, 20, 60, 180, 220, 260))
    short = made_recording(cell, amplitudes=(120,), duration=0.5)
    found, notes, _ = measured(joined(long, short))
    assert found["rheobase_i"] == 120
    assert "left out, it lasts 0.5 s" in notes


@pytest.mark.parametrize("rate", [10_000.0, 20_000.0, 100_000.0])
@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_slow_spikes_are_counted_and_said(rate, noise):
    cell = MadeCell(
        height=45, slower=22, rheobase=60, resistance=600, tau=0.04, noise=noise, gain=0.1
    )
    steps = (-40, -20, 20, 40, 60, 80, 100)
    recording = made_recording(cell, amplitudes=steps, rate=rate, test_pulse=False)
    found, notes, analysis = measured(recording)
    assert "no long square made it spike" not in notes
    assert "slow or low spikes: they are counted from" in notes
    assert found["rheobase_i"] == 60
    assert analysis.long_square is not None
    counts = dict(zip(steps, map(len, analysis.long_square.spikes), strict=True))
    assert counts == {step: len(cell.spike_times(step)) for step in steps}


def test_slow_spikes_below_fast_ones_give_the_rheobase():
    slow = made_recording(MadeCell(height=45, slower=22, rheobase=80, gain=0.05))
    fast = made_recording(MadeCell(rheobase=80))
    mixed = joined(replace(slow, sweeps=slow.sweeps[:10]), replace(fast, sweeps=fast.sweeps[10:]))
    found, _, _ = measured(mixed)
    assert found["rheobase_i"] == 80


@pytest.mark.parametrize("before", [0.001, 0.002, 0.02])
def test_a_step_from_the_start(before):
    cell = MadeCell(rheobase=160, noise=0.05)
    recording = made_recording(cell, amplitudes=STEPS, onset=before, test_pulse=False)
    found, notes, _ = measured(recording)
    assert f"the baseline is taken from {before * 1e3:.0f} ms before the step" in notes
    assert found["rheobase_i"] == 180
    assert found["input_resistance"] == pytest.approx(200, rel=0.03)
    assert found["tau"] == pytest.approx(15, rel=0.1)


def test_a_step_to_the_end_of_the_sweep():
    recording = made_recording(MadeCell(rheobase=160), amplitudes=STEPS, after=0.001)
    found, _, _ = measured(recording)
    assert found["rheobase_i"] == 180
    assert found["input_resistance"] == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.2, 1.9, 1.999])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_far_from_the_step_is_not_measured(place, value):
    recording = made_recording(MadeCell(rheobase=160), amplitudes=STEPS, test_pulse=False)

    def holed(time, voltage):
        voltage[round(place * 50_000) : round(place * 50_000) + 30] = value
        return voltage

    found, _, analysis = measured(changed(recording, range(10), holed))
    assert analysis.cell.passed
    whole, _, _ = measured(recording)
    assert found == pytest.approx(whole, rel=1e-6)


def test_why_no_sweep_passed_is_told_with_counts():
    recording = made_recording(amplitudes=STEPS)
    recording = changed(recording, range(7), wandering)
    recording = changed(recording, (7, 8, 9), lambda time, voltage: voltage * 0)
    _, _, analysis = measured(recording)
    assert analysis.cell.reasons == (
        "no sweep passed quality control: slow noise above 2 mV (7 of 10), no samples (3 of 10)",
    )


@pytest.mark.parametrize("offset", [55.0, 80.0, -60.0])
def test_a_constant_offset_is_told(offset):
    recording = made_recording(MadeCell(rheobase=60, height=80), shift=offset)
    _, _, analysis = measured(recording)
    assert analysis.cell.offset == pytest.approx(offset, abs=10)
    told = f"the potential is probably offset by about {analysis.cell.offset:+.0f} mV"
    assert told in analysis.cell.reasons[0]
    right = changed(recording, range(13), lambda time, voltage: voltage - offset)
    assert scalar_features(analyse(right))["rheobase_i"] == 60


def test_a_depolarised_cell_is_not_called_offset():
    _, _, analysis = measured(made_recording(MadeCell(rheobase=60, height=45), shift=40.0))
    assert np.isnan(analysis.cell.offset)
    assert "baseline outside -110 to -35 mV (13 of 13)" in analysis.cell.reasons[0]


def test_nothing_to_measure_is_told():
    flat = [made_sweep(k, 10_000.0, np.full(5000, -70.0), np.zeros(5000)) for k in range(3)]
    analysis = analyse(replace(made_recording(), sweeps=tuple(flat)))
    (reason,) = analysis.cell.reasons
    assert reason.startswith("no sweep has a stimulus that is measured: ")


def test_a_potential_of_zero_is_shifted_and_what_was_not_recorded_is_not():
    def offset(time, voltage):
        voltage = np.rint((voltage + 55) * 2) / 2
        voltage[time > 1.9] = 0
        return voltage

    recording = made_recording(MadeCell(rheobase=60, noise=0.3), test_pulse=False)
    recording = changed(recording, range(13), offset)
    found, _, analysis = measured(Reading(offset_mv=55).applied(recording))
    assert analysis.cell.passed
    assert found["rheobase_i"] == 60
    assert found["v_baseline"] == pytest.approx(-70, abs=0.1)
    assert analysis.long_square is not None
    assert all(len(cut.voltage) <= 87_500 for cut in analysis.long_square.cuts)
