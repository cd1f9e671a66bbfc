"""Few labelled cells, helped by cells without labels and by a second species.

The classes are normal distributions with one covariance, as in
`crosspatch.models.discriminant`. What few labelled cells do not determine comes from elsewhere:

- **The covariance** is an average, by degrees of freedom, of what the labelled cells have and of
  that within the types of the second species (of a multiple of the identity where there is none).
- **A class's mean** is expected at a + ρ · (its mean in the second species − the mean of those
  means), give or take t times the covariance. The common a, ρ and t maximise the likelihood of the
  labelled cells with the means integrated out (empirical Bayes); t divided by t plus what a mean of
  so few cells is uncertain is how far a mean follows its own cells.
- **Cells without labels** count 0.3 of a labelled one each, divided among the classes by how
  probable these are, in turn with the distributions (expectation and maximisation).

Without any label, the classes of the cells are first guessed by a strongly regularised logistic
regression on the second species, the means and spreads of both species balanced over classes.

The constants are those of a trial, or were chosen on mouse cells of another laboratory as the ones
to predict; what human cells shaped nevertheless is in docs/choices.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.models.arrays import softmax
from crosspatch.models.classifier import MaybeArray, require_same_classes, warn_without_source
from crosspatch.models.discriminant import LinearDiscriminant, log_priors
from crosspatch.models.gaussian import Gaussians
from crosspatch.models.physics import PhysicsInputs
from crosspatch.models.plain import Discriminant

#: Degrees of freedom that what is known of the covariance counts, and what is added to variances.
PRIOR_CELLS, RIDGE = 100.0, 0.05

#: What a cell without a label counts, in cells with one.
UNLABELLED_WEIGHT = 0.3

#: Strength of the data in the logistic regression that guesses without labels (scikit-learn's C).
GUESS_STRENGTH = 0.01

# Rounds of expectation and maximisation: of classes of cells without labels, of shares of the
# classes, and of the balance of moments.
_LEARNING, _SHARING, _BALANCING = 8, 20, 30


@dataclass(frozen=True)
class ClassMeans:
    """Where the means of the classes are expected: a + ρ · contrast, and how far from there."""

    contrasts: NDArray[np.float64]  # shape (classes, coordinates); of the second species, sum zero
    rho: float
    spread: float  # t, in units of the covariance
    noise: float  # covariance of labelled cells over the one that was assumed

    @classmethod
    def likeliest(
        cls,
        contrasts: NDArray[np.float64],
        means: NDArray[np.float64],
        counts: NDArray[np.float64],
        covariance: NDArray[np.float64],
        noise: float,
    ) -> ClassMeans:
        """The ρ and t under which means of so many cells are likeliest, a and them integrated out.

        ρ is not below zero: a second species that opposes is left alone.
        """
        from scipy.optimize import minimize_scalar

        factor = np.linalg.cholesky(covariance)
        seen, expected = (np.linalg.solve(factor, part.T) for part in (means, contrasts))

        def fitted(spread: float) -> tuple[float, float]:
            """ρ, and twice the negative logarithm of the likelihood."""
            variance = spread + noise / counts
            weights = 1 / variance
            left, right = (
                part - np.average(part, 1, weights)[:, None] for part in (seen, expected)
            )
            along = (weights * right**2).sum()
            rho = max(float((weights * left * right).sum() / along), 0.0) if along else 0.0
            misfit = float((weights * (left - rho * right) ** 2).sum())
            return rho, len(seen) * (np.log(variance).sum() + np.log(weights.sum())) + misfit

        found = minimize_scalar(
            lambda log: fitted(np.exp(log))[1], bounds=(-9.0, 4.0), method="bounded"
        )
        spread = float(np.exp(found.x))
        return cls(contrasts, fitted(spread)[0], spread, noise)

    def __call__(
        self, means: NDArray[np.float64], counts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The means of the classes, given those of so many cells."""
        variance = self.spread + self.noise / counts
        rest = means - self.rho * self.contrasts
        common = np.average(rest, axis=0, weights=1 / variance)
        follows = (self.spread / variance)[:, None]
        return common + self.rho * self.contrasts + follows * (rest - common)


@dataclass(frozen=True)
class _Cells:
    """Cells without gaps: missing values are as expected, whatever the class."""

    Z: NDArray[np.float64]  # shape (cells, coordinates)
    left_out: NDArray[np.float64]  # scatter that the expected values lack

    @classmethod
    def of(cls, Z: NDArray[np.float64], whole: Gaussians) -> _Cells:
        """Filled as the distribution of all cells, of whatever class, has them."""
        return cls(*whole.expected(Z, np.zeros(len(Z), dtype=np.intp)))


@dataclass(frozen=True)
class _Moments:
    """Of cells that belong to classes in part."""

    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    scatter: NDArray[np.float64]  # within classes, summed over cells

    @classmethod
    def of(cls, cells: _Cells, belongs: NDArray[np.float64]) -> _Moments:
        """``belongs`` is how much of a cell counts for a class, shape (cells, classes)."""
        counts = belongs.sum(axis=0)
        means = belongs.T @ cells.Z / counts[:, None]
        scatter = cells.left_out.copy()
        for mean, weights in zip(means, belongs.T, strict=True):
            rest = cells.Z - mean
            scatter += (rest * weights[:, None]).T @ rest
        return cls(counts, means, scatter)

    @property
    def freedom(self) -> float:
        return max(float(self.counts.sum()) - len(self.counts), 0.0)

    def covariance(self, prior: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Blended with one that is known, or with a multiple of the identity; never singular."""
        size = len(self.scatter)
        if prior is None:  # the inputs have a variance of one
            level = np.trace(self.scatter) / (self.freedom * size) if self.freedom else 1.0
            prior = level * np.eye(size)
        blended = (self.scatter + PRIOR_CELLS * prior) / (self.freedom + PRIOR_CELLS)
        return blended + RIDGE * np.eye(size)


@dataclass(eq=False, repr=False)
class UnlabelledDiscriminant(LinearDiscriminant):
    """A discriminant that learns from cells without labels as well.

    Attributes
    ----------
    class_means_ : ClassMeans
        What was found of the means before cells without labels were used.
    """

    def fit(  # type: ignore[override]
        self, X: ArrayLike, y: ArrayLike, unlabelled: MaybeArray = None
    ) -> UnlabelledDiscriminant:
        """Learn from cells with labels and, where given, without."""
        return self._learnt(*self._learnable(X, y), unlabelled, None)

    def _learnt(
        self, X: NDArray, y: NDArray, unlabelled: MaybeArray, source: Gaussians | None
    ) -> UnlabelledDiscriminant:
        self.classes_, codes = np.unique(y, return_inverse=True)
        pool = None if unlabelled is None else self._checked(unlabelled)
        inputs = PhysicsInputs.fit(self.layout_, X if pool is None else pool)
        Z, others = inputs.transform(X), inputs.transform(_others(X, pool))
        measured = np.asarray(np.isfinite(Z).any(axis=0))
        Z, others = Z[:, measured], others[:, measured]
        source = source and _part(source, measured)
        prior = None if source is None else source.covariance
        whole = _one_class(np.concatenate([Z, others]))
        cells, belongs = _Cells.of(Z, whole), np.eye(len(self.classes_))[codes]
        found = _Moments.of(cells, belongs)
        covariance = found.covariance(prior)
        noise = 1.0
        if found.freedom:
            within = np.trace(np.linalg.solve(covariance, found.scatter))
            noise = float(within / (found.freedom * len(covariance)))
        contrasts = np.zeros_like(found.means) if source is None else _contrasts(source)
        expected = ClassMeans.likeliest(contrasts, found.means, found.counts, covariance, noise)
        known = Gaussians(expected(found.means, found.counts), covariance)
        if len(others):
            steps = _Steps(_Cells.of(others, whole), prior, cells, belongs, expected)
            known = steps.taken(known)
        self.class_means_ = expected
        self._keep(inputs, known, measured, log_priors(codes, self.prior_power))
        return self

    def _keep(
        self,
        inputs: PhysicsInputs,
        known: Gaussians,
        measured: NDArray[np.bool_],
        priors: NDArray[np.float64],
    ) -> None:
        """The model, with a place for values that no cell had: they get no score."""
        means = np.zeros((len(known.means), len(measured)))
        covariance = np.eye(len(measured))
        means[:, measured] = known.means
        covariance[np.ix_(measured, measured)] = known.covariance
        known = Gaussians(means, covariance)
        self.model_ = Discriminant(inputs, known, priors, np.arange(len(means)))


@dataclass(eq=False, repr=False)
class InformedDiscriminant(UnlabelledDiscriminant):
    """The same, told by a second species where classes lie and how cells of a class vary."""

    def fit(  # type: ignore[override]
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_source: MaybeArray = None,
        y_source: MaybeArray = None,
        groups_source: MaybeArray = None,
        types_source: MaybeArray = None,
        unlabelled: MaybeArray = None,
    ) -> InformedDiscriminant:
        """Learn from both species; donors of the source are not used."""
        X, y = self._learnable(X, y)
        if X_source is None or y_source is None:
            warn_without_source(self)
            return self._learnt(X, y, unlabelled, None)
        require_same_classes(y, np.asarray(y_source))
        source, _ = self._source(X_source, y_source, types_source)
        return self._learnt(X, y, unlabelled, source)

    def without_labels(
        self,
        unlabelled: ArrayLike,
        X_source: ArrayLike,
        y_source: ArrayLike,
        groups_source: MaybeArray = None,
        types_source: MaybeArray = None,
    ) -> InformedDiscriminant:
        """Learn from labelled cells of the source and cells of the target without labels."""
        self.classes_, codes = np.unique(y_source, return_inverse=True)
        unlabelled = self._checked(unlabelled, fitting=True)
        source, theirs = self._source(X_source, y_source, types_source)
        inputs = PhysicsInputs.fit(self.layout_, unlabelled)
        Z = inputs.transform(unlabelled)
        measured = np.asarray(np.isfinite(Z).any(axis=0))
        Z, theirs, source = Z[:, measured], theirs[:, measured], _part(source, measured)
        cells = _Cells.of(Z, _one_class(Z))
        guessed = _guess(cells.Z, _Cells.of(theirs, _one_class(theirs)).Z, codes)
        steps = _Steps(cells, source.covariance)
        known = steps.taken(steps.learnt(guessed))
        even = np.full(len(self.classes_), -np.log(len(self.classes_)))
        self._keep(inputs, known, measured, even)
        return self

    def _source(
        self, X: ArrayLike, y: ArrayLike, types: MaybeArray
    ) -> tuple[Gaussians, NDArray[np.float64]]:
        """Distributions of the source's classes, and its cells as normal scores of its own.

        The covariance is that within types, or within classes where no types are given.
        """
        X = self._checked(X)
        Z = PhysicsInputs.fit(self.layout_, X).transform(X)
        codes = np.unique(y, return_inverse=True)[1]
        found = Gaussians.fit(Z, codes)
        if types is not None:
            within = Gaussians.fit(Z, np.unique(types, return_inverse=True)[1])
            found = Gaussians(found.means, within.covariance)
        unknown = ~np.isfinite(Z).any(axis=0)
        found.means[:, unknown] = 0.0
        found.covariance[unknown] = found.covariance[:, unknown] = 0.0
        found.covariance[unknown, unknown] = 1.0
        return found, Z


def _others(X: NDArray[np.float64], unlabelled: MaybeArray) -> NDArray[np.float64]:
    """The cells without labels that are not among those with one."""
    if unlabelled is None:
        return X[:0]
    cells = np.asarray(unlabelled, dtype=np.float64)
    labelled = {row.tobytes() for row in X.astype(np.float64)}
    return cells[[row.tobytes() not in labelled for row in cells]]


def _part(whole: Gaussians, columns: NDArray[np.bool_]) -> Gaussians:
    return Gaussians(whole.means[:, columns], whole.covariance[np.ix_(columns, columns)])


def _contrasts(source: Gaussians) -> NDArray[np.float64]:
    return source.means - source.means.mean(axis=0)


def _one_class(Z: NDArray[np.float64]) -> Gaussians:
    return Gaussians.fit(Z, np.zeros(len(Z), dtype=np.intp))


@dataclass(frozen=True)
class _Steps:
    """Cells without labels are divided among classes, and the classes learnt of them, in turn."""

    others: _Cells
    prior: NDArray[np.float64] | None  # of the covariance
    labelled: _Cells | None = None
    belongs: NDArray[np.float64] | None = None  # the classes of those
    #: The means of classes from those of cells and their number, where more is known of them.
    expected: ClassMeans | None = None

    def taken(self, known: Gaussians) -> Gaussians:
        """The distributions after all steps."""
        n_classes = len(known.means)
        shares = np.full(n_classes, 1 / n_classes)
        for _ in range(_LEARNING):
            squared = known.squared_distances(self.others.Z)
            belongs, shares = _divided(softmax(-squared / 2), shares)
            known = self.learnt(belongs)
        return known

    def learnt(self, divided: NDArray[np.float64]) -> Gaussians:
        """The distributions from cells divided among the classes, shape (cells, classes)."""
        cells, belongs = self.others, UNLABELLED_WEIGHT * divided
        left_out = UNLABELLED_WEIGHT * cells.left_out
        Z = cells.Z
        if self.labelled is not None:
            Z = np.concatenate([self.labelled.Z, Z])
            belongs = np.concatenate([self.belongs, belongs])
            left_out = left_out + self.labelled.left_out
        found = _Moments.of(_Cells(Z, left_out), belongs)
        means = found.means
        if self.expected is not None:
            means = self.expected(means, found.counts)
        return Gaussians(means, found.covariance(self.prior))


def _divided(
    evidence: NDArray[np.float64], shares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How cells are divided among the classes by the evidence of each, and the classes' shares.

    The shares make themselves plausible; none falls below a tenth of an equal one.
    """
    for _ in range(_SHARING):
        belongs = evidence * shares
        belongs /= belongs.sum(axis=1, keepdims=True)
        shares = 0.9 * belongs.mean(axis=0) + 0.1 / len(shares)
    return belongs, shares


def _guess(
    Z: NDArray[np.float64], theirs: NDArray[np.float64], codes: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Probable classes of cells, shape (cells, classes), from labelled cells of a second species.

    Both are brought to a mean of zero and a spread of one with all classes counted alike. Which of
    the target's cells are of which class is not known, so classes and moments are found in turn.
    """
    from sklearn.linear_model import LogisticRegression

    n_classes = int(codes.max()) + 1
    mean, spread = _balanced(theirs, np.eye(n_classes)[codes])
    model = LogisticRegression(C=GUESS_STRENGTH, class_weight="balanced", max_iter=500)
    model.fit((theirs - mean) / spread, codes)
    mean, spread = Z.mean(axis=0), np.maximum(Z.std(axis=0), 1e-9)
    shares = np.full(n_classes, 1 / n_classes)
    for _ in range(_BALANCING):
        belongs, shares = _divided(model.predict_proba((Z - mean) / spread), shares)
        moments = _balanced(Z, belongs)
        mean, spread = (mean + moments[0]) / 2, (spread + moments[1]) / 2
    return belongs


def _balanced(
    Z: NDArray[np.float64], belongs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and spread of every coordinate with all classes counted alike."""
    weights = (belongs / belongs.sum(axis=0)).mean(axis=1)
    mean = weights @ Z
    return mean, np.maximum(np.sqrt(weights @ (Z - mean) ** 2), 1e-9)
