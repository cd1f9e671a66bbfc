"""Files are written under a temporary name and renamed, so that none is ever half there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crosspatch.errors import CrosspatchError


def make_folder(folder: Path, error: type[CrosspatchError]) -> None:
    """Make a folder and those above it; where the system refuses, the error is raised."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        said = f"{folder} cannot be made: {refused.strerror}"
        raise error(said, hint="choose another {out}") from refused


@contextmanager
def replacing(file: Path, error: type[CrosspatchError]) -> Iterator[Path]:
    """Give a temporary name beside a file; what was written there takes its place at the end.

    It is hidden, with the ending ``.part``; nothing stays there if writing fails. Its folder is
    made if need be. Where the system refuses, the error is raised, in one line.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(file)
    except OSError as refused:
        raise error(f"{file} cannot be written: {refused}") from refused
    finally:
        with suppress(OSError):
            temporary.unlink()
