"""Cells a second from a table; for a recording see start.py.

    python benchmarks/prediction.py [--rows 1000000]

Needs the data directory (CROSSPATCH_DATA). Trains the default mouse model unless it is in the
user's cache, and writes a table of made-up rows drawn around the model's own scaling. Commands run
in fresh processes, whose peak memory (children included) is watched. Writes
benchmarks/results/prediction.md and prints it.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from crosspatch.models.artifact import Artifact
from crosspatch.prediction.batches import ReadSettings
from crosspatch.prediction.default import default_model
from crosspatch.prediction.predictor import Predictor
from crosspatch.prediction.table_cells import read_table


def command(*args: str | Path) -> tuple[float, float]:
    """Run crosspatch; seconds, and peak memory of it and its children in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "crosspatch", *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watched, peak = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in family) / 2**20)
        except psutil.Error:
            pass
        time.sleep(0.05)
    if process.returncode != 0:
        raise RuntimeError(f"crosspatch {' '.join(map(str, args))} failed")
    return time.perf_counter() - started, peak


def write_table(model: Artifact, rows: int, file: Path) -> None:
    """Rows around the model's scaling, 40,000 at a time."""
    classifier, rng = model.classifier, np.random.default_rng(0)
    names = list(model.layout.feature_names)
    for start in range(0, rows, 40_000):
        n = min(40_000, rows - start)
        X = classifier.feature_center_ + classifier.feature_scale_ * rng.normal(
            size=(n, len(names))
        )
        frame = pd.DataFrame(X.round(5), columns=names)
        frame.insert(0, "cell_id", [f"cell {start + k}" for k in range(n)])
        frame.to_csv(file, mode="a", header=start == 0, index=False)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    started = time.perf_counter()
    model = default_model("mouse", print, jobs=2)
    training = time.perf_counter() - started
    rows: list[dict[str, str]] = []

    def add(work: str, seconds: float, rate: str, peak: float | None) -> None:
        memory = "" if peak is None else f"{peak:.0f}"
        rows.append({"work": work, "s": f"{seconds:.3g}", "rate": rate, "peak MiB": memory})
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for n in sorted({1, 5_000, arguments.rows}):
            table = folder / f"{n}.csv"
            write_table(model, n, table)
            given = ("predict", table, "--species", "mouse", "--out", folder / "out.csv")
            seconds, peak = command(*given)
            add(
                f"table of {n:,} rows, from the command line",
                seconds,
                f"{n / seconds:,.0f}/s",
                peak,
            )
        settings = ReadSettings(model.layout, "mouse")
        predictor = Predictor([model])
        (batch,) = read_table(folder / "5000.csv", settings, lambda line: None)
        started = time.perf_counter()
        predictor.predict(batch)
        seconds = time.perf_counter() - started
        add("5,000 cells in memory", seconds, f"{5000 / seconds:,.0f}/s", None)
    lines = [
        "# Prediction",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"default mouse model ('{model.about['model']}', layout {model.layout.name}). Getting it "
        f"from the data directory or the cache took {training:.0f} s. Peak memory is of all "
        "processes of a command.",
        "",
        "| work | seconds | rate | peak MiB |",
        "|---|---|---|---|",
        *(f"| {row['work']} | {row['s']} | {row['rate']} | {row['peak MiB']} |" for row in rows),
        "",
    ]
    file = Path(__file__).parent / "results" / "prediction.md"
    file.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
