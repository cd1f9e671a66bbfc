"""Look at a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crosspatch.commands import options
from crosspatch.commands.documents import AsJson, document
from crosspatch.commands.printing import exit_if_failed, say_on_stderr
from crosspatch.commands.root import command
from crosspatch.commands.terminal import number_column, print_records, print_text, text_column
from crosspatch.errors import CrosspatchError, MissingLibraryError, as_flag
from crosspatch.extras import require

if TYPE_CHECKING:
    from crosspatch.features.analysis import Analysis
    from crosspatch.recordings.model import Recording, Sweep
    from crosspatch.recordings.reading_options import Reading

_SWEEPS = (
    number_column("sweep", "{sweep}"),
    text_column("stimulus"),
    text_column("name", "{name}{mark}", rank=5, fold=16),
    number_column("pA", "{amplitude_pA:.1f}"),
    number_column("start s", "{start_s:.4f}"),
    number_column("lasts s", "{duration_s:.4f}"),
    number_column("kHz", "{rate_kHz:g}", rank=4),
    number_column("baseline mV", "{baseline_mV:.1f}", rank=1),
    number_column("drift mV", "{drift_mV:.2f}", rank=2),
    number_column("noise mV", "{noise_mV:.3f}", rank=3),
    number_column("spikes", "{spikes}"),
    text_column("quality", fold=20),
)
_FEATURES = (text_column("feature"), number_column("value", "{value:.4g}"), text_column("unit"))


@command("inspect", "My cells", "inspect cell.abf --no-png")
@options.with_reading
def inspect(
    *,
    file: Annotated[
        Path, typer.Argument(help="Recording: NWB 2, ABF and others (docs/recordings.md).")
    ],
    png: Annotated[
        Path | None, typer.Option(help="Picture to write. (default: FILE's name with .png, here)")
    ] = None,
    no_png: Annotated[bool, typer.Option("--no-png", help="Print only.")] = False,
    reading: Reading,
    as_json: AsJson = False,
) -> None:
    """Print a recording's sweeps, stimuli, quality and features, and draw them."""
    from crosspatch.features.analysis import analyse
    from crosspatch.features.measuring.first_use import prepare
    from crosspatch.recordings.opening import close_all, open_recordings

    draws = not no_png and _can_draw(png)
    prepare(say_on_stderr)
    recordings = open_recordings(file, reading)
    failed: dict[str, str] = {}
    found: list[dict[str, Any]] = []
    with document(as_json) as give:
        try:
            for recording in recordings:
                try:
                    analysis = analyse(recording, reading.thresholds)
                except CrosspatchError as error:
                    if len(recordings) == 1:
                        raise
                    failed[recording.cell_id] = error.in_words(as_flag)
                    print_text(f"{recording.cell_id}: {failed[recording.cell_id]}", 2)
                    continue
                found.append(_measured(recording, analysis))
                if not as_json:
                    print_text(f"{file}: {_about(recording)}", 2)
                    _print_measured(found[-1])
                if draws:
                    _draw(recording, analysis, png)
        finally:
            close_all(recordings)
        if len(failed) == len(recordings):
            raise typer.Exit(2)
        give({"file": file, "recordings": found, "failed": failed})
        exit_if_failed(failed)


def _can_draw(png: Path | None) -> bool:
    """Whether pictures can be drawn; one that was not asked for may be left out, which is said."""
    try:
        require("matplotlib")
    except MissingLibraryError as error:
        if png is not None:
            raise
        say_on_stderr(f"no picture is drawn: {error}")
        return False
    return True


def _about(recording: Recording) -> str:
    """What a recording is, in a line."""
    said = recording.recorded
    about = [recording.format]
    about += [f"electrode {recording.electrode}"] if recording.electrode else []
    about += [f"{len(recording.current_clamp)} current-clamp sweeps"]
    about += [f"species {said.species}"] if said.species else []
    about += [f"donor {said.donor}"] if said.donor else []
    about += ["SIMULATED"] if said.simulated else []
    return ", ".join(about)


def _draw(recording: Recording, analysis: Analysis, png: Path | None) -> None:
    """Draw a recording; of several cells each has its picture."""
    from crosspatch.drawing.style import save_figure
    from crosspatch.recordings.model import named_cell
    from crosspatch.reporting.recording_figures import recording_figure

    out = Path(f"{recording.cell_id}.png")
    if png is not None:
        out = png.with_stem(named_cell(png.stem, recording.electrode))
    save_figure(recording_figure(recording, analysis), out)
    print(f"wrote {out}")


def _measured(recording: Recording, analysis: Analysis) -> dict[str, Any]:
    """A recording's sweeps with their stimuli and quality, its features, and its cell's quality."""
    from crosspatch.features.layouts import load_layout
    from crosspatch.features.scalars import scalar_features

    spikes: dict[int, int] = {}
    for responses in (analysis.long_square, analysis.short_square, analysis.ramp):
        if responses is not None:
            counts = map(len, responses.spikes)
            spikes |= dict(zip(responses.numbers, counts, strict=False))
    notes = list(analysis.notes)
    values = scalar_features(analysis, notes)
    said, cell = recording.recorded, analysis.cell
    return {
        "cell_id": recording.cell_id,
        "format": recording.format,
        "electrode": recording.electrode,
        "species": said.species,
        "donor": said.donor,
        "simulated": said.simulated,
        "passed": cell.passed,
        "reasons": list(cell.reasons),
        "notes": list(dict.fromkeys(notes)),
        "sweeps": [_sweep(sweep, analysis, spikes) for sweep in recording.current_clamp],
        "features": [
            {"feature": feature.name, "value": values[feature.name], "unit": feature.unit}
            for feature in load_layout("full").features
            if feature.name in values
        ],
    }


def _sweep(sweep: Sweep, analysis: Analysis, spikes: dict[int, int]) -> dict[str, Any]:
    """What is known of a sweep; None where it has no stimulus, or was not measured."""
    from crosspatch.recordings.quality import SweepFault, SweepQuality
    from crosspatch.recordings.stimuli import Stimulus

    stimulus = analysis.stimuli.get(sweep.number, Stimulus("unknown"))
    quality = analysis.qualities.get(sweep.number, SweepQuality((SweepFault("", "not measured"),)))
    there = stimulus.kind not in ("none", "unknown")
    return {
        "sweep": sweep.number,
        "stimulus": stimulus.kind,
        "name": sweep.description,
        "name_disagrees": stimulus.disagrees,
        "amplitude_pA": stimulus.amplitude if there else None,
        "start_s": stimulus.start if there else None,
        "duration_s": stimulus.duration if there else None,
        "rate_kHz": sweep.rate / 1e3,
        "baseline_mV": quality.baseline,
        "drift_mV": quality.drift,
        "noise_mV": quality.fast_noise,
        "spikes": spikes.get(sweep.number),
        "passed": quality.passed,
        "reasons": list(quality.reasons),
    }


def _print_measured(found: dict[str, Any]) -> None:
    """What `_measured` found."""
    rows = [
        each
        | {
            "mark": " (!)" if each["name_disagrees"] else "",
            "quality": "passed" if each["passed"] else "; ".join(each["reasons"]),
        }
        for each in found["sweeps"]
    ]
    print_records("Sweeps", rows, _SWEEPS)
    if found["features"]:
        print_records("Features", found["features"], _FEATURES)
    print_text(
        f"cell: {'passed' if found['passed'] else 'rejected: ' + '; '.join(found['reasons'])}", 2
    )
    for note in found["notes"]:
        print_text(f"  {note}", 4)
