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
    if len({layout.features for layout in layouts}) > 1:
        raise CohortError("cohorts with different features cannot be joined", "give one {layout}")
    cells = pd.concat([each.obs.astype(object) for each in cohorts])
    _require_one_donor(cells)
    heads = [table.head_of(each) for each in cohorts]
    joined, dropped = (
        dict(sum((Counter(getattr(head, name)) for head in heads), Counter()))
        for name in ("joined", "dropped")
    )
    # Where a subclass is known, so is the class.
    known = cells["subclass"].notna().astype(int)
    known += cells.get("class", cells["subclass"]).notna()
    order = np.argsort(-known.to_numpy(), kind="stable")
    twice = np.zeros(len(cells), dtype=bool)
    twice[order] = cells.index[order].duplicated()
    for name, count in cells.loc[twice, "subclass"].value_counts().items():
        joined[str(name)] -= int(count)
    head = table.Head(
        {file: digest for each in heads for file, digest in each.sources.items()},
        all(each.verified for each in heads),
        joined,
        dropped | {"in another dataset too": int(twice.sum())},
        " ".join(dict.fromkeys(each.taxonomy for each in heads if each.taxonomy)),
    )
    values = np.vstack([np.asarray(each.X, dtype=np.float32) for each in cohorts])
    # Columns of numbers were made objects to be put below each other.
    cells = cells.loc[~twice].infer_objects()
    return table.build(values[~twice], cells, layouts[0], head)


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
