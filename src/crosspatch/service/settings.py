"""How the service runs, and how much it lets anyone use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_GIB = 2**30


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of `crosspatch serve`."""

    models: tuple[Path, ...] = ()  #: model folders, one a species; none for the default models
    sets: str = "all-cells"  # kind of prediction sets, see `crosspatch.prediction.predictor.SETS`
    data_dir: Path | None = None  #: with the Allen tables, for the default models and the map
    host: str = "127.0.0.1"  # address and port; port 0 takes a free one
    port: int = 8700
    #: Demanded of everyone where it is given; anywhere but on loopback it must be.
    token: str | None = None
    #: Processes that read files and predict; each has the models in memory (about 0.5 GiB).
    workers: int = 1
    seconds: float = 300.0  #: seconds after which a file is given up
    #: Bytes of data a process may have; a 200 kHz recording of 30 sweeps takes about 1 GiB.
    memory: int = 4 * _GIB
    #: Bytes of a file. The largest recording of DANDI 000020 has about 0.3 GiB.
    upload: int = _GIB
    storage: int = 20 * _GIB  #: bytes of all files and results together
    files: int = 500  #: files of a batch
    batches: int = 1000  #: batches at a time
    rows: int = 200_000  #: rows of a table
    keep: float = 8.0  #: hours after which a batch is deleted
    silence: float = 60.0  #: seconds without a byte after which an upload is given up
