"""Families and scalars equal IPFX's own, through its own reader, on simulated recordings."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from crosspatch.features.analysis import analyse
from crosspatch.features.families import vector_families
from crosspatch.features.layouts import VECTOR_LAYOUTS
from crosspatch.features.scalars import scalar_features
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.thresholds import ANY
from crosspatch.simulation.cells import simulate_cells
from tests.oracle.ipfx_way import quiet


@pytest.fixture(scope="module", params=["mouse", "human"])
def recordings(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    # With this seed, few cells are of every subclass.
    labels = simulate_cells(folder, 5, request.param, seed=1, jobs=2)
    import pandas as pd

    cells = pd.read_csv(labels)
    assert set(cells["subclass"]) == {"Lamp5", "Pvalb", "Sst", "Vip"}
    return {name: (folder / file) for name, file in zip(cells["file"], cells["file"], strict=True)}


def _ipfx(path):
    """IPFX's pipeline on a file, with its own reader."""
    import ipfx.json_utilities
    import ipfx.script_utils as script
    from ipfx.bin.run_feature_collection import extract_features
    from ipfx.bin.run_feature_vector_extraction import data_for_specimen_id
    from ipfx.stimulus import StimulusOntology

    file = StimulusOntology.DEFAULT_STIMULUS_ONTOLOGY_FILE
    ontology = StimulusOntology(ipfx.json_utilities.read(file))
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectors = data_for_specimen_id(
            0, "none", "filesystem", ontology, ap_window_length=0.003, file_list=[str(path)]
        )
        data = script.dataset_for_specimen_id(0, "filesystem", ontology, [str(path)])
        numbers = [
            script.categorize_iclamp_sweeps(data, names)
            for names in (
                ontology.ramp_names,
                ontology.short_square_names,
                ontology.long_square_names,
            )
        ]
        scalars = extract_features(data, *numbers)
        _, long, *_ = script.preprocess_long_square_sweeps(data, numbers[2])
    return vectors, scalars, long


def test_equal_to_ipfx(recordings):
    compared = set()
    for path in recordings.values():
        theirs, scalars, long = _ipfx(path)
        with open_recording(path) as recording:
            analysis = analyse(recording, ANY)
            ours, _ = vector_families(analysis, VECTOR_LAYOUTS["gouwens"])
            values = scalar_features(analysis)
        _compare_scalars(values, scalars, long)
        if "error" in theirs:  # IPFX gives nothing where a protocol is missing
            assert analysis.short_square is None or analysis.ramp is None
            assert ours
            continue
        assert set(ours) == set(VECTOR_LAYOUTS["gouwens"].lengths)
        for family, vector in ours.items():
            expected = np.asarray(theirs[family])
            if family.startswith("first_ap"):  # zeros of IPFX where every spike was cut off
                expected = np.where(np.isnan(vector) & (expected == 0), np.nan, expected)
            np.testing.assert_allclose(
                vector, expected, rtol=1e-6, atol=1e-9, err_msg=f"{path.name} {family}"
            )
        compared.add(path.name)
    assert len(compared) >= 4


def _compare_scalars(values, theirs, long):
    """IPFX's collection of scalars, and its analysis of long squares."""
    hero, rheobase = long["hero_sweep"], long["rheobase_sweep"]
    spike = long["spikes_set"][rheobase.name].iloc[0]
    expected = {
        "input_resistance": theirs["input_resistance"],
        "tau": theirs["tau"] * 1e3,
        "v_baseline": theirs["v_baseline"],
        "sag": theirs["sag_nearest_minus_100"],
        "vm_for_sag": theirs["sag_measured_at"],
        "rheobase_i": rheobase["stim_amp"],
        "fi_fit_slope": theirs["fi_linear_fit_slope"],
        "latency_rheo": rheobase["latency"],
        "threshold_v_rheo": theirs["ap_1_threshold_v_0_long_square"],
        "width_rheo": theirs["ap_1_width_0_long_square"] * 1e3,
        "upstroke_rheo": theirs["ap_1_upstroke_0_long_square"],
        "upstroke_downstroke_ratio_rheo": theirs["ap_1_upstroke_downstroke_ratio_0_long_square"],
        "trough_deltav_rheo": spike["trough_v"] - spike["threshold_v"],
        "adapt_hero": hero["adapt"],
        "avg_rate_hero": hero["avg_rate"],
        "first_isi_inv_hero": 1 / hero["first_isi"],
        "isi_cv_hero": hero["isi_cv"],
        "latency_hero": hero["latency"],
        "mean_isi_hero": hero["mean_isi"],
        "median_isi_hero": hero["median_isi"],
    }
    for name in ("rheo", "ramp", "short_square"):
        suffix = "0_long_square" if name == "rheo" else name
        threshold = theirs.get(f"ap_1_threshold_v_{suffix}")
        if threshold is None:
            assert f"threshold_v_{name}" not in values
            continue
        expected[f"threshold_v_{name}"] = threshold
        for ours, feature in (("peak", "peak_v"), ("fast_trough", "fast_trough_v")):
            expected[f"{ours}_deltav_{name}"] = theirs[f"ap_1_{feature}_{suffix}"] - threshold
        ratio = f"upstroke_downstroke_ratio_{name}"
        expected[ratio] = theirs[f"ap_1_upstroke_downstroke_ratio_{suffix}"]
    for name, value in expected.items():
        if value is None or not np.isfinite(value):
            assert name not in values
        else:
            assert values[name] == pytest.approx(value, rel=1e-6), name
