"""The cells from which models learn what excitatory cells look like, of all datasets at hand."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from crosspatch.cohorts.dataset import Dataset, datasets
from crosspatch.cohorts.loading import load_cohort
from crosspatch.cohorts.sources import data_directory
from crosspatch.errors import CohortError, LayoutError
from crosspatch.features.layouts import Layout, load_layout
from crosspatch.models.screen import KINDS, Screen
from crosspatch.models.screening import FEWEST_RIGS, KindCells, fit_screen

#: The features that it goes by: those that every dataset has some of.
SCREEN_LAYOUT = "shared"


def screen_for(
    layout: Layout,
    data_dir: str | Path | None = None,
    *,
    without_donors: Collection[str] = (),
    jobs: int = 1,
) -> Screen | str:
    """The screen for excitatory cells of models of a layout, or why there can be none, in words."""
    shared = load_layout(SCREEN_LAYOUT)
    try:
        shared.within(layout)
    except LayoutError:
        return f"its features are not those of layout '{SCREEN_LAYOUT}'"
    try:
        cells, names = kind_cells(data_dir)
    except CohortError as error:
        return str(error)
    if len(without_donors):
        cells = cells.where(~np.isin(cells.donors, list(without_donors)))
    return fit_screen(shared, cells, names, jobs=jobs)


def kind_cells(data_dir: str | Path | None = None) -> tuple[KindCells, tuple[str, ...]]:
    """Interneurons and excitatory cells of every rig that measured both, and the datasets' names.

    Of both species: what a shift between rigs does to cells is best known from many. A CohortError
    where the tables of too few rigs are at hand.
    """
    directory = data_directory(data_dir)
    by_rig: dict[str, list[Dataset]] = {}
    for each in datasets().values():
        if each.at_hand(directory):
            by_rig.setdefault(f"{each.species}, {each.rig or each.name}", []).append(each)
    parts, names = [], []
    for rig, chosen in by_rig.items():
        if not {*KINDS} <= {kind for each in chosen for kind in each.kinds}:
            continue
        name = "+".join(each.name for each in chosen)
        cohort = load_cohort(name, SCREEN_LAYOUT, directory, every_cell=True)
        cohort = cohort[cohort.obs["class"].isin(KINDS).to_numpy()]
        obs = cohort.obs
        parts.append(
            KindCells(
                np.asarray(cohort.X, dtype=np.float32),
                (obs["class"] == KINDS[1]).to_numpy(),
                np.full(len(obs), rig),
                obs["donor"].to_numpy().astype(str),
            )
        )
        names += [each.name for each in chosen]
    if len(parts) < FEWEST_RIGS:
        raise CohortError(
            f"the tables of {len(parts)} rigs that measured excitatory cells and interneurons are "
            f"at hand, {FEWEST_RIGS} are needed",
            hint="get them with `crosspatch fetch tables`",
        )
    return KindCells._make(np.concatenate(part) for part in zip(*parts, strict=True)), tuple(names)
