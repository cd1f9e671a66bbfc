"""What commands print of cohorts, recordings and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crosspatch.commands.options import KNOWN_SPECIES
from crosspatch.commands.printing import print_rows, print_warning

if TYPE_CHECKING:
    import anndata

    from crosspatch.features.analysis import Analysis
    from crosspatch.prediction.output import Output
    from crosspatch.prediction.prediction import PredictedCell
    from crosspatch.recordings.model import Recording, Sweep

# Rows of predictions that are shown.
_SHOWN = 40


def _number(value: float, digits: int = 1) -> str:
    """Empty where it is missing."""
    return "" if value != value else f"{value:.{digits}f}"


def print_joined(cohort: anndata.AnnData) -> None:
    """Where the cells of a cohort come from."""
    from crosspatch.cohorts.table import head_of

    head = head_of(cohort)
    name = ", ".join(sorted(set(cohort.obs["dataset"].astype(str))))
    if head.joined:
        counts = ", ".join(f"{key} {value:,}" for key, value in head.joined.items())
        print(f"{name}: {sum(head.joined.values()):,} labelled cells joined ({counts})")
    dropped = [f"{count} {reason}" for reason, count in head.dropped.items() if count]
    print(f"{name}: {cohort.n_obs:,} cells kept; left out: {', '.join(dropped) or 'none'}")
    if head.sources and not head.verified:
        print(f"{name}: built from files that are not the pinned versions (--unverified)")


def print_extracted(cohort: anndata.AnnData) -> None:
    """What an extraction gave."""
    obs = cohort.obs
    labelled = int(obs["subclass"].notna().sum())
    print(f"{labelled} cells have a label, {cohort.n_obs - labelled} have none")
    failed = obs[~obs["qc_passed"].astype(bool)]
    if len(failed):
        print(f"{len(failed)} cells fail quality control (qc_passed, qc_reasons), the first:")
        for name, reason in failed["qc_reasons"].head(3).items():
            print(f"  {name}: {reason}")
    if obs["simulated"].astype(bool).any():
        print(f"{int(obs['simulated'].sum())} cells are SIMULATED")
    if "bytes_read" in obs:
        read, whole = obs["bytes_read"].sum(), obs["file_bytes"].sum()
        share = (obs["bytes_read"] / obs["file_bytes"]).quantile([0, 0.5, 1])
        print(
            f"{read / 1e6:.1f} MB read of {whole / 1e6:.1f} MB ({read / whole:.1%}; of a file "
            f"{share.iloc[0]:.0%} to {share.iloc[2]:.0%}, half of them below {share.iloc[1]:.0%})"
        )


def print_recording(recording: Recording, analysis: Analysis) -> None:
    """A recording's sweeps with their stimuli and quality, its features, and its cell's quality."""
    from crosspatch.features.layouts import load_layout
    from crosspatch.features.scalars import scalar_features

    spikes: dict[int, int] = {}
    for responses in (analysis.long_square, analysis.short_square, analysis.ramp):
        if responses is not None:
            counts = map(len, responses.features["spikes_set"])
            spikes |= dict(zip(responses.numbers, counts, strict=False))
    measures = ("pA", "start s", "lasts s", "kHz", "baseline mV", "drift mV", "noise mV", "spikes")
    print_rows(
        "Sweeps",
        ("sweep", "stimulus", "name", *measures, "quality"),
        [_sweep_row(sweep, analysis, spikes) for sweep in recording.current_clamp],
        n_text=3,
    )
    values = scalar_features(analysis)
    rows = [
        (feature.name, f"{values[feature.name]:.4g}", feature.unit)
        for feature in load_layout("full").features
        if feature.name in values
    ]
    if rows:
        print_rows("Features", ("feature", "value", "unit"), rows, n_text=1)
    cell = analysis.cell
    print(f"cell: {'passed' if cell.passed else 'rejected: ' + '; '.join(cell.reasons)}")
    for note in dict.fromkeys(analysis.notes):
        print(f"  {note}")


def _sweep_row(sweep: Sweep, analysis: Analysis, spikes: dict[int, int]) -> tuple[str, ...]:
    from crosspatch.recordings.quality import SweepQuality
    from crosspatch.recordings.stimuli import Stimulus

    stimulus = analysis.stimuli.get(sweep.number, Stimulus("unknown"))
    quality = analysis.qualities.get(sweep.number, SweepQuality(reasons=("not measured",)))
    there = stimulus.kind not in ("none", "unknown")
    return (
        str(sweep.number),
        stimulus.kind,
        sweep.description + (" (!)" if stimulus.disagrees else ""),
        _number(stimulus.amplitude) if there else "",
        _number(stimulus.start, 4) if there else "",
        _number(stimulus.duration, 4) if there else "",
        f"{sweep.rate / 1e3:g}",
        _number(quality.baseline),
        _number(quality.drift, 2),
        _number(quality.fast_noise, 3),
        str(spikes.get(sweep.number, "")),
        "passed" if quality.passed else "; ".join(quality.reasons),
    )


def print_predictions(output: Output) -> None:
    """The first rows of predictions, what is to be said of them, and counts of all."""
    shown = list(output.first.first(_SHOWN))
    header = ("cell", "species", "subclass", "p", "90 % set", "verdict", "p reference", "measured")
    rows = [
        (
            cell.cell_id,
            cell.species + ("" if cell.species_known else " (assumed)"),
            cell.subclass,
            _number(cell.probability, 2),
            ", ".join(cell.prediction_set),
            str(cell.verdict),
            _number(cell.p_reference, 3),
            f"{cell.completeness:.0%}",
        )
        for cell in shown
    ]
    print_rows("Predictions", header, rows, n_text=3, fold=(0, 1, 4, 5, 6, 7))
    _print_remarks(shown)
    if not all(cell.species_known for cell in shown):
        print(f"species unknown: judged by both references; give --species {KNOWN_SPECIES}")
    if output.rows > len(shown):
        print(f"{output.rows:,} rows in all, the first {len(shown)} are shown; --out keeps all")
    counts = ", ".join(f"{name} {count:,}" for name, count in output.verdicts.most_common())
    print(f"verdicts: {counts}")
    if any(model["simulated"] for model in output.first.header["models"]):
        print_warning("The model was trained on SIMULATED recordings")


def _print_remarks(cells: list[PredictedCell]) -> None:
    """What is to be said of cells, once where both references say the same."""
    once: dict[tuple[str, str], PredictedCell] = {}
    for cell in cells:
        once.setdefault((cell.cell_id, cell.text), cell)
    for cell in once.values():
        if cell.quality:
            print(f"  {cell.cell_id}: fails quality control: {cell.quality}")
        if cell.text:
            print(f"  {cell.cell_id}: {cell.text}")
