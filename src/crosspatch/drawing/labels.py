"""What stands in figures in words: names made readable, fitted to a width, and in their order."""

from __future__ import annotations

import textwrap
import unicodedata
from functools import cache

import pandas as pd

from crosspatch.drawing.style import TEXT


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


def in_milliseconds(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Families of short times in ms: numbers such as 0.00075 are hard to read, and wide."""
    table = table.copy()
    largest = table[columns].abs().max(axis=1).groupby(table["family"]).transform("max")
    short = (table["unit"] == "s") & (largest < 0.1)
    table.loc[short, columns] *= 1000
    table.loc[short, "unit"] = "ms"
    return table


def with_unit(family: str, part: pd.DataFrame) -> str:
    """Name of a family, with the unit that all its values have."""
    units = set(part["unit"].astype(str)) - {"ratio"}
    return readable(family) + (f" ({units.pop()})" if len(units) == 1 else "")


def clean(text: object, most: int = 120) -> str:
    """Text in one line that every browser and file takes, not longer than so many characters.

    What it means in HTML is taken away from it where it is put into the page.
    """
    line = " ".join(str(text).split())
    shown = line if len(line) <= most else f"{line[: most - 1]}…"
    # Control characters, and halves of characters in names of files that are not UTF-8.
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in shown)
