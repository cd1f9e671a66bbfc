"""The BiLSTM over feature families as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from imblearn.over_sampling import SMOTE
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from crosspatch.errors import ModelError
from crosspatch.models.classifier import DONORS, MaybeArray, ProbabilisticClassifier
from crosspatch.models.estimator import MaybeLayout
from crosspatch.models.loop import TrainingSettings
from crosspatch.models.losses import ArcFaceHead, class_balanced_focal_loss, inverse_frequency
from crosspatch.models.sequence import FamilyEncoder, LinearHead, Network, SequenceSettings
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.stages import EpochProgress, Parts, TrainingCells, TrainingStage
from crosspatch.models.validation import validation_split

#: Of the cells given to `fit`.
VALIDATION_FRACTION = 0.2


class Prepared(NamedTuple):
    """Training and validation cells of one species, standardised by its training cells."""

    inputs: SequenceInputs
    train: TrainingCells
    validation: TrainingCells
    counts: Tensor  # training cells of each class, before oversampling


@dataclass(eq=False, repr=False)
class SequenceClassifierBase(ProbabilisticClassifier):
    """What the sequence classifiers share: inputs, prediction, attention.

    Subclasses set ``classes_`` and ``inputs_`` in `_stages`; the network of the last stage is the
    one that predicts.
    """

    _SETTINGS: ClassVar = {"network": SequenceSettings, "training": TrainingSettings}

    layout: MaybeLayout = None
    _: KW_ONLY
    network: SequenceSettings | None = None
    training: TrainingSettings | None = None
    #: Share of the training cells held back for early stopping.
    validation_fraction: float = VALIDATION_FRACTION
    random_state: int | None = None
    device: str = "cpu"
    progress: EpochProgress | None = None  # told the number of an epoch and what came of it

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        cells = self._cells(X)
        with torch.inference_mode():
            logits = self._adjust(self.network_(cells.values, cells.present))
        return torch.softmax(logits.double(), 1).cpu().numpy()

    def attention(self, X: ArrayLike) -> NDArray[np.float32]:
        """Attention weights, shape (cells, families); exactly zero for absent families."""
        cells = self._cells(X)
        with torch.inference_mode():
            return self.network_.encoder(cells.values, cells.present)[1].cpu().numpy()

    def __getstate__(self) -> dict[str, object]:
        """The state in arrays and plain values, so that it can be stored without a pickle."""
        state = dict(super().__getstate__())
        if "network_" in state:
            weights = state["network_"].state_dict().items()
            state["network_"] = {name: value.cpu().numpy() for name, value in weights}
            state.pop("history_", None)
        if "log_prior_" in state:
            state["log_prior_"] = state["log_prior_"].cpu().numpy()
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Build the network again around its weights, on the CPU."""
        super().__setstate__(dict(state))
        if "network_" in state:
            self.device = "cpu"
            self.network_ = self._with_new_head(self._encoder()).eval()
            weights = {name: torch.as_tensor(v) for name, v in state["network_"].items()}
            self.network_.load_state_dict(weights)
        if "log_prior_" in state:
            self.log_prior_ = torch.as_tensor(state["log_prior_"])

    def _head(self, encoder: FamilyEncoder) -> nn.Module:
        return LinearHead(encoder.size, len(self.classes_), encoder.settings)

    def _adjust(self, logits: Tensor) -> Tensor:
        return logits

    def _cells(self, X: ArrayLike) -> TrainingCells:
        check_is_fitted(self, "network_")
        values, present = self.inputs_.sequences(self._checked(X))
        return on_device(values, present, np.zeros(len(values)), self.device)

    def _encode(self, y: NDArray) -> NDArray[np.int64]:
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ModelError(f"a classifier needs two classes, there is only {self.classes_}")
        return codes.astype(np.int64)

    def _prepared(
        self,
        X: NDArray,
        codes: NDArray,
        groups: MaybeArray,
        fraction: float,
        unlabelled: MaybeArray,
    ) -> Prepared:
        """Split off validation cells, fit the inputs on the rest, and lay both out.

        Where cells without labels are given, the inputs are fitted on them.
        """
        chosen, held = validation_split(codes, groups, fraction, self.random_state)
        others = X[chosen] if unlabelled is None else self._checked(unlabelled)
        inputs = SequenceInputs(self.layout_).fit(others)
        train, validation = (
            on_device(*inputs.sequences(X[rows]), codes[rows], self.device)
            for rows in (chosen, held)
        )
        counts = torch.bincount(train.y, minlength=int(codes.max()) + 1)
        return Prepared(inputs, train, validation, counts)

    def _encoder(self) -> FamilyEncoder:
        widths = [len(columns) for columns in self.layout_.columns.values()]
        return FamilyEncoder(widths, self.network or SequenceSettings()).to(self.device)

    def _with_new_head(self, encoder: FamilyEncoder) -> Network:
        """The encoder with a new head."""
        return Network(encoder, self._head(encoder)).to(self.device)

    @contextmanager
    def started(self, *given: Any, **more: Any) -> Iterator[list[TrainingStage]]:
        """What is left to be trained of what `fit` does with the same arguments, in this order.

        All else is done; torch is seeded meanwhile, for dropout.
        """
        seed = 0 if self.random_state is None else self.random_state
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield self._stages(torch.Generator().manual_seed(seed), *given, **more)

    def _run(self, *given: Any, **more: Any) -> Self:
        with self.started(*given, **more) as stages:
            for stage in stages:
                stage.run()
        self.network_ = stages[-1].network
        return self

    def _stages(self, generator: torch.Generator, *given: Any, **more: Any) -> list[TrainingStage]:
        raise NotImplementedError

    def _stage(self, network: Network, data: Prepared, **how: Any) -> TrainingStage:
        """Training on the cells of one species; what is not given is as for the whole network."""
        usual: dict[str, Any] = {
            "trained": network,
            "cells": (data.train,),
            "loss": weighted_cross_entropy,
            "classes": (inverse_frequency(data.counts),),
            "settings": self.training or TrainingSettings(),
            "seed": 0 if self.random_state is None else self.random_state,
            "progress": self.progress,
        }
        return TrainingStage(network=network, validation=data.validation, **(usual | how))


@dataclass(eq=False, repr=False)
class SequenceClassifier(SequenceClassifierBase):
    """BiLSTM over families, with or without attention, oversampling and ArcFace.

    Attributes
    ----------
    history_ : list of Epoch
    """

    __metadata_request__fit = DONORS

    _: KW_ONLY
    #: SMOTE on the training cells, k = min(5, smallest class - 1). Without it, classes are weighted
    #: by inverse frequency.
    oversample: bool = False
    #: ArcFace head and class-balanced focal loss in place of a linear head and cross-entropy.
    arcface: bool = False
    #: With ArcFace: this times the log frequency of the classes is added to the logits at test
    #: time. The default is that of the published code for mouse; for human that code subtracts the
    #: whole log frequency instead.
    prior_strength: float = 0.7

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: MaybeArray = None, unlabelled: MaybeArray = None
    ) -> SequenceClassifier:
        """Train; part of the cells is held back for early stopping."""
        return self._run(X, y, groups, unlabelled)

    def _stages(
        self,
        generator: torch.Generator,
        X: ArrayLike,
        y: ArrayLike,
        groups: MaybeArray = None,
        unlabelled: MaybeArray = None,
    ) -> list[TrainingStage]:
        X, y = self._learnable(X, y)
        data = self._prepared(X, self._encode(y), groups, self.validation_fraction, unlabelled)
        cells = oversampled(data.train, self.random_state) if self.oversample else data.train
        counts = torch.bincount(cells.y, minlength=len(self.classes_))
        network = self._with_new_head(self._encoder())
        if self.arcface:
            loss, of_classes = arcface_loss, counts
        else:
            weights = torch.ones_like(counts).float()
            loss = weighted_cross_entropy
            of_classes = weights if self.oversample else inverse_frequency(counts)
        self.inputs_ = data.inputs
        self.log_prior_ = torch.log(data.counts / data.counts.sum())
        how = {"cells": (cells,), "loss": loss, "classes": (of_classes,)}
        stage = self._stage(network, data, generator=generator, **how)
        self.history_ = stage.history
        return [stage]

    def _head(self, encoder: FamilyEncoder) -> nn.Module:
        if self.arcface:
            return ArcFaceHead(encoder.size, len(self.classes_))
        return super()._head(encoder)

    def _adjust(self, logits: Tensor) -> Tensor:
        return logits + self.prior_strength * self.log_prior_ if self.arcface else logits


def build_sequence(
    layout: MaybeLayout = None, attention: bool = True, **how: Any
) -> SequenceClassifier:
    """The classifier with or without attention; the rest is as it takes it."""
    return SequenceClassifier(layout, network=SequenceSettings(attention=attention), **how)


def on_device(
    values: NDArray, present: NDArray, codes: NDArray, device: str | torch.device
) -> TrainingCells:
    """Turn arrays into tensors on a device."""
    parts = values, present, np.asarray(codes, dtype=np.int64)
    placed = [torch.from_numpy(part).to(device) for part in parts]
    return TrainingCells(placed[0], placed[1], placed[2])


def oversampled(cells: TrainingCells, random_state: int | None) -> TrainingCells:
    """SMOTE: as many cells of every class as the largest has.

    A synthetic cell has a family only where both cells it lies between have it.
    """
    values, present, y = (part.cpu().numpy() for part in (cells.values, cells.present, cells.y))
    smallest = int(np.bincount(y)[np.unique(y)].min())
    if smallest < 2:
        return cells
    flat = np.hstack([values.reshape(len(y), -1), present.astype(np.float32)])
    smote = SMOTE(k_neighbors=min(5, smallest - 1), random_state=random_state)
    flat, y = smote.fit_resample(flat, y)
    n_families = present.shape[1]
    present = flat[:, -n_families:] > 1 - 1e-6
    values = flat[:, :-n_families].reshape(len(y), *values.shape[1:])
    values = np.ascontiguousarray(values, dtype=np.float32)
    return on_device(values, present, y, cells.values.device)


def weighted_cross_entropy(network: Network, parts: Parts, classes: tuple[Tensor, ...]) -> Tensor:
    """The loss of a batch, classes weighted."""
    (cells,), (weight,) = parts, classes
    logits = network(cells.values, cells.present, *cells.kept)
    return functional.cross_entropy(logits, cells.y, weight=weight)


def arcface_loss(network: Network, parts: Parts, classes: tuple[Tensor, ...]) -> Tensor:
    """The loss of a batch with `ArcFaceHead`, given the cells of each class."""
    (cells,), (counts,) = parts, classes
    encoding = network.encoder(cells.values, cells.present)[0]
    return class_balanced_focal_loss(network.head(encoding, cells.y), cells.y, counts)
