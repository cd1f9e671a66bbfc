"""One JSON document on stdout in place of tables; everything that is said goes to stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from crosspatch.prediction.prediction import Prediction

#: What JSON can say.
Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON document on stdout and nothing else; messages go to stderr "
        "(docs/command_line.md).",
    ),
]


@contextmanager
def document(wanted: bool) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Gives a function that takes the document of a command, which is printed at the end.

    Where it is wanted, whatever else is printed meanwhile goes to stderr. The document is printed
    where the command ends with a code of its own, too, but not where it failed before it had one.
    """
    given: list[str] = []

    def take(content: Mapping[str, object]) -> None:
        from importlib.metadata import version

        whole = {"crosspatch": version("crosspatch"), **content}
        given.append(json.dumps(as_plain(whole), indent=1, ensure_ascii=False, allow_nan=False))

    if not wanted:
        yield take
        return
    try:
        with redirect_stdout(sys.stderr):
            yield take
    finally:
        for text in given:
            print(text)


def as_plain(value: object) -> Plain:
    """A value as JSON has it: what is missing or not finite is null, a table is its rows."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)  # of an enum, its text
    if isinstance(value, Mapping):
        return {str(name): as_plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_plain(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "to_dict"):  # a table of pandas
        return as_plain(value.to_dict("records"))
    if hasattr(value, "tolist"):  # a number or an array of numpy
        return as_plain(value.tolist())
    return str(value) if (value == value) is True else None  # a path; missing values of pandas


def predicted_cells(prediction: Prediction) -> list[dict[str, object]]:
    """A cell a row, under the names of the csv; sets and families are lists, no text is null."""
    written = prediction.written()
    for name in ("prediction_set", "families"):
        place = written.column_names.index(name)
        written = written.set_column(place, name, prediction.records[name])
    rows = written.to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float):
                row[name] = round(value, 6)
            elif value == "":
                row[name] = None
    return rows
