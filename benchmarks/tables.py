"""Seconds, processor seconds and memory of predicting a table, beside Arrow copying it.

    python benchmarks/tables.py [--model FOLDER] [--rows 1000000] [--times 3]

Writes tables of made-up rows drawn around the model's own scaling, from a thousand rows to as many
as are asked for, tenfold; the largest but one also with gaps, marks of missing values and text
among its numbers. The peer reads such a table with pyarrow.csv and writes it again, block by block.
Commands run in turn in fresh processes, so many times, after one that is not counted. Without a
model it needs the data directory (CROSSPATCH_DATA), for the default mouse model. Writes
benchmarks/results/tables.md and prints it.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd

from crosspatch.features.layouts import LAYER
from crosspatch.models.artifact import Artifact, load
from crosspatch.prediction.default import default_model

# Between this process and the command: the memory of who starts it counts as a command's own.
START = """
import os, sys, time
quiet = [(os.POSIX_SPAWN_OPEN, to, os.devnull, os.O_WRONLY, 0) for to in (1, 2)]
started = time.perf_counter()
command = [sys.executable, *sys.argv[1:]]
_, status, used = os.wait4(os.posix_spawn(command[0], command, os.environ, file_actions=quiet), 0)
print(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
COPY = """
import sys
from pyarrow import csv
with csv.open_csv(sys.argv[1]) as table, csv.CSVWriter(sys.argv[2], table.schema) as out:
    for batch in table:
        out.write(batch)
"""
#: Fields of a dirty table, and of how many.
MARKS = ("", "NA", "n/a", "-", "bad", " 2.5", "1e3")
DIRTY = 0.02
_PART = 40_000
LAYERS = (1, 2.5, 4, 5, 6)


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    processor: float
    #: Peak memory, MiB.
    memory: float


def run(*arguments: str | Path) -> Cost:
    """Run Python, throw away what it says, and take what it cost."""
    command = [sys.executable, "-S", "-c", START, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(*map(float, done.stdout.split()))


def write_table(model: Artifact, rows: int, file: Path, dirty: float = 0.0) -> None:
    """Rows around the model's scaling; of so many fields, marks and text in place of numbers."""
    classifier, rng = model.classifier, np.random.default_rng(0)
    names = list(model.layout.feature_names)
    for start in range(0, rows, _PART):
        n = min(_PART, rows - start)
        X = classifier.feature_center_ + classifier.feature_scale_ * rng.normal(
            size=(n, len(names))
        )
        frame = pd.DataFrame(X.round(5), columns=names)
        if model.layout.has_layer:
            frame[LAYER.name] = rng.choice(LAYERS, n)
        if dirty:
            there = rng.random(X.shape) >= dirty
            marks = pd.DataFrame(rng.choice(MARKS, X.shape), columns=names)
            frame = frame.astype(str).where(there, marks)
        frame.insert(0, "cell_id", [f"cell {start + k}" for k in range(n)])
        frame.to_csv(file, mode="a", header=start == 0, index=False)


def exponent(costs: dict[int, float]) -> float:
    """Of the growth with the rows, beyond what the fewest take."""
    fewest, *more = sorted(costs)
    beyond = [costs[n] - costs[fewest] for n in more]
    return float(np.polyfit(np.log(more), np.log(beyond), 1)[0])


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    folder = arguments.model
    model = load(folder) if folder else default_model("mouse", print, jobs=None)
    given = ("--species", "mouse", *(("--model", folder) if folder else ()))
    sizes = [10**k for k in range(3, 1 + round(np.log10(arguments.rows)))]
    took: dict[tuple[int, bool, str], list[Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out.csv"
        tables = {}
        for rows, dirty in [*((rows, False) for rows in sizes), (sizes[-2], True)]:
            tables[rows, dirty] = Path(temporary) / f"{rows}{'-dirty' if dirty else ''}.csv"
            write_table(model, rows, tables[rows, dirty], DIRTY if dirty else 0.0)
        predict = ("-m", "crosspatch", "predict")
        run(*predict, tables[sizes[0], False], *given, "--out", out)  # compiles
        for _ in range(arguments.times):
            for (rows, dirty), file in tables.items():
                took[rows, dirty, "ours"].append(run(*predict, file, *given, "--out", out))
                took[rows, dirty, "peer"].append(run("-c", COPY, file, out))
                print(f"{rows:,} rows:", *(took[rows, dirty, n][-1] for n in ("ours", "peer")))
    found = {
        key: Cost(*(median(column) for column in zip(*costs, strict=True)))
        for key, costs in took.items()
    }
    growth = {
        name: exponent({n: found[n, False, name].processor for n in sizes})
        for name in ("ours", "peer")
    }
    lines = [
        "# Tables",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores (load {os.getloadavg()[1]:.1f}), Python "
        f"{platform.python_version()}; a stored mouse model ('{model.about['model']}', "
        f"{len(model.layout.features)} features). `crosspatch predict table.csv --out out.csv` "
        "beside pyarrow.csv, which reads the same table and writes it again. Medians of "
        f"{arguments.times} turns; dirty: {DIRTY:.0%} of the fields are gaps, marks or text. "
        f"Processor seconds grow with the rows to the power of {growth['ours']:.2f} (peer "
        f"{growth['peer']:.2f}), beyond those of {sizes[0]:,} rows.",
        "",
        "| rows | seconds | of the processor | peak MiB | Arrow: seconds | of the processor "
        "| peak MiB | ratio of the processor's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows, dirty in tables:
        ours, peer = found[rows, dirty, "ours"], found[rows, dirty, "peer"]
        numbers = " | ".join(
            f"{each.seconds:.2f} | {each.processor:.2f} | {each.memory:.0f}"
            for each in (ours, peer)
        )
        name = f"{rows:,}{', dirty' if dirty else ''}"
        lines.append(f"| {name} | {numbers} | {ours.processor / peer.processor:.1f} |")
    file = Path(__file__).parent / "results" / "tables.md"
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
