"""The formats of recording programs: how each is told, what reads it, how a lab exports it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import RecordingError, in_words

if TYPE_CHECKING:
    from crosspatch.recordings.model import Recording
    from crosspatch.recordings.reading_options import Reading

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Bytes of a file that tell its format.
FIRST_BYTES = 16
#: Files that are read whole are no larger, bytes.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Format:
    """One format."""

    name: str  # as its users call it
    endings: tuple[str, ...]
    begins: tuple[bytes, ...] = ()  # with what its files begin; without any the ending tells
    reader: str = ""  # module and function that read it, given path and `Reading`; "" if none does
    package: str = ""  # what must be installed beside crosspatch
    whole: bool = True  # whether a file holds all of a cell
    damaged: str = ""  # what a damaged one is called, if not by its name
    #: How to have a file that is read, where this one is not, or to have a better one.
    export: str = "export it as NWB, ABF or Axon text (ATF)"

    @property
    def is_read(self) -> bool:
        """Whether recordings in it can be opened."""
        return bool(self.reader)


_IGOR_FROM_HEKA = (
    "export its sweeps from PatchMaster as Igor binary waves (.ibw), or convert it to NWB with "
    "x-to-nwb"
)
_FROM_CED = "export it from Spike2 or Signal as text, and save that as Axon text (ATF), or as NWB"

RECORDING_FORMATS = (
    Format("NWB", (".nwb",), (HDF5_SIGNATURE,), "nwb"),
    Format("ABF", (".abf",), (b"ABF ", b"ABF2"), "abf.read_abf"),
    Format("Axon text", (".atf",), (b"ATF",), "text.read_atf", damaged="ATF file"),
    Format(
        "Igor binary wave",
        (".ibw",),
        (b"\x05\x00", b"\x00\x05", b"\x02\x00", b"\x00\x02", b"\x03\x00", b"\x00\x03"),
        "igor.read_ibw",
        "igor2",
        whole=False,
        export="save the cell as one experiment (.pxp), or make NWB of its waves with "
        "`crosspatch convert`",
    ),
    Format(
        "Igor packed experiment", (".pxp",), (), "igor.read_pxp", "igor2", damaged="Igor experiment"
    ),
    Format("AxoGraph", (".axgx", ".axgd"), (b"axgx", b"AxGr"), "neo_reader.read_axograph", "neo"),
    Format("WinWCP", (".wcp",), (b"VER=",), "neo_reader.read_winwcp", "neo"),
    Format("WaveSurfer", (".h5",), (HDF5_SIGNATURE,), "nwb"),
    Format("Stimfit", (".h5",), (HDF5_SIGNATURE,), "nwb"),
    Format("HEKA", (".dat",), (b"DAT1", b"DAT2", b"DATA"), export=_IGOR_FROM_HEKA),
    Format(
        "CED Spike2",
        (".smr", ".smrx"),
        (b"S64", *(bytes([version, 0]) + b"(C) CED" for version in range(1, 10))),
        export=_FROM_CED,
    ),
    Format("CED Signal", (".cfs",), (b"CEDFILE",), export=_FROM_CED),
    Format("MATLAB", (".mat",), (b"MATLAB",)),
)

_READ = [each for each in RECORDING_FORMATS if each.is_read]
#: Endings of files that are taken for recordings when a folder is searched.
RECORDING_SUFFIXES = tuple(dict.fromkeys(ending for each in _READ for ending in each.endings))
#: Endings of files that hold all of a cell, so that they can be sent alone.
UPLOAD_SUFFIXES = tuple(
    dict.fromkeys(ending for each in _READ if each.whole for ending in each.endings)
)
#: Formats that are read, for messages and help.
KNOWN_FORMATS = ", ".join(each.name for each in _READ)


def format_of_folder(path: Path) -> Format | None:
    """The format of a cell whose files fill a folder: only Igor keeps one in many files."""
    waves = next((each for each in RECORDING_FORMATS if each.reader == "igor.read_ibw"), None)
    return waves if any(each.suffix.lower() == ".ibw" for each in path.iterdir()) else None


def format_of(path: Path, first_bytes: bytes) -> Format | None:
    """The format of a file, by its first bytes if they tell, else by its ending.

    Two bytes tell an Igor wave only from a file with the ending of one.
    """
    ending = path.suffix.lower()
    begun = [each for each in RECORDING_FORMATS if first_bytes.startswith(each.begins)]
    sure = [each for each in begun if ending in each.endings]
    telling = [each for each in begun if len(max(each.begins, key=len)) > 2]
    alike = [each for each in RECORDING_FORMATS if ending in each.endings and not each.begins]
    return next(iter(sure + telling + alike), None)


def format_named(name: str) -> Format | None:
    """The format that a file's ending stands for."""
    ending = Path(name).suffix.lower()
    return next((each for each in RECORDING_FORMATS if ending in each.endings), None)


def files_of(path: Path) -> list[Path]:
    """The files that hold the cell of a file: itself alone, or all its Igor waves, by name."""
    if path.suffix.lower() != ".ibw" or not path.is_file():
        return [path]
    from crosspatch.recordings.igor import siblings

    return siblings(path)


def refused(path: Path, first_bytes: bytes, found: Format | None) -> RecordingError:
    """Why a file is not opened: its format is not read, or not known."""
    if found is not None:
        return RecordingError(
            f"{path} is a recording of {found.name}, which is not read", found.export
        )
    named = [each for each in RECORDING_FORMATS if path.suffix.lower() in each.endings]
    if named:
        return RecordingError(
            f"{path} is no {named[0].name} file: it begins with {first_bytes[:4]!r}",
            named[0].export,
        )
    return RecordingError(
        f"{path} is in no format that is read ({KNOWN_FORMATS}): it begins with "
        f"{first_bytes[:4]!r}",
        "export it as NWB, ABF or Axon text (ATF)",
    )


def read_with(found: Format, path: Path, reading: Reading) -> list[Recording]:
    """Cells of a file in a format that is not HDF5.

    A `RecordingError` if the file is damaged, a `MissingLibraryError` if its reader is missing.
    """
    module, function = found.reader.split(".")
    if found.package:
        importlib.import_module(found.package)
    room = importlib.import_module(f"crosspatch.recordings.{module}")
    read: Callable[[Path, Reading], list[Recording]] = getattr(room, function)
    try:
        return read(path, reading)
    except RecordingError:
        raise
    except Exception as error:  # libraries raise whatever they meet; damage may be anything
        called = found.damaged or f"{found.name} file"
        raise RecordingError(f"{path} is a damaged {called}: {in_words(error)}") from error


def whole_content(path: Path) -> bytes:
    """All bytes of a file that is read whole."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise RecordingError(
                f"{path} has {size / 2**30:.1f} GiB, of its format at most "
                f"{_MOST_BYTES / 2**30:.0f} GiB are read",
                "export its sweeps in several files",
            )
        return path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
