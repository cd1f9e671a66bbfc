"""ArcFace margin and class-balanced focal loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class ArcFaceHead(nn.Module):
    """Cosine logits; in training an angular margin is added to the true class.

    ``size`` is the length of an encoding, ``scale`` the factor of the cosines, ``margin`` the
    angle in radians. See Deng et al.: ArcFace: additive angular margin loss for deep face
    recognition. CVPR 2019.
    """

    def __init__(self, size: int, n_classes: int, scale: float = 30.0, margin: float = 0.35):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_classes, size))
        nn.init.xavier_uniform_(self.weight)
        self.scale = scale
        self.margin = margin

    def forward(self, encoding: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits, shape (cells, classes); with the margin if the true classes are given."""
        weight = functional.normalize(self.weight, dim=1)
        cosine = functional.linear(functional.normalize(encoding, dim=1), weight)
        if y is None:
            return self.scale * cosine
        sine = (1.0 - cosine.square()).clamp(min=1e-9).sqrt()
        with_margin = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        # Past π − margin the cosine would rise again; the paper's linear continuation is used.
        linear = cosine - self.margin * math.sin(self.margin)
        with_margin = torch.where(cosine > -math.cos(self.margin), with_margin, linear)
        true = functional.one_hot(y, cosine.shape[1]).bool()
        return self.scale * torch.where(true, with_margin, cosine)


def class_balanced_focal_loss(
    logits: Tensor, y: Tensor, counts: Tensor, beta: float = 0.999, gamma: float = 2.0
) -> Tensor:
    """Focal loss, weighted by the effective number of cells of a class.

    The logits have shape (cells, classes); ``counts`` are the training cells of each class. A
    class weighs (1 − β) / (1 − β^count), normalised to a mean of one; (1 − p)^γ is the focal
    factor. See Cui et al.: Class-balanced loss based on effective number of samples. CVPR 2019.
    """
    weight = (1 - beta) / (1 - beta ** counts.clamp(min=1).to(logits.dtype))
    weight = weight / weight.mean()
    entropy = functional.cross_entropy(logits, y, reduction="none")
    focal = (1 - torch.exp(-entropy)) ** gamma * entropy
    return (weight[y] * focal).mean()


def inverse_frequency(counts: Tensor) -> Tensor:
    """Class weights 1 / count, normalised to a mean of one."""
    weight = 1.0 / counts.clamp(min=1).float()
    return weight / weight.mean()
