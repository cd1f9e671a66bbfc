"""Texts: tables that come with the package, and numbers that are written."""

from __future__ import annotations

import csv
from importlib.resources import files


def data_rows(room: str, name: str) -> list[dict[str, str]]:
    """The rows of a csv file in a room's ``data/``."""
    text = (files(f"crosspatch.{room}") / "data" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def is_number(text: str) -> bool:
    """Whether Python reads it as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
