"""What a cohort holds, in tables and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.cohorts import table
from crosspatch.drawing.notebook import as_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class CohortSummary:
    """What a cohort holds."""

    #: One row per species and subclass, and class of cells that have none: cells, donors, and
    #: cells of a donor.
    cells: pd.DataFrame
    #: One row per species and family: share of cells in which the family is absent, and in which
    #: some of its features are missing.
    missing: pd.DataFrame
    #: One row per species and feature: its unit, share missing, and quantiles.
    ranges: pd.DataFrame
    #: What the cells are; see `crosspatch.cohorts.table.composition`.
    composition: pd.DataFrame
    layout: str  # its name
    simulated: bool  # whether any cell was

    def __repr__(self) -> str:
        whole = self.cells[self.cells["subclass"] == "all"].itertuples()
        of = [f"{row.cells:,} cells of {row.donors:,} {row.species} donors" for row in whole]
        features = self.ranges["feature"].nunique()
        label = ", SIMULATED" if self.simulated else ""
        return (
            f"CohortSummary of {' and '.join(of)}, {features} features, layout {self.layout}{label}"
        )

    def _repr_html_(self) -> str:
        """Cells by subclass, for notebooks, and which families are missing most."""
        shown = self.cells.copy()
        shown["cells_per_donor_median"] = shown["cells_per_donor_median"].map("{:g}".format)
        shown.columns = shown.columns.str.replace("_", " ")
        most = self.missing[self.missing["absent"] > 0].nlargest(5, "absent").itertuples()
        notes = [
            f"{row.family} is absent in {row.absent:.1%} of {row.species} cells" for row in most
        ]
        return as_html(repr(self), shown, notes=notes)

    def plot(self) -> Figure:
        """Cells by subclass, condition and disease, and how often a family is missing."""
        from crosspatch.cohorts.cohort_figure import cohorts_figure

        return cohorts_figure(self.composition)


def describe(cohort: anndata.AnnData) -> CohortSummary:
    """Summarise a cohort: its cells by subclass, what is missing, and the ranges of features.

    Parameters
    ----------
    cohort : AnnData, shape (cells, features)
        A cohort table, as `load_cohort` gives it.

    Returns
    -------
    CohortSummary
        A notebook shows it as a table; ``plot()`` draws it.

    Raises
    ------
    CohortError
        If it is not a valid cohort table.

    Examples
    --------
    >>> import crosspatch
    >>> found = crosspatch.describe(crosspatch.load_cohort("human.h5ad"))
    >>> found
    CohortSummary of 360 cells of 50 human donors, 32 features, layout shared
    >>> found.cells.set_index("subclass")["cells"].to_dict()
    {'Lamp5': 60, 'Pvalb': 120, 'Sst': 100, 'Vip': 80, 'all': 360}
    """
    table.require_valid(cohort, "the table")
    layout = table.layout_of(cohort)
    found: dict[str, list[dict[str, object]]] = {"cells": [], "missing": [], "ranges": []}
    for species in sorted(set(cohort.obs["species"].astype(str))):
        part = cohort[(cohort.obs["species"] == species).to_numpy()]
        values = np.asarray(part.X)
        donors = part.obs["donor"].astype(str)
        groups = {name: part.obs["subclass"] == name for name in table.subclasses_in(part)}
        groups |= _without_subclass(part.obs)
        groups["all"] = pd.Series(True, index=part.obs_names)
        for name, chosen in groups.items():
            of_donor = donors[chosen].value_counts()
            row = {"subclass": name, "cells": int(chosen.sum()), "donors": len(of_donor)}
            row["cells_per_donor_median"] = float(of_donor.median())
            row["cells_per_donor_max"] = int(of_donor.max())
            found["cells"].append({"species": species} | row)
        for family, columns in layout.columns.items():
            finite = np.isfinite(values[:, columns])
            absent = ~finite.any(axis=1)
            row = {"family": family, "features": len(columns), "absent": float(absent.mean())}
            row["partly_missing"] = float((~absent & ~finite.all(axis=1)).mean())
            found["missing"].append({"species": species} | row)
        for column, feature in enumerate(layout.features):
            row = {"species": species, "feature": feature.name, "unit": feature.unit}
            found["ranges"].append(row | _range(values[:, column]))
    frames = {name: pd.DataFrame(rows) for name, rows in found.items()}
    frames["composition"] = table.composition(table.by_species(cohort))
    return CohortSummary(**frames, layout=layout.name, simulated=table.is_simulated(cohort))


def _without_subclass(obs: pd.DataFrame) -> dict[str, pd.Series]:
    """Which cells have no subclass, by their class."""
    known = obs.get("class", pd.Series(index=obs.index, dtype=object)).astype(object)
    named = "none, " + known.where(known.notna(), "of unknown class")
    bare = obs["subclass"].isna()
    return {name: bare & (named == name) for name in sorted(set(named[bare]))}


def _range(values: NDArray[np.floating]) -> dict[str, float]:
    finite = values[np.isfinite(values)]
    quantiles = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "max": 1.0}
    return {"missing": 1 - len(finite) / len(values)} | {
        name: float(np.quantile(finite, q)) if len(finite) else float("nan")
        for name, q in quantiles.items()
    }
