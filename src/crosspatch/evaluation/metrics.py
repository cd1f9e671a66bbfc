"""Scores of one fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score


def scores(y: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> dict[str, float]:
    """Macro-F1, accuracy, balanced accuracy (mean recall), and F1 of each class as ``f1_NAME``."""
    labels = list(classes)
    of_class = f1_score(y, predicted, labels=labels, average=None, zero_division=0)
    # Of all cells of a class: one that is given no class is a wrong one.
    of_each = np.array([np.sum(np.asarray(y) == name) for name in labels])
    recall = np.diag(confusion(y, predicted, classes)) / np.maximum(of_each, 1)
    return {
        "macro_f1": float(np.mean(of_class)),
        "accuracy": float(accuracy_score(y, predicted)),
        "balanced_accuracy": float(np.mean(recall[of_each > 0])),
    } | {f"f1_{name}": float(value) for name, value in zip(labels, of_class, strict=True)}


def confusion(y: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> NDArray[np.int64]:
    """Cells of every true class (rows) by predicted class (columns)."""
    return confusion_matrix(y, predicted, labels=list(classes))
