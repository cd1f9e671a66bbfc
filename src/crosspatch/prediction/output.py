"""Where predictions go while they are made: a file, and what is shown at the end."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from crosspatch.errors import CohortError
from crosspatch.prediction.prediction import CsvWriter, Prediction, joined
from crosspatch.writing import replacing


class Output:
    """Takes predictions batch by batch; used in a ``with`` block.

    A csv is written as they come, an h5ad when all are there. Nothing is written where nothing was
    predicted.

    Parameters
    ----------
    file : Path, optional

    Attributes
    ----------
    rows : int
    verdicts : Counter
    first : Prediction
        The first batch, to be shown.
    """

    def __init__(self, file: Path | None):
        self.file = file
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
        elif self.file is not None:
            self._parts.append(part)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._parts and self.file is not None:
            with replacing(self.file, CohortError) as temporary:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                joined(self._parts).to_adata().write_h5ad(temporary)
        self._stack.__exit__(kind, error, trace)


def open_output(file: Path | None) -> Output:
    """Check the name of a file before anything is computed.

    Raises
    ------
    CohortError
        If predictions cannot be written under this name.
    """
    if file is not None and file.suffix not in (".csv", ".h5ad"):
        raise CohortError(f"{file}: predictions are written as .csv or .h5ad; change the name")
    return Output(file)
