"""What a model says of cells: a table, an AnnData, a picture, a csv that explains itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.features.layouts import Layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
