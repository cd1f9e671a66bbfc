"""Damaged files end in a recording or a clear error: no crash, no hang, no file left open.

Every file is damaged in another way. ``CROSSPATCH_FUZZ_FILES`` says how many of each kind; 2000
before a release.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recordings import made_files, made_formats

FILES = int(os.environ.get("CROSSPATCH_FUZZ_FILES", "500"))
#: For one file, s.
LIMIT = 60
STEPS = (-100, -20, 140, 180)
#: Endings of files of other programs, and what writes them.
OTHERS = {
    "atf": made_formats.write_atf,
    "axgx": made_formats.write_axgx,
    "wcp": made_formats.write_wcp,
    "ws.h5": made_formats.write_wavesurfer,
    "sf.h5": made_formats.write_stimfit,
    "ibw": None,
    "pxp": None,
}


def write_seeds(kind: str, folder: Path) -> None:
    folder.mkdir()
    sweeps = made_files.cell(STEPS)
    if kind == "nwb":
        everything = [made_files.membrane_test(), *sweeps]
        for pairing in made_files.PAIRINGS:
            made_files.write_nwb(
                folder / f"{pairing}.nwb",
                everything,
                pairing=pairing,
                integers=pairing == "tables",
                compressed=pairing in ("tables", "sweep_table"),
            )
        made_files.write_nwb(folder / "stamps.nwb", sweeps[::2], timestamps=True, compressed=True)
    elif kind == "abf1":
        made_files.write_abf1(folder / "epochs.abf")
        made_files.write_abf_rig(folder / "rig.abf", 1)
    elif kind in OTHERS:
        write = OTHERS[kind]
        inputs = made_formats.inputs_of(sweeps[:4])
        if write is not None:
            write(folder / f"c.{kind}", inputs, made_files.RATE)
        elif kind == "ibw":  # of the command alone nothing is read
            made_formats.write_ibw(folder, inputs[:1], made_files.RATE, "c{sweep}_{input}")
        else:
            folders = {"c1": (inputs, made_files.RATE)}
            made_formats.write_pxp(folder / "c.pxp", folders, "{input}_{sweep}")
    else:
        made_files.write_abf2(folder / "epochs.abf")
        made_files.write_abf_rig(folder / "rig.abf", 2)
        made_files.write_abf2(folder / "lengths.abf", [sweeps[0], sweeps[4], sweeps[1]])


def read_damaged(seeds: Path, files: int, least: float = 0.02) -> None:
    """Two processes, half of the files each."""
    halves = [(0, files // 2), (files // 2, files)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.recordings.damaged"]
            + [str(each) for each in (seeds, first, last, LIMIT)],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=(seeds.parent / f"{first}.out").open("w"),
            stderr=(seeds.parent / f"{first}.err").open("w"),
        )
        for first, last in halves
    ]
    codes = [process.wait() for process in processes]
    usable = 0
    for (first, _), code in zip(halves, codes, strict=True):
        last_line = (seeds.parent / f"{first}.out").read_text().splitlines()[-1:]
        errors = (seeds.parent / f"{first}.err").read_text()
        assert code == 0, (
            f"exit code {code} at file {last_line}, left in {seeds.parent}:\n{errors[-3000:]}"
        )
        assert "Warning" not in errors
        usable += int(last_line[0].removeprefix("usable "))
    # Had all been refused at once, or none been damaged, little would have been tested.
    assert least * files <= usable < 0.98 * files


@pytest.mark.parametrize("kind", OTHERS)
def test_damaged_files_of_other_programs(kind: str, tmp_path: Path):
    write_seeds(kind, tmp_path / "seeds")
    # A single wave has no command; of the others few are whole enough.
    read_damaged(tmp_path / "seeds", FILES // 5, least=0.0)


def test_damaged_real_files_of_other_programs(real_data: Path, tmp_path: Path):
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for pattern in ("B6_Ch3*.ibw", "*.axgx", "*.wcp", "*.h5"):
        for file in (real_data / "formats").glob(pattern):
            (seeds / file.name).write_bytes(file.read_bytes())
    read_damaged(seeds, FILES // 5, least=0.0)


@pytest.mark.parametrize("kind", ["nwb", "abf1", "abf2"])
def test_damaged_files(kind: str, tmp_path: Path):
    write_seeds(kind, tmp_path / "seeds")
    read_damaged(tmp_path / "seeds", FILES)


def test_damaged_real_files(real_data: Path, tmp_path: Path):
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for name, every in (("18713001", 6), ("171116sh_0018", 4), ("171116sh_0016", 5)):
        source = real_data / "recordings" / f"{name}.abf"
        made_files.cut_abf2(source, seeds / f"{name}.abf", every)
    abf1 = real_data / "recordings" / "190619B_0003.abf"
    (seeds / abf1.name).write_bytes(abf1.read_bytes())
    read_damaged(seeds, FILES // 5)
