"""One recording becomes the features of a layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crosspatch.archive.dandi import Asset
from crosspatch.errors import RecordingError
from crosspatch.features.finding import Source
from crosspatch.features.layouts import VECTOR_LAYOUTS, load_layout
from crosspatch.features.outcome import CellFeatures, CellHead, Failure, Outcomes
from crosspatch.recordings.hdf5 import DoubtfulBytesError
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import close_all, open_recordings, several_cells
from crosspatch.recordings.reading_options import Reading

if TYPE_CHECKING:
    from crosspatch.features.analysis import Analysis

#: Whose definitions of the features are measured.
_DEFINITIONS = "IPFX 2.1.2"


@dataclass(frozen=True)
class ExtractionSettings:
    """What is computed from a recording; a change means that files are done again."""

    layout: str = "gouwens"  # one of `crosspatch.features.layouts.LAYOUT_NAMES`
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        load_layout(self.layout)

    def described(self) -> dict[str, Any]:
        """Settings and versions, as they are kept in the table."""
        return asdict(self) | {
            "thresholds": asdict(self.reading.thresholds),
            "crosspatch": version("crosspatch"),
            "definitions": _DEFINITIONS,
        }

    @property
    def tools(self) -> str:
        """Versions and settings in one line, for every row of a table."""
        found = self.described()
        return f"crosspatch {found['crosspatch']}, as {_DEFINITIONS}, settings {self.key}"

    @property
    def key(self) -> str:
        """Changes with any setting or version."""
        text = json.dumps(self.described(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def extract_recording(recording: Recording, settings: ExtractionSettings) -> CellFeatures:
    """Compute the features of one open recording; errors as `features_of` and `analyse`."""
    from crosspatch.features.analysis import analyse  # settings are known without

    analysis = analyse(recording, settings.reading.thresholds)
    return features_of(recording, analysis, settings)


def features_of(
    recording: Recording, analysis: Analysis, settings: ExtractionSettings
) -> CellFeatures:
    """The features of a recording that was measured.

    A `RecordingError` says why if no feature of the layout can be measured.
    """
    layout = load_layout(settings.layout)
    notes = list(analysis.notes)
    values = np.full(len(layout.features), np.nan)
    if settings.layout in VECTOR_LAYOUTS:
        from crosspatch.features.families import vector_families

        families, more = vector_families(analysis, VECTOR_LAYOUTS[settings.layout])
        notes += more
        for family, vector in families.items():
            values[layout.columns[family]] = vector
    else:
        from crosspatch.features.scalars import scalar_features

        scalars = scalar_features(analysis, notes)
        values[:] = [scalars.get(name, np.nan) for name in layout.feature_names]
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    single[~np.isfinite(single)] = np.nan
    if np.isnan(single).all():
        reasons = [note for note in notes if note not in recording.notes]
        raise RecordingError(
            f"{recording.name}: no feature of layout '{layout.name}' can be measured: "
            f"{'; '.join(reasons) or 'nothing was recorded'}"
        )
    present = layout.present(single[None])[0]
    recorded, cell = recording.recorded, analysis.cell
    missing = [name for name, there in zip(layout.families, present, strict=True) if not there]
    head = CellHead(
        species=recorded.species,
        donor=recorded.donor,
        session=recorded.session,
        location=recorded.location,
        seal=cell.seal,
        access_resistance=cell.access_resistance,
        simulated=recorded.simulated,
        format=recording.format,
        electrode=recording.electrode,
        sweeps=len(recording.current_clamp) + recording.left_out,
        sweeps_rejected=sum(not quality.passed for quality in analysis.qualities.values()),
        families_missing=", ".join(missing),
        qc_passed=cell.passed,
        qc_reasons="; ".join(cell.reasons),
        bridge_error=cell.bridge,
        notes=tuple(dict.fromkeys(notes)),
    )
    return CellFeatures(recording.cell_id, single, head)


def extract_file(source: str | Source, settings: ExtractionSettings | None = None) -> CellFeatures:
    """Compute the features of one file of one cell.

    Parameters
    ----------
    source : path or Asset
        NWB, ABF or another format on disk, or NWB in the DANDI archive, of which only what is
        needed is fetched.
    settings : ExtractionSettings, optional

    Raises
    ------
    RecordingError
        If the file cannot be read, no feature can be measured, or it holds several cells.
    NetworkError
        If a file of the archive cannot be had.

    Examples
    --------
    >>> import crosspatch
    >>> cell = crosspatch.extract("simulated/sim-human-0001.nwb")
    >>> cell.cell_id, cell.values.shape
    ('sim-human-0001', (3757,))
    """
    found = extract_cells(source, settings or ExtractionSettings())
    if len(found) > 1:
        raise several_cells(str(source), (each.electrode for each in found))
    if isinstance(found[0], Failure):
        raise RecordingError(found[0].message, found[0].hint)
    return found[0]


def extract_cells(source: str | Source, settings: ExtractionSettings) -> Outcomes:
    """Compute the features of every cell of a file; one without features is a `Failure`.

    An error, as of `extract_file`, if the file cannot be read.
    """
    if isinstance(source, Asset):
        return _extract_asset(source, settings)
    path = Path(source)
    cells = _extract_all(open_recordings(path, settings.reading, measured_only=True), settings)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    return _with_head(cells, {"sha256": digest, "recording_source": str(path)})


def _extract_all(recordings: list[Recording], settings: ExtractionSettings) -> Outcomes:
    """The features of opened recordings, which are closed."""
    try:
        return [_extracted(recording, settings) for recording in recordings]
    finally:
        close_all(recordings)


def _extracted(recording: Recording, settings: ExtractionSettings) -> CellFeatures | Failure:
    """The features of a cell, or why it has none."""
    try:
        return extract_recording(recording, settings)
    except RecordingError as error:
        return Failure.of(error, recording)


def _with_head(cells: Outcomes, head: CellHead) -> Outcomes:
    """Cells of a file with what is known of the file."""
    for cell in cells:
        if isinstance(cell, CellFeatures):
            cell.head.update(head)
    return cells


def _extract_asset(asset: Asset, settings: ExtractionSettings) -> Outcomes:
    from crosspatch.archive.streaming import open_cells
    from crosspatch.archive.web import Web

    web = Web()

    def extracted(*, verified: bool) -> Outcomes:
        opened = open_cells(asset, settings.reading, measured_only=True, verified=verified, web=web)
        cells = _extract_all(opened, settings)
        for cell in cells:
            if isinstance(cell, Failure) and not (secure or verified):
                raise RecordingError(cell.message)
        return cells

    # Without TLS, what looks like a poor recording may be bytes that came wrong.
    secure = asset.api.startswith("https://")
    doubts = (DoubtfulBytesError,) if secure else (DoubtfulBytesError, RecordingError)
    try:
        cells = extracted(verified=False)
    except doubts:
        cells = extracted(verified=True)
    return _with_head(
        cells,
        {
            "sha256": asset.digests.get("sha256", asset.digest),
            "recording_source": str(asset),
            "file_bytes": asset.size,
            "bytes_read": web.received,
            "requests": web.requests,
        },
    )
