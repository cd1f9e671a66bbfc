"""What a feature says of a subclass in mouse and in human, one beside the other."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from itertools import chain, combinations

import anndata
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from crosspatch.cohorts.cells import Cells
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT, load_taxonomy
from crosspatch.explanation.components import cells_by_species, spaces_of
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.features.layouts import Feature, Layout
from crosspatch.models.missing import over_rows
from crosspatch.models.sparse_pca import FamilySparsePCA

#: Fewest donors, within a group and outside it, from which an interval is drawn.
MIN_DONORS = 5
_CONFIDENCE = 0.95
#: Resamples computed at once; more do not fit the processor's cache.
_BATCH = 50

# Level and name of a group to its cells of each species.
_Groups = dict[tuple[str, str], dict[str, NDArray[np.bool_]]]


def conserved_table(
    mouse: anndata.AnnData,
    human: anndata.AnnData,
    *,
    alignment: str = DEFAULT_ALIGNMENT,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How well every feature tells a group from the rest, in mouse and in human.

    The measure is the area under the ROC curve: the probability that a cell of the group has a
    higher value than a cell of the rest, ties counting half; above 0.5 it is higher in the group.
    The measure does not depend on units or on any scaling of a species. Intervals are percentiles
    of a bootstrap over donors, all cells of a donor together, so a donor with many cells does not
    pass for many donors.

    The rest is all other cells of the species, and species differ in what that is: of the Allen
    cells, two in five are Sst in mouse and one in two is Pvalb in human. So a feature that sets
    Pvalb apart can change the side of another group between the species. In the areas called
    balanced, therefore, every subclass in the rest counts the same, however many cells it has: the
    mean of the areas against each of them. An "opposite" that is not one when balanced comes from
    the cells that were collected.

    ``verdict`` and ``balanced_verdict`` compare the intervals with 0.5: "same" if both exclude it
    on the same side, "opposite" if on different sides, "mouse only" or "human only" if one excludes
    it, else "neither". With thousands of cells a difference too small to matter excludes 0.5 as
    well: read the areas too. "mouse only" may mean no more than that there are fewer human cells.

    The intervals are not corrected for the number of comparisons. Where a feature separates a group
    in one species and not in the other, it is called "same" or "opposite" by chance in one case of
    twenty; where it separates in neither, in one of 400.

    Groups are the subclasses, and the homologous types that the human metadata name
    (``cross_species_type``) and Hodge et al. 2019 give the mouse types of; either against all other
    cells of the species. Rows with fewer than `MIN_DONORS` donors on a side are left out.

    The positions of a trace say much the same thing thousands of times. In layouts with traces, the
    sparse principal components of a trace stand for it: found on mouse, and applied to both
    species, so that a component means the same in both. Traces that the published sparse PCA leaves
    out (``psth``) are left out.

    The table has one row per group and feature; ``mouse_cells`` and ``human_cells`` are the cells
    of the group that have the feature. See Hodge et al. (2019) Conserved cell types with divergent
    features in human versus mouse cortex. Nature 573:61-68.
    """
    cells = cells_by_species({"mouse": mouse, "human": human}, alignment)
    features, values = _measured(cells)
    groups = _groups(cells, mouse.obs, human.obs)
    shared = [name for name in cells["mouse"].classes if name in cells["human"].classes]
    found = {
        species: _species(
            values[species],
            np.stack([members[species] for members in groups.values()], axis=1),
            cells[species],
            shared,
            resamples,
            np.random.default_rng([seed, number]),
        )
        for number, species in enumerate(cells)
        if groups
    }
    rows = [
        {"level": level, "group": name}
        | {"feature": feature.name, "family": feature.family, "unit": feature.unit}
        | _compared(found, f, g)
        for g, (level, name) in enumerate(groups)
        for f, feature in enumerate(features)
        if all(areas.donors[f, g] >= MIN_DONORS for areas in found.values())
    ]
    return pd.DataFrame(rows, columns=TABLE_COLUMNS["conserved"])


@cache
def homologous_types() -> dict[str, tuple[str, ...]]:
    """Homologous type to the mouse types in it (Hodge et al. 2019)."""
    text = files("crosspatch.explanation") / "data" / "homologous_types.toml"
    mouse = tomllib.loads(text.read_text(encoding="utf-8"))["mouse"]
    return {str(name): tuple(types) for name, types in mouse.items()}


def pairs_won(
    values: ArrayLike, part: ArrayLike, parts: int, weights: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often cells of one part have a higher value than cells of another.

    Divided by the product of both weights this is the area under the ROC curve. Every cell has a
    finite value, a part, counted from 0, and weights, how often it counts, of shape (weightings,
    cells). Given are the weight of the pairs in which a cell of the first part is above one of the
    second, shape (weightings, parts, parts), where ties count half and a part with itself has
    zero, and the weight of every part, shape (weightings, parts).
    """
    values, part = np.asarray(values), np.asarray(part)
    weights = np.asarray(weights, dtype=np.float64)
    rows = [np.flatnonzero(part == k) for k in range(parts)]
    rows = [here[np.argsort(values[here], kind="stable")] for here in rows]
    sorted_values = [values[here] for here in rows]
    of_cells = [weights[:, here] for here in rows]
    up_to = [np.pad(np.cumsum(weight, axis=1), ((0, 0), (1, 0))) for weight in of_cells]
    totals = np.stack([cumulative[:, -1] for cumulative in up_to], axis=1)
    won = np.zeros((len(weights), parts, parts))
    for a, b in combinations(np.argsort([len(here) for here in rows], kind="stable"), 2):
        lower = up_to[b][:, np.searchsorted(sorted_values[b], sorted_values[a], side="left")]
        or_tied = up_to[b][:, np.searchsorted(sorted_values[b], sorted_values[a], side="right")]
        won[:, a, b] = np.einsum("wc,wc->w", of_cells[a], lower + or_tied) / 2
        won[:, b, a] = totals[:, a] * totals[:, b] - won[:, a, b]
    return won, totals


@dataclass(frozen=True)
class _Areas:
    """Of one species; the first two axes are features and groups."""

    areas: NDArray[np.float64]  # then: plain and balanced; area, lower and upper end
    cells: NDArray[np.intp]
    donors: NDArray[np.intp]  # the fewer of those in the group and in the rest


def _measured(cells: Mapping[str, Cells]) -> tuple[list[Feature], dict[str, NDArray[np.float64]]]:
    """What is compared: single features, and components in place of traces."""
    layout = cells["mouse"].layout
    single = [k for k, item in enumerate(layout.features) if item.family not in layout.traces]
    features = [layout.features[k] for k in single]
    values = {species: part.X[:, single].astype(np.float64) for species, part in cells.items()}
    if not layout.traces:
        return features, values
    components = spaces_of({"mouse": cells["mouse"]})["mouse"].fit
    of_traces = _of_traces(components, layout)
    for species, part in cells.items():
        scores = components.transform(part.X)[:, list(of_traces)]
        values[species] = np.hstack([values[species], scores])
    return [*features, *of_traces.values()], values


def _of_traces(components: FamilySparsePCA, layout: Layout) -> dict[int, Feature]:
    """Columns of the components that stand for traces, and what they are called."""
    found = components.fits_.items()
    names = [(family, k) for family, fit in found for k in np.flatnonzero(fit.kept)]
    # A family that is not in the layout was derived from a trace.
    return {
        column: Feature(f"{family} component {k}", family, "SD")
        for column, (family, k) in enumerate(names)
        if family in layout.traces or family not in layout.families
    }


def _groups(cells: Mapping[str, Cells], mouse: pd.DataFrame, human: pd.DataFrame) -> _Groups:
    """Groups that both species have."""
    groups = {
        ("subclass", name): {species: part.y == name for species, part in cells.items()}
        for name in load_taxonomy().subclasses
    }
    if "cross_species_type" in human:
        named = human["cross_species_type"].astype(object)
        for name, types in homologous_types().items():
            groups["homologous type", name] = {
                "mouse": mouse["t_type"].isin(types).to_numpy(dtype=bool),
                "human": (named == name).to_numpy(dtype=bool),
            }
    return {name: of for name, of in groups.items() if all(part.any() for part in of.values())}


def _species(
    values: NDArray[np.float64],
    members: NDArray[np.bool_],
    cells: Cells,
    classes: Sequence[str],
    resamples: int,
    rng: np.random.Generator,
) -> _Areas:
    names, which = np.unique(cells.donors, return_inverse=True)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    # The cells fall into parts that no group or subclass divides; every area is a sum over them.
    class_of = np.array([classes.index(y) if y in classes else len(classes) for y in cells.y])
    kinds, part = np.unique(np.column_stack([class_of, members]), axis=0, return_inverse=True)
    part = part.ravel()
    inside = kinds[:, 1:].T.astype(bool)  # (groups, parts)
    of_class = kinds[:, 0] == np.arange(len(classes))[:, None]  # (classes, parts)
    shape = values.shape[1], members.shape[1]
    areas = np.full((*shape, 2, 3), np.nan)
    counts, fewest = (np.zeros(shape, dtype=np.intp) for _ in range(2))
    tails = partial(np.nanpercentile, q=[50 * (1 - _CONFIDENCE), 50 * (1 + _CONFIDENCE)])
    for f, column in enumerate(values.T):
        known = np.isfinite(column)
        member, owner = members[known], which[known]
        counts[f] = member.sum(axis=0)
        fewest[f] = _fewer_donors(member, owner)
        # All cells once, then the resamples.
        batches = (draws[start : start + _BATCH, owner] for start in range(0, resamples, _BATCH))
        weights = chain([np.ones((1, len(owner)))], batches)
        won = (pairs_won(column[known], part[known], len(kinds), each) for each in weights)
        found = [_areas(*each, inside, of_class) for each in won]
        areas[f, ..., 0] = found[0][0]
        # A resample without a donor of the group says nothing of it.
        drawn = np.concatenate(found[1:])
        areas[f, ..., 1:] = np.moveaxis(over_rows(tails, drawn), 0, -1)
    return _Areas(areas, counts, fewest)


def _fewer_donors(member: NDArray, owner: NDArray) -> list[int]:
    """Donors in every group (columns of `member`) or in its rest, whichever are fewer."""
    sides = [(owner[chosen], owner[~chosen]) for chosen in member.T]
    return [min(len(np.unique(side)) for side in both) for both in sides]


def _areas(won: NDArray, totals: NDArray, inside: NDArray, of_class: NDArray) -> NDArray:
    """Plain and balanced areas of every group, shape (weightings, groups, 2)."""

    def area(rest: NDArray[np.bool_]) -> NDArray[np.float64]:
        above = np.einsum("gs,wst,gt->wg", inside, won, rest, optimize=True)
        possible = (totals @ inside.T) * (totals @ rest.T)
        return np.divide(above, possible, out=np.full_like(above, np.nan), where=possible > 0)

    each = np.stack([area(~inside & here) for here in of_class])
    known = np.isfinite(each)
    count = known.sum(axis=0)
    total = np.where(known, each, 0.0).sum(axis=0)
    balanced = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return np.stack([area(~inside), balanced], axis=-1)


def _compared(found: Mapping[str, _Areas], f: int, g: int) -> dict[str, object]:
    """What is found of a feature in a group: cells, areas with their intervals, verdicts."""
    row: dict[str, object] = {f"{name}_cells": int(of.cells[f, g]) for name, of in found.items()}
    for kind, prefix in enumerate(("", "balanced_")):
        sides = []
        for species, areas in found.items():
            area, low, high = areas.areas[f, g, kind]
            row[f"{species}_{prefix}auc"] = area
            row[f"{species}_{prefix}low"], row[f"{species}_{prefix}high"] = low, high
            sides.append(int(low > 0.5) - int(high < 0.5))
        row[f"{prefix}verdict"] = _verdict(*sides)
    return row


def _verdict(mouse: int, human: int) -> str:
    """In words; 1 stands for an interval above 0.5, -1 for one below, 0 for one around it."""
    if mouse and human:
        return "same" if mouse == human else "opposite"
    if mouse:
        return "mouse only"
    return "human only" if human else "neither"
