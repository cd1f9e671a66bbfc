from __future__ import annotations

import numpy as np
import pytest

from crosspatch.errors import LayoutError
from crosspatch.features.layouts import Feature, Layout, load_layout
from tests.made import SMALL


def test_shared_layout_has_32_features_in_6_families():
    layout = load_layout("shared")
    assert len(layout.features) == 32
    assert layout.families == (
        "subthreshold",
        "excitability",
        "ap_long_square",
        "ap_ramp",
        "ap_short_square",
        "spike_train",
    )


def test_full_layout_has_93_features_with_chirp_apart():
    layout = load_layout("full")
    assert len(layout.features) == 93
    names = np.array(layout.feature_names)
    assert all(name.endswith("_chirp") for name in names[layout.columns["chirp"]])
    assert sum(name.endswith("_chirp") for name in names) == len(layout.columns["chirp"]) == 9


def test_a_feature_has_one_unit_in_every_layout():
    full = {feature.name: feature.unit for feature in load_layout("full").features}
    for feature in load_layout("shared").features:
        assert full[feature.name] == feature.unit


def test_a_layout_is_within_another_by_names_and_units():
    shared, full = load_layout("shared"), load_layout("full")
    columns = np.arange(93)[shared.within(full)]
    assert [full.feature_names[k] for k in columns] == list(shared.feature_names)
    assert np.array_equal(np.arange(32)[shared.within(shared)], np.arange(32))
    with pytest.raises(LayoutError, match=r"'shared' does not hold 'sag_peak_t' \(s\)"):
        full.within(shared)
    # Traces of one name are binned otherwise.
    with pytest.raises(LayoutError):
        load_layout("paper").within(load_layout("gouwens"))


def test_columns_cover_every_feature_once():
    for layout in (SMALL, load_layout("shared"), load_layout("full")):
        columns = np.concatenate(list(layout.columns.values()))
        assert sorted(columns) == list(range(len(layout.features)))


def test_a_family_is_present_with_one_finite_value():
    X = np.full((3, len(SMALL.features)), np.nan)
    X[0, 8] = 1.0
    X[1] = 0.0
    assert SMALL.present(X).tolist() == [[False, True, False], [True] * 3, [False] * 3]


def test_unknown_layout_names_the_known_ones():
    with pytest.raises(LayoutError, match="shared, full"):
        load_layout("paper2")


def test_a_feature_named_twice_is_refused():
    with pytest.raises(LayoutError, match="twice: a"):
        Layout("odd", (Feature("a", "f", "mV"), Feature("a", "g", "mV")))


def test_vector_layouts_have_the_published_lengths():
    gouwens, paper = load_layout("gouwens"), load_layout("paper")
    assert len(gouwens.families) == len(paper.families) == 12
    lengths = {family: len(columns) for family, columns in gouwens.columns.items()}
    assert lengths["first_ap_v"] == 450
    assert lengths["first_ap_dv"] == 447
    assert lengths["step_subthresh"] == 700
    assert lengths["psth"] == 120
    assert lengths["inst_freq"] == lengths["spiking_width"] == 300
    assert len(paper.columns["first_ap_v"]) == 150
    assert len(paper.columns["psth"]) == 150
    assert gouwens.feature_names[0] == "first_ap_v[0]"
