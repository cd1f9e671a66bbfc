"""Seconds of a cold start: predicting one recording, beside the imports that it stands on.

    python benchmarks/start.py [--model FOLDER] [--times 5]

Needs the recordings of the data directory (CROSSPATCH_DATA), and without a model its tables for the
default mouse model; another recording is simulated. Commands run in turn in fresh processes, so
many times; medians are of the seconds that passed and of the processor's, children included. Writes
benchmarks/results/start.md and prints it.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from crosspatch.cohorts.sources import data_directory
from crosspatch.features.extraction import ExtractionSettings, extract_file
from crosspatch.models.artifact import load
from crosspatch.prediction.batches import ReadSettings, recordings_batch
from crosspatch.prediction.default import default_model
from crosspatch.prediction.predictor import Predictor


def used() -> float:
    """Processor seconds of this process and of its children that have ended."""
    every = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in every)


def run(*arguments: str | Path) -> None:
    """Run Python and throw away what it says."""
    command = [sys.executable, *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    folder = arguments.model
    model = load(folder) if folder else default_model("mouse", print, jobs=None)
    recording = data_directory() / "recordings" / "171116sh_0018.abf"
    with tempfile.TemporaryDirectory() as temporary:
        simulated = Path(temporary) / "simulated"
        crosspatch = ("-m", "crosspatch")
        one = ("--species", "mouse", "--cells", "1", "--seed", "3")
        run(*crosspatch, "simulate", *one, "--out", simulated)
        (nwb,) = simulated.glob("*.nwb")
        given = ("--species", "mouse", *(("--model", folder) if folder else ()))
        out = ("--out", Path(temporary) / "out.csv")
        settings, predictor = ReadSettings(model.layout, "mouse"), Predictor([model])

        def in_memory(file: Path) -> None:
            cell = extract_file(file, ExtractionSettings(model.layout.name))
            predictor.predict(recordings_batch([(file, cell)], settings, lambda line: None))

        work: dict[str, Callable[[], None]] = {
            "Python": lambda: run("-c", ""),
            "import numpy": lambda: run("-c", "import numpy"),
            "import pyarrow.csv": lambda: run("-c", "import pyarrow.csv"),
            "import pandas": lambda: run("-c", "import pandas"),
            "import numba": lambda: run("-c", "import numba"),
            "import crosspatch": lambda: run("-c", "import crosspatch"),
            "--version": lambda: run(*crosspatch, "--version"),
            "--help": lambda: run(*crosspatch, "--help"),
            "inspect one.abf --no-png": lambda: run(*crosspatch, "inspect", recording, "--no-png"),
            "predict one.abf": lambda: run(*crosspatch, "predict", recording, *given, *out),
            "predict one.nwb": lambda: run(*crosspatch, "predict", nwb, *given, *out),
            "one.abf, the model in memory": lambda: in_memory(recording),
            "one.nwb, the model in memory": lambda: in_memory(nwb),
        }
        took: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for turn in range(arguments.times + 1):
            for what, do in work.items():
                started, before = time.perf_counter(), used()
                do()
                if turn:  # the first fills the system's memory of files, and compiles
                    took[what].append((time.perf_counter() - started, used() - before))
    lines = [
        "# Cold start",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores (load {os.getloadavg()[1]:.1f}), Python "
        f"{platform.python_version()}; a stored mouse model ('{model.about['model']}', layout "
        f"{model.layout.name}). one.abf is a real recording of "
        f"{recording.stat().st_size / 2**20:.1f} MiB. Medians of {arguments.times} turns, children "
        "included.",
        "",
        "| work | seconds | of the processor | times `import pyarrow.csv` |",
        "|---|---|---|---|",
    ]
    floor = median(each[1] for each in took["import pyarrow.csv"])
    for what, times in took.items():
        passed, processor = (median(column) for column in zip(*times, strict=True))
        lines.append(f"| {what} | {passed:.2f} | {processor:.2f} | {processor / floor:.1f} |")
    file = Path(__file__).parent / "results" / "start.md"
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
