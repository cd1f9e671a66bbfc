"""The attention BiLSTM over feature families (torch modules only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crosspatch.models.recurrence import bidirectional


@dataclass(frozen=True)
class SequenceSettings:
    """Shape of the network; the defaults are those of arXiv 2603.11000."""

    attention: bool = True  # False: the last family's output is used, as in its ablation
    hidden: int = 128  # units per direction
    attention_hidden: int = 128
    dropout: float = 0.2  # before the last linear layer
    norm: bool = True  # LayerNorm over a family; docs/choices.md has what it does to scalars


class FamilyNorm(nn.Module):
    """LayerNorm over the features of a family, its padding left out of mean and variance.

    The widths are the numbers of features of every family.
    """

    width: Tensor
    real: Tensor

    def __init__(self, widths: Sequence[int], eps: float = 1e-5):
        super().__init__()
        width = torch.tensor(list(widths))
        largest = int(width.max())
        real = torch.arange(largest) < width[:, None]
        self.register_buffer("width", width[:, None].float(), persistent=False)
        self.register_buffer("real", real.float(), persistent=False)
        self.weight = nn.Parameter(torch.ones(largest))
        self.bias = nn.Parameter(torch.zeros(largest))
        self.eps = eps

    def forward(self, values: Tensor) -> Tensor:
        """Normalise, shape (cells, families, width)."""
        mean = (values * self.real).sum(-1, keepdim=True) / self.width
        centred = (values - mean) * self.real
        variance = centred.square().sum(-1, keepdim=True) / self.width
        # A single feature is its own mean: it is let through as it is.
        centred = torch.where(self.width > 1, centred, values * self.real)
        variance = torch.where(self.width > 1, variance, torch.ones_like(variance))
        return (centred / (variance + self.eps).sqrt() * self.weight + self.bias) * self.real


class FamilyEncoder(nn.Module):
    """Families of a cell to one vector: norm, BiLSTM over present families, attention.

    The LSTM passes absent families by, so that nothing of them, not even their place, reaches the
    output; their attention weight is exactly zero.
    The widths are the numbers of features of every family.
    """

    def __init__(self, widths: Sequence[int], settings: SequenceSettings):
        super().__init__()
        self.settings = settings
        self.norm = FamilyNorm(widths) if settings.norm else nn.Identity()
        self.lstm = nn.LSTM(max(widths), settings.hidden, batch_first=True, bidirectional=True)
        self.size = 2 * settings.hidden
        if settings.attention:
            self.score = nn.Sequential(
                nn.Linear(self.size, settings.attention_hidden),
                nn.Tanh(),
                nn.Linear(settings.attention_hidden, 1, bias=False),
            )

    def forward(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Encode cells, shape (cells, families, width): encoding and what each family contributes.

        The encoding has shape (cells, 2 × hidden); the weights, shape (cells, families), sum to
        one. Both are zero for a cell without any family.
        """
        absent = ~present
        values = self.norm(values.masked_fill(absent[..., None], 0.0))
        outputs = bidirectional(values, absent, self.lstm)
        if self.settings.attention:
            scores = self.score(outputs).squeeze(-1).masked_fill(absent, float("-inf"))
            weights = torch.softmax(scores, dim=1).masked_fill(absent, 0.0)
        else:
            last = present.cumsum(1) == present.sum(1, keepdim=True)
            weights = (last & present).to(outputs.dtype)
        return torch.einsum("nf,nfd->nd", weights, outputs), weights


class LinearHead(nn.Sequential):
    """LayerNorm, dropout and a linear layer to logits."""

    def __init__(self, size: int, n_classes: int, settings: SequenceSettings):
        dropout = nn.Dropout(settings.dropout)
        super().__init__(nn.LayerNorm(size), dropout, nn.Linear(size, n_classes))

    def forward(self, encoding: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits, shape (cells, classes); ``kept``, shaped as the encoding, in place of dropout."""
        norm, dropout, linear = self
        normed = norm(encoding)
        found: Tensor = linear(dropout(normed) if kept is None else normed * kept)
        return found


class Network(nn.Module):
    """An encoder and a head."""

    def __init__(self, encoder: FamilyEncoder, head: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, values: Tensor, present: Tensor, *kept: Tensor) -> Tensor:
        """Logits, shape (cells, classes); what is ``kept`` is as `LinearHead` takes it."""
        found: Tensor = self.head(self.encoder(values, present)[0], *kept)
        return found
