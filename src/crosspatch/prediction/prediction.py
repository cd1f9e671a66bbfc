"""What a model says of cells: a table, an AnnData, a picture."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.features.finding import Source
from crosspatch.features.layouts import Layout
from crosspatch.models.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Rows that are shown of a prediction where there are more.
SHOWN = 40


def cell_columns(classes: Sequence[str]) -> list[str]:
    """Columns of `Prediction.cells` for models of these classes."""
    probabilities = [f"probability_{name}" for name in classes]
    return [
        *("cell_id", "given_id", "species", "species_known", "subclass", "probability"),
        *probabilities,
        *("prediction_set", "verdict", "p_reference", "completeness", "families", "quality"),
        *("notes", "simulated", "unread", "unusual", "aligned", "references", "source"),
    ]


#: Columns that `Prediction.to_table` tells of in ``notes``.
IN_NOTES = ("given_id", "simulated", "unread", "unusual", "aligned", "references")


class PredictedCell(NamedTuple):
    """What a model says of one cell: a row of `Prediction.cells`."""

    cell_id: str
    #: Its id as the file has it, where several cells may have it.
    given_id: str
    #: Of the reference it was judged by.
    species: str
    #: Whether its file, or the user, said its species.
    species_known: bool
    #: Empty where no subclass is given.
    subclass: str
    #: Of the subclass; NaN where none is given.
    probability: float
    #: Of every class.
    probabilities: Mapping[str, float]
    prediction_set: tuple[str, ...]
    verdict: Verdict
    p_reference: float
    #: Share of the layout that was measured.
    completeness: float
    #: Families that were measured.
    families: tuple[str, ...]
    #: What quality control found wrong; empty if nothing.
    quality: str
    #: What else is to be said.
    notes: tuple[str, ...]
    #: Whether its file says that it was simulated.
    simulated: bool
    #: Why its recording gave no feature; None where it did.
    unread: str | None
    #: In what it is unlike the reference; None where it is not called outside.
    unusual: tuple[str, ...] | None
    #: Whether its batch was aligned to the reference before.
    aligned: bool
    #: Species that there are models of, where there is none of the cell's; else empty.
    references: tuple[str, ...]
    #: The file it is from, or ``recordings``.
    source: str

    @property
    def unlike(self) -> str:
        """In what it is unlike the reference, in words; empty where it is not."""
        if self.unusual is None:
            return ""
        after = " after alignment" if self.aligned else ""
        what = ", ".join(self.unusual) or "an unusual combination"
        return f"unlike {self.species}{after}: {what}"

    @property
    def remarks(self) -> list[str]:
        """What is to be said of it in words, without `simulated` and `unlike`."""
        said = [] if self.unread is None else [f"not read: {self.unread}"]
        said += self.notes
        if self.given_id != self.cell_id:
            said.append(f"cell id '{self.given_id}' stands more than once")
        if self.references:
            said.append(f"the reference is of {' and '.join(self.references)} cells")
        return said

    @property
    def text(self) -> str:
        """Everything that is to be said of it, in one line."""
        parts = ["SIMULATED" if self.simulated else "", *self.remarks, self.unlike]
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class Prediction:
    """What a model says of cells.

    Attributes
    ----------
    cells : DataFrame
        One row per cell and species it was judged by, with the columns of `cell_columns`; see
        `PredictedCell` for their types.
    X : array, shape (rows, features)
        What was measured, in the layout's units, NaN where missing.
    layout : Layout
    header : mapping
        Tool, models, taxonomy, parameters.
    recordings : mapping
        Cell id to the recording it is from; without rows of tables.
    messages : tuple of str
        What was taken for what, and what went wrong, where `crosspatch.predict` made it.

    Examples
    --------
    >>> import crosspatch
    >>> found = crosspatch.predict("human.h5ad", model="human-model")
    >>> found.first(3).to_table()["verdict"].tolist()
    ['confident', 'confident', 'confident']
    >>> next(iter(found)).prediction_set
    ('Vip',)
    >>> found.to_adata().shape
    (360, 32)
    """

    cells: pd.DataFrame
    X: NDArray[np.float32]
    layout: Layout
    header: Mapping[str, Any] = field(default_factory=dict)
    recordings: Mapping[str, Source] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[PredictedCell]:
        """One `PredictedCell` per row."""
        of_class = "probability_"
        chances = [name for name in self.cells if str(name).startswith(of_class)]
        plain = [name for name in PredictedCell._fields if name != "probabilities"]
        p = self.cells[chances].to_numpy(dtype=float)
        names = [str(name).removeprefix(of_class) for name in chances]
        for row, values in enumerate(self.cells[plain].itertuples(index=False, name=None)):
            found = dict(zip(plain, values, strict=True))
            found["probabilities"] = dict(zip(names, p[row].tolist(), strict=True))
            yield PredictedCell(**found)

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many rows have each verdict."""
        return Counter(self.cells["verdict"])

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in self.verdicts.most_common())
        models = ", ".join(
            f"{model['model']} of {model['species']} cells"
            for model in self.header.get("models", ())
        )
        rows = f"{len(self):,} row{'' if len(self) == 1 else 's'}"
        return f"Prediction of {rows} ({counts or 'no verdict'}) by {models or 'no model'}"

    def _repr_html_(self) -> str:
        """The first rows as a table, for notebooks."""
        columns = ["cell_id", "species", "subclass", "probability", "prediction_set", "verdict"]
        first = self.first(SHOWN).to_table()[[*columns, "completeness", "notes"]]
        shown = first.to_html(
            index=False,
            na_rep="",
            formatters={"probability": "{:.2f}".format, "completeness": "{:.0%}".format},
        )
        return f"<p>{html.escape(repr(self))}</p>{shown}"

    def first(self, rows: int) -> Prediction:
        """The first rows."""
        return self.rows(np.arange(min(rows, len(self))))

    def first_cells(self, cells: int) -> Prediction:
        """The rows of the first cells; a cell may have one for each species."""
        numbers = pd.factorize(self.cells["cell_id"])[0]
        return self.rows(np.flatnonzero(numbers < cells))

    def rows(self, rows: NDArray[np.intp]) -> Prediction:
        """Some rows, by number."""
        cells = self.cells.iloc[rows].reset_index(drop=True)
        return replace(self, cells=cells, X=self.X[rows])

    def to_table(self) -> pd.DataFrame:
        """One row per cell; a cell of unknown species has a row for each species.

        Returns
        -------
        DataFrame
            In words: ``cell_id``; ``species`` it was judged by, and ``species_known``;
            ``subclass``, its ``probability``, and ``probability_`` of every class;
            ``prediction_set``, classes joined by ``|``; ``verdict``; ``p_reference``;
            ``completeness`` of the layout from 0 to 1; ``families`` present, joined by ``|``;
            ``quality``; ``notes``; ``source``.
        """
        cells = self.cells.drop(columns=list(IN_NOTES))
        for name in ("prediction_set", "families"):
            cells[name] = ["|".join(value) for value in cells[name]]
        cells["verdict"] = [str(verdict) for verdict in cells["verdict"]]
        cells["notes"] = self._notes()
        return cells

    def _notes(self) -> list[str]:
        """`PredictedCell.text` of every row; most rows have none, and cost nothing."""
        cells = self.cells
        silent = (
            ~cells["simulated"].to_numpy(dtype=bool)
            & cells["unread"].isna().to_numpy()
            & cells["unusual"].isna().to_numpy()
            & (cells["given_id"] == cells["cell_id"]).to_numpy()
            & ~cells["notes"].astype(bool).to_numpy()
            & ~cells["references"].astype(bool).to_numpy()
        )
        notes = [""] * len(cells)
        told = np.flatnonzero(~silent)
        part = Prediction(cells.iloc[told], self.X[:0], self.layout)
        for row, cell in zip(told, part, strict=True):
            notes[row] = cell.text
        return notes

    def to_adata(self) -> anndata.AnnData:
        """Features in ``X``, what `to_table` gives in ``obs``, the header in ``uns``."""
        cells = self.to_table()
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

    def plot(self, most: int = SHOWN) -> Figure:
        """Probabilities of the first cells as bars, with set and verdict.

        Parameters
        ----------
        most : int
            Rows drawn.
        """
        from crosspatch.prediction.picture import prediction_figure

        return prediction_figure(self.first(most), len(self))


def joined(parts: Sequence[Prediction]) -> Prediction:
    """One prediction of several of the same models."""
    cells = pd.concat([part.cells for part in parts], ignore_index=True)
    recordings = {name: file for part in parts for name, file in part.recordings.items()}
    return replace(parts[0], cells=cells, X=np.vstack([p.X for p in parts]), recordings=recordings)
