"""Recordings among files, folders, patterns and dandisets."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from crosspatch.archive.dandi import Archive, Asset, DandiPlace, is_dandi
from crosspatch.errors import RecordingError
from crosspatch.recordings.formats import RECORDING_FORMATS, RECORDING_SUFFIXES, files_of
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.reading_options import Reading

#: A file on disk, or one of the DANDI archive.
Source = Path | Asset


def find_recordings(paths: Sequence[str | Source]) -> list[Source]:
    """Recordings as `recordings_in` finds them; a RecordingError if there are none."""
    found = recordings_in(paths)
    if not found:
        raise _nothing_in(paths)
    return found


def recordings_in(paths: Sequence[str | Source]) -> list[Source]:
    """Recordings among files, folders (searched to the bottom), patterns and dandisets.

    A dandiset is ``dandi:000636`` and what else `crosspatch.archive.dandi.DandiPlace` reads; assets
    are taken as they are. A RecordingError if a path does not exist or cannot be searched; a
    NetworkError if the archive does not say what a dandiset holds.
    """
    found: dict[Source, None] = {}
    of_cells: set[Path] = set()
    for each in paths:
        if isinstance(each, Asset):
            found[each] = None
            continue
        if isinstance(each, str) and is_dandi(each):
            found |= dict.fromkeys(Archive().recordings(DandiPlace.parse(each)))
            continue
        try:
            for file in _below(each):
                found |= dict.fromkeys(_first_of_cell(file.resolve(), of_cells))
        except OSError as error:
            raise RecordingError(f"{each} cannot be searched: {error}") from error
    return list(found)


def _nothing_in(paths: Sequence[str | Source]) -> RecordingError:
    """Says that nothing is found, and which recordings there are that cannot be read."""
    names = ", ".join(str(each) for each in paths)
    problem = f"no recording in {names}"
    searched = (Path(each) for each in paths if not isinstance(each, Asset))
    endings = Counter(
        file.suffix.lower() for each in searched if each.is_dir() for file in each.rglob("*")
    )
    for each in RECORDING_FORMATS:
        count = sum(map(endings.__getitem__, each.endings))
        if count and not each.is_read:
            return RecordingError(
                f"{problem}, but {count} files of {each.name}, which is not read", each.export
            )
    return RecordingError(f"{problem}; looked for files ending in {', '.join(RECORDING_SUFFIXES)}")


def _below(each: str | Path) -> Iterator[Path]:
    """A file; or the recordings in a folder, or in what a pattern matches."""
    path = Path(each)
    if path.exists() and not path.is_dir():
        yield path
        return
    matches = [path] if path.is_dir() else sorted(map(Path, glob.glob(str(each), recursive=True)))
    if not matches:
        raise RecordingError(f"{each} does not exist")
    for match in matches:
        files = sorted(match.rglob("*")) if match.is_dir() else [match]
        yield from filter(_is_recording, files)


def _first_of_cell(file: Path, seen: set[Path]) -> list[Path]:
    """The file that stands for its cell: the first of those that hold it, unless it was seen."""
    if file in seen:
        return []
    files = files_of(file)
    seen.update(files)
    return files[:1]


def _is_recording(file: Path) -> bool:
    wanted = file.suffix.lower() in RECORDING_SUFFIXES and not file.name.startswith(".")
    return wanted and file.is_file()


def open_source(source: Source, reading: Reading) -> Recording:
    """Open a recording of one cell, on disk or of the archive, as `open_recording` does."""
    if isinstance(source, Asset):
        from crosspatch.archive.streaming import open_asset

        return open_asset(source, reading)
    return open_recording(source, reading)
