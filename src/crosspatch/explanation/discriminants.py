"""The plane in which a reference's classes lie farthest apart, and where one cell lies in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.models.reference import Reference


@dataclass(frozen=True)
class Plane:
    """Classes and a cell in two directions, in standard deviations within the classes.

    In this plane the normal distribution of every class is round, with unit variance.
    """

    classes: tuple[str, ...]
    centres: NDArray[np.float64]  # shape (classes, 2)
    cell: NDArray[np.float64]  # shape (2,)
    #: Share of the variance between the means of the classes that each direction shows.
    shares: tuple[float, float]
    measured: int  # numbers measured on the cell, all of which enter


def discriminant_plane(reference: Reference, cell: ArrayLike) -> Plane | None:
    """The linear discriminants of a reference over what was measured on a cell.

    Nothing is filled in: what the cell, shape (features,), lacks is taken out of the distributions
    of the classes as well, as in `Reference.distance`. So cells that lack different values have
    different planes. Every class counts alike. Where the classes differ in one direction only, the
    second one is that in which the cell is farthest from them. Fewer than two values make no plane.
    See Rao: The utilization of multiple measurements in problems of biological classification.
    J. R. Stat. Soc. B 10 (1948).
    """
    z = reference.coordinates(np.asarray(cell, dtype=np.float64)[None])[0]
    measured = np.isfinite(z)
    if measured.sum() < 2:
        return None
    factor = np.linalg.cholesky(reference.covariance_[np.ix_(measured, measured)])
    means = np.linalg.solve(factor, reference.means_[:, measured].T).T
    middle = means.mean(axis=0)
    between = means - middle
    here = np.linalg.solve(factor, z[measured]) - middle
    _, sizes, directions = np.linalg.svd(between, full_matrices=False)
    axes = directions[: min(2, int(np.sum(sizes > 1e-9 * max(sizes[0], 1e-300))))]
    if len(axes) < 2:
        rest = here - axes.T @ (axes @ here)
        if np.linalg.norm(rest) < 1e-9:
            rest = np.linalg.svd(np.vstack([axes, np.zeros_like(here)]))[2][len(axes)]
        axes = np.vstack([axes, rest / np.linalg.norm(rest)])[:2]
    centres = between @ axes.T
    # The sign of a direction means nothing; the class farthest out is put to the right and up.
    signs = np.sign(centres[np.abs(centres).argmax(axis=0), [0, 1]])
    signs[signs == 0] = 1.0
    variances = (centres**2).sum(axis=0) / max((between**2).sum(), 1e-300)
    shares = float(variances[0]), float(variances[1])
    classes = tuple(str(name) for name in reference.classes_)
    return Plane(classes, centres * signs, axes @ here * signs, shares, int(measured.sum()))
