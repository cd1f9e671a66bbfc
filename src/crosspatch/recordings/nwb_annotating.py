"""What was concluded of a recording, written into a copy of its NWB file.

The bytes of the file are copied and tables are added to a processing module through h5py, so that
everything else stays as it was, whatever wrote it. The tests hold the result to pynwb's validator
and to nwbinspector, which wants the module to be called icephys.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.nwb_tables import add_column, add_table, describe_item
from crosspatch.writing import replacing

#: The processing module.
MODULE = "processing/icephys"


@dataclass(frozen=True)
class ModuleTable:
    """A table of a processing module."""

    about: str
    #: By name: what it holds, with its unit, and its values, of which all columns have as many.
    columns: Mapping[str, tuple[str, Sequence[Any]]]


def require_place(source: Path, copy: Path, tables: Collection[str], *, replace: bool) -> bool:
    """Refuse by a `RecordingError` to write tables of these names into a copy of a file.

    Where it is no NWB file, the copy would take the place of another file or lose what the file
    links to, or the file has such tables. With `replace` neither file nor tables are in the way;
    gives back whether any are.
    """
    if not h5py.is_hdf5(source):
        raise RecordingError(
            f"{source} is not an NWB file",
            hint="make one of it with `crosspatch convert`, and annotate that",
        )
    in_way = copy.exists() and not copy.samefile(source)
    beside = source.parent.samefile(copy.parent) if copy.parent.exists() else False
    if in_way and not replace:
        raise RecordingError(
            f"{copy} is there already", hint="give another {out}, or {replace} to write over it"
        )
    try:
        with h5py.File(source, "r", locking="best-effort") as file:
            if "nwb_version" not in file.attrs:
                raise RecordingError(f"{source} is not an NWB 2 file")
            annotated = any(f"{MODULE}/{name}" in file for name in tables)
            if annotated and not replace:
                raise RecordingError(
                    f"{source} was annotated already (in /{MODULE})",
                    hint="give {replace} to have that replaced",
                )
            other = None if beside else next(_other_files(file), None)
    except OSError as error:
        raise RecordingError(f"{source} cannot be read: {in_words(error)}") from error
    if other is not None:
        raise RecordingError(
            f"{source} takes data from another file, {other}, which a copy in another folder would "
            "not find",
            hint="give an {out} in the same folder",
        )
    return in_way or annotated


def _other_files(file: h5py.File) -> Iterator[str]:
    """Files that a file refers to by a path that starts at its own folder."""
    found: list[str] = []

    def look(name: str, link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink) -> None:
        if isinstance(link, h5py.ExternalLink):
            found.append(link.filename)
        elif isinstance(link, h5py.HardLink):
            item = file.get(name)
            if isinstance(item, h5py.Dataset):
                found.extend(each[0] for each in item.external or ())
                found.extend(
                    each.file_name for each in (item.virtual_sources() if item.is_virtual else ())
                )

    file.visititems_links(look)
    return (name for name in found if name != "." and not os.path.isabs(name))


def write_annotated(source: Path, copy: Path, tables: Mapping[str, ModuleTable]) -> None:
    """Copy a file and add tables, in place of those of these names; copy and file may be the same.

    It has its name when it is whole and on the disk. A `RecordingError` if it cannot be written;
    whatever stood in its place stays then.
    """
    with replacing(copy, RecordingError) as temporary:
        shutil.copyfile(source, temporary)
        temporary.chmod(source.stat().st_mode | 0o200)
        try:
            with h5py.File(temporary, "r+", locking="best-effort") as file:
                _add_tables(file, tables)
        except OSError:
            raise
        except Exception as error:  # h5py raises many kinds for damaged files
            raise RecordingError(f"{source} cannot be added to: {in_words(error)}") from error
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(source.stat().st_mode)


def _add_tables(file: h5py.File, tables: Mapping[str, ModuleTable]) -> None:
    if MODULE not in file:
        about = "What was computed from the intracellular recordings."
        describe_item(file.create_group(MODULE), "core", "ProcessingModule", about)
    module = file[MODULE]
    for name, table in tables.items():
        if name in module:
            del module[name]
        rows = len(next(iter(table.columns.values()))[1])
        kind = ("hdmf-common", "DynamicTable")
        written = add_table(module, name, kind, list(table.columns), rows, table.about)
        for column, (about, values) in table.columns.items():
            is_text = isinstance(values[0], str)
            add_column(written, column, values, about, h5py.string_dtype() if is_text else None)
