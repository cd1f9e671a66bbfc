"""Families and scalars of a neuron whose properties are known, and of real recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosspatch.features.analysis import Analysis, analyse
from crosspatch.features.families import vector_families
from crosspatch.features.layouts import VECTOR_LAYOUTS, load_layout
from crosspatch.features.scalars import scalar_features
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import open_recording
from tests.features.made_cell import MadeCell, made_recording

GOUWENS = VECTOR_LAYOUTS["gouwens"]
PAPER = VECTOR_LAYOUTS["paper"]
IN_POTENTIAL = ("first_ap_v", "step_subthresh", "spiking_threshold_v", "spiking_peak_v")
LONG_ONLY = tuple(GOUWENS.lengths)


def families(recording: Recording, layout=GOUWENS):
    return vector_families(analyse(recording), layout)[0]


@pytest.fixture(scope="module")
def standard():
    return families(made_recording())


def test_planted_passive_properties_come_back():
    cell = MadeCell(resistance=180.0, tau=0.018, sag=0.0, rest=-68.0)
    found = scalar_features(analyse(made_recording(cell)))
    assert found["input_resistance"] == pytest.approx(180, rel=1e-3)
    assert found["tau"] == pytest.approx(18, rel=0.01)
    assert found["v_baseline"] == pytest.approx(-68, abs=0.01)
    assert found["sag"] == pytest.approx(0, abs=1e-3)


def test_planted_sag_comes_back():
    cell = MadeCell(sag=0.3)
    recording = made_recording(cell)
    trace = recording.sweep(0).voltage[25_000:75_000] - cell.rest
    peak, steady = trace.min(), trace[-1500:].mean()
    found = scalar_features(analyse(recording))
    assert found["sag"] == pytest.approx((peak - steady) / peak, abs=0.005)
    assert found["sag"] > 0.1
    assert found["vm_for_sag"] == pytest.approx(peak + cell.rest, abs=0.01)


def test_planted_spikes_come_back():
    cell = MadeCell(rheobase=60, latency=0.063)
    analysis = analyse(made_recording(cell))
    found = scalar_features(analysis)
    assert found["rheobase_i"] == 60
    assert found["latency_rheo"] == pytest.approx(0.063, abs=0.0005)
    hero = cell.spike_times(100)  # the first between 39 and 61 pA above rheobase
    assert found["avg_rate_hero"] == len(hero)
    assert found["mean_isi_hero"] == pytest.approx(hero[1] - hero[0], rel=1e-3)
    assert found["isi_cv_hero"] == pytest.approx(0, abs=1e-3)
    assert found["first_isi_inv_hero"] == pytest.approx(1 / (hero[1] - hero[0]), rel=1e-3)
    psth = vector_families(analysis, GOUWENS)[0]["psth"].reshape(6, 20)
    counts, _ = np.histogram(cell.spike_times(60), np.linspace(0, 1, 21))
    np.testing.assert_allclose(psth[0], counts * 20)
    assert psth.sum(axis=1)[[1, 2, 3]] == pytest.approx(
        [20 * len(cell.spike_times(amplitude)) for amplitude in (80, 100, 120)]
    )


def test_units_are_those_of_the_shared_layout():
    found = scalar_features(analyse(made_recording()))
    units = {feature.name: feature.unit for feature in load_layout("shared").features}
    assert units["width_rheo"] == "ms"
    assert 0.1 < found["width_rheo"] < 2  # not s
    assert units["peak_deltav_rheo"] == "mV"
    assert 30 < found["peak_deltav_rheo"] < 100
    assert found["trough_deltav_rheo"] < 0
    assert set(found) <= {feature.name for feature in load_layout("full").features}


def test_long_squares_alone_give_their_families(standard):
    assert set(standard) == set(LONG_ONLY)
    rheobase = standard["first_ap_v"].reshape(3, 150)
    assert np.isnan(rheobase[[0, 2]]).all()  # no short square, no ramp
    assert np.isfinite(rheobase[1]).all()
    paper = families(made_recording(), PAPER)
    np.testing.assert_allclose(paper["first_ap_v"], rheobase[1])
    assert {name: len(vector) for name, vector in paper.items()} == PAPER.lengths


def test_a_cell_that_never_spikes_gives_its_responses():
    found, _ = vector_families(analyse(made_recording(amplitudes=(-90, -50, -10, 20))), GOUWENS)
    assert set(found) == {"step_subthresh", "subthresh_norm"}
    assert "rheobase_i" not in scalar_features(analyse(made_recording(amplitudes=(-90, -50, 20))))


def test_without_hyperpolarising_steps_there_is_no_resistance():
    analysis = analyse(made_recording(amplitudes=(20, 60, 80, 100)))
    found = scalar_features(analysis)
    assert not {"sag", "vm_for_sag", "input_resistance", "tau"} & set(found)
    assert "no hyperpolarising long square" in analysis.notes
    assert "step_subthresh" not in vector_families(analysis, GOUWENS)[0]


def test_repeats_of_one_step_give_its_resistance():
    # A line through steps of one size does not exist.
    found = scalar_features(analyse(made_recording(amplitudes=(-50, -50, -50, 80))))
    assert found["input_resistance"] == pytest.approx(200, rel=1e-3)


@pytest.mark.parametrize("duration", [0.5, 2.0])
def test_steps_of_another_length_are_measured_where_the_reference_is(standard, duration):
    found = families(made_recording(duration=duration))
    bins = round(min(duration, 1.0) * 100)
    here = found["step_subthresh"].reshape(5, 140)
    there = standard["step_subthresh"].reshape(5, 140)
    np.testing.assert_allclose(here[:, : 20 + bins], there[:, : 20 + bins], atol=1e-6)
    assert np.isnan(here[:, 20 + bins :]).all()
    rates = found["psth"].reshape(6, 20)
    assert np.isnan(rates[:, bins // 5 :]).all()
    assert np.isfinite(rates[:, : bins // 5]).all()


def test_what_was_not_recorded_around_a_step_is_missing(standard):
    found = families(made_recording(onset=0.15, after=0.1, test_pulse=False))
    here = found["step_subthresh"].reshape(5, 140)
    there = standard["step_subthresh"].reshape(5, 140)
    assert np.isnan(here[:, :5]).all()
    assert np.isnan(here[:, -10:]).all()
    np.testing.assert_allclose(here[:, 6:-10], there[:, 6:-10], atol=1e-6)


def test_steps_of_other_sizes_are_matched_or_missing():
    coarse = families(made_recording(amplitudes=(-100, -50, 50, 100, 150, 200)))
    assert np.isfinite(coarse["psth"]).all()
    single = families(made_recording(amplitudes=(-100, -50, 60)))["psth"].reshape(6, 20)
    assert np.isfinite(single[0]).all()
    assert np.isnan(single[1:]).all()


def test_holding_current_is_no_stimulus(standard):
    held = analyse(made_recording(holding=-35.0))
    assert scalar_features(held)["rheobase_i"] == 60
    _same(vector_families(held, GOUWENS)[0], standard)


@settings(max_examples=8, deadline=None)
@given(later=st.integers(1, 20_000))
def test_a_shift_in_time_changes_nothing(standard, later):
    at = 0.5 + later / 50_000
    _same(families(made_recording(onset=at)), standard, rtol=1e-6, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(shift=st.floats(-12, 12))
def test_a_constant_moves_potentials_and_nothing_else(standard, shift):
    moved = families(made_recording(shift=shift))
    for family, vector in standard.items():
        offset = shift if family in (*IN_POTENTIAL, "spiking_fast_trough_v") else 0.0
        np.testing.assert_allclose(moved[family], vector + offset, rtol=1e-6, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(rate=st.sampled_from([25_000.0, 40_000.0, 50_000.0, 100_000.0]))
def test_a_doubled_sampling_rate_changes_little(rate):
    once, twice = families(made_recording(rate=rate)), families(made_recording(rate=2 * rate))
    sample = 1 / rate
    for family, vector in once.items():
        assert len(vector) == GOUWENS.lengths[family]
    np.testing.assert_allclose(twice["psth"], once["psth"])
    np.testing.assert_allclose(twice["inst_freq"], once["inst_freq"], rtol=0.01)
    np.testing.assert_allclose(twice["step_subthresh"], once["step_subthresh"], atol=0.1)
    np.testing.assert_allclose(twice["subthresh_norm"], once["subthresh_norm"], atol=0.02)
    np.testing.assert_allclose(twice["spiking_width"], once["spiking_width"], atol=2.5 * sample)
    np.testing.assert_allclose(twice["spiking_peak_v"], once["spiking_peak_v"], atol=4)


@pytest.mark.parametrize("rate", [10_000.0, 20_000.0, 33_333.0, 62_500.0, 200_000.0])
def test_any_sampling_rate_gives_every_family(rate, standard):
    found = families(made_recording(rate=rate))
    assert {name: len(vector) for name, vector in found.items()} == GOUWENS.lengths
    np.testing.assert_allclose(found["psth"], standard["psth"])
    here, there = (each["first_ap_v"].reshape(3, 150)[1] for each in (found, standard))
    lag = min(
        range(-12, 13), key=lambda k: np.abs(here[12 + k : 138 + k] - there[12:138]).max()
    )  # threshold falls on another sample
    assert np.abs(here[12 + lag : 138 + lag] - there[12:138]).mean() < (6 if rate < 30_000 else 2)


def _same(found, expected, rtol=1e-9, atol=1e-9):
    assert set(found) == set(expected)
    for family, vector in expected.items():
        np.testing.assert_allclose(found[family], vector, rtol=rtol, atol=atol, err_msg=family)


@pytest.mark.parametrize(
    ("name", "resistance", "rheobase"),
    [
        ("18713001", (150, 230), 80),
        ("171116sh_0018", (90, 160), 50),
        ("190619B_0003", (280, 400), 120),
    ],
)
def test_real_files_give_the_spikes_one_can_count(real_data: Path, name, resistance, rheobase):
    with open_recording(real_data / "recordings" / f"{name}.abf") as recording:
        analysis = analyse(recording)
        long = analysis.long_square
        assert long is not None
        compared = 0
        for number, spikes in zip(long.numbers, long.spikes, strict=True):
            stimulus = analysis.stimuli[number]
            rate = recording.sweep(number).rate
            during = slice(round(stimulus.start * rate), round(stimulus.end * rate))
            voltage = recording.sweep(number).voltage[during]
            if len(spikes) and (spikes["peak_v"] < 0).any():
                continue  # a plain count misses spikes that stay below 0 mV
            crossings = np.sum((voltage[:-1] < 0) & (voltage[1:] >= 0))
            assert len(spikes) == crossings, f"sweep {number}"
            compared += 1
        assert compared > 5
        found = scalar_features(analysis)
    assert resistance[0] < found["input_resistance"] < resistance[1]
    assert found["rheobase_i"] == rheobase
    order = np.argsort(long.amplitudes)
    rates = long.rates[order]
    assert rates[0] == 0
    assert np.corrcoef(long.amplitudes[order], rates)[0, 1] > 0.8


@pytest.mark.parametrize("name", ["171116sh_0016", "17o05027_ic_ramp"])
def test_real_ramps_give_their_first_spike(real_data: Path, name):
    with open_recording(real_data / "recordings" / f"{name}.abf") as recording:
        analysis: Analysis = analyse(recording)
        found = scalar_features(analysis)
        ramp = analysis.ramp
        assert ramp is not None
        first = next(k for k, spikes in enumerate(ramp.spikes) if len(spikes))
        spike = ramp.spikes[first][0]
        voltage = recording.sweep(ramp.numbers[first]).voltage
    rate = recording.sweeps[0].rate
    begun = round(ramp.start * rate)
    crossing = begun + int(np.flatnonzero(voltage[begun:] > 0)[0])
    assert spike["peak_t"] == pytest.approx(crossing / rate, abs=0.002)
    assert found["peak_deltav_ramp"] > 30
    family = vector_families(analysis, GOUWENS)[0]["first_ap_v"].reshape(3, 150)
    assert np.isfinite(family[2]).all()
    assert np.isnan(family[:2]).all()
