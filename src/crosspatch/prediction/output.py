"""Where predictions go while they are made: a file, and what is shown at the end."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crosspatch.drawing.notebook import MOST_ROWS
from crosspatch.errors import CohortError
from crosspatch.extras import require
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.prediction import Prediction, joined
from crosspatch.texts import is_number
from crosspatch.writing import make_folder, replacing

#: What is written, how it may end, and the library that then writes it.
_ENDINGS: dict[str, dict[str, str | None]] = {
    "predictions": {".csv": None, ".h5ad": "anndata"},
    "pictures": dict.fromkeys((".png", ".svg", ".pdf"), "matplotlib"),
    "reports": dict.fromkeys((".html", ".htm"), "shap"),
}

#: Columns of text that come from a user's file and go into ours.
_TEXT = ("cell_id", "species", "quality", "notes", "source")


class Output:
    """Takes predictions batch by batch; used in a ``with`` block.

    A csv is written as they come, under a temporary name until it is whole; an h5ad when all are
    there. Nothing is written where nothing was predicted. With `keep` all batches stay in memory,
    for `whole`.
    """

    def __init__(self, file: Path | None, *, keep: bool = False):
        self.file = file
        self._csv = file is not None and file.suffix == ".csv"
        self._keep = keep or (file is not None and not self._csv)
        self.rows = 0
        self.verdicts: Counter[Verdict] = Counter()
        self.first: Prediction
        self._parts: list[Prediction] = []
        self._stack = ExitStack()

    def __enter__(self) -> Output:
        return self

    def add(self, part: Prediction) -> None:
        """Take a batch."""
        if not self.rows:
            self.first = part
            if self._csv:
                self._stream = self._opened()
                self._stream.write(("\n".join(header_lines(part.header)) + "\n").encode())
        elif len(self.first) < MOST_ROWS:
            self.first = joined([self.first, part])
        if self._csv:
            write_csv(part.written(), _TEXT, self._stream, header=not self.rows)
        self.rows += len(part)
        self.verdicts += part.verdicts
        if self._keep:
            self._parts.append(part)

    def _opened(self) -> IO[bytes]:
        assert self.file is not None  # noqa: S101, for the type checker
        temporary = self._stack.enter_context(replacing(self.file, CohortError))
        try:
            stream = temporary.open("wb")
        except OSError as error:
            raise CohortError(f"{self.file} cannot be written: {error.strerror}") from error
        return self._stack.enter_context(stream)

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
        if kind is None and self._parts and self.file is not None and not self._csv:
            with replacing(self.file, CohortError) as temporary:
                self.whole.to_adata().write_h5ad(temporary)
        self._stack.__exit__(kind, error, trace)


def open_output(
    file: Path | None,
    inputs: Sequence[str | Path] = (),
    picture: Path | None = None,
    report: Path | None = None,
    *,
    keep: bool = False,
) -> Output:
    """Check where predictions go before anything is computed, and that no input is written over.

    For a report all cells are kept, and with `keep`. A CohortError if predictions, picture or
    report cannot be written under their name, a MissingLibraryError if not with what is installed.
    """
    read = {Path(each).resolve() for each in inputs}
    for (kind, endings), each in zip(_ENDINGS.items(), (file, picture, report), strict=True):
        if each is None:
            continue
        if each.suffix not in endings:
            named = " or ".join(endings) if len(endings) == 2 else ", ".join(endings)
            raise CohortError(f"{each}: {kind} are written as {named}; change the name")
        if each.resolve() in read:
            raise CohortError(f"{each} is an input and would be written over; choose another name")
        if library := endings[each.suffix]:
            require(library)
        _require_writable(each)
    return Output(file, keep=keep or report is not None)


def _require_writable(file: Path) -> None:
    make_folder(file.parent, CohortError)
    if file.is_dir():
        raise CohortError(f"{file} is a folder; choose another name")
    trial = file.with_name(f".{file.name}.{os.getpid()}.try")
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise CohortError(f"{file} cannot be written: {error.strerror}") from error


def header_lines(header: Mapping[str, Any]) -> list[str]:
    """The commented lines at the head of a csv."""
    lines = [f"# crosspatch {header['crosspatch']}"]
    for model in header["models"]:
        lines.append(
            f"# model: {model['model']} of {model['species']} cells, layout {model['layout']}, "
            f"sha256 {model['digest']}"
        )
        terms = model.get("ontology", {})
        classes = ", ".join(f"{name} {terms.get(name, '')}".strip() for name in model["classes"])
        lines.append(f"# classes: {classes} (taxonomy {model['taxonomy']})")
        if types := model.get("t_types"):
            named = "none is named" if types["limit"] is None else f"named from {types['limit']}"
            lines.append(f"# t-types: {types['taxonomy']}, within the subclass; {named}")
        lines.append(f"# trained on: {', '.join(model['trained_on'])}")
        if model["simulated"]:
            lines.append("# TRAINED ON SIMULATED RECORDINGS: says nothing about real neurons")
    lines.append(f"# parameters: {json.dumps(header['parameters'], sort_keys=True)}")
    return lines + [f"# {verdict}: {verdict.meaning}" for verdict in Verdict]


def write_csv(
    table: pa.Table, text: Iterable[str], stream: IO[bytes], *, header: bool = True
) -> None:
    """Write a table: numbers rounded, the text of users harmless to spreadsheets, all text quoted.

    Quotes keep a "#" in a cell id from being a comment.
    """
    parts: list[pa.Array | str] = [""]
    for name, column in zip(table.column_names, table.combine_chunks().columns, strict=True):
        values = pa.concat_arrays(column.chunks)
        if pa.types.is_null(values.type):  # of no row, or of nothing, Arrow knows no type
            values = values.cast(pa.string())
        if pa.types.is_boolean(values.type):
            before, part, after = "", pc.if_else(values, "True", "False"), ","
        elif pa.types.is_floating(values.type):
            before, part, after = "", _rounded(values), ","
        else:
            safe = harmless_text(values) if name in text else values.fill_null("")
            before, part, after = '"', pc.replace_substring(safe, '"', '""'), '",'
        parts[-1] += before
        parts += [part, after]
    if header:
        names = (name.replace('"', '""') for name in table.column_names)
        stream.write((",".join(f'"{name}"' for name in names) + "\n").encode())
    if len(table):
        lines = pc.binary_join_element_wise(*parts[:-1], parts[-1][:-1] + "\n", "")
        _, offsets, content = lines.buffers()
        stream.write(content[: np.frombuffer(offsets, np.int32)[len(lines)]])


def _rounded(numbers: pa.Array) -> pa.Array:
    """Numbers of six decimals as Python writes them; a missing one is empty text."""
    values = np.round(numbers.to_numpy(zero_copy_only=False), 6)
    fraction = (values >= 1e-4) & (values < 1)
    digits = np.rint(np.where(fraction, values, 0) * 1e6).astype(np.int64)
    text = pc.utf8_rtrim(pc.utf8_lpad(pa.array(digits).cast(pa.string()), 6, "0"), "0")
    text = pc.binary_join_element_wise("0.", text, "")
    # By their bits, so that 0.0 and -0.0 stay apart.
    others, which = np.unique(values[~fraction].view(np.int64), return_inverse=True)
    written = ['""' if v != v else repr(v) for v in others.view(np.float64).tolist()]
    return pc.replace_with_mask(text, ~fraction, pa.array(written, pa.string()).take(which))


def harmless_text(text: pa.Array) -> pa.Array:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    odd = pc.match_substring_regex(text, r"^[=+\-@\t\r]")
    safe = [each if is_number(each) else f"'{each}" for each in text.filter(odd).to_pylist()]
    return pc.replace_with_mask(text, odd, pa.array(safe, pa.string()))
