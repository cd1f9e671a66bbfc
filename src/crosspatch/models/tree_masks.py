"""Trees for many cells: every split of a tree crosses out leaves, and no cell walks.

A bit for every leaf of a tree, from left to right. A split at which a cell goes right crosses out
the leaves on its left; the first leaf that is left over is where the cell ends. Splits can be taken
in any order, and the same one for many cells at once, which is what processors are fast at.

Lucchese C, Nardini FM, Orlando S, Perego R, Tonellotto N, Venturini R (2015) QuickScorer: a fast
algorithm to rank documents with additive ensembles of regression trees. SIGIR '15:73-82.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from crosspatch.models.trees import Trees

# Cells that are taken at once: their features and bits stay in the processor's nearest memory.
_BLOCK = 64

# Leaves that the bits of a cell have room for.
_MOST_LEAVES = 64


@dataclass(frozen=True, eq=False)
class TreeMasks:
    """Trees, rearranged for compiled code: nodes and leaves tree by tree, leaves left to right."""

    n_scores: int
    #: Shape (nodes,). Twice the feature where a missing value goes left, one more where right.
    column: NDArray[np.int32]
    threshold: NDArray[np.float64]
    #: Shape (nodes,). A bit for every leaf of the tree that is not below the left child.
    keeps: NDArray[np.unsignedinteger]
    #: Shape (trees + 1,). Where the nodes, and the leaves, of each tree begin.
    first_node: NDArray[np.intp]
    first_leaf: NDArray[np.intp]
    leaf: NDArray[np.float64]

    @classmethod
    def of(cls, trees: Trees) -> TreeMasks | None:
        """The masks of trees; None if one of them has too many leaves."""
        n, children = len(trees.feature), trees.children.tolist()
        below, tree, start = _numbered(trees)
        most = max(below[root] for root in trees.root.tolist())
        if most > _MOST_LEAVES:
            return None
        size = 32 if most <= 32 else _MOST_LEAVES
        full = 2**size - 1
        crossed = [(1 << below[left]) - 1 << start[node] for node, (left, _) in enumerate(children)]
        of_node, of_leaf = np.array(tree[:n], dtype=int), tree[n:][::-1]
        by_tree = np.argsort(of_node, kind="stable")
        trees_and_end = np.arange(len(trees.root) + 1)
        return cls(
            n_scores=trees.n_scores,
            column=(2 * trees.feature + ~trees.missing_left)[by_tree],
            threshold=trees.threshold[by_tree],
            keeps=np.array([full - each for each in crossed], dtype=f"u{size // 8}")[by_tree],
            first_node=np.searchsorted(of_node[by_tree], trees_and_end),
            first_leaf=np.searchsorted(np.sort(of_leaf), trees_and_end),
            leaf=trees.leaf[np.lexsort([start[n:][::-1], of_leaf])],
        )

    def scores(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores, shape (cells, scores), of features of shape (cells, features), NaN if missing."""
        threshold: NDArray[np.floating] = self.threshold
        if X.dtype == np.float32:
            # No float32 lies between a threshold and the next float32 below it.
            with np.errstate(over="ignore"):
                single = threshold.astype(np.float32)
            low = np.nextafter(single, np.float32(-np.inf))
            threshold = np.where(single > threshold, low, single)
        scores = np.zeros((len(X), self.n_scores))
        ends, mantissa = np.zeros(_BLOCK, np.float32), 23
        if self.keeps.itemsize > ends.itemsize:
            ends, mantissa = np.zeros(_BLOCK, np.float64), 52
        _add_scores(
            np.ascontiguousarray(X, dtype=threshold.dtype),
            (self.column, threshold, self.keeps, self.first_node),
            (self.first_leaf, self.leaf),
            (ends, ends.view(f"i{ends.itemsize}"), mantissa),
            scores,
        )
        return scores


def _numbered(trees: Trees) -> tuple[list[int], list[int], list[int]]:
    """Of every node: leaves below it, its tree, and how many leaves of this are on its left.

    Behind the nodes stand the leaves from the last to the first, as -1 - leaf counts them.
    """
    children = trees.children.tolist()
    below = [1] * (len(children) + len(trees.leaf))
    tree, start = [0] * len(below), [0] * len(below)
    for node in reversed(range(len(children))):
        below[node] = sum(below[child] for child in children[node])
    for number, node in enumerate(trees.root.tolist()):
        tree[node] = number
    for node, (left, right) in enumerate(children):
        tree[left] = tree[right] = tree[node]
        start[left], start[right] = start[node], start[node] + below[left]
    return below, tree, start


@njit(cache=True, nogil=True)
def _add_scores(X, nodes, leaves, ends, scores):  # type: ignore[no-untyped-def]
    """Add the leaves that cells end in to their scores.

    The first bit of a cell is found as the exponent of a number: `ends` is room for such numbers,
    as floats and as integers.
    """
    first_leaf, leaf = leaves
    as_float, as_int, mantissa = ends
    n_cells, n_features = X.shape
    n_scores = scores.shape[1]
    # Missing values beyond all thresholds: those that go left, and those that go right.
    values = np.empty((2 * n_features, _BLOCK), X.dtype)
    left_over = np.empty(_BLOCK, nodes[2].dtype)
    one = left_over.dtype.type(1)
    for first in range(0, n_cells, _BLOCK):
        n = min(_BLOCK, n_cells - first)
        for cell in range(n):
            for feature in range(n_features):
                value = X[first + cell, feature]
                values[2 * feature, cell] = -np.inf if np.isnan(value) else value
                values[2 * feature + 1, cell] = np.inf if np.isnan(value) else value
        for tree in range(len(first_leaf) - 1):
            _cross_out(values, nodes, tree, left_over)
            for cell in range(_BLOCK):
                bits = left_over[cell]
                as_float[cell] = bits & (~bits + one)
            bias = (1 << (8 * as_int.itemsize - mantissa - 2)) - 1
            for cell in range(n):
                place = first_leaf[tree] + (as_int[cell] >> mantissa) - bias
                scores[first + cell, tree % n_scores] += leaf[place]


@njit(cache=True, nogil=True)
def _cross_out(values, nodes, tree, left_over):  # type: ignore[no-untyped-def]
    """The bits of the leaves of a tree that are left over, for every cell of a block."""
    column, threshold, keeps, first_node = nodes
    left_over[:] = ~left_over.dtype.type(0)
    for node in range(first_node[tree], first_node[tree + 1]):
        value, limit, kept = values[column[node]], threshold[node], keeps[node]
        for cell in range(_BLOCK):
            bits = left_over[cell]
            left_over[cell] = bits & kept if value[cell] > limit else bits
