"""The process that touches what users upload: reads, measures, predicts, explains, writes."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import sys
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crosspatch.errors import CohortError, CrosspatchError, RecordingError, one_line
from crosspatch.processes import Tell, answer_requests
from crosspatch.service.predicted import Results
from crosspatch.service.settings import ServiceSettings

if TYPE_CHECKING:
    from crosspatch.explanation.reference_map import ReferenceMap
    from crosspatch.features.outcome import CellFeatures, Failure
    from crosspatch.prediction.batches import ReadSettings
    from crosspatch.prediction.explained import CellExplanation
    from crosspatch.prediction.prediction import Prediction
    from crosspatch.prediction.predictor import Predictor

#: Bytes into which an Excel file or another archive may unfold.
_UNFOLDED = 2 * 2**30

#: Explained cells of a report.
REPORTED = 12

#: Simulated cells that can be tried: name to species and subclass.
EXAMPLES = {
    "mouse-pvalb": ("mouse", "Pvalb"),
    "mouse-sst": ("mouse", "Sst"),
    "human-lamp5": ("human", "Lamp5"),
}
#: A table with the column names and units of another laboratory.
EXAMPLE_TABLE = "table"

DETAILS = "details-{upload}-{row}.json"
RECORDED = "recording-{upload}.json"


def forget_details(batch: Path, upload: int) -> None:
    """Delete what was said of the cells of a file.

    Parameters
    ----------
    batch : Path
        Its folder.
    upload : int
        Number of the file.
    """
    for pattern in (DETAILS, RECORDED):
        for file in batch.glob(pattern.format(upload=upload, row="*")):
            file.unlink(missing_ok=True)


class Worker:
    """Answers requests of the server; see the methods, each a kind of request.

    Every request is a dict with its ``task``; every answer has ``error``, a line, or None, and
    ``worn``, whether the process should be replaced.
    """

    predictor: Predictor
    settings: ServiceSettings
    _map: ReferenceMap | str

    def __init__(self) -> None:
        self._memory_at_first = 0
        self._tasks: dict[str, Callable[[dict[str, Any], Tell], dict[str, Any]]] = {
            "prepare": self.prepare,
            "recording": self.recording,
            "refuse": self.refuse,
            "columns": self.columns,
            "table": self.table,
            "explain": self.explain,
            "example": self.example,
            "export": self.export,
        }

    def answer(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Do what is asked for, and put what goes wrong into a line."""
        answer, worn = self._answer(request, tell)
        return answer | {"worn": worn or self._kept_memory()}

    def _answer(self, request: dict[str, Any], tell: Tell) -> tuple[dict[str, Any], bool]:
        """The answer, and whether libraries ran out of memory, which they may not get over."""
        lacked: BaseException | None = None
        try:
            return {"error": None} | self._tasks[request["task"]](request, tell), False
        except CrosspatchError as error:
            line, lacked = one_line(error), error.__cause__
        except MemoryError as error:
            line, lacked = f"needs more than {_gib(self.settings.memory)} of memory", error
            line += ", which is what this server gives a file (--memory of `crosspatch serve`)"
        except Exception as error:  # a bug of ours or a library's: the others must go on
            traceback.print_exc()
            line = f"unexpected {type(error).__name__}: {one_line(error)}"
        # NumPy asks for the whole of an array; where it does not get it nothing has happened.
        worn = isinstance(lacked, MemoryError) and not hasattr(lacked, "_total_size")
        return {"error": _named(line, request)}, worn

    def _kept_memory(self) -> bool:
        """Whether so much memory stayed behind that the next file may lack it."""
        used = _data_size()
        self._memory_at_first = self._memory_at_first or used
        return used > (self._memory_at_first + self.settings.memory) / 2

    def prepare(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Load the models and the map; make them where they are not there yet.

        Returns
        -------
        dict
            ``header`` of predictions, ``columns`` of their table, ``features`` a column can be,
            ``map``, the points of the reference map.
        """
        from joblib import cpu_count

        from crosspatch.features.analysis import import_ipfx
        from crosspatch.features.layouts import LAYOUT_NAMES, SCALAR_LAYOUTS
        from crosspatch.prediction.predictor import load_predictor
        from crosspatch.recordings.abf import keep_to_the_file
        from crosspatch.service.mapping_screen import choosable

        keep_to_the_file()
        self.settings = request["settings"]
        self.predictor = load_predictor(
            self.settings.models,
            sets=self.settings.sets,
            data_dir=self.settings.data_dir,
            jobs=cpu_count(),
            say=lambda line: tell({"say": line}),
            progress=lambda what, done, total: tell({"what": what, "done": done, "total": total}),
        )
        import_ipfx()
        layout = self.predictor.layout
        return {
            "header": dict(self.predictor.header),
            "columns": list(self.predictor.columns),
            "classes": list(self.predictor.classes),
            "layout": layout.name,
            "measures_recordings": layout.name in LAYOUT_NAMES,
            "features": choosable(layout) if layout.name in SCALAR_LAYOUTS else [],
            "map": self._load_map(tell),
        }

    def recording(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Measure a recording, predict and explain the cell, and keep its sweeps.

        Returns
        -------
        dict
            ``rows``; ``failed``, why nothing was measured, or None; ``messages``.
        """
        from crosspatch.features.extraction import analysed, features_of
        from crosspatch.features.outcome import Failure
        from crosspatch.prediction.batches import extraction_settings
        from crosspatch.recordings.opening import open_recording
        from crosspatch.reporting.cell_view import recording_view
        from crosspatch.service.traces import write_traces

        path, label = Path(request["path"]), str(request["label"])
        settings, messages = self._read_settings(request), _Messages(request)
        how = extraction_settings(settings)
        outcome: CellFeatures | Failure
        tell({"stage": "reading"})
        forget_details(Path(request["batch"]), request["upload"])
        try:
            _refuse_other_files(path)
            with open_recording(path, measured_only=True) as opened:
                named = replace(opened, name=label, cell_id=Path(label).stem)
                recording, analysis = analysed(named, how)
                tell({"stage": "drawing"})
                about = recording_view(recording, analysis).as_json()
                about["stimuli"] = write_traces(recording, analysis, path.parent)
                _write_json(_recorded(request), about)
                tell({"stage": "drawn"})
                outcome = features_of(recording, analysis, how)
        except RecordingError as error:
            reason = _named(one_line(error), request).removeprefix(label)
            outcome = Failure(reason.removeprefix(":").strip())
        tell({"stage": "predicting"})
        prediction = self._keep_cell(request, outcome, settings, messages)
        failed = outcome.reason if isinstance(outcome, Failure) else None
        if failed is None:
            tell({"stage": "explaining"})
            self._keep_details(request, prediction, range(len(prediction)), path)
        return {"rows": len(prediction), "failed": failed, "messages": messages.lines}

    def refuse(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Keep a row for a recording that hung or brought its process down; as `recording`."""
        from crosspatch.features.outcome import Failure

        reason, messages = str(request["reason"]), _Messages(request)
        settings = self._read_settings(request)
        prediction = self._keep_cell(request, Failure(reason), settings, messages)
        return {"rows": len(prediction), "failed": reason, "messages": messages.lines}

    def _keep_cell(
        self,
        request: dict[str, Any],
        outcome: CellFeatures | Failure,
        settings: ReadSettings,
        say: Callable[[str], None],
    ) -> Prediction:
        """Predict what a recording gave, and keep it: a row, or one for each species."""
        from crosspatch.prediction.batches import recordings_batch

        label = str(request["label"])
        batch = recordings_batch([(Path(label), outcome)], settings, say)
        prediction = self.predictor.predict(batch, say)
        self._results(request).put(request["upload"], label, [prediction])
        return prediction

    def columns(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Find out what the columns of a table are.

        Returns
        -------
        dict
            ``own``, whether the table is in the model's own features; else what
            `crosspatch.service.mapping_screen.described` gives; ``messages``.
        """
        from crosspatch.prediction.table_cells import first_rows
        from crosspatch.service.mapping_screen import described
        from crosspatch.tables.columns import map_columns

        tell({"stage": "reading"})
        settings, messages = self._read_settings(request), _Messages(request)
        path = Path(request["path"])
        _refuse_bomb(path)
        _refuse_other_files(path)
        frame = first_rows(path, settings, messages)
        if frame is None:
            return {"own": True, "messages": messages.lines}
        found = map_columns(frame, settings.layout, settings.columns, absent_ok=True)
        if found.absent:
            raise CohortError(f"{request['label']}: there is no column '{found.absent[0]}'")
        return {"own": False, "messages": messages.lines} | described(frame, found)

    def table(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Predict the cells of a table.

        Returns
        -------
        dict
            ``rows``, ``messages``.
        """
        from crosspatch.prediction.batches import unique
        from crosspatch.prediction.table_cells import read_table

        tell({"stage": "predicting"})
        path, label = Path(request["path"]), str(request["label"])
        settings, messages = self._read_settings(request), _Messages(request)
        _refuse_bomb(path)
        seen: Counter[str] = Counter()
        parts, count = [], 0
        for each in read_table(path, settings, messages):
            given, most = replace(each, source=label), self.settings.rows - count
            if len(given.cell_ids) > most:
                messages(
                    f"only the first {self.settings.rows:,} rows are predicted; give the rest in "
                    "another file, or use `crosspatch predict`"
                )
                given = given.first(most)
            count += len(given.cell_ids)
            if given.cell_ids:
                named = unique(given, seen, messages)
                parts.append(self.predictor.predict(named, messages))
            tell({"stage": "predicting", "done": count})
            if len(each.cell_ids) > most:
                break
        rows = self._results(request).put(request["upload"], label, parts)
        forget_details(Path(request["batch"]), request["upload"])  # of other columns
        return {"rows": rows, "messages": messages.lines}

    def explain(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Explain one row of a table."""
        tell({"stage": "explaining"})
        prediction = self._results(request).prediction(
            request["upload"], request["row"], self.predictor.layout, self.predictor.header
        )
        self._keep_details(request, prediction, [request["row"]], None)
        return {}

    def _keep_details(
        self, request: dict[str, Any], prediction: Prediction, rows: Any, recording: Path | None
    ) -> None:
        from crosspatch.reporting.cell_view import cell_view

        for row, each in zip(rows, self._explained(request, prediction, recording), strict=True):
            _write_json(_details(request, row), cell_view(each, self._map).as_json())

    def _explained(
        self, request: dict[str, Any], prediction: Prediction, recording: Path | None
    ) -> list[CellExplanation]:
        from crosspatch.prediction.explained import explain_prediction

        files: dict[str, Any] = {}
        if recording is not None:
            files = dict.fromkeys(prediction.cells["cell_id"].astype(str), recording)
        found = explain_prediction(
            self.predictor, replace(prediction, recordings=files), self._read_settings(request)
        )
        label = str(request["label"]) if recording is not None else None
        return [replace(each, name=label) for each in found]

    def example(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Simulate a recording or a table at the place of an upload; its ``size``."""
        from crosspatch.service.examples import write_recording, write_table

        tell({"stage": "simulating"})
        path = Path(request["path"])
        if request["example"] == EXAMPLE_TABLE:
            write_table(self.predictor, path)
        else:
            write_recording(*EXAMPLES[request["example"]], path)
        return {"size": path.stat().st_size}

    def export(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """Write the cells of a batch as csv, h5ad or report."""
        from crosspatch.prediction.output import Output
        from crosspatch.prediction.prediction import joined
        from crosspatch.reporting.batch_report import write_batch_report

        out, uploads = Path(request["out"]), request["uploads"]
        numbers = [each["upload"] for each in uploads]
        parts = self._results(request).predictions(
            numbers, self.predictor.layout, self.predictor.header
        )
        if not parts:
            raise CohortError("there is no predicted cell yet")
        if request["format"] != "html":
            with Output(out) as output:
                for part in parts:
                    output.add(part)
            return {}
        explanations: list[CellExplanation] = []
        for part, each in zip(parts, uploads, strict=True):
            if each["failed"] or len(explanations) >= REPORTED:
                continue
            recording = Path(each["path"]) if each["kind"] == "recording" else None
            few = replace(part, cells=part.cells.head(REPORTED - len(explanations)))
            few = replace(few, X=part.X[: len(few.cells)])
            explanations += self._explained(each, few, recording)
        write_batch_report(
            joined(parts),
            out,
            explanations=explanations,
            messages=[line for each in uploads for line in each["messages"]],
            # Recordings that were not read are rows that say so.
            failed=dict(request["unread"]),
            progress=lambda done, total: tell({"stage": "drawing", "done": done, "total": total}),
        )
        return {}

    def _load_map(self, tell: Tell) -> dict[str, Any]:
        """The points of the reference map, which is made if need be; or ``why`` there is none."""
        from crosspatch.explanation.reference_map import reference_map

        try:
            self._map = reference_map(
                data_dir=self.settings.data_dir, say=lambda line: tell({"say": line})
            )
        except CrosspatchError as error:
            self._map = f"there is no reference map: {one_line(error)}"
            return {"why": self._map}
        table = self._map.table
        return {
            "cell_id": table["cell_id"].astype(str).tolist(),
            "species": table["species"].astype(str).tolist(),
            "subclass": table["subclass"].astype(str).tolist(),
            "x": [round(float(x), 3) for x in table["x"]],
            "y": [round(float(y), 3) for y in table["y"]],
        }

    def _read_settings(self, request: Mapping[str, Any]) -> ReadSettings:
        from crosspatch.prediction.batches import ReadSettings
        from crosspatch.service.mapping_screen import overrides_of

        return ReadSettings(
            self.predictor.layout,
            request.get("species"),
            overrides_of(request.get("choices") or {}),
            request.get("quality") or "default",
            request.get("step"),
        )

    def _results(self, request: Mapping[str, Any]) -> Results:
        return Results(Path(request["batch"]), self.predictor.columns)


class _Messages:
    """Lines for the user, each once, with the file's own name."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        named = _named(line, self.request)
        if named not in self.lines:
            self.lines.append(named)


def _named(line: str, request: Mapping[str, Any]) -> str:
    """A line in which the file is called as the user calls it, and no other is named."""
    label = str(request.get("label", "a file"))
    if "path" in request:
        path = Path(request["path"])
        line = line.replace(str(path), label).replace(path.name, label)
    if "batch" in request:
        # A library's line may be cut within a name.
        line = re.sub(re.escape(str(Path(request["batch"]).parent)) + r"[^\s'\"]*", label, line)
    return line


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"


def _data_size() -> int:
    """Bytes that count towards the limit of this process; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def _refuse_bomb(path: Path) -> None:
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
            f"{path.name}: unfolds into {_gib(size)}, more than a table of numbers has; "
            "save it as csv"
        )


def _refuse_other_files(path: Path) -> None:
    """Refuse an HDF5 file that takes what it holds from other files of this machine."""
    import h5py

    if not h5py.is_hdf5(path):
        return
    with contextlib.suppress(OSError), h5py.File(path, "r") as file:  # its reader says why not
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
                if elsewhere:
                    raise RecordingError(
                        f"{path.name}: '{f'{group.name}/{name}'.lstrip('/')[:80]}' lies in another "
                        "file; only what is in the file itself is read: copy it into the file"
                    )
                if isinstance(item, h5py.Group):
                    place = h5py.h5o.get_info(item.id).addr
                    if place not in seen:
                        seen.add(place)
                        waiting.append(item)


def _details(request: Mapping[str, Any], row: int) -> Path:
    return Path(request["batch"]) / DETAILS.format(upload=request["upload"], row=row)


def _recorded(request: Mapping[str, Any]) -> Path:
    return Path(request["batch"]) / RECORDED.format(upload=request["upload"])


def _write_json(file: Path, content: Any) -> None:
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    temporary.replace(file)


def main() -> None:
    """Answer the server's requests until it ends."""
    import pyarrow
    from threadpoolctl import threadpool_limits

    worker = Worker()
    # Its own would take a GiB of what a process may have before it is used.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    pyarrow.set_cpu_count(1)
    np.seterr(all="ignore")
    with threadpool_limits(1):  # as many files at a time as there are workers
        answer_requests(worker.answer, sys.argv[1:])


if __name__ == "__main__":
    main()
