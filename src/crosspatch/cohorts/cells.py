"""The labelled cells of a cohort as arrays: what models are trained and tested on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

import anndata
import numpy as np
from numpy.typing import NDArray

from crosspatch.cohorts import table
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import EvaluationError
from crosspatch.features.cortical_layer import layer_depth
from crosspatch.features.layouts import Layout


@dataclass(frozen=True)
class Cells:
    """Labelled cells of one species, as models take them."""

    X: NDArray[np.float32]
    y: NDArray[np.str_]
    donors: NDArray[np.str_]
    cell_ids: NDArray[np.str_]
    types: NDArray[np.str_]  # finer than the classes; the class where no type is known
    layout: Layout
    simulated: bool = False

    @property
    def features(self) -> str:
        """Name of the layout; it says so where it has the layer, or the cells are simulated."""
        return f"{self.layout.title} (simulated)" if self.simulated else self.layout.title

    @property
    def measured(self) -> Cells:
        """The same without where they lie."""
        layout = self.layout.measured
        return replace(self, X=self.X[:, : len(layout.features)], layout=layout)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in the order of the taxonomy, then others."""
        return load_taxonomy().ordered(self.y)

    @property
    def digest(self) -> str:
        """Checksum of everything in it."""
        parts: list[bytes] = [np.ascontiguousarray(self.X).tobytes()]
        texts = self.y, self.donors, self.cell_ids, self.types
        parts += ["\0".join(part).encode() for part in texts]
        parts.append(repr(self.layout.features).encode())
        return hashlib.sha256(b"\1".join(parts)).hexdigest()


def layers_of(cohort: anndata.AnnData) -> NDArray[np.float32]:
    """The cortical layers that ``obs["layer"]`` says, in order of depth, NaN where it does not."""
    said = cohort.obs["layer"] if "layer" in cohort.obs else [None] * cohort.n_obs
    return np.array([layer_depth(each) for each in said], dtype=np.float32)


def cells_of(cohort: anndata.AnnData, alignment: str | None, *, layer: bool = False) -> Cells:
    """The arrays of a cohort table; an `EvaluationError` if a cell has no subclass or no donor.

    `alignment` is the reading of the taxonomy that maps subclasses across species; None leaves
    them. With `layer` the cortical layer of the cells is a further feature; an `EvaluationError`
    if none is known.
    """
    for name in ("subclass", "donor"):
        missing = int(cohort.obs[name].isna().sum())
        if missing:
            species = ", ".join(sorted(set(cohort.obs["species"].astype(str))))
            hint = "give labels to `crosspatch extract` with {labels}"
            if "class" in cohort.obs:  # excitatory, or of a type that is not labelled
                hint = "leave out excitatory datasets, and build tables without {every_cell}"
            raise EvaluationError(
                f"{missing} of {cohort.n_obs} {species} cells have no {name}, so models cannot be "
                "evaluated on them",
                hint=hint,
            )
    y = cohort.obs["subclass"].to_numpy().astype(str)
    y = y if alignment is None else load_taxonomy().align(y, alignment)
    X, layout = np.asarray(cohort.X, dtype=np.float32), table.layout_of(cohort)
    if layer:
        layers = layers_of(cohort)
        if np.isnan(layers).all():
            raise EvaluationError(
                "of no cell of the cohort the cortical layer is known (a column 'layer' in obs)",
                hint="leave {layer} out",
            )
        X, layout = np.column_stack([X, layers]), layout.with_layer()
    types = cohort.obs["t_type"]
    return Cells(
        X=X,
        y=y,
        donors=cohort.obs["donor"].to_numpy().astype(str),
        cell_ids=cohort.obs_names.to_numpy().astype(str),
        types=np.where(types.isna(), y, types.astype(object)).astype(str),
        layout=layout,
        simulated=table.is_simulated(cohort),
    )


def labelled(cohort: anndata.AnnData) -> anndata.AnnData:
    """The cells of a cohort table that have a subclass."""
    known = cohort.obs["subclass"].notna().to_numpy()
    return cohort if known.all() else cohort[known].copy()


def provenance(cohort: anndata.AnnData) -> dict[str, object]:
    """Where a cohort comes from, for settings and models: counts, checksums, what was left out."""
    head = table.head_of(cohort)
    return {
        "dataset": sorted(set(cohort.obs["dataset"].astype(str))),
        "simulated": table.is_simulated(cohort),
        "cells": cohort.n_obs,
        "donors": int(cohort.obs["donor"].nunique()),
        "subclasses": {k: int(v) for k, v in cohort.obs["subclass"].value_counts().items()},
        "dropped": dict(head.dropped),
        "verified": head.verified,
        "taxonomy": head.taxonomy,
        "own": None if head.own is None else asdict(head.own),
        "sha256": dict(head.sources),
    }
