"""Models by name: what each is, whether it learns from a second species, how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout

if TYPE_CHECKING:
    from crosspatch.models.calibrated import CalibratedClassifier

#: Builds a fresh, unfitted classifier from a layout, a seed and a device.
Builder = Callable[[Layout, int | None, str], Any]


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be asked for by name."""

    name: str
    #: What it is, in a line.
    about: str
    build: Builder
    #: Whether `fit` takes the cells of a second species.
    needs_source: bool = False
    #: Whether it trains on the device that is chosen.
    uses_device: bool = False
    #: Builders with other settings, from which inner folds choose when a model is trained to be
    #: used (`build_calibrated`); empty where there is nothing to choose.
    settings: tuple[tuple[str, Builder], ...] = ()


# torch, LightGBM and the rest are imported when a model is built, not when models are listed.


def _forest(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.forest import build_forest

    return build_forest(seed)


def _spca_forest(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.forest import build_spca_forest

    return build_spca_forest(layout, seed)


def _boosting(**settings: Any) -> Builder:
    def build(layout: Layout, seed: int | None, device: str) -> Any:
        from crosspatch.models.boosting import BoostingSettings, build_boosting

        return build_boosting(seed, BoostingSettings(**settings))

    return build


def _vote(**settings: Any) -> Builder:
    def build(layout: Layout, seed: int | None, device: str) -> Any:
        from sklearn.ensemble import VotingClassifier

        members = [
            ("boosting", _boosting(**settings)(layout, seed, device)),
            ("logistic", _logistic(layout, seed, device)),
        ]
        return VotingClassifier(members, voting="soft")

    return build


#: LightGBM's own settings, and a slower learner with smaller trees (docs/choices.md).
_BOOSTING_SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("31 leaves", {}),
    ("15 leaves", {"trees": 200, "learning_rate": 0.05, "leaves": 15, "min_cells_in_leaf": 40}),
)


def _logistic(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.kernel import build_logistic

    return build_logistic(layout, seed)


def _svm(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.kernel import CalibratedSVC

    return CalibratedSVC(layout, random_state=seed)


def _sequence(**options: Any) -> Builder:
    def build(layout: Layout, seed: int | None, device: str) -> Any:
        from crosspatch.models.sequence import SequenceSettings
        from crosspatch.models.sequence_classifier import SequenceClassifier

        network = SequenceSettings(attention=options.get("attention", True))
        more = {name: value for name, value in options.items() if name != "attention"}
        return SequenceClassifier(layout, network=network, random_state=seed, device=device, **more)

    return build


def _finetune(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.transfer import FinetuneClassifier

    return FinetuneClassifier(layout, random_state=seed, device=device)


def _joint(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.transfer import JointClassifier

    return JointClassifier(layout, random_state=seed, device=device)


def _boosting_pooled(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.pooled import PooledClassifier

    unweighted = _boosting(class_weight=None)(layout, seed, device)
    # One weight, not a choice: inner folds on thousands of mouse cells would take ten times longer.
    return PooledClassifier(unweighted, layout, weights=(10.0,), random_state=seed)


def _logistic_pooled(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.kernel import build_logistic
    from crosspatch.models.pooled import PooledClassifier

    unweighted = build_logistic(layout, seed, class_weight=None)
    return PooledClassifier(unweighted, layout, random_state=seed)


def _ensemble(layout: Layout, seed: int | None, device: str) -> Any:
    from crosspatch.models.ensemble import SoftVote

    members = ("spca-forest", "boosting", "logistic", "svm")
    built = [(name, _MODELS[name].build(layout, seed, device)) for name in members]
    return SoftVote(built, random_state=seed)


_MODELS = {
    entry.name: entry
    for entry in (
        ModelEntry("spca-forest", "sparse PCA by family, then a random forest", _spca_forest),
        ModelEntry("forest", "random forest on the features", _forest),
        ModelEntry(
            "boosting",
            "gradient-boosted trees (LightGBM)",
            _boosting(),
            settings=tuple((name, _boosting(**given)) for name, given in _BOOSTING_SETTINGS),
        ),
        ModelEntry("logistic", "multinomial logistic regression", _logistic),
        ModelEntry("svm", "support vector machine, radial kernel", _svm),
        ModelEntry(
            "bilstm",
            "BiLSTM over families, last step",
            _sequence(attention=False),
            uses_device=True,
        ),
        ModelEntry("bilstm-attention", "BiLSTM with attention", _sequence(), uses_device=True),
        ModelEntry(
            "bilstm-attention-smote",
            "BiLSTM with attention, SMOTE",
            _sequence(oversample=True),
            uses_device=True,
        ),
        ModelEntry(
            "arcface",
            "BiLSTM with attention, SMOTE, ArcFace",
            _sequence(oversample=True, arcface=True),
            uses_device=True,
        ),
        ModelEntry(
            "finetune",
            "pretrained on mouse, then fine-tuned",
            _finetune,
            needs_source=True,
            uses_device=True,
        ),
        ModelEntry(
            "joint",
            "mouse and human jointly, then fine-tuned",
            _joint,
            needs_source=True,
            uses_device=True,
        ),
        ModelEntry(
            "boosting-pooled",
            "gradient-boosted trees on mouse and human together",
            _boosting_pooled,
            needs_source=True,
        ),
        ModelEntry(
            "logistic-pooled",
            "logistic regression on mouse and human together",
            _logistic_pooled,
            needs_source=True,
        ),
        ModelEntry(
            "vote",
            "equal vote of boosting and logistic regression",
            _vote(),
            settings=tuple((name, _vote(**given)) for name, given in _BOOSTING_SETTINGS),
        ),
        ModelEntry("ensemble", "soft vote, members chosen on inner folds", _ensemble),
    )
}

MODEL_NAMES = tuple(_MODELS)


def model_entry(name: str) -> ModelEntry:
    """Look a model up.

    Raises
    ------
    ModelError
        If there is none of this name.
    """
    if name not in _MODELS:
        raise ModelError(f"no model '{name}'; choose from: {', '.join(MODEL_NAMES)}")
    return _MODELS[name]


def build_calibrated(
    entry: ModelEntry, layout: Layout, seed: int | None, device: str = "cpu", jobs: int = 1
) -> CalibratedClassifier:
    """The model as it is trained to be used on new cells.

    It learns to do without families, its settings are chosen on inner folds, and its
    probabilities are calibrated.

    Parameters
    ----------
    entry : ModelEntry
    layout : Layout
    seed : int, optional
    device : str
    jobs : int
        Inner fits at a time.
    """
    from crosspatch.models.absence import FamilyDropout
    from crosspatch.models.calibrated import CalibratedClassifier

    # Copies cost time: networks and traces get by with fewer.
    copies = 2 if entry.uses_device or layout.traces else 6
    builders = entry.settings or (("default", entry.build),)
    candidates = [
        (
            name,
            FamilyDropout(build(layout, seed, device), layout, copies=copies, random_state=seed),
        )
        for name, build in builders
    ]
    return CalibratedClassifier(candidates, layout, random_state=seed, jobs=jobs)
