"""A map that is kept, and on which new cells are placed without UMAP."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import platformdirs
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from crosspatch.cohorts.dataset import source_files
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT
from crosspatch.errors import EvaluationError, in_words
from crosspatch.explanation.components import CLIP
from crosspatch.explanation.map import MAP_COLUMNS, NEIGHBORS, LaidOut, Moments, enough, lay_out
from crosspatch.features.layouts import VECTOR_LAYOUTS, Feature, Layout
from crosspatch.models.forest import build_spca_forest
from crosspatch.models.sparse_pca import FamilyFit, FamilySparsePCA, SparsePCA
from crosspatch.versions import code_digest, library_versions
from crosspatch.writing import replacing

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

_OF_FAMILY = ("median", "use", "kept", "mean", "deviation")
_OF_COMPONENTS = ("mean_", "scale_", "components_")

# What numpy and its zip reader raise for a file that is damaged or something else.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


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

    #: A row a reference cell, as `crosspatch.explanation.map.map_table` gives it: ``cell_id``,
    #: ``species``, ``subclass``, ``x``, ``y``.
    table: pd.DataFrame
    #: Shape (rows of the table, components). Of the reference cells, in standard deviations; NaN
    #: where a family is absent.
    scores: NDArray[np.float64]
    #: Shape (rows of the table,). The cells that UMAP was fitted on, all of one species.
    fitted: NDArray[np.bool_]
    #: Fitted on that species.
    components: FamilySparsePCA
    #: Species to the moments of its reference cells.
    moments: Mapping[str, Moments]

    @property
    def layout(self) -> Layout:
        """The features that cells are placed by."""
        return self.components.layout

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

        An absent family counts as average, as in the map. Features of the map that the layout
        lacks are missing, so a cell is placed by what is there, if that is enough.

        Parameters
        ----------
        X : array, shape (cells, features)
            In the units of the layout; NaN where missing.
        layout : Layout
            What the columns of `X` are. It may have more features than the map, in another order.
        species : str
            Of all the cells.

        Raises
        ------
        EvaluationError
            If the map has no cells of the species, the layout shares no feature with the map, or
            one that it shares is in another unit or binned otherwise.

        References
        ----------
        McInnes L, Healy J, Melville J (2018) UMAP: uniform manifold approximation and projection
        for dimension reduction. arXiv 1802.03426.
        Weiszfeld E, Plastria F (2009) On the point for which the sum of the distances to n given
        points is minimum. Annals of Operations Research 167.
        """
        if species not in self.species:
            raise EvaluationError(
                f"the map has no {species} cells; it has {' and '.join(self.species)}"
            )
        values = self._taken(np.asarray(X, dtype=np.float64), layout)
        base = self.species[0]
        if species != base:
            values = self.moments[species].moved(values, self.moments[base])
        scores = np.clip(self.components.transform(values), -CLIP, CLIP)
        there = np.flatnonzero(enough(scores))
        places = np.full((len(scores), 2), np.nan)
        neighbours: list[dict[str, int]] = [{} for _ in scores]
        if len(there):
            known = np.nan_to_num(scores[there])
            places[there] = self._positions(known)
            for row, counts in zip(there, self._counts(known, species), strict=True):
                neighbours[row] = counts
        return Placed(places[:, 0], places[:, 1], tuple(neighbours))

    def save(self, folder: str | Path) -> None:
        """Keep the map in a folder, written under a temporary name first.

        Raises
        ------
        EvaluationError
            If it cannot be written.
        """
        folder = Path(folder)
        about = {
            "format": MAP_FORMAT,
            "layout": self.layout.name,
            "features": [asdict(feature) for feature in self.layout.features],
            "families": list(self.components.fits_),
            "names": self.components.names_,
        }
        content: dict[str, Any] = {"about": np.asarray(json.dumps(about))}
        for name in MAP_COLUMNS:
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
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvaluationError(f"{folder} cannot be written: {in_words(error)}") from error
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
        # The traces of these have the same names and are binned otherwise.
        apart = layout.name != self.layout.name and layout.name in VECTOR_LAYOUTS
        column = {feature.name: k for k, feature in enumerate(layout.features)}
        shared = [k for k, name in enumerate(self.layout.feature_names) if name in column]
        if apart or not shared:
            raise EvaluationError(
                f"cells of layout '{layout.name}' cannot be placed on a map of layout "
                f"'{self.layout.name}': they have other features"
            )
        taken = np.full((len(X), len(self.layout.features)), np.nan)
        for k in shared:
            ours = self.layout.features[k]
            theirs = layout.features[column[ours.name]]
            if ours.unit != theirs.unit:
                raise EvaluationError(
                    f"feature '{ours.name}' is in {theirs.unit}, the map has it in {ours.unit}"
                )
            taken[:, k] = X[:, column[ours.name]]
        return taken

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


def build_map(
    cohorts: Mapping[str, anndata.AnnData], alignment: str = DEFAULT_ALIGNMENT, seed: int = 0
) -> ReferenceMap:
    """Make a map of cohorts on which new cells can be placed.

    Parameters
    ----------
    cohorts : mapping
        Species to cohort table, all in one layout.
    alignment : str
        Reading of which mouse subclass counts as which shared one.
    seed : int
        The same gives the same map.

    Raises
    ------
    EvaluationError
        If the species have different features, or there are fewer than 10 cells to fit on.
    """
    return reference_of(lay_out(cohorts, alignment=alignment, seed=seed))


def reference_of(laid: LaidOut) -> ReferenceMap:
    """What placing new cells takes, out of a map as it was made."""
    return ReferenceMap(laid.table, laid.scores, laid.fitted, laid.space.fit, laid.moments)


def load_map(folder: str | Path) -> ReferenceMap:
    """Read a map that `ReferenceMap.save` wrote. Nothing in the file can run code.

    Raises
    ------
    EvaluationError
        If there is none, it is damaged, or of another format.
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


def kept_in(layout_name: str) -> Path:
    """The folder of the user's cache in which the map of this version and these tables is kept."""
    pinned = {name: source.sha256 for name, source in source_files().items()}
    code = code_digest("features", "cohorts", "models", "evaluation", "explanation")
    libraries = {**library_versions(), "umap-learn": version("umap-learn")}
    parts = (layout_name, DEFAULT_ALIGNMENT, pinned, code, libraries)
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return platformdirs.user_cache_path("crosspatch") / "maps" / f"{layout_name}-{key}"


def reference_map(
    layout_name: str = "shared",
    *,
    data_dir: str | Path | None = None,
    say: Callable[[str], None],
) -> ReferenceMap:
    """The map of the Allen cells, from the user's cache or made now, which takes a minute.

    Another version of crosspatch, of its libraries or of the tables means another map.

    Parameters
    ----------
    layout_name : str
        A layout that the Allen tables have; species that lack it are not on the map.
    data_dir : path, optional
        Data directory with the Allen tables.
    say : callable
        Told when making begins, and why a map in the cache is not used or not kept.

    Raises
    ------
    CohortError
        If it must be made and the tables are not there.
    """
    folder = kept_in(layout_name)
    if (folder / MAP_FILE).exists():
        try:
            return load_map(folder)
        except EvaluationError as error:
            say(f"{error}; making it again")
    # Simulated cohorts bring numba, which whoever only loads a map need not wait for.
    from crosspatch.evaluation.task_cohorts import load_cohorts

    cohorts = load_cohorts(["allen"], layout_name, data_dir=data_dir)
    cells = sum(cohort.n_obs for cohort in cohorts.values())
    say(f"making the map of {cells:,} Allen cells, once; it is kept in {folder}")
    made = build_map(cohorts)
    try:
        made.save(folder)
    except EvaluationError as error:
        say(f"the map could not be kept: {error}")
    return made


def neighbour_weights(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that UMAP's transform gives to the neighbours of a cell, as shares of their sum.

    A weight is exp(-d/σ), with σ such that the weights of all but the nearest sum to log₂ of the
    number of neighbours. umap-learn has this as `smooth_knn_dist` and
    `compute_membership_strengths`, which take seconds to import and compile.

    Parameters
    ----------
    distances : array, shape (cells, neighbours)
        Of three neighbours or more, ascending.

    Returns
    -------
    array, shape (cells, neighbours)
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


def geometric_median(
    points: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where the weighted sum of distances to some points is least, by Weiszfeld's iteration.

    Parameters
    ----------
    points : array, shape (cells, points, dimensions)
    weights : array, shape (cells, points)
        Not all 0.

    Returns
    -------
    array, shape (cells, dimensions)
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


def _from_content(about: Mapping, content: Mapping[str, NDArray]) -> ReferenceMap:
    layout = Layout(
        str(about["layout"]), tuple(Feature(**feature) for feature in about["features"])
    )
    components: FamilySparsePCA = build_spca_forest(layout)["components"]
    components.fits_ = {}
    for family in about["families"]:
        pca = SparsePCA()
        for name in _OF_COMPONENTS:
            setattr(pca, name, content[f"families/{family}/pca/{name}"])
        parts = {name: content[f"families/{family}/{name}"] for name in _OF_FAMILY}
        components.fits_[family] = FamilyFit(pca=pca, **parts)
    components.names_ = [str(name) for name in about["names"]]
    # As objects: pandas gives the columns of a new table in this type.
    columns = {name: content[f"table/{name}"] for name in MAP_COLUMNS}
    table = pd.DataFrame(
        {name: c.astype(object) if c.dtype.kind == "U" else c for name, c in columns.items()}
    )
    moments = {species: Moments(*content[f"moments/{species}"]) for species in _species(content)}
    found = ReferenceMap(table, content["scores"], content["fitted"], components, moments)
    rows, width = len(table), len(components.names_)
    if found.scores.shape != (rows, width) or found.fitted.shape != (rows,):
        raise ValueError("its parts do not belong together")
    return found


def _species(content: Mapping[str, NDArray]) -> list[str]:
    return [name.split("/", 1)[1] for name in content if name.startswith("moments/")]
