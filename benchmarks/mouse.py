"""What was tried about the mouse beside the learning curve of the README.

    CROSSPATCH_DATA=… python benchmarks/mouse.py settings
    CROSSPATCH_DATA=… python benchmarks/mouse.py networks [--protocol donor] [--out …]

``settings`` chooses the constants of ``lda-mouse`` with mouse cells alone: Allen cells are the
second species, those of another laboratory (Scala et al., motor cortex, 13 of 62 inputs) the cells
to predict. Ten minutes on one core.

``networks`` draws the learning curve of the attention BiLSTM with and without mouse, its families
joined by what follows from their features, as normal scores: does the mouse help it once its inputs
carry physics? Hours on one core with 20 draws.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from unittest.mock import patch

import anndata
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from crosspatch.cohorts.loading import load_cohort
from crosspatch.cohorts.table import layout_of
from crosspatch.evaluation import learning_curve as curves
from crosspatch.evaluation.task_cohorts import load_cohorts
from crosspatch.features.layouts import Layout
from crosspatch.models import informed, sequence_classifier, transfer
from crosspatch.models.physics import PhysicsInputs, derived_from
from crosspatch.models.sequence_inputs import SequenceInputs

#: What is tried, the one that was taken first; all others stay as they are.
SETTINGS: dict[str, tuple[float, ...]] = {
    "UNLABELLED_WEIGHT": (0.3, 0.03, 0.1, 1.0),
    "PRIOR_CELLS": (100.0, 30.0, 300.0),
    "RIDGE": (0.05, 0.01, 0.2),
    "GUESS_STRENGTH": (0.01, 0.001, 0.003, 0.03),
    "_LEARNING": (8, 3, 16),
}


def settings(data_dir: str | None) -> None:
    """Macro-F1 on the other laboratory's cells by what is tried and the number of labels."""
    theirs = load_cohort("scala-mouse-m1", "shared", data_dir)
    classes = ["Lamp5", "Pvalb", "Sst", "Vip", "Sncg"]
    cohorts = {
        "human": theirs[theirs.obs["subclass"].isin(classes).to_numpy()].copy(),
        "mouse": load_cohort("allen-mouse", "shared", data_dir),
    }
    for name, values in SETTINGS.items():
        for value in values:
            with patch.object(informed, name, value):
                found = curves.learning_curve(
                    cohorts, models=["lda-mouse"], protocol="quick"
                ).summary
            ours = found[(found["model"] == "lda-mouse") & (found["cut"] == "all")]
            scores = ours.set_index("cells_per_class")["macro_f1_mean"].round(3).to_dict()
            print(name, value, scores, flush=True)


def with_physics(cohort: anndata.AnnData) -> anndata.AnnData:
    """The table with what follows from its features, in the family of the first of these."""
    layout = layout_of(cohort)
    known = dict(zip(layout.feature_names, np.asarray(cohort.X, dtype=np.float64).T, strict=True))
    families = {each.name: each.family for each in layout.features}
    for each in derived_from(layout):
        known[each.name] = each.of(known)
        families[each.name] = families[each.terms[0][0]]
    var = pd.DataFrame({"family": families}, index=list(known)).assign(unit="unspecified")
    values = np.stack(list(known.values()), axis=1).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    uns = dict(cohort.uns, crosspatch=dict(cohort.uns["crosspatch"], layout="with_physics"))
    return anndata.AnnData(values, obs=cohort.obs, var=var, uns=uns)


class NormalScores(SequenceInputs):
    """Inputs of the network as normal scores of what it was fitted on."""

    def fit(self, X: ArrayLike) -> NormalScores:
        """Learn the quantiles."""
        # Under names of its own nothing follows from the features a second time.
        alike = tuple(replace(each, name=f"x{k}") for k, each in enumerate(self.layout.features))
        self.scores_ = PhysicsInputs.fit(Layout(self.layout.name, alike), X)
        super().fit(X)
        return self

    def standardised(self, X: ArrayLike) -> NDArray[np.float64]:
        """Normal scores; missing values stay missing."""
        scores, columns = self.scores_.transform(X), self.scores_.coordinates.columns
        found = np.empty_like(scores)
        found[:, columns] = scores
        return found


def networks(data_dir: str | None, out: str | None, protocol: str) -> None:
    """The learning curve of the network whose inputs carry physics."""
    plain = load_cohorts(["allen"], "shared", ["transfer"], data_dir)
    cohorts = {species: with_physics(cohort) for species, cohort in plain.items()}
    with (
        patch.object(sequence_classifier, "SequenceInputs", NormalScores),
        patch.object(transfer, "SequenceInputs", NormalScores),
        patch.object(curves, "ALONE", ()),  # they make their own physics
    ):
        found = curves.learning_curve(cohorts, models=["finetune"], protocol=protocol, out=out)
    print(found.summary.query("cut == 'all'").to_string())
    print(found.gains.query("cut == 'all'").to_string())


def main() -> None:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["settings", "networks"])
    parser.add_argument("--data-dir")
    parser.add_argument("--out")
    parser.add_argument("--protocol", default="donor")
    asked = parser.parse_args()
    if asked.what == "settings":
        settings(asked.data_dir)
    else:
        # One process: what is patched here is not patched in others.
        networks(asked.data_dir, asked.out, asked.protocol)


if __name__ == "__main__":
    main()
