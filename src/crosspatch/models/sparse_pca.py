"""Sparse PCA with a given number of non-zero loadings (Zou, Hastie and Tibshirani 2006).

scikit-learn's `SparsePCA` minimises a different, dictionary-learning objective with a penalty in
place of the number of non-zero loadings, and so cannot reproduce the published components. The
regression step here is scikit-learn's own LARS.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path_gram
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from crosspatch.errors import ModelError
from crosspatch.models.estimator import CellEstimator, MaybeLayout
from crosspatch.models.missing import over_rows


@dataclass(eq=False, repr=False)
class SparsePCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Sparse principal components of one family.

    Every loading vector solves the elastic net min ‖Xα − Xβ‖² + λ‖β‖² + λ₁‖β‖₁, where λ₁ is the
    smallest that leaves the wanted number of non-zero loadings; α and β are refined in turn.

    Attributes
    ----------
    mean_, scale_ : array, shape (features,)
    components_ : array, shape (components, features)
        Loadings of unit length; the sign is arbitrary, the largest loading is made positive.
    adjusted_variance_ratio_ : array, shape (components,)
        Share of the variance each component explains beyond those before it: squared diagonal of
        R in the QR decomposition of the scores (section 3.4 of the paper).
    n_iter_ : int

    References
    ----------
    Zou, Hastie and Tibshirani: Sparse principal component analysis. Journal of Computational and
    Graphical Statistics 15 (2006).
    """

    #: Non-zero loadings of each component; its length is the number of components.
    n_nonzero: Sequence[int] = (1,)
    _: KW_ONLY
    #: Whether features are divided by their standard deviation, as for features of unlike units.
    scale: bool = False
    #: λ; the default is that of the R package elasticnet 1.3, which the Cell paper used. Infinite
    #: gives the paper's way for data with more features than cells (section 4.2): loadings are
    #: soft-thresholded, no regression is solved.
    ridge: float = 1e-6
    max_iter: int = 200
    tol: float = 1e-3  # largest change of a normalised loading at which the iteration stops

    def fit(self, X: ArrayLike, y: object = None) -> SparsePCA:
        """Find the components of cells without missing values, no more than dimensions."""
        data = validate_data(self, X, dtype=np.float64)
        n_components = len(self.n_nonzero)
        if not 0 < n_components <= min(data.shape):
            raise ModelError(
                f"sparse PCA of {data.shape[0]} cells and {data.shape[1]} features cannot give "
                f"{n_components} components"
            )
        self.mean_ = data.mean(axis=0)
        deviation = data.std(axis=0)
        self.scale_ = np.where((deviation > 0) & self.scale, deviation, 1.0)
        data = (data - self.mean_) / self.scale_
        gram = data.T @ data
        total = float(np.trace(gram))
        alpha = np.linalg.svd(data, full_matrices=False)[2][:n_components].T
        # LARS warns where features are all but collinear, as neighbouring points of a trace are.
        with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
            warnings.simplefilter("ignore", ConvergenceWarning)
            beta = self._regress(gram, alpha)
            self.n_iter_, change = 0, np.inf
            while self.n_iter_ < self.max_iter and change > self.tol:
                left, _, right = np.linalg.svd(gram @ beta, full_matrices=False)
                alpha = left @ right
                previous, beta = beta, self._regress(gram, alpha)
                change = np.abs(_unit_length(beta) - _unit_length(previous)).max()
                self.n_iter_ += 1
        beta = _unit_length(beta)
        largest = beta[np.abs(beta).argmax(axis=0), np.arange(n_components)]
        beta = beta * np.where(largest < 0, -1.0, 1.0)
        self.components_ = beta.T
        r = np.linalg.qr(data @ beta, mode="r")
        self.adjusted_variance_ratio_ = np.diag(r) ** 2 / total if total > 0 else np.zeros(len(r))
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores of cells on the components, shape (cells, components)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, ensure_min_samples=0)
        return (X - self.mean_) / self.scale_ @ self.components_.T

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _regress(self, gram: NDArray, alpha: NDArray) -> NDArray[np.float64]:
        """Elastic net of every component, shape (features, components)."""
        wanted = np.minimum(self.n_nonzero, len(gram)).tolist()
        targets = (gram @ alpha[:, k] for k in range(len(wanted)))
        if np.isinf(self.ridge):
            loadings = list(map(_thresholded, targets, wanted))
        else:
            ridged = gram + self.ridge * np.eye(len(gram))
            loadings = [_first_with(ridged, *each) for each in zip(targets, wanted, strict=True)]
        return np.stack(loadings, axis=1)


def _unit_length(beta: NDArray) -> NDArray[np.float64]:
    length = np.linalg.norm(beta, axis=0)
    return beta / np.where(length > 0, length, 1.0)


def _thresholded(target: NDArray, n_nonzero: int) -> NDArray[np.float64]:
    """Soft-threshold so that this many coefficients stay."""
    size = np.sort(np.abs(target))[::-1]
    limit = size[n_nonzero] if n_nonzero < len(size) else 0.0
    return np.sign(target) * np.maximum(np.abs(target) - limit, 0.0)


def _first_with(gram: NDArray, target: NDArray, n_nonzero: int) -> NDArray[np.float64]:
    """The first point of the lasso path with this many non-zero coefficients.

    The ridge is in `gram`: an elastic net is a lasso with it on the diagonal. The scale of
    `target`, which the paper's augmented form changes, does not alter the direction.
    """
    # A variable can leave the path again, so that it takes more steps than variables.
    for steps in (n_nonzero, 2 * n_nonzero, 50 * len(gram)):
        path = lars_path_gram(
            target, gram, n_samples=1, max_iter=steps, alpha_min=0, method="lasso"
        )[2]
        reached = np.flatnonzero((path != 0).sum(axis=0) >= n_nonzero)
        if len(reached):
            return path[:, reached[0]]
        if path.shape[1] <= steps:  # the path ended: no more variables can enter
            break
    return path[:, -1]


@dataclass(frozen=True)
class FamilyComponents:
    """How the components of one family are found."""

    n_nonzero: tuple[int, ...] = ()  # Non-zero loadings of each component; empty for ordinary PCA
    n_components: int = 0  # number of components of an ordinary PCA; otherwise ignored
    #: Positions of the family that are used, as half-open ranges; all where it is empty or the
    #: family is too short to have them.
    uses: tuple[tuple[int, int], ...] = ()
    of: str = ""  # family that this one is derived from; empty if it is in the layout itself
    #: Positions of a step: each step of a derived family is divided by its maximum.
    per_step: int = 0

    def take(self, part: NDArray) -> NDArray:
        """The used positions of a family, shape (cells, positions)."""
        if self.per_step:
            steps = part.reshape(len(part), -1, self.per_step)
            with np.errstate(invalid="ignore", divide="ignore"):
                part = (steps / steps.max(axis=2, keepdims=True)).reshape(part.shape)
            part = np.where(np.isfinite(part), part, np.nan)
        if self.uses and part.shape[1] >= self.uses[-1][1]:
            part = part[:, np.concatenate([np.arange(*span) for span in self.uses])]
        return part


@dataclass(frozen=True)
class SparsePCASettings:
    """Sparse PCA of all families."""

    #: Family to its components; families that are not listed are treated as scalars of unlike
    #: units: features scaled, as many components as ordinary PCA has above `min_variance`,
    #: `scalar_nonzero` of all loadings non-zero.
    families: Mapping[str, FamilyComponents] = field(default_factory=dict)
    listed_only: bool = False  # whether families that are not listed are left out instead
    # Chosen on mouse: 0.5 is better than 1 (docs/choices.md).
    scalar_nonzero: float = 0.5
    # Scalars converge slowly and gain nothing after this (docs/choices.md).
    scalar_max_iter: int = 30
    # R's elasticnet 1.3. Families with more features than cells have an infinite one: regressions
    # would pass through thousands of steps among features that the cells cannot tell apart.
    ridge: float = 1e-6
    # Components that explain less are left out (Gouwens et al. 2020).
    min_variance: float = 0.01


@dataclass(eq=False, repr=False)
class FamilySparsePCA(TransformerMixin, CellEstimator):
    """Sparse PCA of every family; kept components z-scored and joined.

    Missing features of a family that is there are filled with the median of the training cells.
    Where a whole family is absent, its components are NaN: absent, not average.

    Attributes
    ----------
    names_ : list of str
        Name of every joined component, ``family[k]``.
    """

    _SETTINGS: ClassVar = {"settings": SparsePCASettings}

    layout: MaybeLayout = None
    settings: SparsePCASettings | None = None

    def fit(self, X: ArrayLike, y: object = None) -> FamilySparsePCA:
        """Fit every family on the cells that have it; ``X`` is NaN where missing."""
        X = self._checked(X, fitting=True).astype(np.float64)
        settings = self.settings or SparsePCASettings()
        self.fits_: dict[str, FamilyFit] = {}
        for family in self._families(settings):
            part = self._part(X, family)
            part = part[np.isfinite(part).any(axis=1)]
            if len(part) >= 2 and (fit := _fit_family(part, family, settings)) is not None:
                self.fits_[family] = fit
        if not self.fits_:
            raise ModelError("sparse PCA: no family is present in at least two training cells")
        self.names_ = [
            f"{family}[{k}]" for family, fit in self.fits_.items() for k in np.flatnonzero(fit.kept)
        ]
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Joined, z-scored components, shape (cells, components); NaN for absent families."""
        check_is_fitted(self, "fits_")
        X = self._checked(X).astype(np.float64)
        return np.hstack([fit.scores(self._part(X, family)) for family, fit in self.fits_.items()])

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the components that `transform` gives."""
        check_is_fitted(self, "fits_")
        _check_feature_names_in(self, input_features)
        return np.array(self.names_, dtype=object)

    def _families(self, settings: SparsePCASettings) -> list[str]:
        """Families of the layout, then those derived from them."""
        listed, families = settings.families, self.layout_.families
        here = [family for family in families if family in listed or not settings.listed_only]
        derived = [family for family, given in listed.items() if given.of in families]
        return here + [family for family in derived if family not in here]

    def _part(self, X: NDArray, family: str) -> NDArray:
        given = (self.settings or SparsePCASettings()).families.get(family, FamilyComponents())
        return given.take(X[:, self.layout_.columns[given.of or family]])


@dataclass
class FamilyFit:
    """The sparse PCA of one family, fitted."""

    median: NDArray
    use: NDArray[np.bool_]  # features with any variation
    pca: SparsePCA
    kept: NDArray[np.bool_]  # components that explain enough
    mean: NDArray
    deviation: NDArray

    def scores(self, part: NDArray) -> NDArray:
        """Z-scored components of cells, NaN where the family is absent."""
        filled = np.where(np.isfinite(part), part, self.median)
        scores = np.asarray(self.pca.transform(filled[:, self.use]))[:, self.kept]
        scores = (scores - self.mean) / self.deviation
        scores[~np.isfinite(part).any(axis=1)] = np.nan
        return scores


def _fit_family(part: NDArray, family: str, settings: SparsePCASettings) -> FamilyFit | None:
    median = over_rows(np.nanmedian, part, 0.0)
    filled = np.where(np.isfinite(part), part, median)
    use = filled.std(axis=0) > 0
    if not use.any():
        return None
    filled = filled[:, use]
    width, limit = filled.shape[1], min(filled.shape)
    given = settings.families.get(family)
    if given is None:
        # Components with next to no variance keep the iteration from converging.
        explained = PCA().fit(StandardScaler().fit_transform(filled)).explained_variance_ratio_
        n_components = int(np.sum(explained >= settings.min_variance))
        n_nonzero = (max(1, round(settings.scalar_nonzero * width)),) * n_components
    elif given.n_nonzero:
        n_nonzero = tuple(min(n, width) for n in given.n_nonzero[:limit])
    else:
        # With every loading non-zero and a vanishing ridge the solution is ordinary PCA.
        n_nonzero = (width,) * min(limit, given.n_components)
    scalar = given is None
    max_iter = settings.scalar_max_iter if scalar else 200
    ridge = np.inf if given is not None and len(filled) < width else settings.ridge
    pca = SparsePCA(n_nonzero, scale=scalar, ridge=ridge, max_iter=max_iter).fit(filled)
    kept = pca.adjusted_variance_ratio_ >= settings.min_variance
    if not kept.any():
        return None
    scores = np.asarray(pca.transform(filled))[:, kept]
    deviation = scores.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return FamilyFit(median, use, pca, kept, scores.mean(axis=0), deviation)
