"""From mouse to human: pretrain and fine-tune, or train jointly and then fine-tune."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from crosspatch.errors import ModelError
from crosspatch.models.classifier import (
    DONORS,
    MaybeArray,
    require_same_classes,
    warn_without_source,
)
from crosspatch.models.loop import Epoch, TrainingSettings, shuffled, train_network
from crosspatch.models.losses import inverse_frequency
from crosspatch.models.sequence import FamilyEncoder
from crosspatch.models.sequence_classifier import (
    Network,
    Prepared,
    SequenceClassifierBase,
    cross_entropy,
    macro_f1,
)
from crosspatch.models.sequence_inputs import SequenceInputs

#: The published split of the source is 80/20.
SOURCE_VALIDATION_FRACTION = 0.2


class _Start(NamedTuple):
    """What training begins with."""

    encoder: FamilyEncoder
    target: Prepared
    source: Prepared | Network  # its cells, or a network trained on them
    generator: torch.Generator


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
        with self._seeded() as generator:
            X, y = self._learnable(X, y)
            codes = self._encode(y)
            source: Prepared | Network | None = pretrained
            if source is None and X_source is not None and y_source is not None:
                source = self._source(X_source, y_source, groups_source)
            target = self._prepared(X, codes, groups, self.validation_fraction, unlabelled)
            encoder = self._encoder()
            self.history_: dict[str, list[Epoch]] = {}
            if source is None:
                warn_without_source(self)
                network = self._with_new_head(encoder)
                settings = self.training or TrainingSettings()
                self._stage("finetune", network, target, settings, generator)
            else:
                network = self._train(_Start(encoder, target, source, generator))
            self.network_ = network
        self.inputs_ = target.inputs
        return self

    def _train(self, start: _Start) -> Network:
        raise NotImplementedError

    def _source(self, X: ArrayLike, y: ArrayLike, groups: MaybeArray) -> Prepared:
        y = np.asarray(y)
        require_same_classes(self.classes_, y)
        codes = np.searchsorted(self.classes_, y).astype(np.int64)
        return self._prepared(self._checked(X), codes, groups, SOURCE_VALIDATION_FRACTION, None)

    def _settings(self, learning_rate: float, **changes: int) -> TrainingSettings:
        settings = self.training or TrainingSettings()
        return replace(settings, learning_rate=learning_rate, **changes)

    def _stage(
        self,
        name: str,
        network: Network,
        data: Prepared,
        settings: TrainingSettings,
        generator: torch.Generator,
        *,
        head_only: bool = False,
    ) -> None:
        """Train on the cells of one species."""
        network.encoder.requires_grad_(not head_only)
        self.history_[name] = train_network(
            network,
            batches=lambda: shuffled(len(data.train.y), settings.batch_size, generator),
            loss=cross_entropy(network, data.train, inverse_frequency(data.counts)),
            score=lambda: macro_f1(network, data.validation),
            settings=settings,
            parameters=network.head.parameters() if head_only else None,
            progress=self.progress,
        )


class FinetuneClassifier(TransferClassifier):
    """Pretrain on the source, keep the encoder, train a new head, then everything.

    Learning rates: 1e-3 for pretraining and for the 5 epochs of the head alone, 5e-4 for the
    rest (arXiv 2603.11000). Parameters are those of `TransferClassifier`.
    """

    def pretrain(
        self, X_source: ArrayLike, y_source: ArrayLike, groups_source: ArrayLike | None = None
    ) -> Network:
        """Train on the source alone; the network can start several fits."""
        with self._seeded() as generator:
            X_source, y_source = self._learnable(X_source, y_source)
            self._encode(y_source)
            source = self._source(X_source, y_source, groups_source)
            self.history_ = {}
            return self._pretrained(self._encoder(), source, generator)

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

    def _train(self, start: _Start) -> Network:
        encoder, target, source, generator = start
        if isinstance(source, Network):
            encoder.load_state_dict(source.encoder.state_dict())
        else:
            self._pretrained(encoder, source, generator)
        network = self._with_new_head(encoder)
        warm = self._settings(1e-3, epochs=5)
        self._stage("head", network, target, warm, generator, head_only=True)
        self._stage("finetune", network, target, self._settings(5e-4), generator)
        return network

    def _pretrained(
        self, encoder: FamilyEncoder, source: Prepared, generator: torch.Generator
    ) -> Network:
        network = self._with_new_head(encoder)
        self._stage("pretrain", network, source, self._settings(1e-3), generator)
        return network


class JointClassifier(TransferClassifier):
    """One encoder and one head per species, trained on both at once, then on the target alone.

    The loss is that of the target plus half that of the source, learning rate 5e-4, early
    stopping on the target; then the target alone at 3e-4 (arXiv 2603.11000). Parameters are those
    of `TransferClassifier`.
    """

    def _train(self, start: _Start) -> Network:
        encoder, target, source, generator = start
        if isinstance(source, Network):
            raise ModelError("joint training cannot start from a pretrained network")
        network, other = self._with_new_head(encoder), self._with_new_head(encoder)
        both = torch.nn.ModuleDict({"target": network, "source": other})
        sizes = len(target.train.y), len(source.train.y)
        weights = inverse_frequency(target.counts), inverse_frequency(source.counts)
        settings = self._settings(5e-4)

        def loss(pair: tuple[Tensor, Tensor]) -> Tensor:
            ours, theirs = target.train[pair[0]], source.train[pair[1]]
            # One pass through the encoder for both is faster than two.
            values = torch.cat([ours.values, theirs.values])
            encoding = encoder(values, torch.cat([ours.present, theirs.present]))[0]
            logits = network.head(encoding[: len(ours.y)]), other.head(encoding[len(ours.y) :])
            on_target = functional.cross_entropy(logits[0], ours.y, weight=weights[0])
            on_source = functional.cross_entropy(logits[1], theirs.y, weight=weights[1])
            return on_target + 0.5 * on_source

        self.history_["joint"] = train_network(
            both,
            batches=lambda: _pairs(*sizes, settings.batch_size, generator),
            loss=loss,
            score=lambda: macro_f1(network, target.validation),
            settings=settings,
            progress=self.progress,
        )
        self._stage("finetune", network, target, self._settings(3e-4), generator)
        return network


def _pairs(
    n_target: int, n_source: int, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of target and source: one pass over the larger, the smaller starts anew."""
    larger, smaller = max(n_target, n_source), min(n_target, n_source)
    again = chain.from_iterable(shuffled(smaller, batch_size, generator) for _ in repeat(None))
    for index, other in zip(shuffled(larger, batch_size, generator), again, strict=False):
        yield (index, other) if n_target >= n_source else (other, index)
