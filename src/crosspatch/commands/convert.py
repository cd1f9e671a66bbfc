"""Recordings of any format become NWB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.printing import say_on_stderr
from crosspatch.commands.root import command
from crosspatch.commands.terminal import print_text
from crosspatch.errors import RecordingError, as_flag

if TYPE_CHECKING:
    from crosspatch.recordings.reading_options import Reading


@command("convert", "My cells", "convert cell.abf cell.nwb --species mouse --subject m12")
@options.with_reading
def convert(
    *,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN... OUT", help="Recordings, a cell each, and the NWB file to write."
        ),
    ],
    species: options.CellSpecies = None,
    subject: Annotated[
        str | None, typer.Option("--subject", "--donor", help="Name of the animal or donor.")
    ] = None,
    age: Annotated[str | None, typer.Option(help="Such as P60D (days) or P34Y (years).")] = None,
    sex: Annotated[str | None, typer.Option(help="M, F, U (unknown) or O (other).")] = None,
    session_start: Annotated[
        str | None, typer.Option(help="When it was recorded: 2024-01-15T14:30.")
    ] = None,
    reading: Reading,
) -> None:
    """Write recordings of any format that is read as one NWB 2 file, with the icephys tables.

    Every input is a cell with an electrode of its own. What the files say of the donor is kept.
    """
    from crosspatch.recordings.converting import Donor, convert_recordings

    if len(files) < 2:
        raise RecordingError("give the recordings and, last, the NWB file to write")
    *sources, out = files
    donor = Donor(species, subject, age, sex, session_start)
    found = convert_recordings(sources, out, donor, reading)
    for each in found.left_out:
        say_on_stderr(f"left out: {each}")
    electrodes = f"{found.electrodes} electrode{'s' * (found.electrodes > 1)}"
    print(f"wrote {out}: {found.sweeps} sweeps, {electrodes}")
    if found.missing:
        flags = ", ".join(as_flag(each) for each in found.missing)
        print_text(f"archives such as DANDI also ask for what no file says: {flags}", 2)
