"""Calibrated probabilities and sets from held-back cells, by what their features tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import ModelError
from crosspatch.models.arrays import Arrays, require_array, softmax
from crosspatch.models.verdicts import COVERAGE

#: Cells are calibrated apart by how much their features tell of the class: so many groups, with as
#: many held-back cells in each.
GROUPS = 5

# How strongly the bias of a class is drawn to none: as much as costs many cells no log loss. What
# few cells say of the shares of rare classes is mostly chance (docs/choices.md).
_PULL = 0.01

# How much less than over all cells a class may be covered in sets whose coverage is over all cells.
_SLACK = 0.03

# Distances kept of each group.
_GRID = 1000


class Held(NamedTuple):
    """What models said of cells held back from them, complete and with features taken away.

    Arrays have shape (predictions,), but for `log_p`.
    """

    rows: NDArray[np.intp]  # row of the cell
    fold: NDArray[np.intp]
    whole: NDArray[np.bool_]  # whether the cell had all that was measured
    information: NDArray[np.float64]  # see `crosspatch.models.reference.Compared`
    codes: NDArray[np.intp]  # True class
    donors: NDArray[np.intp]
    #: Shape (predictions, classes). Logarithm of the probabilities, not calibrated.
    log_p: NDArray[np.float64]
    distance: NDArray[np.float64]  # from the reference

    @classmethod
    def joined(cls, parts: Sequence[Held]) -> Held:
        """All of several folds."""
        return cls._make(np.concatenate(each) for each in zip(*parts, strict=True))

    def where(self, chosen: NDArray[np.bool_]) -> Held:
        """Some of them."""
        return Held._make(part[chosen] for part in self)


@dataclass
class Calibration:
    """From the probabilities of a model to calibrated ones, sets, and p-values.

    Fitted on cells held back from the model. Every donor has the same weight, so that what holds
    on average holds for a cell of a new donor.
    """

    #: Shape (groups,). What the features of the cells of each group tell of the class, at least.
    information: NDArray[np.float64]
    temperature: NDArray[np.float64]  # shape (groups,)
    bias: NDArray[np.float64]  # shape (groups, classes)
    #: Shape (groups, classes). A class whose calibrated probability is at least this is in the set.
    #: So chosen that the coverage holds over all cells, and 0.03 less for those of every class.
    limit: NDArray[np.float64]
    #: Shape (groups, classes). The same, so chosen that the coverage holds for the cells of every
    #: class, whatever the composition of a batch; sets are larger.
    class_limit: NDArray[np.float64]
    #: Shape (groups, quantiles). Quantiles of the distance of the reference's own cells.
    distances: NDArray[np.float64]
    #: Shape (groups,). Effective number of these cells, given the weights of their donors (Kish
    #: 1965).
    size: NDArray[np.float64]

    @classmethod
    def fit(cls, held: Held, coverage: float = COVERAGE) -> Calibration:
        """Learn all of it; the coverage is the share of cells whose class is to be in their set."""
        information = np.quantile(held.information, np.arange(GROUPS) / GROUPS)
        groups = group_of(held.information, information)
        parts: list[tuple[float | NDArray[np.float64], ...]] = []
        for group in range(GROUPS - 1, -1, -1):
            # Empty where cells have as much as those of the next one: all are alike.
            here = groups == group
            parts.insert(0, _fit_group(held.where(here), coverage) if here.any() else parts[0])
        return cls(information, *(np.array(part) for part in zip(*parts, strict=True)))

    @property
    def least(self) -> float:
        """How much features must tell for a class to be given: the least that was tried."""
        return float(self.information[0])

    def probabilities(
        self, log_p: NDArray[np.float64], information: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (cells, classes)."""
        group = group_of(information, self.information)
        scaled = log_p / self.temperature[group][:, None] + self.bias[group]
        return softmax(scaled)

    def limits(
        self, information: NDArray[np.float64], *, by_class: bool = False
    ) -> NDArray[np.float64]:
        """How probable a class must be to be in a cell's prediction set, shape (cells, classes)."""
        limit = self.class_limit if by_class else self.limit
        return limit[group_of(information, self.information)]

    def p_values(
        self, distance: NDArray[np.float64], information: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of the reference's own cells that are as far from it, shape (cells,).

        The cell itself counts as one more that is as far; so p is at least 1 / (n + 1).
        """
        p = np.full(len(distance), np.nan)
        groups = group_of(information, self.information)
        for group, grid in enumerate(self.distances):
            here = (groups == group) & np.isfinite(distance)
            farther = 1 - np.searchsorted(grid, distance[here], side="left") / len(grid)
            p[here] = (1 + self.size[group] * farther) / (1 + self.size[group])
        return p

    @classmethod
    def of_arrays(cls, classes: int, arrays: Arrays) -> Calibration:
        """The fields by name, as they were stored, checked; a ModelError if they do not fit."""
        found = cls(**{each.name: arrays[each.name] for each in fields(cls)})
        groups = GROUPS
        for part in (found.information, found.temperature, found.size):
            require_array("calibration", part, (groups,))
        for part in (found.bias, found.limit, found.class_limit):
            require_array("calibration", part, (groups, classes))
        require_array("calibration", found.distances, (groups, _GRID))
        if min(found.temperature.min(), found.size.min()) <= 0:
            raise ModelError("its calibration divides by zero or less")
        if (np.diff(found.information) < 0).any():
            raise ModelError("its calibration's groups are not in order")
        return found


def _fit_group(held: Held, coverage: float) -> tuple[float | NDArray[np.float64], ...]:
    """The fields of `Calibration` after the first, in their order, for one group of cells."""
    n_classes = held.log_p.shape[1]
    temperature, bias = _scaling(held.log_p, held.codes, donor_weights(held.donors))
    p = softmax(held.log_p / temperature + bias)
    true = p[np.arange(len(p)), held.codes]
    of_class = [held.codes == code for code in range(n_classes)]
    class_limit = [conformal_limit(true[here], held.donors[here], coverage) for here in of_class]
    least = np.array([_least(true[here], held.donors[here], coverage) for here in of_class])
    already = np.where(true >= least[held.codes], 1.0, true)
    limit = np.minimum(conformal_limit(already, held.donors, coverage), least)
    known = held.where(np.isfinite(held.distance))
    distances = weighted_quantiles(known.distance, donor_weights(known.donors), _GRID)
    # Copies of a cell are not cells more.
    cells = np.unique(known.rows, return_index=True)[1]
    size = 1 / np.sum(donor_weights(known.donors[cells]) ** 2)
    return temperature, bias, limit, np.array(class_limit), distances, size


def _least(p: NDArray[np.float64], donors: NDArray, coverage: float) -> float:
    """The probability that nearly this share of a class's held-back cells reach.

    A guard against neglect, no promise for a new donor, which would make the sets of classes with
    few donors large.
    """
    count = len(np.unique(donors))
    share = (coverage - _SLACK) * count / (count + 1)
    return conformal_limit(p, donors, share) if count else np.inf


def group_of(information: NDArray[np.float64], least: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the group that each cell is in, by what its features tell."""
    return np.maximum(np.searchsorted(least, information, side="right") - 1, 0)


def donor_weights(donors: NDArray) -> NDArray[np.float64]:
    """Weights of cells that give every donor the same; they sum to one."""
    _, number, count = np.unique(donors, return_inverse=True, return_counts=True)
    return 1 / (count[number] * len(count))


def conformal_limit(p: NDArray[np.float64], donors: NDArray, coverage: float) -> float:
    """The probability that this share of cells of a new donor reach in their own class.

    Given are the probability of the true class and the donor of every cell. Donors are
    exchangeable, their cells are not: the distribution is that of a cell drawn from a donor drawn
    at random, and the new donor counts as one more who may lie anywhere. Zero (every cell reaches
    it) where there are too few donors to say.

    See Dunn, Wasserman, Ramdas: Distribution-free prediction sets for two-layer hierarchical
    models. J. Am. Stat. Assoc. 118 (2023), pooling of distributions.
    """
    if not len(p):
        return 0.0
    n_donors = len(np.unique(donors))
    weights = donor_weights(donors) * n_donors / (n_donors + 1)
    order = np.argsort(-p, kind="stable")
    reached = np.cumsum(weights[order]) >= coverage - 1e-12
    return float(p[order][np.argmax(reached)]) if reached.any() else 0.0


def weighted_quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """So many quantiles of values whose weights sum to one, in the middle of equal shares."""
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    wanted = (np.arange(count) + 0.5) / count
    return values[order][np.minimum(np.searchsorted(share, wanted), len(values) - 1)]


def _scaling(
    log_p: NDArray[np.float64], codes: NDArray[np.intp], weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Temperature and a bias for every class, by weighted log loss (Guo et al., ICML 2017)."""
    from scipy.optimize import minimize  # to learn takes more than to judge
    from scipy.special import log_softmax

    n_classes = log_p.shape[1]
    true = np.eye(n_classes)[codes]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, bias = np.exp(parameters[0]), parameters[1:]
        log_q = log_softmax(slope * log_p + bias, axis=1)
        wrong = (np.exp(log_q) - true) * weights[:, None]
        value = -(weights[:, None] * true * log_q).sum() + _PULL * (bias**2).sum()
        gradient = np.concatenate(
            [[slope * (wrong * log_p).sum()], wrong.sum(axis=0) + 2 * _PULL * bias]
        )
        return float(value), gradient

    found = minimize(loss, np.zeros(1 + n_classes), jac=True, method="L-BFGS-B")
    return float(np.exp(-found.x[0])), found.x[1:] - found.x[1:].mean()
