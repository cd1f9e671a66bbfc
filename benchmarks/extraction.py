"""Cells a second and peak memory of the feature extraction, beside IPFX's own pipeline.

    python benchmarks/extraction.py [--cells 12] [--species mouse]

Simulates recordings, then measures in a fresh process each: reading every sample (the floor),
`crosspatch.features.extraction.extract_file`, and IPFX's `run_feature_vector_extraction` for the
same files. Writes benchmarks/results/extraction.md and prints it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd


def read_samples(files: list[Path]) -> int:
    """Read every sample of every sweep, through h5py alone."""
    import h5py

    for path in files:
        with h5py.File(path, "r") as file:
            for place in ("acquisition", "stimulus/presentation"):
                for series in file[place].values():
                    series["data"][()]
    return len(files)


def ours(files: list[Path]) -> int:
    """The gouwens layout with quality control."""
    from crosspatch.features.extraction import ExtractionSettings, extract_file

    for path in files:
        extract_file(path, ExtractionSettings("gouwens"))
    return len(files)


def ipfx(files: list[Path]) -> int:
    """IPFX's pipeline with its own reader; cells with a missing protocol give nothing there."""
    import ipfx.json_utilities
    from ipfx.bin.run_feature_vector_extraction import data_for_specimen_id
    from ipfx.stimulus import StimulusOntology

    file = StimulusOntology.DEFAULT_STIMULUS_ONTOLOGY_FILE
    ontology = StimulusOntology(ipfx.json_utilities.read(file))
    done = 0
    for path in files:
        found = data_for_specimen_id(
            0, "none", "filesystem", ontology, ap_window_length=0.003, file_list=[str(path)]
        )
        done += "error" not in found
    return done


WORK = {"read": read_samples, "crosspatch": ours, "IPFX": ipfx}


def peak_memory() -> float:
    """Peak resident memory of this process in MiB; getrusage would count its parent's as well."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(what: str, files: list[Path]) -> None:
    """Run one kind of work and print what it took; called in a process of its own."""
    work = WORK[what]
    work(files[:1])  # imports
    started, before = time.perf_counter(), time.process_time()
    done = work(files)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - started,
                "processor": time.process_time() - before,
                "done": done,
                "memory": peak_memory(),
            }
        )
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--species", default="mouse")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure[0], [Path(name) for name in chosen.measure[1:]])
        return
    from crosspatch.features.extraction import ExtractionSettings
    from crosspatch.features.many import extract_many
    from crosspatch.simulation.cells import simulate_cells

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        simulate_cells(place / "warm", 1, chosen.species, jobs=1)  # compiles
        started = time.perf_counter()
        simulate_cells(place, chosen.cells, chosen.species, jobs=chosen.jobs)
        simulated = time.perf_counter() - started
        files = sorted(place.glob("*.nwb"))
        size = sum(file.stat().st_size for file in files) / len(files) / 2**20
        rows = []
        for what in WORK:
            command = [sys.executable, __file__, "--measure", what, *map(str, files)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(result.stdout.splitlines()[-1])
            rows.append(
                {
                    "work": what,
                    "cells": found["done"],
                    "s/cell": found["seconds"] / len(files),
                    "cells/s/core": len(files) / found["processor"],
                    "peak MiB": found["memory"],
                }
            )
            print(rows[-1], flush=True)
        started = time.perf_counter()
        extract_many(files, place / "c.sqlite", ExtractionSettings("gouwens"), jobs=chosen.jobs)
        rate = len(files) / (time.perf_counter() - started)
    frame = pd.DataFrame(rows)
    lines = [
        "# Extraction: the twelve families of simulated recordings",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"IPFX {version('ipfx')}, {len(files)} {chosen.species} cells of {size:.1f} MiB on average "
        "(50 kHz, Allen stimulus set). One process each, imports not counted; `cells` is how many "
        "gave a result. IPFX gives nothing for a cell that lacks a protocol.",
        "",
        "| " + " | ".join(frame.columns) + " |",
        "|---" * len(frame.columns) + "|",
    ]
    for row in frame.itertuples(index=False):
        cells = [value if isinstance(value, str) else f"{value:.3g}" for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"`crosspatch extract --jobs {chosen.jobs}`, start of the processes included: "
        f"{rate:.2f} cells/s. Simulating them: {len(files) / simulated:.2f} cells/s.",
    ]
    out = Path(__file__).parent / "results" / "extraction.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
