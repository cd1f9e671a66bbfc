"""The picture in the README: macro-F1 of every run, beside the published numbers.

    python benchmarks/picture.py RESULTS… -o docs/results.svg

takes result folders of `crosspatch run`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

from crosspatch.evaluation.results import published, read_results

TITLES = {
    ("mouse", "shared"): "Mouse, 5 subclasses\n32 features",
    ("human", "shared"): "Human, 4 subclasses\n32 features",
    ("human", "full"): "Human, 4 subclasses\n93 features",
    ("transfer", "shared"): "Human with mouse\n32 features",
}


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    chosen = parser.parse_args()
    frame = pd.concat([read_results(folder).results for folder in chosen.results])
    keys = ["task", "features", "model", "run"]
    runs = frame.groupby(keys, sort=False)["macro_f1"].mean().reset_index()
    panels = [
        key for key in TITLES if ((runs["task"] == key[0]) & (runs["features"] == key[1])).any()
    ]
    rows = [
        runs[(runs["task"] == task) & (runs["features"] == features)] for task, features in panels
    ]
    mpl.rcParams |= {"font.size": 9, "svg.fonttype": "none", "axes.spines.top": False}
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(7, 0.5 + 0.36 * sum(part["model"].nunique() + 1 for part in rows)),
        height_ratios=[part["model"].nunique() + 1 for part in rows],
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, part, (task, features) in zip(axes[:, 0], rows, panels, strict=True):
        models = list(part.groupby("model")["macro_f1"].mean().sort_values().index)
        theirs = published().query("task == @task").set_index("model")["macro_f1"]
        for place, model in enumerate(models):
            scores = part.loc[part["model"] == model, "macro_f1"]
            axis.plot(scores, [place] * len(scores), "o", color="#0072B2", alpha=0.35, ms=4)
            axis.plot(scores.mean(), place, "|", color="#0072B2", ms=14, mew=2)
            axis.text(1.005, place, f"{scores.mean():.3f}", va="center", color="#0072B2")
            if model in theirs.index:
                axis.plot(theirs[model], place, "D", mfc="none", color="#D55E00", ms=5)
        axis.set_yticks(range(len(models)), models)
        axis.set_ylim(-0.6, len(models) - 0.4)
        axis.set_title(TITLES[task, features].replace("\n", ", "), loc="left", fontsize=9)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[-1, 0].set_xlim(0.55, 1.0)
    axes[-1, 0].set_xlabel(
        "macro-F1; dots: runs on held-out donors, bar: their mean\n"
        "diamond: published, on other cells, with donors on both sides"
    )
    figure.savefig(chosen.out)


if __name__ == "__main__":
    main()
