"""Cells that are no interneurons: what the default models say of them, and of interneurons.

    CROSSPATCH_DATA=… python -m benchmarks.excitatory [--data-dir …] [--seeds 1] [--jobs 2]

holds out donors, and whole rigs with every donor that they share, and writes
benchmarks/results/excitatory.md. Takes some ten minutes of the processor for each seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.loading import load_cohort
from crosspatch.features.layouts import Layout, load_layout
from crosspatch.models.registry import build_calibrated, model_entry
from crosspatch.models.screen import Screen
from crosspatch.models.screening import KindCells, fit_screen
from crosspatch.models.verdicts import Verdict, verdicts
from crosspatch.prediction.kinds import SCREEN_LAYOUT, kind_cells
from crosspatch.species import SPECIES

RESULTS = Path(__file__).parent / "results" / "excitatory.md"
SHARED = load_layout(SCREEN_LAYOUT)
EIGHT = (
    *("v_baseline", "input_resistance", "tau", "rheobase_i", "threshold_v_rheo"),
    *("peak_deltav_rheo", "fast_trough_deltav_rheo", "width_rheo"),
)
DOZEN = (*EIGHT, "upstroke_downstroke_ratio_rheo", "latency_rheo", "sag", "fi_fit_slope")
GIVEN = {"all": SHARED.feature_names, "a dozen": DOZEN, "eight": EIGHT}


class Said(NamedTuple):
    """What was said of cells: shape (cells,), and (cells, 2) for the shares."""

    rig: NDArray[np.str_]
    excitatory: NDArray[np.bool_]
    verdict: NDArray[np.object_]
    before: NDArray[np.object_]  # the verdict without the screen


class Trained:
    """The default models of both species, without some donors."""

    def __init__(self, learnt: dict[str, Cells], without: set[str], seed: int, jobs: int):
        self.models = {}
        for species, cells in learnt.items():
            rows = ~np.isin(cells.donors, list(without))
            built = build_calibrated(
                model_entry(SPECIES[species].best_model), cells.layout, seed, "cpu", jobs
            )
            self.models[species] = built.fit(
                cells.X[rows], cells.y[rows], groups=cells.donors[rows], types=cells.types[rows]
            )

    def say(self, cells: KindCells, screen: Screen, given: str) -> Said:
        """Verdicts on cells that have the given features alone."""
        keep = np.isin(SHARED.feature_names, GIVEN[given])
        X = np.where(keep, cells.X, np.nan)
        screened = screen.compare(X)
        found = [np.empty(len(X), dtype=object) for _ in range(2)]
        for species, model in self.models.items():
            rows = np.flatnonzero(np.char.startswith(cells.rigs, species))
            judged = model.judge(_in_layout(X[rows], model.layout_))
            parts = judged.probabilities, judged.sets, judged.p_reference
            here = type(screened)._make(part[rows] for part in screened)
            found[0][rows], found[1][rows] = verdicts(*parts, here), verdicts(*parts)
        return Said(cells.rigs, cells.excitatory, *found)


def _in_layout(X: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """Cells in a wider layout, without what they do not have."""
    found = np.full((len(X), len(layout.features)), np.nan, dtype=np.float32)
    found[:, SHARED.within(layout)] = X
    return found


def held_out(
    cells: KindCells, learnt: dict[str, Cells], seed: int, jobs: int
) -> Iterator[tuple[str, str, Said]]:
    """Who was held out, which features were given, and what was said."""
    both = np.char.add(cells.rigs, np.where(cells.excitatory, "+", "-"))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for _, test in folds.split(cells.X, both, cells.donors):
        apart = np.isin(np.arange(len(both)), test)
        models = Trained(learnt, set(cells.donors[test]), seed, jobs)
        screen = fit_screen(SHARED, cells.where(~apart), (), seed=seed, jobs=jobs)
        for given in GIVEN:
            yield "donors", given, models.say(cells.where(apart), screen, given)
        # Of the rigs that subclasses are learnt from, subclasses are always those of other donors.
        for rig in np.unique(cells.rigs):
            here = apart & (cells.rigs == rig)
            outside = ~np.isin(cells.donors, cells.donors[cells.rigs == rig])
            key = (rig, seed)
            if key not in _SCREENS:
                _SCREENS[key] = fit_screen(SHARED, cells.where(outside), (), seed=seed, jobs=jobs)
            for given in GIVEN:
                yield "rig", given, models.say(cells.where(here), _SCREENS[key], given)


_SCREENS: dict[tuple[str, int], Screen] = {}


def table(found: list[tuple[int, str, str, Said]]) -> pd.DataFrame:
    """Shares in percent by what was held out, features, rig and seed."""
    parts = []
    for seed, held, given, said in found:
        part = pd.DataFrame(said._asdict())
        parts.append(part.assign(seed=seed, held=held, given=given))
    every = pd.concat(parts, ignore_index=True)
    rows = []
    for key, part in every.groupby(["held", "given", "rig", "seed"]):
        kinds = part[part["excitatory"]], part[~part["excitatory"]]
        row = dict(zip(("held", "given", "rig", "seed"), key, strict=True))
        for name, cells in zip(("exc", "int"), kinds, strict=True):
            row[f"{name}_cells"] = len(cells)
            row[f"{name}_before"] = (cells["before"] == Verdict.CONFIDENT).mean()
            row[f"{name}_confident"] = (cells["verdict"] == Verdict.CONFIDENT).mean()
            row[f"{name}_called"] = (cells["verdict"] == Verdict.NOT_INTERNEURON).mean()
            row[f"{name}_outside"] = (cells["verdict"] == Verdict.OUTSIDE).mean()
            row[f"{name}_insufficient"] = (cells["verdict"] == Verdict.INSUFFICIENT).mean()
        rows.append(row)
    return pd.DataFrame(rows)


def _written(rows: pd.DataFrame, seeds: int) -> str:
    mean = rows.groupby(["held", "given", "rig"], sort=False).mean(numeric_only=True)
    lines = [
        "# Cells that are no interneurons",
        "",
        f"Percent of cells, mean of {seeds} seed{'s' * (seeds > 1)} (`python -m "
        "benchmarks.excitatory`). *confident*: called a",
        "subclass with confidence, in brackets without the screen; *called*: not an interneuron.",
        "Limits are always those of other rigs. Where a rig is held out, the screen knows no cell",
        "of it and no donor; subclasses are told by the default models, without the cells' donors.",
        "*a dozen* and *eight* are scalars of long squares alone.",
        "",
        "| held out | features | rig | excitatory | confident | called | interneurons | confident |"
        " called | outside |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in mean.iterrows():
        held, given, rig = map(str, key)  # type: ignore[call-overload]
        shares = {name: f"{100 * value:.1f}" for name, value in row.items()}
        lines.append(
            f"| {held} | {given} | {rig} | {row['exc_cells']:.0f} | {shares['exc_confident']} "
            f"({shares['exc_before']}) | {shares['exc_called']} | {row['int_cells']:.0f} | "
            f"{shares['int_confident']} ({shares['int_before']}) | {shares['int_called']} | "
            f"{shares['int_outside']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Hold out, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    cells, _ = kind_cells(given.data_dir)
    learnt = {}
    for name, species in SPECIES.items():
        cohort = load_cohort(species.default_cohort, species.default_layout, given.data_dir)
        layer = "layer" in cohort.obs and name == "human"
        alignment = "hodge2019" if species.aligned else None
        learnt[name] = cells_of(cohort, alignment, layer=layer)
    found = [
        (seed, *each)
        for seed in range(given.seeds)
        for each in held_out(cells, learnt, seed, given.jobs)
    ]
    RESULTS.write_text(_written(table(found), given.seeds), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
