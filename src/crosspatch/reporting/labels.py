"""What stands in figures in words: names made readable, fitted to a width, and in their order."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.reporting.style import GREY
from crosspatch.species import SPECIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Size of text in figures, points.
TEXT = 8

#: Height of a line of such text, inches.
LINE = 0.145

#: Figures at least this wide have panels side by side, inches.
SIDE_BY_SIDE = 5.0


class Panel(NamedTuple):
    """A part of a table that is drawn in axes of its own."""

    title: str
    species: str
    table: pd.DataFrame


def readable(name: str) -> str:
    """Name of a feature or family with spaces, so that it can be broken into lines."""
    return name.replace("_", " ")


@cache
def width_of(text: str, bold: bool = False) -> float:
    """Width of a line of text of `TEXT` points, inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=TEXT, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def wrapped(text: str, inches: float, bold: bool = False) -> str:
    """Text in as many lines as it takes to be no wider than so many inches."""
    longest = max((width_of(line, bold) for line in text.split("\n")), default=0.0)
    if longest <= inches:
        return text
    characters = max(int(len(text) * inches / max(width_of(text, bold), 1e-6)), 3)
    while characters > 3:
        lines = textwrap.wrap(text, characters)
        if all(width_of(line, bold) <= inches for line in lines):
            return "\n".join(lines)
        characters -= 1
    return "\n".join(textwrap.wrap(text, characters))


def ordered(groups: Iterable[str]) -> list[str]:
    """Classes once each: all together, then subclasses as the taxonomy lists them, then others."""
    names = list(dict.fromkeys(str(group) for group in groups))
    known = [name for name in ("all", *load_taxonomy().subclasses) if name in names]
    return known + [name for name in names if name not in known]


def colour_of(group: str) -> str:
    """Colour of a subclass; grey for anything else."""
    return load_taxonomy().colours.get(group, GREY)


def species_in(table: pd.DataFrame) -> list[str]:
    """Species of a table, mouse first."""
    present = list(dict.fromkeys(table["species"].astype(str)))
    return [name for name in SPECIES if name in present] + [
        name for name in present if name not in SPECIES
    ]


def panels(table: pd.DataFrame, by: Sequence[str] = ("features", "model")) -> list[Panel]:
    """Parts of a table, one a species and value of some columns.

    Titles name the species, and of the columns only those with several values.
    """
    columns = [name for name in by if name in table]
    told = [name for name in columns if len(table[name].unique()) > 1]
    parts = []
    for keys, part in _grouped(table, columns):
        kept = [key for name, key in zip(columns, keys, strict=True) if name in told]
        parts += [
            Panel(", ".join([name, *kept]), name, part[part["species"] == name])
            for name in species_in(part)
        ]
    return parts


def _grouped(table: pd.DataFrame, columns: list[str]) -> list[tuple[list[str], pd.DataFrame]]:
    if not columns:
        return [([], table)]
    return [
        ([str(key) for key in keys], part)
        for keys, part in table.groupby(columns, sort=False, dropna=False)
    ]


def nothing(text: str, width: float) -> Figure:
    """A figure that says why it is empty."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.8))
    figure.text(0.5, 0.5, wrapped(text, width - 0.3), ha="center", va="center", fontsize=TEXT)
    return figure
