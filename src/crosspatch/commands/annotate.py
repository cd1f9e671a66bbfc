"""Predictions go into copies of NWB files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.printing import (
    exit_if_failed,
    progress_bar,
    recordings_done,
    say_on_stderr,
)
from crosspatch.commands.root import command
from crosspatch.errors import CohortError, CrosspatchError, RecordingError, as_flag

if TYPE_CHECKING:
    from crosspatch.commands.options import Asked
    from crosspatch.prediction.pipeline import Pipeline


@command("annotate", "My cells", "annotate cell.nwb --species mouse --out annotated.nwb")
@options.with_request
def annotate(
    *,
    inputs: Annotated[list[str], typer.Argument(help="NWB files, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The copy, or a folder for copies.")
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Write into the files themselves, each replaced when it is whole."
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Replace an earlier annotation, or a file that is named as the copy."
        ),
    ] = False,
    asked: Asked,
) -> None:
    """Predict cells and write the answers into copies of their NWB files.

    The processing module icephys of a copy has the tables crosspatch_predictions and
    crosspatch_features; everything else stays as it was.
    """
    from crosspatch.prediction.annotating import annotated, copies_of
    from crosspatch.prediction.pipeline import Listener, Pipeline, nothing_read
    from crosspatch.prediction.prediction import joined

    wanted = asked(inputs)
    with progress_bar(goes_on=False) as tell:
        pipeline = Pipeline(wanted, Listener(say_on_stderr, None, tell, as_flag))
        if pipeline.inputs.tables:
            raise CohortError("answers are written into recordings; a table is none")
        copies = copies_of(pipeline.inputs.recordings, out, in_place=in_place)
        replaced = _checked(pipeline, copies, replace=replace)
        parts = list(pipeline.predictions(recordings_done(tell)))
    if not parts:
        raise nothing_read(wanted)
    for source, found in annotated(joined(parts), copies, replace=replace):
        if isinstance(found, CrosspatchError):
            pipeline.inputs.fail(str(source), found, pipeline.listener)
            continue
        again = ", in place of what was there" if source in replaced else ""
        print(f"wrote {copies[source]}{again}")
        for cell in found:
            print(f"  {cell.line}")
    exit_if_failed(pipeline.inputs.failed)


def _checked(pipeline: Pipeline, copies: dict[Path, Path], *, replace: bool) -> set[Path]:
    """Take from the inputs, before anything is computed, what cannot be annotated.

    Gives back the files of which something is replaced.
    """
    from crosspatch.prediction.annotating import BOTH_TABLES
    from crosspatch.recordings.nwb_annotating import require_place

    replaced = set()
    for source, copy in list(copies.items()):
        try:
            if require_place(source, copy, BOTH_TABLES, replace=replace):
                replaced.add(source)
        except RecordingError as error:
            if len(copies) == 1:
                raise
            pipeline.inputs.fail(str(source), error, pipeline.listener)
            pipeline.inputs.recordings.remove(source)
            del copies[source]
    return replaced
