"""What numbers depend on besides data and settings: our own code, and the libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "imbalanced-learn", "lightgbm", "torch")


@cache
def code_digest(*rooms: str) -> str:
    """Checksum of some rooms of the package: edited code is never served old results.

    Parameters
    ----------
    *rooms : str
        Folders of the package, such as ``models``.
    """
    digest = hashlib.sha256()
    for room in rooms:
        for path, content in _contents(files("crosspatch") / room, room):
            digest.update(path.encode() + b"\0" + content)
    return digest.hexdigest()


def _contents(folder: Traversable, path: str) -> Iterable[tuple[str, bytes]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _contents(item, f"{path}/{item.name}")
        elif item.name.endswith((".py", ".csv", ".toml")):
            yield f"{path}/{item.name}", item.read_bytes()


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that numbers depend on."""
    return {name: version(name) for name in _LIBRARIES}
