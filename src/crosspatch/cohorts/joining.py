"""Cohorts of one species as one: a cell stands once, and a donor of two datasets is one donor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd

from crosspatch.cohorts import table
from crosspatch.errors import CohortError


def join(cohorts: Sequence[anndata.AnnData]) -> anndata.AnnData:
    """One table of several with the same features; that of a single one is itself.

    A cell that stands in several is taken from the first that gives it a subclass, else from the
    first that gives it a class, else from the first. A `CohortError` if the features differ, or two
    tables name different donors of a cell.
    """
    if len(cohorts) == 1:
        return cohorts[0]
    layouts = [table.layout_of(each) for each in cohorts]
    if any(layout.features != layouts[0].features for layout in layouts):
        raise CohortError("cohorts with different features cannot be joined", "give one {layout}")
    cells = pd.concat([each.obs.astype(object) for each in cohorts])
    _require_one_donor(cells)
    known = cells["subclass"].notna().astype(int)
    known += cells.get("class", cells["subclass"]).notna()
    order = np.argsort(-known.to_numpy(), kind="stable")
    twice = np.zeros(len(cells), dtype=bool)
    twice[order] = cells.index[order].duplicated()
    values = np.vstack([np.asarray(each.X, dtype=np.float32) for each in cohorts])
    # Columns of numbers were made objects to be put below each other.
    kept = cells.loc[~twice].infer_objects()
    head = _head([table.head_of(each) for each in cohorts], cells.loc[twice, "subclass"])
    return table.build(values[~twice], kept, layouts[0], head)


def _head(heads: Sequence[table.Head], twice: pd.Series) -> table.Head:
    """The origin of all together; `twice` has the subclasses of cells that others gave already."""
    counts = [
        sum((Counter(each) for each in of_all), Counter[str]())
        for of_all in zip(*((head.joined, head.dropped) for head in heads), strict=True)
    ]
    joined, dropped = counts
    joined.subtract(Counter(twice.dropna().astype(str)))
    dropped["in another dataset too"] = len(twice)
    sources = {file: digest for head in heads for file, digest in head.sources.items()}
    taxonomies = " ".join(dict.fromkeys(head.taxonomy for head in heads if head.taxonomy))
    return table.Head(sources, all(head.verified for head in heads), joined, dropped, taxonomies)


def _require_one_donor(cells: pd.DataFrame) -> None:
    donors = cells.groupby(level=0)["donor"].agg(["nunique", "first", "last"])
    odd = donors[donors["nunique"] > 1]
    if len(odd):
        first, last = odd.iloc[0][["first", "last"]]
        raise CohortError(
            f"cell {odd.index[0]} is of donor {first} in one dataset and of {last} in another; "
            "correct one"
        )


def without_dataset(cohort: anndata.AnnData, dataset: str) -> anndata.AnnData:
    """A cohort without the cells of a dataset and without any cell of their donors.

    What is left may be learnt from where the dataset is held out. A `CohortError` if the cohort has
    no cell of the dataset, or no other donor.
    """
    held_out = cohort.obs["dataset"].astype(str) == dataset
    if not held_out.any():
        there = ", ".join(sorted(set(cohort.obs["dataset"].astype(str))))
        raise CohortError(f"the cohort has no cell of dataset '{dataset}'; it has: {there}")
    donors = cohort.obs["donor"].astype(str)
    left = ~donors.isin(set(donors[held_out]))
    if not left.any():
        raise CohortError(f"no donor is left without those of dataset '{dataset}'")
    rest = cohort[left.to_numpy()].copy()
    dropped = {
        f"of dataset {dataset}, held out": int(held_out.sum()),
        f"of a donor of {dataset}": int((~left & ~held_out).sum()),
    }
    head = {**cohort.uns["crosspatch"], "dropped": {**table.head_of(cohort).dropped, **dropped}}
    rest.uns["crosspatch"] = head
    return rest
