"""Gradient-boosted trees as plain arrays: what LightGBM learnt, without LightGBM."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import FEW, Arrays, class_probabilities, require_array, score_count

if TYPE_CHECKING:
    from lightgbm import LGBMClassifier

    from crosspatch.models.tree_masks import TreeMasks


@dataclass(frozen=True, eq=False)
class Trees:
    """A sum of decision trees per score, and the class probabilities that follow from it.

    Scores are equal to LightGBM's own to the last bit, whatever the number of cells in a call:
    every tree sends a cell to the same leaf, and leaves are added in the same order.
    Probabilities are equal to 1e-15. Up to `FEW` cells take numpy alone; more are compiled code
    (`crosspatch.models.tree_masks`), which holds no lock, so that threads can share the trees, and
    takes some MiB whatever the number of cells. float32 features are the fast case.

    The arrays are checked, since they may be a stranger's: children point forward, so that every
    walk ends, every node and leaf hangs in one place, and indices are in range.

    Raises
    ------
    ModelError
        If the arrays are not trees.
    """

    n_features: int  # features of a cell
    #: Scores of a cell: one per class, and one for two classes. Trees take turns.
    n_scores: int
    #: Shape (nodes,). Column that is compared.
    feature: NDArray[np.int32]
    #: Shape (nodes,). A cell goes left where its value is at most this, else right.
    threshold: NDArray[np.float64]
    #: Shape (nodes,). Whether a missing value goes left.
    missing_left: NDArray[np.bool_]
    #: Shape (nodes, 2). Left and right: a later node, or -1 - leaf.
    children: NDArray[np.int32]
    #: Shape (leaves,). What a leaf adds to the score.
    leaf: NDArray[np.float64]
    #: Shape (trees,). The first node, or -1 - leaf of a tree without nodes.
    root: NDArray[np.int32]

    def __post_init__(self) -> None:
        nodes, leaves = len(self.feature), len(self.leaf)
        require_array("trees", self.threshold, (nodes,))
        require_array("trees", self.leaf, (leaves,))
        require_array("trees", self.feature, (nodes,), np.int32, self.n_features)
        require_array("trees", self.missing_left, (nodes,), np.bool_)
        require_array("trees", self.children, (nodes, 2), np.int32)
        require_array("trees", self.root, (len(self.root),), np.int32)
        places = np.concatenate([self.root, self.children.ravel()])
        forward = (self.children < 0) | (self.children > np.arange(nodes)[:, None])
        whole = np.array_equal(np.sort(places), np.arange(-leaves, nodes))
        turns = self.n_scores > 0 and len(self.root) > 0 and len(self.root) % self.n_scores == 0
        if not (whole and turns and forward.all()):
            raise ModelError("its trees are not trees: nodes do not hang together")

    @classmethod
    def of(cls, model: LGBMClassifier) -> Trees:
        """The trees of a fitted LightGBM classifier without categories."""
        dumped = model.booster_.dump_model()
        splits: list[tuple[int, float, bool]] = []
        children: list[list[int]] = []
        leaves: list[float] = []
        root: list[int] = []
        for tree in dumped["tree_info"]:
            # Left before right, so that the leaves of a tree are numbered from left to right.
            waiting = [(tree["tree_structure"], root)]
            while waiting:
                found, to = waiting.pop()
                if "split_index" not in found:
                    to.append(-1 - len(leaves))
                    leaves.append(found["leaf_value"])
                    continue
                to.append(len(splits))
                splits.append((found["split_feature"], found["threshold"], _missing_left(found)))
                children.append([])
                waiting += [
                    (found["right_child"], children[-1]),
                    (found["left_child"], children[-1]),
                ]
        feature, threshold, missing_left = zip(*splits, strict=True) if splits else ((), (), ())
        return cls(
            n_features=dumped["max_feature_idx"] + 1,
            n_scores=dumped["num_tree_per_iteration"],
            feature=np.array(feature, dtype=np.int32),
            threshold=np.array(threshold, dtype=np.float64),
            missing_left=np.array(missing_left, dtype=bool),
            children=np.array(children, dtype=np.int32).reshape(-1, 2),
            leaf=np.array(leaves, dtype=np.float64),
            root=np.array(root, dtype=np.int32),
        )

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        return {each.name: np.asarray(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def of_arrays(cls, layout: Layout, classes: int, arrays: Arrays) -> Trees:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        return cls.checked(len(layout.features), classes, arrays)

    @classmethod
    def checked(cls, n_features: int, classes: int, arrays: Arrays) -> Trees:
        """The same of trees of so many features."""
        parts: dict[str, Any] = {each.name: arrays[each.name] for each in fields(cls)}
        sizes = {name: int(parts[name]) for name in ("n_features", "n_scores")}
        if sizes != {"n_features": n_features, "n_scores": score_count(classes)}:
            raise ModelError("its trees are of other features or classes")
        return cls(**parts | sizes)

    def scores(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores, shape (cells, scores), of features of shape (cells, features), NaN if missing."""
        if X.shape[1:] != (self.n_features,):
            raise ModelError(f"the trees take {self.n_features} features, not {X.shape[1:]}")
        if len(X) <= FEW or self._masks is None:
            return np.concatenate([self._walk(X[k : k + FEW]) for k in range(0, len(X), FEW)])
        return self._masks.scores(X)

    def predict_proba(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        return class_probabilities(self.scores(X))

    @cached_property
    def _masks(self) -> TreeMasks | None:
        from crosspatch.models.tree_masks import TreeMasks

        return TreeMasks.of(self)

    def _walk(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores of few cells, through all trees at once."""
        place = np.repeat(self.root[None], len(X), axis=0)
        rows = np.arange(len(X))[:, None]
        while (inside := place >= 0).any():
            node = np.where(inside, place, 0)
            value = X[rows, self.feature[node]]
            left = (value <= self.threshold[node]) | (np.isnan(value) & self.missing_left[node])
            below = np.where(left, self.children[node, 0], self.children[node, 1])
            place = np.where(inside, below, place)
        added = self.leaf[-1 - place].reshape(len(X), -1, self.n_scores)
        return np.add.accumulate(added, axis=1)[:, -1]  # one after the other, unlike `sum`


def _missing_left(split: dict[str, Any]) -> bool:
    """Where LightGBM sends a missing value at a split."""
    if split["decision_type"] != "<=" or split["missing_type"] not in ("None", "NaN"):
        raise ModelError("only trees on numbers, in which zero is a number, are kept as arrays")
    # Where none was missing in training, LightGBM takes a missing value for zero.
    never = split["missing_type"] == "None"
    return bool(split["threshold"] >= 0 if never else split["default_left"])
