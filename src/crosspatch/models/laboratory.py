"""What cells of the laboratory that a model learned from look like, type by type."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import Arrays, require_array
from crosspatch.models.gaussian import Gaussians, types_of
from crosspatch.models.missing import distinct_rows, over_rows

#: Degrees of freedom of the types, so that odd cells count less.
FREEDOM = 10.0

# Values farther from the middle, in standard deviations, count as this far, before and after a
# shift that may be large.
_FAR, FAR_SHIFTED = 6.0, 9.0


@dataclass(frozen=True, eq=False)
class Laboratory:
    """Types as normal distributions with one covariance; logarithms, where shifts are factors."""

    layout: Layout  # single numbers, without where cells lie
    #: Shape (features,). Which are taken as logarithms: all but potentials and what may be negative
    logs: NDArray[np.bool_]
    center: NDArray[np.float64]  # shape (features,)
    scale: NDArray[np.float64]  # shape (features,), one where nothing was measured
    gaussians: Gaussians  # of the types, about the center in units of the scale
    class_of: NDArray[np.intp]  # shape (types,)
    shares: NDArray[np.float64]  # shape (types,): of its class
    priors: NDArray[np.float64]  # shape (classes,)

    @classmethod
    def fit(cls, layout: Layout, X: ArrayLike, y: ArrayLike, types: ArrayLike) -> Laboratory:
        """Learn the distributions; ``X`` is NaN where missing."""
        X = np.asarray(X, dtype=np.float64)[:, : len(layout.features)]
        codes = np.unique(y, return_inverse=True)[1]
        of_type, class_of = types_of(codes, types)
        unit = np.array([feature.unit for feature in layout.features])
        above = over_rows(np.nanmean, np.where(np.isfinite(X), X > 0, np.nan), 0.0)
        logs = (unit != "mV") & (above > 0.985)
        Z = _in_logs(X, logs)
        center, scale = over_rows(np.nanmedian, Z, 0.0), over_rows(np.nanstd, Z, 0.0)
        scale = np.where(scale > 0, scale, 1.0)
        Z = np.clip((Z - center) / scale, -_FAR, _FAR)
        counts = np.bincount(codes)
        return cls(
            layout,
            logs,
            center,
            scale,
            Gaussians.fit(Z, of_type),
            class_of,
            np.bincount(of_type) / counts[class_of],
            counts / len(codes),
        )

    def coordinates(self, X: ArrayLike) -> NDArray[np.float64]:
        """Cells about the center in units of the scale, shape (cells, features)."""
        X = np.asarray(X, dtype=np.float64)[:, : len(self.layout.features)]
        return (_in_logs(X, self.logs) - self.center) / self.scale

    @property
    def spread(self) -> NDArray[np.float64]:
        """Standard deviation of every feature within the types, in units of the scale."""
        return np.sqrt(np.diag(self.gaussians.covariance))

    def arrays(self) -> dict[str, NDArray]:
        """What was learnt, to be stored."""
        own = (each.name for each in fields(self) if each.name not in ("layout", "gaussians"))
        return {name: getattr(self, name) for name in own} | self.gaussians.arrays()

    @classmethod
    def of_arrays(cls, layout: Layout, classes: int, arrays: Arrays) -> Laboratory:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        own = {name: arrays[name] for name in ("logs", "center", "scale", "shares", "priors")}
        class_of, features = arrays["class_of"], (len(layout.features),)
        types = class_of.shape[:1]
        require_array("laboratory", class_of, types, np.intp, classes)
        require_array("laboratory", own["logs"], features, np.bool_)
        for name, shape in (("center", features), ("scale", features), ("shares", types)):
            require_array("laboratory", own[name], shape)
        require_array("laboratory", own["priors"], (classes,))
        if min(own["scale"].min(), own["shares"].min(), own["priors"].min()) <= 0:
            raise ModelError("its laboratory divides by zero or less")
        gaussians = Gaussians.of_arrays(types[0], features[0], arrays)
        return cls(layout, gaussians=gaussians, class_of=class_of, **own)


class White(NamedTuple):
    """Cells of which the same was measured, and the types, with independent errors."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    factor: NDArray[np.float64]  # shape (columns, columns): makes errors independent
    cells: NDArray[np.float64]
    types: NDArray[np.float64]

    def squared(self, shift: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared distances between shifted types and cells, shape (cells, types)."""
        rest = self.cells - self.factor @ shift[self.columns]
        found = (rest**2).sum(axis=1)[:, None] + (self.types**2).sum(axis=1)
        return np.maximum(found - 2 * rest @ self.types.T, 0.0)


def whitened(
    Z: NDArray[np.float64], means: NDArray[np.float64], covariance: NDArray[np.float64]
) -> list[White]:
    """Cells of shape (cells, features), NaN where missing, by what was measured."""
    patterns, which = distinct_rows(np.isfinite(Z))
    found = []
    for number, pattern in enumerate(patterns):
        rows, columns = np.flatnonzero(which == number), np.flatnonzero(pattern)
        if len(columns):
            factor = np.linalg.inv(np.linalg.cholesky(covariance[np.ix_(columns, columns)]))
            cells, types = Z[np.ix_(rows, columns)] @ factor.T, means[:, columns] @ factor.T
            found.append(White(rows, columns, factor, cells, types))
    return found


def by_class(
    laboratory: Laboratory, Z: NDArray[np.float64], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logarithm of the density of every class but a constant, shape (cells, classes)."""
    squared = np.zeros((len(Z), len(means)))
    for part in whitened(Z, means, laboratory.gaussians.covariance):
        squared[part.rows] = part.squared(np.zeros(Z.shape[1]))
    half = (FREEDOM + np.isfinite(Z).sum(axis=1, keepdims=True)) / 2
    score = np.log(laboratory.shares) - half * np.log1p(squared / FREEDOM)
    top = score.max(axis=1, keepdims=True)
    classes = np.eye(len(laboratory.priors))[laboratory.class_of]
    return np.log(np.maximum(np.exp(score - top) @ classes, 1e-300)) + top


def _in_logs(X: NDArray[np.float64], logs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logarithms of the features that are taken so, NaN where not above zero."""
    X = np.where(np.isfinite(X), X, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(logs, np.log(np.where(X > 0, X, np.nan)), X)
