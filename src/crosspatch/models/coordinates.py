"""Cells as points: single features as they are, traces by their principal components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import Arrays, require_array
from crosspatch.models.missing import over_rows


class _Trace(NamedTuple):
    """How a family of traces becomes coordinates."""

    #: Shape (positions,). What stands in for missing values.
    median: NDArray[np.float64]
    #: Shapes (positions,) and (coordinates, positions). Of the principal components.
    mean: NDArray[np.float64]
    components: NDArray[np.float64]

    def of(self, part: NDArray) -> NDArray[np.float64]:
        """Principal components of the family, shape (cells, coordinates)."""
        known = np.isfinite(part)
        filled = np.where(known, part, self.median)
        found = filled @ self.components.T - self.mean @ self.components.T
        found[~known.any(axis=1)] = np.nan
        return found


@dataclass
class Coordinates:
    """Coordinates of cells, family after family; NaN where nothing was measured."""

    layout: Layout
    traces: dict[str, _Trace] = field(default_factory=dict)  # by family

    @classmethod
    def fit(cls, layout: Layout, X: NDArray, components: int = 5) -> Coordinates:
        """Learn so many principal components of each family of traces."""
        found = cls(layout)
        for family in layout.traces:
            part = X[:, layout.columns[family]]
            part = part[np.isfinite(part).any(axis=1)]
            if len(part) < 2:
                continue
            from sklearn.decomposition import PCA

            median = over_rows(np.nanmedian, part, 0.0)
            pca = PCA(min(components, len(part) - 1), svd_solver="full")
            pca.fit(np.where(np.isfinite(part), part, median))
            found.traces[family] = _Trace(median, pca.mean_, pca.components_)
        return found

    def of(self, X: NDArray) -> NDArray[np.float64]:
        """Shape (cells, coordinates), of features of shape (cells, features)."""
        parts = []
        for family, columns in self.layout.columns.items():
            part = np.asarray(X[:, columns], dtype=np.float64)
            if family not in self.layout.traces:
                parts.append(part)
            elif family in self.traces:
                parts.append(self.traces[family].of(part))
        return np.hstack(parts)

    @property
    def count(self) -> int:
        """Number of coordinates."""
        return sum(
            len(self.traces[family].components) if family in self.traces else len(columns)
            for family, columns in self.layout.columns.items()
            if family in self.traces or family not in self.layout.traces
        )

    @property
    def columns(self) -> NDArray[np.intp]:
        """The feature that each coordinate is of, in a layout without traces."""
        return np.concatenate(list(self.layout.columns.values()))

    def arrays(self) -> dict[str, NDArray]:
        """What was learnt, to be stored."""
        return {
            f"{number}.{name}": part
            for number, family in enumerate(self.layout.families)
            if family in self.traces
            for name, part in self.traces[family]._asdict().items()
        }

    @classmethod
    def of_arrays(cls, layout: Layout, arrays: Arrays) -> Coordinates:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        found = cls(layout)
        for number, (family, columns) in enumerate(layout.columns.items()):
            if family in layout.traces and f"{number}.components" in arrays:
                trace = _Trace(*(arrays[f"{number}.{name}"] for name in _Trace._fields))
                size = len(trace.components)
                for part, shape in zip(trace, ((), (), (size,)), strict=True):
                    require_array("components", part, (*shape, len(columns)))
                found.traces[family] = trace
        return found
