"""What is measured equals what IPFX measures on the same sweeps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from crosspatch.features.measuring.spikes import slope, taps
from crosspatch.recordings.cell_quality import _clamp_test
from crosspatch.recordings.model import VOLTAGE_CLAMP, Recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.stimuli import _kinds_by_name
from crosspatch.recordings.thresholds import ANY
from crosspatch.simulation.cells import PLAIN, PlannedCell, write_cell
from crosspatch.simulation.rig import NO_TROUBLE
from tests.features.made_cell import made_recording
from tests.oracle import ipfx_way


def require_equal(recording: Recording, least: int, quality=ANY, without=()) -> None:
    found = ipfx_way.compare(recording, quality)
    for name in without:
        assert found.pop(name) == np.inf  # missing on purpose
    assert len(found) >= least
    assert {name: off for name, off in found.items() if not off <= 1e-6} == {}


@pytest.mark.parametrize(
    ("species", "subclass"),
    [("mouse", "Pvalb"), ("mouse", "Sst"), ("human", "Vip"), ("human", "Lamp5")],
)
def test_simulated_recordings(tmp_path, species, subclass):
    cell = PlannedCell(3, species, subclass, donor=1, seed=4)
    path = write_cell(cell, tmp_path, NO_TROUBLE, style=PLAIN)
    with open_recording(path) as recording:
        require_equal(recording, 60)


@pytest.mark.parametrize("rate", [10_000.0, 25_000.0, 50_000.0, 200_000.0])
def test_sampling_rates(rate):
    require_equal(made_recording(rate=rate), 50 if rate >= 50_000 else 45)


@pytest.mark.parametrize(
    "name", ["18713001", "171116sh_0018", "190619B_0003", "171116sh_0016", "17o05027_ic_ramp"]
)
def test_real_recordings(real_data, name):
    with open_recording(real_data / "recordings" / f"{name}.abf") as recording:
        # A cell that fires on its own has no current at which it begins to.
        without = ["scalars threshold_i_ramp"] if name.startswith("17o05027") else []
        require_equal(recording, 9, without=without)


def test_dvdt_is_that_of_scipys_filter():
    voltage = np.cumsum(np.random.default_rng(0).normal(size=3000)) / 10
    for rate in (20_501.0, 50_000.0, 200_000.0):
        b, a = signal.bessel(4, 10_000 / (rate / 2), "low")
        expected = (*b, *a[1:], *signal.lfilter_zi(b, a))
        np.testing.assert_allclose(taps(rate), expected, rtol=1e-9, atol=1e-12)
        smoothed = np.diff(signal.filtfilt(b, a, voltage)) * rate * 1e-3
        np.testing.assert_allclose(slope(voltage, rate), smoothed, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(slope(voltage, 20_000.0), np.diff(voltage) * 20, rtol=1e-12)


def test_voltage_clamp_tests(tmp_path):
    from benchmarks.whole_set import WHOLE_SET
    from ipfx import qc_features

    path = write_cell(PlannedCell(4, "human", "Vip", donor=1, seed=0), tmp_path, style=WHOLE_SET)
    measures = {
        "seal": ("EXTPCLLATT", qc_features.measure_seal),
        "access": ("EXTPBREAKN", qc_features.measure_initial_access_resistance),
        "input": ("EXTPBREAKN", qc_features.measure_input_resistance),
    }
    with open_recording(path) as recording:
        for test, (code, measure) in measures.items():
            *_, sweep = [
                sweep
                for sweep in recording.sweeps
                if sweep.clamp == VOLTAGE_CLAMP and sweep.description.upper().startswith(code)
            ]
            voltage, current = (np.asarray(x, dtype=float) for x in (sweep.voltage, sweep.current))
            expected = measure(voltage, current, sweep.time)
            assert _clamp_test(recording, test) == pytest.approx(expected, rel=1e-5)


def test_names_of_stimuli():
    from ipfx.stimulus import StimulusOntology

    with ipfx_way.quiet():
        ontology = StimulusOntology.default()
    kinds = _kinds_by_name()
    for kind in ("long square", "short square", "ramp"):
        names = getattr(ontology, f"{kind.replace(' ', '_')}_names")
        for stimulus in ontology.stimuli:
            if any(stimulus.has_tag(name, tag_type="name") for name in names):
                codes = [code for tags in stimulus.tags(tag_type="code") for code in tags[1:]]
                assert {kinds[name] for name in (*codes, *names)} == {kind}
    known = {code for each in ontology.stimuli for tags in each.tags("code") for code in tags}
    never = {name for name, kind in kinds.items() if kind == "other"}
    assert never <= known
    assert any(name.startswith("C2CHIRP") for name in never)
