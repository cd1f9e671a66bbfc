"""Processor seconds of the published sparse PCA, by family, against the number of cells.

    python benchmarks/sparse_pca.py cohort.h5ad [--cells 500 1000 2000 4000] [--families …]

The cohort table is one of traces (layout gouwens), such as `crosspatch extract` makes of simulated
recordings. Its cells are resampled: each is a mixture of two, with noise. It writes
benchmarks/results/sparse-pca.md and prints it.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from crosspatch.cohorts.cells import cells_of
from crosspatch.models.forest import GOUWENS_2020, build_spca_forest
from crosspatch.models.sparse_pca import FamilySparsePCA


def resampled(X: NDArray, cells: int, seed: int = 0) -> NDArray:
    """Mixtures of two cells with a noise of a twentieth of each feature's deviation."""
    rng = np.random.default_rng(seed)
    one, other = (X[rng.integers(0, len(X), cells)] for _ in range(2))
    share = rng.uniform(0.0, 0.3, (cells, 1))
    mixed = one * (1 - share) + np.where(np.isnan(other), one, other) * share
    return mixed + 0.05 * np.nanstd(X, axis=0) * rng.normal(size=mixed.shape)


def timed(pipeline: Pipeline, X: NDArray, family: str) -> dict[str, object] | None:
    """The row of one family; None where the cells do not have it."""
    components = pipeline.named_steps["components"]
    given = components.settings.families
    # A derived family needs the one that it is derived from in the layout, not in the settings.
    only = FamilySparsePCA(
        components.layout, type(components.settings)({family: given[family]}, True)
    )
    started = time.process_time()
    fit = only.fit(X).fits_.get(family)
    seconds = time.process_time() - started
    if fit is None:
        return None
    return {
        "family": family,
        "cells": len(X),
        "features": int(fit.use.sum()),
        "components": len(fit.pca.n_nonzero),
        "iterations": fit.pca.n_iter_,
        "processor s": seconds,
        "s/iteration": seconds / (1 + fit.pca.n_iter_),
    }


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cohort")
    parser.add_argument("--cells", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--families", nargs="+", default=list(GOUWENS_2020))
    chosen = parser.parse_args()
    cells = cells_of(anndata.read_h5ad(chosen.cohort), None)
    pipeline = build_spca_forest(cells.layout, 0)
    rows = []
    with threadpool_limits(1):
        for number in chosen.cells:
            X = resampled(cells.X, number)
            for family in chosen.families:
                if row := timed(pipeline, X, family):
                    rows.append(row)
                    print(row, flush=True)
    frame = pd.DataFrame(rows)
    lines = [
        "# Sparse PCA of families of traces",
        "",
        f"{platform.machine()}, one of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. The "
        f"iteration ends where no loading changes by 0.001, or after 200 rounds. Together: "
        + ", ".join(
            f"{part['processor s'].sum():.0f} s for {number} cells"
            for number, part in frame.groupby("cells")
        )
        + ".",
        "",
        "| " + " | ".join(frame.columns) + " |",
        "|---" * len(frame.columns) + "|",
    ]
    for values in frame.itertuples(index=False):
        told = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)
        lines.append("| " + " | ".join(told) + " |")
    out = Path(__file__).parent / "results" / "sparse-pca.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
