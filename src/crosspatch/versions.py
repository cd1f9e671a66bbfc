"""What numbers depend on besides data and settings: our own code, and the libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "imbalanced-learn", "lightgbm", "torch")


@cache
def code_digest(*rooms: str) -> str:
    """Checksum of some rooms, and of what all ask: edited code is never served old results."""
    digest = hashlib.sha256()
    for room in (*rooms, "species.py"):
        for path, content in _contents(files("crosspatch") / room, room):
            digest.update(path.encode() + b"\0" + content)
    return digest.hexdigest()


def _contents(item: Traversable, path: str) -> Iterable[tuple[str, bytes]]:
    if item.is_dir():
        for each in sorted(item.iterdir(), key=lambda each: each.name):
            yield from _contents(each, f"{path}/{each.name}")
    elif item.name.endswith((".py", ".csv", ".toml")):
        yield path, item.read_bytes()


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that numbers depend on; empty where one is not installed."""
    return {name: version_of(name) for name in _LIBRARIES}


def version_of(library: str) -> str:
    """Empty where it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
