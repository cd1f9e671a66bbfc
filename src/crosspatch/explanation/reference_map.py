"""A map that is kept, and on which new cells are placed without UMAP."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from crosspatch.errors import EvaluationError, in_words
from crosspatch.explanation.components import scores_in
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.features.layouts import VECTOR_LAYOUTS, Feature, Layout
from crosspatch.models.forest import build_spca_forest
from crosspatch.models.missing import over_rows
from crosspatch.models.sparse_pca import FamilyFit, FamilySparsePCA, SparsePCA
from crosspatch.writing import replacing

#: UMAP's own default (McInnes, Healy and Melville 2018).
NEIGHBORS = 15
#: Cells with fewer of the components are left out of a map.
MIN_SHARE = 0.5

#: Version of the file's format; another one is refused.
MAP_FORMAT = 1
#: The one file of a map's folder. Not a skops file, as models are: importing skops imports torch.
MAP_FILE = "map.npz"

# Two cells nearer than this, in standard deviations of the components, are the same cell: scores
# of one cell and of thousands differ in the last digits.
_SAME = 1e-6

# Width of the weights of neighbours: halvings of its interval, and the least of it as a share of
# the mean distance (both as in umap-learn's smooth_knn_dist).
_HALVINGS = 64
_MIN_WIDTH = 1e-3
# Steps to a geometric median, and the distance from a cell, in units of the map, that counts as
# being there; UMAP keeps cells about a hundred times as far apart.
_STEPS = 50
_THERE = 1e-3

# What a map's file has of the components of a family.
_OF_FAMILY = ("median", "use", "kept", "mean", "deviation")
_OF_COMPONENTS = ("mean_", "scale_", "components_")

# What numpy and its zip reader raise for a file that is damaged or something else.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


class _About(TypedDict):
    """What a map's file says of itself."""

    format: int
    layout: str
    features: list[dict[str, str]]
    families: list[str]
    names: list[str]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every feature over the cells of a species that have it."""

    #: Shape (features,). In the units of the features; 0 where no cell has the feature.
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, X: NDArray[np.floating]) -> Moments:
        """The moments of cells, shape (cells, features), NaN where missing."""
        values = X.astype(np.float64)
        return cls(*(np.nan_to_num(over_rows(each, values)) for each in (np.nanmean, np.nanstd)))

    def moved(self, X: NDArray[np.floating], onto: Moments) -> NDArray[np.float64]:
        """Cells of this species with the mean and deviation that features have in another one."""
        scale = np.divide(
            onto.deviation, self.deviation, out=np.zeros(len(self.mean)), where=self.deviation > 0
        )
        return (X.astype(np.float64) - self.mean) * scale + onto.mean


def enough(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which cells have enough of the components (columns) to be on a map, shape (cells,)."""
    return np.isfinite(scores).mean(axis=1) >= MIN_SHARE


@dataclass(frozen=True, eq=False)
class Placed:
    """Where new cells lie on a map, and among which cells."""

    #: Shape (cells,). NaN for cells with less than half of the components.
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    #: For every cell, subclass to number among its 15 nearest reference cells of its own species
    #: (fewer where there are fewer), the most frequent first; empty where x and y are NaN. A cell
    #: that is itself in the reference is not counted among its neighbours.
    neighbours: tuple[dict[str, int], ...]


@dataclass(frozen=True, eq=False)
class ReferenceMap:
    """A map of reference cells, on which new ones are placed."""

    #: One row per reference cell: ``cell_id``, ``species``, ``subclass``, ``x``, ``y``.
    table: pd.DataFrame
    #: Shape (rows of the table, components). In `components`, after moving; NaN where a family is
    #: absent.
    scores: NDArray[np.float64]
    #: Shape (rows of the table,). The cells that UMAP was fitted on, all of one species; the others
    #: were laid over.
    fitted: NDArray[np.bool_]
    components: FamilySparsePCA  # fitted on that species
    moments: Mapping[str, Moments]  # species to the moments of its reference cells

    @property
    def layout(self) -> Layout:
        """The features that cells are placed by."""
        return self.components.layout_

    @property
    def species(self) -> tuple[str, ...]:
        """The species on the map; the one that it is fitted on comes first."""
        return tuple(self.table["species"].unique())

    def place(self, X: ArrayLike, layout: Layout, species: str) -> Placed:
        """Place cells where their nearest reference cells lie.

        Cells of another species than the map is fitted on are first moved by the moments of their
        reference, as the reference was. A cell lies at the weighted geometric median of its 15
        nearest cells, in the components, of those that UMAP was fitted on. The weights are those
        of UMAP's own transform, which starts at the weighted mean and then lets the cells attract
        and repel. The mean alone can lie between two groups, where no cell is; the median is as
        near to where the transform ends as that is to itself with another seed, or nearly
        (benchmarks/results/map.md), and depends on nothing but the cell and the map. A cell of the
        reference lies where the map has it, if the map was fitted on it.

        An absent family counts as average, as in the map. The layout, in whose units the cells are,
        may have more features than the map, in another order; features of the map that it lacks
        are missing, so a cell is placed by what is there, if that is enough.

        EvaluationError if the map has no cells of the species, or the layout no feature of the map,
        or one in another unit or binned otherwise.
        """
        if species not in self.species:
            raise EvaluationError(
                f"the map has no {species} cells; it has {' and '.join(self.species)}"
            )
        values = self._taken(np.asarray(X, dtype=np.float64), layout)
        base = self.species[0]
        if species != base:
            values = self.moments[species].moved(values, self.moments[base])
        scores = scores_in(self.components, values)
        there = np.flatnonzero(enough(scores))
        places = np.full((len(scores), 2), np.nan)
        counts: dict[int, dict[str, int]] = {}
        if len(there):
            known = np.nan_to_num(scores[there])
            places[there] = self._positions(known)
            counts = dict(zip(there.tolist(), self._counts(known, species), strict=True))
        neighbours = tuple(counts.get(row, {}) for row in range(len(scores)))
        return Placed(places[:, 0], places[:, 1], neighbours)

    def save(self, folder: str | Path) -> None:
        """Keep the map in a folder, written under a temporary name first; or EvaluationError."""
        folder = Path(folder)
        about: _About = {
            "format": MAP_FORMAT,
            "layout": self.layout.name,
            "features": [asdict(feature) for feature in self.layout.features],
            "families": list(self.components.fits_),
            "names": self.components.names_,
        }
        content: dict[str, Any] = {"about": np.asarray(json.dumps(about))}
        for name in TABLE_COLUMNS["map"]:
            column = self.table[name].to_numpy()
            content[f"table/{name}"] = column if name in ("x", "y") else column.astype(str)
        content["scores"], content["fitted"] = self.scores, self.fitted
        for species, moments in self.moments.items():
            content[f"moments/{species}"] = np.stack([moments.mean, moments.deviation])
        for family, fit in self.components.fits_.items():
            for name in _OF_FAMILY:
                content[f"families/{family}/{name}"] = getattr(fit, name)
            for name in _OF_COMPONENTS:
                content[f"families/{family}/pca/{name}"] = getattr(fit.pca, name)
        with (
            replacing(folder / MAP_FILE, EvaluationError) as temporary,
            temporary.open("wb") as stream,
        ):
            np.savez_compressed(stream, **content)

    def _taken(self, X: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
        """The map's features out of those of a layout; NaN where the layout has not got them."""
        if X.ndim != 2 or X.shape[1] != len(layout.features):
            raise EvaluationError(
                f"cells of layout '{layout.name}' have {len(layout.features)} features, but the "
                f"array has shape {X.shape}"
            )
        columns = self._columns_in(layout)
        taken = np.full((len(X), len(self.layout.features)), np.nan)
        taken[:, list(columns)] = X[:, list(columns.values())]
        return taken

    def _columns_in(self, layout: Layout) -> dict[int, int]:
        """Columns of the map's features that a layout has, and where the layout has them."""
        theirs = {feature.name: k for k, feature in enumerate(layout.features)}
        ours = enumerate(self.layout.feature_names)
        columns = {k: theirs[name] for k, name in ours if name in theirs}
        # The traces of these have the same names and are binned otherwise.
        apart = layout.name != self.layout.name and layout.name in VECTOR_LAYOUTS
        if apart or not columns:
            raise EvaluationError(
                f"cells of layout '{layout.name}' cannot be placed on a map of layout "
                f"'{self.layout.name}': they have other features"
            )
        for here, there in columns.items():
            wanted, unit = self.layout.features[here], layout.features[there].unit
            if unit != wanted.unit:
                raise EvaluationError(
                    f"feature '{wanted.name}' is in {unit}, the map has it in {wanted.unit}"
                )
        return columns

    def _positions(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        distances, nearest = self._fitted_tree.kneighbors(scores)
        weights = neighbour_weights(distances)
        same = distances[:, 0] <= _SAME
        weights[same] = 0.0
        weights[same, 0] = 1.0
        at = self.table[["x", "y"]].to_numpy()[self.fitted][nearest]
        return geometric_median(at, weights)

    def _counts(self, scores: NDArray[np.float64], species: str) -> list[dict[str, int]]:
        subclasses, tree = self._trees[species]
        distances, nearest = tree.kneighbors(scores)
        counts = []
        for away, rows in zip(distances, nearest, strict=True):
            others = rows[int(away[0] <= _SAME) :][:NEIGHBORS]
            counts.append(dict(Counter(subclasses[others].tolist()).most_common()))
        return counts

    @cached_property
    def _fitted_tree(self) -> NearestNeighbors:
        points = np.nan_to_num(self.scores[self.fitted])
        return _tree(points, min(NEIGHBORS, len(points) - 1))

    @cached_property
    def _trees(self) -> dict[str, tuple[NDArray[np.str_], NearestNeighbors]]:
        """For every species the subclasses of its cells, and its cells with one neighbour more."""
        trees = {}
        for species in self.species:
            own = (self.table["species"] == species).to_numpy()
            points = np.nan_to_num(self.scores[own])
            subclasses = self.table.loc[own, "subclass"].to_numpy().astype(str)
            trees[species] = (subclasses, _tree(points, min(NEIGHBORS + 1, len(points))))
        return trees


def load_map(folder: str | Path) -> ReferenceMap:
    """Read a map that `ReferenceMap.save` wrote. Nothing in the file can run code.

    EvaluationError if there is none, it is damaged, or of another format.
    """
    file = Path(folder) / MAP_FILE
    if not file.is_file():
        raise EvaluationError(f"{folder} is not a map: it has no {MAP_FILE}")
    try:
        with np.load(file, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
        about = json.loads(str(content["about"]))
        if about["format"] != MAP_FORMAT:
            raise ValueError(f"it has format {about['format']}, this crosspatch reads {MAP_FORMAT}")
        return _from_content(about, content)
    except _UNREADABLE as error:
        raise EvaluationError(f"{file} cannot be read: {in_words(error)}") from error


def neighbour_weights(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that UMAP's transform gives to the neighbours of a cell, as shares of their sum.

    A weight is exp(-d/σ), with σ such that the weights of all but the nearest sum to log₂ of the
    number of neighbours. umap-learn has this as `smooth_knn_dist` and
    `compute_membership_strengths`, which take seconds to import and compile. The distances, shape
    (cells, neighbours), are of three neighbours or more, ascending.
    """
    count = distances.shape[1]
    wanted = np.log2(count)
    # At this width even all at the largest distance would have the sum wanted.
    high = distances[:, -1] / np.log((count - 1) / wanted)
    least = np.maximum(_MIN_WIDTH * distances.mean(axis=1), np.finfo(float).tiny)
    low, high = least, np.maximum(high, least)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_wide = np.exp(-distances[:, 1:] / middle[:, None]).sum(axis=1) > wanted
        low, high = np.where(too_wide, low, middle), np.where(too_wide, middle, high)
    weights: NDArray[np.float64] = np.exp(-distances / high[:, None])
    return weights / weights.sum(axis=1, keepdims=True)


def geometric_median(points: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """Where the weighted sum of distances to some points is least, by Weiszfeld's iteration.

    The points have shape (cells, points, dimensions), the weights, not all 0, (cells, points). See
    Weiszfeld and Plastria (2009) On the point for which the sum of the distances to n given points
    is minimum. Annals of Operations Research 167.
    """
    pull = weights
    for _ in range(_STEPS):
        found = np.einsum("cp,cpd->cd", pull, points) / pull.sum(axis=1, keepdims=True)
        away = np.linalg.norm(points - found[:, None], axis=2)
        pull = weights / np.maximum(away, _THERE)
    return found


def _tree(points: NDArray[np.float64], count: int) -> NearestNeighbors:
    # A tree, because brute force takes distances from products and finds a cell far from itself.
    return NearestNeighbors(n_neighbors=count, algorithm="kd_tree").fit(points)


def _from_content(about: _About, content: Mapping[str, NDArray]) -> ReferenceMap:
    layout = Layout(about["layout"], tuple(Feature(**feature) for feature in about["features"]))
    components: FamilySparsePCA = build_spca_forest(layout)["components"]
    components.fits_ = {}
    for family in about["families"]:
        pca = SparsePCA()
        for name in _OF_COMPONENTS:
            setattr(pca, name, content[f"families/{family}/pca/{name}"])
        parts = {name: content[f"families/{family}/{name}"] for name in _OF_FAMILY}
        components.fits_[family] = FamilyFit(pca=pca, **parts)
    components.names_ = about["names"]
    table = pd.DataFrame({name: content[f"table/{name}"] for name in TABLE_COLUMNS["map"]})
    moments = {name: Moments(*content[f"moments/{name}"]) for name in table["species"].unique()}
    scores, fitted = content["scores"], content["fitted"]
    if scores.shape != (len(table), len(components.names_)) or fitted.shape != (len(table),):
        raise ValueError("its parts do not belong together")
    return ReferenceMap(table, scores, fitted, components, moments)
