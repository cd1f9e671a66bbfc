"""Files are written under a temporary name and renamed, so that none is ever half there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crosspatch.errors import CrosspatchError


@contextmanager
def replacing(file: Path, error: type[CrosspatchError]) -> Iterator[Path]:
    """Give a temporary name beside a file; what was written there takes its place at the end.

    It is hidden, with the ending ``.part``; nothing stays there if writing fails. Where the system
    refuses, the error is raised, in one line.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(file)
    except OSError as refused:
        raise error(f"{file} cannot be written: {refused}") from refused
    finally:
        with suppress(OSError):
            temporary.unlink()
