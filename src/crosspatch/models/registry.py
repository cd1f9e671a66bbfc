"""Models by name: what each is, whether it learns from a second species, how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from crosspatch.errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from crosspatch.models.calibrated import CalibratedClassifier
    from crosspatch.models.estimator import MaybeLayout

#: Builds a fresh, unfitted classifier from a layout, a seed and a device.
Builder = Callable[["MaybeLayout", int | None, str], "BaseEstimator"]


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be asked for by name."""

    name: str
    about: str  # what it is, in a line
    build: Builder
    needs_source: bool = False  # whether `fit` takes the cells of a second species
    #: Whether it takes the cortical layer of cells, where it is known, beside what is measured.
    uses_layer: bool = False
    uses_device: bool = False  # whether it trains on the device that is chosen
    #: Whether many of it can be trained at once (`crosspatch.models.stacked`).
    stacks: bool = False
    takes_types: bool = False  # whether `fit` takes the types of the second species' cells
    #: Whether it learns by itself to do without features (`crosspatch.models.absence`).
    takes_gaps: bool = False
    #: Whether what it learns of the second species alone can be shared (`pretrain`).
    pretrains: bool = False
    #: Builders with other settings, from which inner folds choose when a model is trained to be
    #: used (`build_calibrated`); empty where there is nothing to choose.
    settings: tuple[tuple[str, Builder], ...] = ()


def _made_by(place: str, *takes: str, **settings: bool | float) -> Builder:
    """What is at this place in the room, given some of ``layout``, ``random_state``, ``device``.

    torch and others take seconds: they are imported when a model is built, not when models are
    listed.
    """
    module, name = place.split(".")

    def build(layout: MaybeLayout, seed: int | None, device: str) -> BaseEstimator:
        given = {"layout": layout, "random_state": seed, "device": device}
        make = getattr(import_module(f"crosspatch.models.{module}"), name)
        return make(**{parameter: given[parameter] for parameter in takes}, **settings)

    return build


_SEEDED = ("layout", "random_state")
_spca_forest = _made_by("forest.build_spca_forest", *_SEEDED)
_forest = _made_by("forest.build_forest", "random_state")
_boosting = partial(_made_by, "boosting.BoostedTrees", *_SEEDED)
_lda = _made_by("discriminant.LinearDiscriminant", "layout")
_vote = _made_by("discriminant.VoteClassifier", *_SEEDED)
_logistic = _made_by("kernel.build_logistic", *_SEEDED)
_svm = _made_by("kernel.CalibratedSVC", *_SEEDED)
_sequence = partial(_made_by, "sequence_classifier.build_sequence", *_SEEDED, "device")
_smote, _arcface = _sequence(oversample=True), _sequence(oversample=True, arcface=True)
_finetune = _made_by("transfer.FinetuneClassifier", *_SEEDED, "device")
_joint = _made_by("transfer.JointClassifier", *_SEEDED, "device")
_unlabelled = _made_by("informed.UnlabelledDiscriminant", "layout")
_informed = _made_by("informed.InformedDiscriminant", "layout")

#: LightGBM's own settings, and a slower learner with smaller trees (docs/choices.md).
_BOOSTING_SETTINGS = (
    ("31 leaves", _boosting()),
    (
        "15 leaves",
        _boosting(n_estimators=200, learning_rate=0.05, num_leaves=15, min_child_samples=40),
    ),
)

_network = partial(ModelEntry, uses_device=True, stacks=True)
_physics = partial(ModelEntry, takes_gaps=True, uses_layer=True)
_transfer = partial(_network, needs_source=True)

_MODELS = {
    entry.name: entry
    for entry in (
        ModelEntry("spca-forest", "sparse PCA by family, then a random forest", _spca_forest),
        ModelEntry("forest", "random forest on the features", _forest),
        ModelEntry(
            "boosting",
            "gradient-boosted trees (LightGBM)",
            _boosting(),
            uses_layer=True,
            settings=_BOOSTING_SETTINGS,
        ),
        ModelEntry("logistic", "multinomial logistic regression", _logistic),
        ModelEntry("svm", "support vector machine, radial kernel", _svm),
        _network("bilstm", "BiLSTM over families, last step", _sequence(attention=False)),
        _network("bilstm-attention", "BiLSTM with attention", _sequence()),
        _network("bilstm-attention-smote", "BiLSTM with attention, SMOTE", _smote),
        _network("arcface", "BiLSTM with attention, SMOTE, ArcFace", _arcface, stacks=False),
        _transfer("finetune", "pretrained on mouse, then fine-tuned", _finetune, pretrains=True),
        _transfer("joint", "mouse and human jointly, then fine-tuned", _joint),
        _physics("lda", "shrunk linear discriminant on physics inputs", _lda),
        _physics("lda-unlabelled", "lda that cells without labels can help too", _unlabelled),
        _physics(
            "lda-mouse",
            "lda-unlabelled that also knows what mouse cells tell",
            _informed,
            needs_source=True,
            takes_types=True,
            uses_layer=False,  # the source has none
        ),
        _physics("vote", "equal vote of lda and small boosted trees", _vote),
    )
}

MODEL_NAMES = tuple(_MODELS)


def model_entry(name: str) -> ModelEntry:
    """The model of this name; ModelError if there is none."""
    if name not in _MODELS:
        raise ModelError(f"no model '{name}'; choose from: {', '.join(MODEL_NAMES)}")
    return _MODELS[name]


def estimator(
    name: str,
    layout: MaybeLayout = None,
    *,
    calibrated: bool = False,
    random_state: int | None = 0,
    device: str = "cpu",
) -> BaseEstimator:
    """A model as a scikit-learn estimator, not fitted.

    It takes part in pipelines, grid searches and cross-validation like any other; NaN stands for
    what was not measured. docs/scikit-learn.md shows it.

    Parameters
    ----------
    name : str
        A model that ``crosspatch models`` lists.
    layout : Layout or str, optional
        What the columns are: the name of a layout that is shipped, such as ``shared``, or a
        `crosspatch.features.layouts.Layout`. Columns of a table are then matched by name, in any
        order. By default nothing is known of them, and each is a family of its own.
    calibrated : bool
        Whether the model is trained as `crosspatch.train` does: taught to do without features,
        and with calibrated probabilities, prediction sets and the test for cells unlike all others
        (``judge``).
    random_state : int, optional
    device : str
        Where networks are trained.

    Returns
    -------
    estimator
        With ``fit(X, y)``, and ``groups`` for donors where it holds cells back.

    Raises
    ------
    ModelError, LayoutError
        If there is no such model or layout.

    Examples
    --------
    >>> import crosspatch
    >>> cohort = crosspatch.load_cohort("human.h5ad")
    >>> model = crosspatch.estimator("lda", "shared")
    >>> model.fit(cohort.to_df(), cohort.obs["subclass"]).classes_.tolist()
    ['Lamp5', 'Pvalb', 'Sst', 'Vip']
    """
    from crosspatch.models.estimator import known_layout

    entry = model_entry(name)
    known_layout(layout)  # an unknown one is refused now, not when it is fitted
    if calibrated:
        return build_calibrated(entry, layout, random_state, device)
    return entry.build(layout, random_state, device)


def build_calibrated(
    entry: ModelEntry, layout: MaybeLayout, seed: int | None, device: str = "cpu", jobs: int = 1
) -> CalibratedClassifier:
    """The model as it is trained to be used on new cells.

    It learns to do without families, its settings are chosen on inner folds, and its
    probabilities are calibrated. ``jobs`` is the number of inner fits at a time.
    """
    from crosspatch.models.absence import FamilyDropout
    from crosspatch.models.calibrated import CalibratedClassifier
    from crosspatch.models.estimator import known_layout

    # Copies cost time: networks and traces get by with fewer.
    known = known_layout(layout)
    copies = 2 if entry.uses_device or (known is not None and known.traces) else 6
    taught = partial(FamilyDropout, layout=layout, copies=copies, random_state=seed)
    builders = entry.settings or (("default", entry.build),)
    candidates = [(name, build(layout, seed, device)) for name, build in builders]
    if not entry.takes_gaps:
        candidates = [(name, taught(model)) for name, model in candidates]
    return CalibratedClassifier(candidates, layout, random_state=seed, jobs=jobs)
