"""Recordings to features, beside IPFX: processor time, equality, growth with their number.

    python benchmarks/measuring.py [--cells 3] [--equal 60] [--growth 1 10 100]

Simulates recordings with all that files of the DANDI archive hold, of both species. In a fresh
process each, imports not counted, it measures: reading every sample (the floor),
`crosspatch.features.extraction.extract_file` for the twelve families and for the scalars, and
IPFX's `run_feature_vector_extraction`. Of many smaller recordings it compares every scalar and
family with IPFX's on the same sweeps, in double precision, and lets `extract_many` measure 1, 10
and 100. Writes benchmarks/results/measuring.md and prints it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

from benchmarks.whole_set import WHOLE_SET
from crosspatch.species import SPECIES

#: Each work is measured this often on a recording; the median counts.
REPEATS = 3


def read_samples(path: Path) -> None:
    """Read every sample of every sweep, through h5py alone."""
    import h5py

    with h5py.File(path, "r") as file:
        for place in ("acquisition", "stimulus/presentation"):
            for series in file[place].values():
                series["data"][()]


def ours(layout: str) -> Callable[[Path], None]:
    """All that `crosspatch extract` does with a file."""
    from crosspatch.features.extraction import ExtractionSettings, extract_file

    settings = ExtractionSettings(layout)

    def run(path: Path) -> None:
        extract_file(path, settings)

    return run


def ipfx() -> Callable[[Path], None]:
    """IPFX's pipeline with its own reader."""
    import ipfx.json_utilities
    from ipfx.bin.run_feature_vector_extraction import data_for_specimen_id
    from ipfx.stimulus import StimulusOntology

    file = StimulusOntology.DEFAULT_STIMULUS_ONTOLOGY_FILE
    ontology = StimulusOntology(ipfx.json_utilities.read(file))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")

    def run(path: Path) -> None:
        found = data_for_specimen_id(
            0, "none", "filesystem", ontology, ap_window_length=0.003, file_list=[str(path)]
        )
        if "error" in found:
            raise RuntimeError(f"IPFX gives nothing for {path}")

    return run


WORK: dict[str, Callable[[], Callable[[Path], None]]] = {
    "reading every sample": lambda: read_samples,
    "12 families": lambda: ours("gouwens"),
    "scalars": lambda: ours("shared"),
    "IPFX": ipfx,
}


def processor() -> float:
    """Processor seconds of this process and of the children that ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(what: str, files: Sequence[Path]) -> None:
    """Do one kind of work in this process, and print what each file took."""
    work = WORK[what]()
    work(files[0])  # imports, and loads what is compiled
    seconds = []
    for path in files:
        taken = []
        for _ in range(REPEATS):
            before = time.process_time()
            work(path)
            taken.append(time.process_time() - before)
        seconds.append(statistics.median(taken))
    print(json.dumps(seconds))


def side_by_side(files: Sequence[Path]) -> dict[str, float]:
    """Processor seconds per recording of each kind of work."""
    found = {}
    for what in WORK:
        command = [sys.executable, "-m", "benchmarks.measuring", "--measure", what]
        done = subprocess.run(
            [*command, *map(str, files)], check=True, capture_output=True, text=True
        )
        found[what] = statistics.median(json.loads(done.stdout.splitlines()[-1]))
    return found


def first_use() -> dict[str, float]:
    """Processor seconds to import what measures, and to load it from numba's cache."""
    code = (
        "import time; a = time.process_time()\n"
        "import numpy; b = time.process_time()\n"
        "import numba; c = time.process_time()\n"
        "from crosspatch.features.measuring import first_use; d = time.process_time()\n"
        "first_use.load_kernels(); e = time.process_time()\n"
        "print(c - b, e - d)\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        for _ in range(REPEATS)
    ]
    imports, loads = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    return {"numba": statistics.median(imports), "loading": statistics.median(loads)}


def differences(files: Sequence[Path]) -> dict[str, tuple[int, float]]:
    """Of every scalar and family how many were compared, and the largest difference from IPFX."""
    from tests.oracle.ipfx_way import compare

    from crosspatch.recordings.opening import open_recording

    found: dict[str, tuple[int, float]] = {}
    for path in files:
        with open_recording(path) as recording:
            for name, off in compare(recording).items():
                count, most = found.get(name, (0, 0.0))
                found[name] = (count + 1, max(most, off))
    return found


def growth(files: Sequence[Path], folder: Path) -> dict[str, float]:
    """What `extract_many` takes in a process of its own: processor seconds, and peak memory."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from crosspatch.features.extraction import ExtractionSettings\n"
        "from crosspatch.features.many import extract_many\n"
        "from benchmarks.measuring import processor\n"
        "files = [Path(name) for name in sys.argv[2:]]\n"
        "before = processor()\n"
        "extract_many(files, sys.argv[1], ExtractionSettings('gouwens'), jobs=1)\n"
        "print(processor() - before)\n"
    )
    store = folder / f"{len(files)}.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store), *map(str, files)],
        stdout=subprocess.PIPE,
        text=True,
    )
    watched, peak = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in family) / 2**20)
        except psutil.Error:
            pass
        time.sleep(0.05)
    output = process.stdout.read() if process.stdout else ""
    return {"recordings": len(files), "s": float(output.split()[-1]), "MiB": peak}


def copies(files: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """As many recordings, each file as often as it takes, under names of their own."""
    folder.mkdir()
    made = [folder / f"{k:04d}.nwb" for k in range(count)]
    for k, path in enumerate(made):
        path.symlink_to(files[k % len(files)])
    return made


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=3, help="of the whole set, per species")
    parser.add_argument("--equal", type=int, default=60, help="compared with IPFX, per species")
    parser.add_argument("--growth", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure[0], [Path(name) for name in chosen.measure[1:]])
        return
    from crosspatch.simulation.cells import PlannedCell, simulate_cells, write_cell
    from crosspatch.simulation.rig import NO_TROUBLE

    lines = [
        "# Measuring: recordings to features",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, IPFX "
        f"{version('ipfx')}, numba {version('numba')}; load {os.getloadavg()[0]:.1f} at the start. "
        "Processor seconds of one recording with the whole stimulus set, medians; imports are not "
        "counted.",
        "",
        "| species | " + " | ".join(WORK) + " | IPFX / families | families / reading |",
        "|---" * (len(WORK) + 3) + "|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plain: list[Path] = []
        for species in SPECIES:
            place = folder / f"whole-{species}"
            place.mkdir()
            cells = [
                PlannedCell(k, species, subclass, donor=k, seed=1)
                for k, subclass in enumerate(("Pvalb", "Sst", "Vip", "Lamp5") * chosen.cells)
            ][: chosen.cells]
            whole = [write_cell(each, place, NO_TROUBLE, style=WHOLE_SET) for each in cells]
            found = side_by_side(whole)
            families = found["12 families"]
            ratios = (found["IPFX"] / families, families / found["reading every sample"])
            row = [species, *(f"{s:.3g}" for s in found.values()), *(f"{r:.2g}" for r in ratios)]
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
            place = folder / f"plain-{species}"
            simulate_cells(place, chosen.equal, species, seed=1, jobs=chosen.jobs)
            plain += sorted(place.glob("*.nwb"))
        cold = first_use()
        lines += [
            "",
            f"Once per process: importing numba {cold['numba']:.2g} s, loading what measures from "
            f"its cache {cold['loading']:.2g} s, most of it numba's own start.",
            "",
            f"{len(plain)} smaller recordings, every scalar and family beside IPFX's on the same "
            "sweeps: the largest difference, relative where values are above 1 (the time constant: "
            "with IPFX's fit run to its end); inf where a value is missing here that IPFX gives.",
            "",
            "| what | compared | largest difference |",
            "|---|---|---|",
        ]
        for name, (count, most) in sorted(differences(plain).items()):
            lines.append(f"| {name} | {count} | {most:.1e} |")
        grown = [
            growth(copies(plain, count, folder / f"grow-{count}"), folder)
            for count in chosen.growth
        ]
    lines += [
        "",
        "The same recordings through `extract_many` with one child process, its start included:",
        "",
        "| recordings | processor s | s per recording | peak MiB of all processes |",
        "|---|---|---|---|",
    ]
    for grew in grown:
        n, seconds = grew["recordings"], grew["s"]
        lines.append(f"| {n} | {seconds:.3g} | {seconds / n:.2g} | {grew['MiB']:.0f} |")
    if len(grown) > 2:
        few, many = grown[-2:]
        steps = np.log(many["recordings"] / few["recordings"])
        exponent = np.log(many["s"] / few["s"]) / steps
        lines += ["", f"From {few['recordings']} on the time grows as n^{exponent:.2f}."]
    out = Path(__file__).parent / "results" / "measuring.md"
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
