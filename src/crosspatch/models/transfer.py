"""From mouse to human: pretrain and fine-tune, or train jointly and then fine-tune."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from crosspatch.errors import ModelError
from crosspatch.models.classifier import (
    DONORS,
    MaybeArray,
    require_same_classes,
    warn_without_source,
)
from crosspatch.models.loop import Epoch, TrainingSettings
from crosspatch.models.losses import inverse_frequency
from crosspatch.models.sequence import FamilyEncoder, Network
from crosspatch.models.sequence_classifier import (
    Prepared,
    SequenceClassifier,
    SequenceClassifierBase,
)
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.stages import Parts, TrainingStage

#: The published split of the source is 80/20.
SOURCE_VALIDATION_FRACTION = 0.2


class _Source(NamedTuple):
    """Cells of the source."""

    X: NDArray
    y: NDArray
    groups: MaybeArray


class TransferClassifier(SequenceClassifierBase):
    """What both ways of transfer share.

    Parameters are those of `SequenceClassifierBase`, the validation cells those of the target;
    ``training`` gives batch size, patience and epochs of every stage, learning rates are the
    stages' own.

    Attributes
    ----------
    history_ : dict
        Stage to its list of Epoch.
    """

    __metadata_request__fit = DONORS

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_source: MaybeArray = None,
        y_source: MaybeArray = None,
        groups: MaybeArray = None,
        groups_source: MaybeArray = None,
        unlabelled: MaybeArray = None,
        pretrained: Network | None = None,
    ) -> TransferClassifier:
        """Train on both species; each is standardised by its own training cells.

        A network from `pretrain` can be used again, in place of training it on the source. Without
        either the target is learnt from alone, with a warning.
        """
        if pretrained is None and (X_source is None or y_source is None):
            warn_without_source(self)
        return self._run(X, y, X_source, y_source, groups, groups_source, unlabelled, pretrained)

    def _stages(
        self,
        generator: torch.Generator,
        X: ArrayLike,
        y: ArrayLike,
        X_source: MaybeArray = None,
        y_source: MaybeArray = None,
        groups: MaybeArray = None,
        groups_source: MaybeArray = None,
        unlabelled: MaybeArray = None,
        pretrained: Network | None = None,
    ) -> list[TrainingStage]:
        X, y = self._learnable(X, y)
        target = self._prepared(X, self._encode(y), groups, self.validation_fraction, unlabelled)
        self.inputs_ = target.inputs
        self.history_: dict[str, list[Epoch]] = {}
        if pretrained is not None:
            stages = self._learning(target, pretrained, generator)
        elif X_source is not None and y_source is not None:
            require_same_classes(self.classes_, np.asarray(y_source))
            source = _Source(self._checked(X_source), np.asarray(y_source), groups_source)
            stages = self._learning(target, source, generator)
        else:
            network = self._with_new_head(self._encoder())
            stages = {"finetune": self._stage(network, target, generator=generator)}
        self.history_ |= {name: stage.history for name, stage in stages.items()}
        return list(stages.values())

    def _learning(
        self, target: Prepared, source: _Source | Network, generator: torch.Generator
    ) -> dict[str, TrainingStage]:
        raise NotImplementedError

    def _settings(self, learning_rate: float, **changes: int) -> TrainingSettings:
        settings = self.training or TrainingSettings()
        return replace(settings, learning_rate=learning_rate, **changes)


class FinetuneClassifier(TransferClassifier):
    """Pretrain on the source, keep the encoder, train a new head, then everything.

    Learning rates: 1e-3 for pretraining and for the 5 epochs of the head alone, 5e-4 for the
    rest (arXiv 2603.11000). Parameters are those of `TransferClassifier`.
    """

    def pretrain(
        self, X_source: ArrayLike, y_source: ArrayLike, groups_source: MaybeArray = None
    ) -> Network:
        """Train on the source alone; the network can start several fits."""
        return self.of_source().fit(X_source, y_source, groups_source).network_

    def of_source(self) -> SequenceClassifier:
        """What learns from the source alone; fitted, its network is that of `pretrain`."""
        return SequenceClassifier(
            self.layout,
            network=self.network,
            training=self._settings(1e-3),
            validation_fraction=SOURCE_VALIDATION_FRACTION,
            random_state=self.random_state,
            device=self.device,
            progress=self.progress,
        )

    def without_labels(
        self, unlabelled: ArrayLike, classes: NDArray, pretrained: Network
    ) -> FinetuneClassifier:
        """Use the network of the source as it is; the target's cells only standardise.

        The classes are those of the source, sorted.
        """
        self.classes_ = np.asarray(classes)
        X = self._checked(unlabelled, fitting=True)
        self.inputs_ = SequenceInputs(self.layout_).fit(X)
        self.network_ = pretrained
        return self

    def _learning(
        self, target: Prepared, source: _Source | Network, generator: torch.Generator
    ) -> dict[str, TrainingStage]:
        if isinstance(source, _Source):
            alone = self.of_source().fit(*source)
            source, self.history_["pretrain"] = alone.network_, alone.history_
        encoder = self._encoder()
        encoder.load_state_dict(source.encoder.state_dict())
        network = self._with_new_head(encoder)
        warm = {"settings": self._settings(1e-3, epochs=5), "trained": network.head}
        then = {"settings": self._settings(5e-4)}
        return {
            name: self._stage(network, target, generator=generator, **how)
            for name, how in (("head", warm), ("finetune", then))
        }


class JointClassifier(TransferClassifier):
    """One encoder and one head per species, trained on both at once, then on the target alone.

    The loss is that of the target plus half that of the source, learning rate 5e-4, early
    stopping on the target; then the target alone at 3e-4 (arXiv 2603.11000). Parameters are those
    of `TransferClassifier`.
    """

    def _learning(
        self, target: Prepared, source: _Source | Network, generator: torch.Generator
    ) -> dict[str, TrainingStage]:
        if isinstance(source, Network):
            raise ModelError("joint training cannot start from a pretrained network")
        codes = np.searchsorted(self.classes_, source.y).astype(np.int64)
        theirs = self._prepared(source.X, codes, source.groups, SOURCE_VALIDATION_FRACTION, None)
        encoder = self._encoder()
        network = self._with_new_head(encoder)
        both = _TwoHeads(encoder, network.head, self._head(encoder).to(self.device))
        together = {
            "cells": (target.train, theirs.train),
            "loss": _joint_loss,
            "classes": (inverse_frequency(target.counts), inverse_frequency(theirs.counts)),
            "settings": self._settings(5e-4),
        }
        then = {"settings": self._settings(3e-4)}
        return {
            "joint": self._stage(both, target, generator=generator, **together),
            "finetune": self._stage(network, target, generator=generator, **then),
        }


class _TwoHeads(Network):
    """A network of the target with a second head for the source."""

    def __init__(self, encoder: FamilyEncoder, head: nn.Module, other: nn.Module):
        super().__init__(encoder, head)
        self.other = other


def _joint_loss(network: _TwoHeads, parts: Parts, classes: tuple[Tensor, ...]) -> Tensor:
    """The loss of a batch of target and source; one pass through the encoder is faster than two."""
    values, present = (torch.cat(both) for both in list(zip(*parts, strict=True))[:2])
    encoding = network.encoder(values, present)[0]
    encodings = encoding.split([len(part.y) for part in parts])
    on_target, on_source = (
        functional.cross_entropy(head(each, *part.kept), part.y, weight=weight)
        for head, each, part, weight in zip(
            (network.head, network.other), encodings, parts, classes, strict=True
        )
    )
    return on_target + 0.5 * on_source
