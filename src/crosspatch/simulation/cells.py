"""Simulated cells of both species, recorded with the Allen stimulus set and written as NWB.

For tests, examples and the embedded default run, never for science: every file, table and
description says that it is simulated. What the subclasses look like is data,
``data/simulated_cells.csv``: the means and spreads of published recordings, and the few values
fitted to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import get_reusable_executor

from crosspatch.errors import RecordingError
from crosspatch.recordings.nwb_writer import (
    INTEGERS,
    ElectrodeNotes,
    SessionNotes,
    Storage,
    write_nwb,
)
from crosspatch.simulation.point_neuron import PointNeuron, simulate_neuron
from crosspatch.simulation.rig import USUAL_TROUBLE, Extra, Trouble, no_extra, record
from crosspatch.simulation.subclasses import require_simulated, simulated_neuron
from crosspatch.species import SPECIES
from crosspatch.telling import Progress
from crosspatch.writing import make_folder, replacing

CELLS_FILE = "cells.csv"  #: table of the cells of a folder
#: Most cells of a donor: fewer than in the Allen sets (median 4 per mouse, 3 per person), so that a
#: small cohort has donors enough for folds.
_MOST_OF_DONOR = 3
# First words of the seeds, so that cells, donors and the order of subclasses draw independently.
_CELL, _DONOR, _DONOR_SIZE, _ORDER = range(4)


@dataclass(frozen=True)
class Style:
    """What recordings have besides the stimulus set, and how they are stored."""

    keywords: tuple[str, ...] = ()  #: that tell the files from others of the same cells
    extras: Callable[[float], Extra] = lambda seal: no_extra  #: given a cell's seal, GOhm
    storage: Storage = INTEGERS


PLAIN = Style()


class PlannedCell(NamedTuple):
    """What is settled about a cell before it is simulated."""

    number: int
    species: str
    subclass: str
    donor: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell and stem of its file."""
        return f"sim-{self.species}-{self.number:04d}"

    @property
    def identifier(self) -> str:
        """Identifier of the file's session; tells the seed apart."""
        return f"{self.name}-seed-{self.seed}"

    @property
    def donor_name(self) -> str:
        """Name of the donor, the same for all of its cells."""
        return f"sim-{self.species}-donor-{self.seed}-{self.donor:04d}"


def simulate_cells(
    out: str | Path,
    cells: int,
    species: str,
    *,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
    style: Style = PLAIN,
) -> Path:
    """Simulate cells of a species in a folder: ``sim-<species>-0001.nwb``, … and ``cells.csv``.

    A cell depends on the seed, the species and its number alone. Files that are there already are
    kept, so that a run that was stopped can go on; those of another style are made anew. The table,
    whose path is returned, has file, species, subclass, t_type, donor and dataset. By default all
    cores work (`jobs`). A `RecordingError` if an argument makes no sense, the folder holds files of
    another seed, or a file cannot be written.
    """
    out = Path(out)
    processes = cpu_count() if jobs is None else jobs
    for name, value, least in (("cells", cells, 1), ("seed", seed, 0), ("jobs", processes, 1)):
        _require_whole(name, value, least)
    plan = plan_cells(cells, species, seed=seed)
    make_folder(out, RecordingError)
    missing = [cell for cell in plan if not _is_written(out / f"{cell.name}.nwb", cell, style)]
    tell = progress or (lambda done, total: None)
    kept = len(plan) - len(missing)
    tell(kept, len(plan))
    written = _written(missing, out, min(processes, len(missing)), style)
    for done, _ in enumerate(written, start=kept + 1):
        tell(done, len(plan))
    return _write_table(out / CELLS_FILE, plan, species)


def _write_table(path: Path, plan: list[PlannedCell], species: str) -> Path:
    table = pd.DataFrame(
        {
            "file": [f"{cell.name}.nwb" for cell in plan],
            "species": species,
            "subclass": [cell.subclass for cell in plan],
            "t_type": "simulated",
            "donor": [cell.donor_name for cell in plan],
            "dataset": f"simulated-{species}",
        }
    )
    with replacing(path, RecordingError) as temporary:
        table.to_csv(temporary, index=False)
    return path


def _require_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise RecordingError(f"{name} must be a whole number of at least {least}, not {value}")


def _written(missing: list[PlannedCell], out: Path, jobs: int, style: Style) -> Iterator[None]:
    if jobs <= 1:
        for cell in missing:
            write_cell(cell, out, style=style)
            yield
        return
    # Compiled here, the processes find the machine code in numba's cache.
    simulate_neuron(PointNeuron(), np.zeros(10))
    try:
        yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(write_cell)(cell, out, style=style) for cell in missing
        )
    finally:
        get_reusable_executor().shutdown(wait=True)  # what comes next needs the memory


def _is_written(path: Path, cell: PlannedCell, style: Style) -> bool:
    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as file:
            found = file["identifier"].asstr()[()]
            keywords = file["general/keywords"].asstr()[()]
    except (OSError, KeyError) as error:
        raise RecordingError(
            f"{path} is no simulated recording; choose another folder ({error})"
        ) from error
    if found != cell.identifier:
        raise RecordingError(
            f"{path} holds '{found}', not '{cell.identifier}'; choose another folder or seed"
        )
    return tuple(keywords) == _keywords(cell, style)


def _keywords(cell: PlannedCell, style: Style) -> tuple[str, ...]:
    about = ("simulated", "patch-clamp", "current clamp", "interneuron", cell.subclass)
    return (*about, *style.keywords)


def plan_cells(cells: int, species: str, *, seed: int = 0) -> list[PlannedCell]:
    """Subclass and donor of each cell; more cells never change the first ones."""
    require_simulated(species)
    which = list(SPECIES).index(species)
    shares = SPECIES[species].simulated_shares
    block = [name for name, count in shares.items() for _ in range(count)]
    order = np.random.default_rng([_ORDER, seed, which])
    subclasses: list[str] = []
    while len(subclasses) < cells:
        subclasses += [block[place] for place in order.permutation(len(block))]
    sizes = np.random.default_rng([_DONOR_SIZE, seed, which])
    donors: list[int] = []
    while len(donors) < cells:
        donor = donors[-1] + 1 if donors else 1
        donors += [donor] * int(sizes.integers(1, _MOST_OF_DONOR + 1))
    planned = zip(range(1, cells + 1), subclasses, donors, strict=False)
    return [PlannedCell(n, species, subclass, donor, seed) for n, subclass, donor in planned]


def write_cell(
    cell: PlannedCell, out: Path, trouble: Trouble = USUAL_TROUBLE, *, style: Style = PLAIN
) -> Path:
    """Simulate a planned cell and write its recording into a folder; returns the file."""
    which = list(SPECIES).index(cell.species)
    donor_seed = [_DONOR, cell.seed, which, cell.donor]
    rng = np.random.default_rng([_CELL, cell.seed, which, cell.number])
    neuron = simulated_neuron(
        cell.species, cell.subclass, rng, donor=np.random.default_rng(donor_seed)
    )
    # A generator of its own: the donor's sex and age do not depend on what was drawn before.
    donor = np.random.default_rng([*donor_seed, 1])
    youngest, oldest, unit = SPECIES[cell.species].simulated_ages
    age = f"P{donor.integers(youngest, oldest)}{unit}"
    poor = rng.random() < trouble.poor_seal
    seal = float(rng.uniform(0.4, 0.9) if poor else rng.lognormal(np.log(2.5), 0.4) + 1.0)
    access = float(np.clip(rng.normal(13.0, 3.5), 5.0, 25.0))
    notes = SessionNotes(
        identifier=cell.identifier,
        description=f"Simulated recording, no real cell: a model {cell.species} {cell.subclass} "
        "interneuron",
        experiment="Simulated by crosspatch with a point neuron; the stimulus set is that of the "
        "Allen Institute's Patch-seq recordings",
        keywords=_keywords(cell, style),
        start=datetime(2020, 1, 1, 9, tzinfo=UTC) + timedelta(hours=cell.number),
        species=cell.species,
        donor=cell.donor_name,
        sex=str(donor.choice(["M", "F"])),
        age=age,
        about_donor="Simulated donor, no animal or person",
        electrodes=(
            ElectrodeNotes(cell.identifier, "a simulated whole-cell electrode", seal, access),
        ),
        device="a simulated patch-clamp amplifier",
        origin="none: simulated",
    )
    sweeps = record(
        neuron, rng, trouble=trouble, access_resistance=access, extra=style.extras(seal)
    )
    path = out / f"{cell.name}.nwb"
    write_nwb(path, notes, sweeps, style.storage)
    return path
