"""What a model says of cells: a table, an AnnData, a picture, a csv that explains itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.errors import CohortError
from crosspatch.features.layouts import Layout
from crosspatch.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIDENT = "confident"
AMBIGUOUS = "ambiguous"
OUTSIDE = "outside reference"
INSUFFICIENT = "insufficient data"

#: Verdicts, and what each means.
VERDICTS = {
    CONFIDENT: "one subclass in the 90 % prediction set",
    AMBIGUOUS: "several subclasses in the set, or none",
    OUTSIDE: "unlike the reference (p < 0.05; 5 % of true reference cells are called so)",
    INSUFFICIENT: "less than a quarter of the features; no subclass is given",
}

#: Columns of text that come from a user's file and go into ours.
_TEXT = ("cell_id", "species", "quality", "notes", "source")


@dataclass(frozen=True)
class Prediction:
    """What a model says of cells.

    Attributes
    ----------
    cells : DataFrame
        A row a cell and species it was judged by; see `to_table`.
    X : array, shape (rows, features)
        What was measured, in the layout's units, NaN where missing.
    layout : Layout
    header : dict
        Tool, models, taxonomy, parameters.
    """

    cells: pd.DataFrame
    X: NDArray[np.float32]
    layout: Layout
    header: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cells)

    def to_table(self) -> pd.DataFrame:
        """A row a cell; a cell of unknown species has a row for each species.

        Returns
        -------
        DataFrame
            ``cell_id``; ``species`` it was judged by, and ``species_known``; ``subclass``, its
            ``probability``, and ``probability_`` of every class; ``prediction_set``, classes
            joined by ``|``; ``verdict``; ``p_reference``; ``completeness`` of the layout from 0
            to 1; ``families`` present; ``quality``; ``notes``; ``source``.
        """
        return self.cells.copy()

    def to_adata(self) -> anndata.AnnData:
        """Features in ``X``, what `to_table` gives in ``obs``, the header in ``uns``."""
        cells = self.cells.copy()
        names = cells["cell_id"].astype(str)
        both = names.duplicated(keep=False)
        names = names.where(~both, names + " (" + cells["species"].astype(str) + ")")
        text = cells.select_dtypes("object").columns
        cells = cells.astype(dict.fromkeys(text, str)).set_index(pd.Index(names, name="cell"))
        var = pd.DataFrame(
            {
                "family": [feature.family for feature in self.layout.features],
                "unit": [feature.unit for feature in self.layout.features],
            },
            index=pd.Index(self.layout.feature_names, name="feature"),
        )
        adata = anndata.AnnData(X=self.X.copy(), obs=cells, var=var)
        adata.uns["prediction"] = json.dumps(self.header)
        return adata

    def plot(self, most: int = 40) -> Figure:
        """Probabilities of the first cells as bars, with set and verdict.

        Parameters
        ----------
        most : int
            Rows drawn.
        """
        from crosspatch.prediction.picture import prediction_figure

        return prediction_figure(self.cells.head(most), len(self.cells))


def joined(parts: Sequence[Prediction]) -> Prediction:
    """One prediction of several of the same models."""
    cells = pd.concat([part.cells for part in parts], ignore_index=True)
    return Prediction(cells, np.vstack([p.X for p in parts]), parts[0].layout, parts[0].header)


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
    lines += [f"# {name}: {meaning}" for name, meaning in VERDICTS.items()]
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
        self._stream.write(_csv(prediction.cells, header=self._empty))
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
