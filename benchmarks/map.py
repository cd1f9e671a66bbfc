"""How near cells placed on the kept map lie to where UMAP's own transform puts them, and how fast.

    python benchmarks/map.py [--repeats 3]

Needs the data directory (CROSSPATCH_DATA). Makes the map of the Allen cells, then holds out a tenth
of the mouse cells, makes the map of the rest and puts the held-out cells on it both ways. Writes
benchmarks/results/map.md and prints it.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from crosspatch.cohorts.cells import cells_of
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT
from crosspatch.evaluation.task_cohorts import load_cohorts
from crosspatch.explanation.components import cells_by_species, scores_in
from crosspatch.explanation.map import lay_out
from crosspatch.explanation.reference_map import (
    MAP_FILE,
    NEIGHBORS,
    ReferenceMap,
    enough,
    neighbour_weights,
)

HELD_OUT = 0.1

#: Load and place in a process of its own: seconds to import, to load, for the first cell.
_COLD = """
import sys, time
started = time.perf_counter()
import numpy as np
from crosspatch.explanation.reference_map import load_map
imported = time.perf_counter()
found = load_map(sys.argv[1])
loaded = time.perf_counter()
found.place(np.ones((1, len(found.layout.features))), found.layout, "human")
print(imported - started, loaded - imported, time.perf_counter() - loaded)
print(sorted({"umap", "numba", "torch"} & set(sys.modules)))
"""

Places = NDArray[np.float64]


class Comparison:
    """Places of the same cells in two ways."""

    def __init__(self, laid: ReferenceMap, subclasses: NDArray[np.str_] | None = None) -> None:
        fitted = laid.table[laid.fitted]
        at = fitted[["x", "y"]].to_numpy()
        self.extent = np.ptp(at, axis=0).max()
        self.nearest = KNeighborsClassifier(NEIGHBORS).fit(at, fitted["subclass"])
        self.subclasses = subclasses

    def __call__(self, one: Places, two: Places) -> dict[str, float]:
        """Distances in % of the extent, and shares of cells in %."""
        away = np.hypot(*(one - two).T) / self.extent
        here, there = self.nearest.predict(one), self.nearest.predict(two)
        found = {
            "cells": len(one),
            "median": 100 * np.median(away),
            "90 %": 100 * np.percentile(away, 90),
            "same": 100 * np.mean(here == there),
        }
        if self.subclasses is not None:
            found["own"] = 100 * np.mean(here == self.subclasses)
            found["own of other"] = 100 * np.mean(there == self.subclasses)
        return found


def held_out(repeat: int) -> dict[str, dict[str, float]]:
    """Mouse cells that the map was not made of: placed, and by UMAP's transform."""
    mouse = load_cohorts(["allen"], "shared")["mouse"]
    rng = np.random.default_rng(repeat)
    out = rng.random(mouse.n_obs) < HELD_OUT
    laid, mapper = lay_out(cells_by_species({"mouse": mouse[~out].copy()}), seed=repeat)
    new = cells_of(mouse[out].copy(), DEFAULT_ALIGNMENT)
    scores = scores_in(laid.components, new.X)
    there = enough(scores)
    placed = laid.place(new.X[there], new.layout, "mouse")
    ours = np.stack([placed.x, placed.y], axis=1)
    theirs = mapper.transform(np.nan_to_num(scores[there])).astype(np.float64)
    mapper.transform_seed += 1
    again = mapper.transform(np.nan_to_num(scores[there])).astype(np.float64)
    chance = laid.table[["x", "y"]].to_numpy()[rng.integers(len(laid.table), size=len(ours))]
    fitted = np.nan_to_num(laid.scores[laid.fitted])
    away, nearest = (
        NearestNeighbors(n_neighbors=NEIGHBORS).fit(fitted).kneighbors(np.nan_to_num(scores[there]))
    )
    around = laid.table[["x", "y"]].to_numpy()[laid.fitted][nearest]
    start = np.einsum("ck,ckd->cd", neighbour_weights(away), around)
    compare = Comparison(laid, new.y[there])
    return {
        "held-out mouse cells: placed, and UMAP's transform": compare(ours, theirs),
        "the same: weighted mean in place of median, and UMAP's transform": compare(start, theirs),
        "the same: UMAP's transform with another seed, and with the first": compare(again, theirs),
        "the same: any reference cell's place, and UMAP's transform": compare(chance, theirs),
    }


def reference_again(laid: ReferenceMap) -> dict[str, dict[str, float]]:
    """Cells of the reference placed as if they were new, and where the map has them."""
    found = {}
    cohorts = load_cohorts(["allen"], "shared")
    parts = {
        "mouse cells the map is fitted on": laid.fitted,
        "mouse cells laid over": ~laid.fitted & (laid.table["species"] == "mouse").to_numpy(),
        "human cells, all laid over": (laid.table["species"] == "human").to_numpy(),
    }
    for name, rows in parts.items():
        part = laid.table[rows]
        species = str(part["species"].iloc[0])
        cells = cells_of(cohorts[species][part["cell_id"].to_list()].copy(), DEFAULT_ALIGNMENT)
        placed = laid.place(cells.X, cells.layout, species)
        ours = np.stack([placed.x, placed.y], axis=1)
        compare = Comparison(laid, part["subclass"].to_numpy().astype(str))
        found[f"{name}: placed as if new, and on the map"] = compare(
            ours, part[["x", "y"]].to_numpy()
        )
    return found


def seconds(reference: ReferenceMap, building: float) -> list[tuple[str, str]]:
    """What making, loading and placing take."""
    mouse = load_cohorts(["allen"], "shared")["mouse"]
    X = np.asarray(mouse.X)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        reference.save(folder)
        saving = time.perf_counter() - started
        size = (Path(folder) / MAP_FILE).stat().st_size / 2**20
        done = subprocess.run(
            [sys.executable, "-c", _COLD, folder], capture_output=True, text=True, check=True
        )
    times, modules = done.stdout.splitlines()
    importing, loading, first = map(float, times.split())
    if modules != "[]":
        raise RuntimeError(f"loading a map imported {modules}")
    each = []
    for row in range(100):
        started = time.perf_counter()
        reference.place(X[row : row + 1], reference.layout, "mouse")
        each.append(time.perf_counter() - started)
    started = time.perf_counter()
    reference.place(X, reference.layout, "mouse")
    return [
        ("make the map, UMAP's compilation included", f"{building:.0f} s"),
        (f"keep it ({size:.1f} MiB)", f"{saving:.2g} s"),
        ("import what loading takes, in a new process", f"{importing:.2g} s"),
        ("load it there", f"{1000 * loading:.0f} ms"),
        ("place the first cell there", f"{1000 * first:.0f} ms"),
        ("place one cell, later (median of 100)", f"{1000 * np.median(each):.1f} ms"),
        (f"place {len(X):,} cells at once", f"{time.perf_counter() - started:.2g} s"),
    ]


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cohorts = load_cohorts(["allen"], "shared")
    started = time.perf_counter()
    laid, _ = lay_out(cells_by_species(cohorts))
    building = time.perf_counter() - started
    times = seconds(laid, building)
    compared = pd.concat(
        pd.DataFrame.from_dict(found, orient="index")
        for found in (*map(held_out, range(arguments.repeats)), reference_again(laid))
    )
    compared = compared.groupby(level=0, sort=False).mean()
    lines = [
        "# The kept map",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"umap-learn {version('umap-learn')}; Allen cells, layout shared, {len(laid.table):,} of "
        f"them on the map. Held out are 10 % of the mouse cells, drawn {arguments.repeats} times "
        "(means). Distances are in % of the longer side of the map. The subclass of a place is "
        f"that of most of the {NEIGHBORS} mouse cells nearest to it on the map.",
        "",
        "| cells and the two ways | cells | median distance | 90th percentile | same subclass "
        "| the cell's own, first way | second way |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['cells']:.0f} | {row['median']:.1f} % | {row['90 %']:.1f} % "
            f"| {row['same']:.1f} % | {row['own']:.1f} % | {row['own of other']:.1f} % |"
            for name, row in compared.iterrows()
        ),
        "",
        "| work | time |",
        "|---|---|",
        *(f"| {work} | {taken} |" for work, taken in times),
        "",
    ]
    file = Path(__file__).parent / "results" / "map.md"
    file.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
