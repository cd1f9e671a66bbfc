from __future__ import annotations

import itertools

import numpy as np
import pytest
from colorspacious import cspace_convert
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.drawing.style import ACCENT, SECOND, SPECIES_COLOURS, THIRD, save_figure
from crosspatch.errors import CrosspatchError

#: Distances in CAM02-UCS that colours keep from one another; 1 is just visible. Those that are not
#: subclasses are no more than three in a figure, with marks of unlike shape.
DISTANCE, OF_OTHERS = 12, 10
BLINDNESS = [None, "protanomaly", "deuteranomaly", "tritanomaly"]


def closest(colours: list[str], blindness: str | None) -> float:
    """Smallest distance between two colours, as seen with a colour blindness."""
    seen = np.array([to_rgb(colour) for colour in colours])
    if blindness:
        space = {"name": "sRGB1+CVD", "cvd_type": blindness, "severity": 100}
        seen = np.clip(cspace_convert(seen, space, "sRGB1"), 0, 1)
    places = cspace_convert(seen, "sRGB1", "CAM02-UCS")
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(places, 2))


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_subclasses_can_be_told_apart(blindness):
    assert closest(list(load_taxonomy().colours.values()), blindness) >= DISTANCE


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_other_colours_can_be_told_apart(blindness):
    assert closest([ACCENT, SECOND, THIRD], blindness) >= OF_OTHERS
    assert closest(list(SPECIES_COLOURS.values()), blindness) >= OF_OTHERS


def test_every_subclass_has_a_colour():
    taxonomy = load_taxonomy()
    assert list(taxonomy.colours) == list(taxonomy.subclasses)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_a_figure_is_saved_in_the_format_of_its_name(tmp_path, ending):
    file = tmp_path / f"figure.{ending}"
    save_figure(Figure(figsize=(1, 1)), file)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending.lower()]
    assert file.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [file]


def test_an_unknown_format_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(CrosspatchError, match=r"figure\.xyz cannot be written: .*xyz"):
        save_figure(Figure(figsize=(1, 1)), tmp_path / "figure.xyz")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "missing").write_text("a file")
    file = tmp_path / "missing" / "figure.png"
    with pytest.raises(CrosspatchError, match=r"missing/figure\.png cannot be written"):
        save_figure(Figure(figsize=(1, 1)), file)


def test_what_was_there_stays_if_writing_fails(tmp_path):
    file = tmp_path / "figure.xyz"
    file.write_text("before")
    with pytest.raises(CrosspatchError):
        save_figure(Figure(figsize=(1, 1)), file)
    assert file.read_text() == "before"
