from __future__ import annotations

import math

import pytest

from crosspatch.errors import CohortError
from crosspatch.features.cortical_layer import layer_depth, layer_in, layer_name, require_layer


@pytest.mark.parametrize(
    ("depth", "written"),
    [
        (1, "1 1.0 L1 l1 layer1 I VISp1 TCx_L1"),
        (2, "2 2a L2b II"),
        (2.5, "2/3 L2/3 2-3 2–3 2_3 23 L23 L2/L3 II/III 2.5 VISp2/3 VISpl2/3"),
        (4, "4 IV Layer_4 SSp-bfd4"),
        (5, "5 L5 5a 5B L_5 VISp5 5a/5b"),
        (5.5, "5/6 5_6 L5-6 V/VI"),
        (6, "6 6a 6b VIa VISp6a VISpm6b"),
    ],
)  # fmt: skip
def test_layers_as_people_write_them(depth, written):
    assert {each: layer_depth(each) for each in written.split()} == dict.fromkeys(
        written.split(), depth
    )


@pytest.mark.parametrize(
    ("depth", "written"),
    [
        (2.5, ["layer 2-3", "layers 2 and 3", "Layer 2/3 (MTG)", "V1 L2/3", "FCx L2-3", " 2 / 3 "]),
        (5, ["V1, layer 5", "layer 5B, thick tufted", "layer V", 5, 5.0]),
    ],
)
def test_layers_among_other_words(depth, written):
    assert [layer_depth(each) for each in written] == [depth] * len(written)


@pytest.mark.parametrize(
    "written",
    [
        *("", None, "nan", "0", "7", "10", "-1", "300", "300 um", "2.3", "6.5", "12", "45", "VII"),
        *("WM", "white matter", "M1", "V1", "S1", "V5", "CA1", "Lamp5", "layer", "layer in V1"),
        # A spreadsheet's date, made of 2/3; layers that are not neighbours, or in odd order.
        *("2023-02-03 00:00:00", "Feb-03", "2-4", "1-6", "3/2", "layer 2 or layer 5", "layer 10"),
        # In doubt.
        *("L4?", "4?", "?L4", "L4 ?", "layer 4 (?)", "L2/3?", "VISp4?", "~L4", "L4 or 5", "L4-ish"),
        *("probably L4", "possibly layer 4", "L4, maybe", "L4 (uncertain)", "not L4"),
    ],
)  # fmt: skip
def test_anything_else_is_missing(written):
    assert math.isnan(layer_depth(written))


def test_in_a_text_about_a_place_a_bare_number_is_no_layer():
    assert layer_in("V1, layer 2-3") == layer_in("MTG_L2/3") == layer_in("VISp2/3") == 2.5
    for text in ("5", "V1", "area 5", "2/3", "5 mm from the pia", "CA1"):
        assert math.isnan(layer_in(text)), text
    for text in ("layer 2; layer 5", "layer 2-4", "V1, layer 5?", "L5 or 6"):
        assert math.isinf(layer_in(text)), text
        assert layer_name(layer_in(text)) == ""


def test_names_are_read_back():
    for name in ("1", "2", "2/3", "3", "4", "5", "5/6", "6"):
        assert layer_name(layer_depth(name)) == name
    assert layer_name(math.nan) == ""


def test_what_a_user_says_must_be_a_layer():
    assert require_layer("L2/3") == 2.5
    assert math.isnan(require_layer(None))
    with pytest.raises(CohortError, match=r"'deep' is not a cortical layer.*2/3"):
        require_layer("deep")
