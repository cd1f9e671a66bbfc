"""What is there on this machine: libraries, extras, tables, stored models, caches, a device."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, version
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from crosspatch.cohorts.sources import locate, named_directory, pinned_files
from crosspatch.errors import CohortError, CrosspatchError
from crosspatch.extras import install_command
from crosspatch.models import artifact

#: The package itself, as it is called where it is installed.
_PACKAGE = "crosspatch"
#: Extras for who works on the program.
_FOR_DEVELOPERS = ("dev", "docs", "test")
# A line of the metadata: name, extras of it, and the extra it belongs to.
_REQUIRED = re.compile(
    r"(?P<name>[\w.-]+)(\[(?P<of>[\w, -]+)\])?.*?(extra *== *.(?P<extra>[\w-]+).)?$"
)


@dataclass(frozen=True)
class OptionalLibraries:
    """Libraries that are installed on demand; the core has no name."""

    name: str
    libraries: dict[str, str | None]  # name to version; None where it is missing

    @property
    def missing(self) -> list[str]:
        """What of it is not installed."""
        return [name for name, found in self.libraries.items() if found is None]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return install_command(self.name) if self.name else f"pip install {_PACKAGE}"


@dataclass(frozen=True)
class DataDirectory:
    """Where the public tables lie."""

    path: Path
    origin: str  # what names it
    there: int  # tables that are there and the pinned version
    missing: list[str]  # paths of tables that are not there
    #: Paths of tables that are another version than the pinned one, or cannot be read.
    changed: list[str]


@dataclass(frozen=True)
class KeptModel:
    """A model in the user's cache."""

    folder: Path
    species: str | None  # None where it cannot be read
    model: str | None
    fault: str  # why it cannot be used, in words; empty if it can


@dataclass(frozen=True)
class CacheFolder:
    """A folder of the user's cache."""

    path: Path
    files: int
    size: int  # bytes


@dataclass(frozen=True)
class Installation:
    """What is there on this machine."""

    version: str
    python: str
    system: str
    extras: list[OptionalLibraries]  # the core first
    device: str | None  # what networks can be trained on; None without torch
    data: DataDirectory
    models: list[KeptModel]
    caches: list[CacheFolder]


def installation(data_dir: Path | None = None) -> Installation:
    """Look at this machine; nothing is changed."""
    return Installation(
        version(_PACKAGE),
        platform.python_version(),
        platform.platform(terse=True),
        extras(),
        _device(),
        _data(data_dir),
        list(_models()),
        list(_caches()),
    )


def extras() -> list[OptionalLibraries]:
    """The core and every extra with its libraries, as the package's metadata has them."""
    required = [found for line in _lines() if (found := _REQUIRED.match(line))]

    @cache
    def libraries(extra: str | None) -> frozenset[str]:
        found: set[str] = set()
        for each in required:
            if each["extra"] == extra:
                of_others = (each["of"] or "").replace(" ", "").split(",")
                ours = each["name"] == _PACKAGE
                found |= set().union(*map(libraries, of_others)) if ours else {each["name"]}
        return frozenset(found)

    names = metadata(_PACKAGE).get_all("Provides-Extra") or []
    of_users = [name for name in names if name not in _FOR_DEVELOPERS]
    return [
        OptionalLibraries(extra or "", {name: _version(name) for name in sorted(libraries(extra))})
        for extra in (None, *of_users)
    ]


def _lines() -> list[str]:
    return [line.strip() for line in metadata(_PACKAGE).get_all("Requires-Dist") or []]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _device() -> str | None:
    if find_spec("torch") is None:
        return None
    import torch

    return f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"


def _data(explicit: Path | None) -> DataDirectory:
    path, origin = named_directory(explicit)
    there = 0
    missing: list[str] = []
    changed: list[str] = []
    for file in pinned_files():
        try:
            locate(path, file)
            there += 1
        except CohortError:
            (changed if (path / file.path).is_file() else missing).append(file.path)
    return DataDirectory(path, origin, there, missing, changed)


def _models() -> Iterator[KeptModel]:
    kept = platformdirs.user_cache_path(_PACKAGE) / "models"
    for folder in sorted(each for each in kept.glob("*") if each.is_dir()):
        try:
            found = artifact.load(folder)
        except CrosspatchError as error:
            yield KeptModel(folder, None, None, str(error))
        else:
            yield KeptModel(folder, found.species, found.about["model"], "")


def _caches() -> Iterator[CacheFolder]:
    for folder in sorted(platformdirs.user_cache_path(_PACKAGE).glob("*")):
        files = [each for each in folder.rglob("*") if each.is_file()]
        yield CacheFolder(folder, len(files), sum(each.stat().st_size for each in files))
