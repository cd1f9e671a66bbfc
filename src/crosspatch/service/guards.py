"""Files that are refused before any reader meets them."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import CohortError, RecordingError

if TYPE_CHECKING:
    import h5py

_UNFOLDED = 2 * 2**30  #: bytes into which an Excel file or another archive may unfold


def refuse_bomb(path: Path) -> None:
    """Refuse an archive (Excel is one) that unfolds into gigabytes."""
    if path.suffix not in (".xlsx", ".xlsm"):
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
    """Everything that can be reached in an HDF5 file, and whether it lies in another one."""
    import h5py

    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        names: list[str] = []
        with contextlib.suppress(Exception):  # damaged; its reader meets the same
            names += group
        for name in names:
            try:
                elsewhere = isinstance(group.get(name, getlink=True), h5py.ExternalLink)
                item = None if elsewhere else group[name]
            except Exception:  # damaged, or nowhere; its reader meets the same  # noqa: S112
                continue
            if isinstance(item, h5py.Dataset):
                elsewhere = bool(item.external) or item.is_virtual
            yield f"{group.name}/{name}", elsewhere
            if isinstance(item, h5py.Group):
                place = h5py.h5o.get_info(item.id).addr
                if place not in seen:
                    seen.add(place)
                    waiting.append(item)


def in_gib(size: float) -> str:
    """A size in bytes, for people."""
    return f"{size / 2**30:.3g} GiB"
