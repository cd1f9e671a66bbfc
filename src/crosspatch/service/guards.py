"""Files that are refused before any reader meets them."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import CohortError, RecordingError
from crosspatch.tables.endings import OF_WORKBOOKS

if TYPE_CHECKING:
    import h5py

_UNFOLDED = 2 * 2**30  #: bytes into which an Excel file or another archive may unfold


def refuse_bomb(path: Path) -> None:
    """Refuse a workbook that is an archive and unfolds into gigabytes."""
    if path.suffix not in OF_WORKBOOKS:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return  # its reader says why it cannot be read
    if size > _UNFOLDED:
        raise CohortError(
            f"{path.name}: unfolds into {in_gib(size)}, more than a table of numbers has; "
            "save it as csv"
        )


def refuse_other_files(path: Path) -> None:
    """Refuse an HDF5 file that takes what it holds from other files of this machine."""
    import h5py

    if not h5py.is_hdf5(path):
        return
    with contextlib.suppress(OSError), h5py.File(path, "r") as file:  # its reader says why not
        for name, elsewhere in _items(file):
            if elsewhere:
                raise RecordingError(
                    f"{path.name}: '{name.lstrip('/')[:80]}' lies in another file; only what is "
                    "in the file itself is read: copy it into the file"
                )


def _items(file: h5py.File) -> Iterator[tuple[str, bool]]:
    """Everything that can be reached in an HDF5 file, and whether it lies in another one.

    By h5py's low-level functions, which take a fifth of the time of its objects.
    """
    from h5py import h5d, h5g, h5i, h5l, h5o

    waiting, seen = [h5g.open(file.id, b"/")], set()
    while waiting:
        group = waiting.pop()
        names: list[bytes] = []
        with contextlib.suppress(Exception):  # damaged; its reader meets the same
            names += group
        for name in names:
            try:
                here = group.links.get_info(name).type in (h5l.TYPE_HARD, h5l.TYPE_SOFT)
                item = h5o.open(group, name) if here else None
                if isinstance(item, h5d.DatasetID):
                    made = item.get_create_plist()
                    here = made.get_layout() != h5d.VIRTUAL and not made.get_external_count()
            except Exception:  # damaged, or nowhere; its reader meets the same  # noqa: S112
                continue
            yield (h5i.get_name(group) + b"/" + name).decode("utf-8", "replace"), not here
            if isinstance(item, h5g.GroupID):
                place = h5o.get_info(item).addr
                if place not in seen:
                    seen.add(place)
                    waiting.append(item)


def in_gib(size: float) -> str:
    """A size in bytes, for people."""
    return f"{size / 2**30:.3g} GiB"
