"""Where predictions go while they are made: a file, and what is shown at the end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crosspatch.errors import CohortError
from crosspatch.models.verdicts import Verdict
from crosspatch.writing import replacing

if TYPE_CHECKING:
    pass
import os
from collections import Counter
from contextlib import ExitStack
from types import TracebackType

from crosspatch.prediction.prediction import Prediction, joined

_PAGES = (".html", ".htm")
_PICTURES = (".png", ".svg", ".pdf")


class Output:
    """Takes predictions batch by batch; used in a ``with`` block.

    A csv is written as they come, an h5ad when all are there. Nothing is written where nothing was
    predicted.

    Parameters
    ----------
    file : Path, optional
    keep : bool
        Whether all batches stay in memory, for `whole`.

    Attributes
    ----------
    rows : int
    verdicts : Counter
    first : Prediction
        The first batch, to be shown.
    """

    def __init__(self, file: Path | None, *, keep: bool = False):
        self.file = file
        self._h5ad = file is not None and file.suffix != ".csv"
        self._keep = keep or self._h5ad
        self.rows = 0
        self.verdicts: Counter[str] = Counter()
        self.first: Prediction
        self._parts: list[Prediction] = []
        self._stack = ExitStack()

    def __enter__(self) -> Output:
        return self

    def add(self, part: Prediction) -> None:
        """Take a batch."""
        if not self.rows:
            self.first = part
            if self.file is not None and self.file.suffix == ".csv":
                self._writer = self._stack.enter_context(CsvWriter(self.file))
        elif len(self.first) < 40:
            self.first = joined([self.first, part])
        self.rows += len(part)
        self.verdicts.update(part.cells["verdict"])
        if self.file is not None and self.file.suffix == ".csv":
            self._writer.write(part)
        if self._keep:
            self._parts.append(part)

    @property
    def whole(self) -> Prediction:
        """All batches as one; there where they were kept."""
        return joined(self._parts)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._parts and self.file is not None and self._h5ad:
            with replacing(self.file, CohortError) as temporary:
                self.whole.to_adata().write_h5ad(temporary)
        self._stack.__exit__(kind, error, trace)


def open_output(
    file: Path | None,
    inputs: Sequence[str | Path] = (),
    picture: Path | None = None,
    report: Path | None = None,
) -> Output:
    """Check where predictions go before anything is computed.

    Parameters
    ----------
    file : Path, optional
    inputs : sequence of path
        What is read; none of it may be written over.
    picture : Path, optional
    report : Path, optional
        A page about all cells; they are kept for it.

    Raises
    ------
    CohortError
        If predictions cannot be written under this name.
    """
    if file is not None and file.suffix not in (".csv", ".h5ad"):
        raise CohortError(f"{file}: predictions are written as .csv or .h5ad; change the name")
    if picture is not None and picture.suffix not in _PICTURES:
        raise CohortError(f"{picture}: pictures are written as {', '.join(_PICTURES)}")
    if report is not None and report.suffix not in _PAGES:
        raise CohortError(f"{report}: reports are written as {', '.join(_PAGES)}; change the name")
    read = {Path(each).resolve() for each in inputs}
    for each in (file, picture, report):
        if each is None:
            continue
        if each.resolve() in read:
            raise CohortError(f"{each} is an input and would be written over; choose another name")
        try:
            each.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CohortError(f"{each.parent} cannot be made: {error.strerror}") from error
        if each.is_dir():
            raise CohortError(f"{each} is a folder; choose another name")
        trial = each.with_name(f".{each.name}.{os.getpid()}.try")
        try:
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise CohortError(f"{each} cannot be written: {error.strerror}") from error
    return Output(file, keep=report is not None)


#: Columns of text that come from a user's file and go into ours.
_TEXT = ("cell_id", "species", "quality", "notes", "source")


def header_lines(header: Mapping[str, Any]) -> list[str]:
    """The commented lines at the head of a csv."""
    lines = [f"# crosspatch {header['crosspatch']}"]
    for model in header["models"]:
        lines.append(
            f"# model: {model['model']} of {model['species']} cells, layout {model['layout']}, "
            f"sha256 {model['digest']}"
        )
        lines.append(f"# classes: {', '.join(model['classes'])} (taxonomy {model['taxonomy']})")
        lines.append(f"# trained on: {', '.join(model['trained_on'])}")
        if model["simulated"]:
            lines.append("# TRAINED ON SIMULATED RECORDINGS: says nothing about real neurons")
    lines.append(f"# parameters: {json.dumps(header['parameters'], sort_keys=True)}")
    lines += [f"# {name}: {name.meaning}" for name in Verdict]
    return lines


class CsvWriter:
    """A csv of predictions, batch by batch, under a temporary name until it is whole.

    Used in a ``with`` block.

    Parameters
    ----------
    file : path
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)
        self._empty = True

    def __enter__(self) -> CsvWriter:
        self._replacing = replacing(self.file, CohortError)
        temporary = self._replacing.__enter__()
        try:
            self._stream = temporary.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise CohortError(f"{self.file} cannot be written: {error.strerror}") from error
        return self

    def write(self, prediction: Prediction) -> None:
        """Append a batch; the first one brings the header."""
        if self._empty:
            self._stream.write("\n".join(header_lines(prediction.header)) + "\n")
        self._stream.write(_csv(prediction.to_table(), header=self._empty))
        self._empty = False

    def __exit__(self, *error: Any) -> None:
        self._stream.close()
        self._replacing.__exit__(*error)


def _csv(cells: pd.DataFrame, header: bool) -> str:
    safe = cells.copy()
    for name in _TEXT:
        safe[name] = [harmless(str(value)) for value in safe[name]]
    numbers = safe.select_dtypes("number").columns
    safe[numbers] = safe[numbers].round(6)
    buffer = io.StringIO()
    # Text in quotes: a "#" in a cell id is no comment then.
    safe.to_csv(
        buffer, index=False, header=header, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"
    )
    return buffer.getvalue()


def harmless(text: str) -> str:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if text[:1] in ("=", "+", "-", "@", "\t", "\r"):
        try:
            float(text)
        except ValueError:
            return f"'{text}"
    return text
