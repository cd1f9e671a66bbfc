"""A laboratory's own model: trained on its own columns, or on those that are ours as well.

    CROSSPATCH_DATA=… python benchmarks/own_table.py [--data-dir …] [--models vote lda boosting]

joins the tables of Scala, Kobak et al. (2021) as that laboratory would have them in one, takes it
by `crosspatch.load_labelled` and writes benchmarks/results/own_table.md. Takes a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import crosspatch
from crosspatch.cohorts.sources import data_directory

RESULTS = Path(__file__).parent / "results" / "own_table.md"
SUBCLASSES = {"Pvalb": "Pvalb", "Sst": "Sst", "Vip": "Vip", "Sncg": "Vip", "Lamp5": "Lamp5"}


def joined_table(data_dir: str | None) -> pd.DataFrame:
    """The interneurons of one laboratory: features, and everything that it notes of a cell."""
    folder = data_directory(data_dir) / "scala_mouse_m1"
    measured = pd.read_csv(folder / "m1_patchseq_ephys_features.csv")
    noted = pd.read_csv(folder / "m1_patchseq_meta_data.csv", sep="\t")
    table = measured.merge(noted, left_on="cell id", right_on="Cell")
    return table.assign(subclass=table.pop("RNA family").map(SUBCLASSES)).dropna(subset="subclass")


def main() -> None:
    """Evaluate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--models", nargs="+", default=["vote", "lda", "boosting"])
    given = parser.parse_args()
    own = crosspatch.load_labelled(
        joined_table(given.data_dir), label="subclass", group="Mouse", species="mouse"
    )
    ours = own.var_names[own.var["family"] != own.var_names]
    rows = []
    for what, cohort in {"its own": own, "those that are ours": own[:, ours].copy()}.items():
        found = crosspatch.benchmark({"mouse": cohort}, models=given.models, protocol="quick")
        for row in found.summary.to_dict("records"):
            score, sd = row["macro_f1_mean"], row["macro_f1_sd"]
            name = row["model"]
            rows.append(f"| {what} | {cohort.n_vars} | {name} | {score:.3f} ± {sd:.3f} |")
    mice = own.obs["donor"].nunique()
    RESULTS.write_text(
        "# A laboratory's own table\n\n"
        f"{own.n_obs} interneurons of {mice} mice (Scala, Kobak et al. 2021), "
        "four\nsubclasses, Sncg counted as Vip; mice apart, 2 runs of 5 folds "
        "(`python benchmarks/own_table.py`).\n\n"
        "| columns | features | model | macro-F1 |\n|---|---|---|---|\n" + "\n".join(rows) + "\n",
        encoding="utf-8",
    )
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
