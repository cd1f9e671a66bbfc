"""The process that touches what users upload: reads, measures, predicts, explains, writes.

Longer than 400 lines: whatever is requested of it is done here, in few lines each.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from joblib import cpu_count

from crosspatch.errors import CohortError, CrosspatchError, RecordingError, as_flag, one_line
from crosspatch.explanation.map import reference_map
from crosspatch.explanation.reference_map import ReferenceMap
from crosspatch.features.analysis import analyse
from crosspatch.features.cortical_layer import require_layer
from crosspatch.features.extraction import ExtractionSettings, features_of
from crosspatch.features.measuring import first_use
from crosspatch.features.outcome import CellFeatures, Failure, Outcomes
from crosspatch.prediction.batches import (
    ReadSettings,
    SeenIds,
    extraction_settings,
    recordings_batch,
    unique,
)
from crosspatch.prediction.explained import CellExplanation, explain_prediction
from crosspatch.prediction.output import Output
from crosspatch.prediction.pipeline import Listener
from crosspatch.prediction.prediction import Prediction, joined
from crosspatch.prediction.predictor import Predictor, load_predictor
from crosspatch.prediction.table_cells import first_rows, read_table
from crosspatch.processes import Tell, answer_requests
from crosspatch.recordings.abf_stimulus import keep_to_the_file
from crosspatch.recordings.model import Recording, named_cell
from crosspatch.recordings.opening import close_all, open_recordings
from crosspatch.recordings.quality import judged
from crosspatch.recordings.stimuli import MEASURED, recognise
from crosspatch.reporting.cell_view import cell_view, recording_view
from crosspatch.service import messages
from crosspatch.service.guards import in_gib, refuse_bomb, refuse_other_files
from crosspatch.service.mapping_screen import choosable, described, overrides_of
from crosspatch.service.messages import GivenFile
from crosspatch.service.predicted import Results
from crosspatch.service.settings import ServiceSettings
from crosspatch.service.traces import MOST_SAMPLES, keep_index, keep_samples
from crosspatch.tables.columns import map_columns

REPORTED = 12  #: explained cells of a report


class Worker:
    """Does what the server requests; see `crosspatch.service.messages`."""

    predictor: Predictor
    settings: ServiceSettings
    _map: ReferenceMap | str

    def __init__(self) -> None:
        self._memory_at_first = 0

    def answer(self, request: messages.WorkerRequest, tell: Tell) -> messages.Answer:
        """Do what is asked for, and put what goes wrong into words."""
        lacked: BaseException | None = None
        try:
            return messages.Answer(self._done(request, tell), self._keeps_memory())
        except CrosspatchError as error:
            fault, lacked = _fault(error, request), error.__cause__
        except MemoryError as error:
            lacked, size = error, in_gib(self.settings.memory)
            fault = messages.Fault(
                f"needs more than {size} of memory, which is what this server gives a file",
                "start the server with more {memory}",
            )
        except Exception as error:  # a bug of ours or a library's: the others must go on
            traceback.print_exc()
            line = f"unexpected {type(error).__name__}: {one_line(error)}"
            fault = messages.Fault(_named(line, request))
        # Libraries may not get over it where they ran out of memory. NumPy asks for the whole of
        # an array; where it does not get it nothing has happened.
        worn = isinstance(lacked, MemoryError) and not hasattr(lacked, "_total_size")
        return messages.Answer(fault, worn or self._keeps_memory())

    def _done(self, request: messages.WorkerRequest, tell: Tell) -> messages.WorkerOutcome:
        match request:
            case messages.Prepare(settings):
                return self._prepare(settings, tell)
            case messages.Measure(file):
                return self._measure(file, tell)
            case messages.Refuse(file, fault):
                return self._refuse(file, fault)
            case messages.FindColumns(file):
                return self._find_columns(file, tell)
            case messages.PredictTable(file):
                return self._predict_table(file, tell)
            case messages.ExplainRow(file, row):
                return self._explain_row(file, row)
            case messages.Simulate(file, example):
                return self._simulate(file, example, tell)
            case messages.Export():
                return self._export(request, tell)
        raise TypeError(type(request).__name__)

    def _keeps_memory(self) -> bool:
        """Whether so much memory stayed behind that the next file may lack it."""
        try:
            pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
        except OSError:
            return False  # the system does not say
        used = int(pages) * resource.getpagesize()
        self._memory_at_first = self._memory_at_first or used
        return used > (self._memory_at_first + self.settings.memory) / 2

    def _prepare(self, settings: ServiceSettings, tell: Tell) -> messages.Ready:
        keep_to_the_file()
        self.settings = settings
        self.predictor = load_predictor(
            settings.models,
            sets=settings.sets,
            data_dir=settings.data_dir,
            jobs=cpu_count(),
            say=lambda line: tell(messages.Line(line)),
            progress=lambda what, done, total: tell(messages.Training(what, done, total)),
        )
        first_use.prepare(lambda line: tell(messages.Line(line)))
        first_use.load_kernels()
        layout, header = self.predictor.layout, self.predictor.header
        return messages.Ready(
            crosspatch=header["crosspatch"],
            models=header["models"],
            parameters=header["parameters"],
            columns=tuple(self.predictor.columns),
            classes=self.predictor.classes,
            measures_recordings=layout.measured.measured_in is not None,
            features=[] if layout.traces else choosable(layout),
            map=self._load_map(tell),
        )

    def _load_map(self, tell: Tell) -> messages.MapPoints | messages.Fault:
        try:
            self._map = reference_map(
                data_dir=self.settings.data_dir, say=lambda line: tell(messages.Line(line))
            )
        except CrosspatchError as error:
            self._map = f"there is no reference map: {one_line(error)}"
            return messages.Fault(self._map)
        table = self._map.table
        return messages.MapPoints(
            cell_id=table["cell_id"].astype(str).tolist(),
            species=table["species"].astype(str).tolist(),
            subclass=table["subclass"].astype(str).tolist(),
            x=[round(float(x), 3) for x in table["x"]],
            y=[round(float(y), 3) for y in table["y"]],
        )

    def _measure(self, file: GivenFile, tell: Tell) -> messages.Predicted:
        how = extraction_settings(self._read_settings(file))
        tell(messages.Doing("reading"))
        file.forget()
        opened: list[Recording] = []
        try:
            refuse_other_files(file.path)
            opened = open_recordings(file.path, how.reading, measured_only=True)
            try:
                cells = self._measured_all(file, opened, how, tell)
            finally:
                close_all(opened)
        except RecordingError as error:
            tell(messages.Doing("predicting"))
            species = opened[0].recorded.species if opened else None
            return self._refuse(file, _fault(error, messages.Measure(file)), species)
        tell(messages.Doing("predicting"))
        prediction, said = self._keep_cells(file, cells)
        self._keep_details(file, prediction, range(len(prediction)))
        return messages.Predicted(len(prediction), said)

    def _measured_all(
        self, file: GivenFile, opened: list[Recording], how: ExtractionSettings, tell: Tell
    ) -> Outcomes:
        """Measure the cells of a recording; why one of several cannot be is its row's reason."""
        cells: list[CellFeatures | Failure] = []
        reasons: list[RecordingError] = []
        for part, each in enumerate(opened):
            cell_id = named_cell(Path(file.label).stem, each.electrode)
            named = replace(each, name=file.label, cell_id=cell_id)
            try:
                cells.append(self._measured(file, part, named, how, tell))
            except RecordingError as error:
                reasons.append(error)
                cells.append(Failure.of(error, named))
        if len(reasons) == len(opened) == 1:
            raise reasons[0]
        return cells

    def _measured(
        self, file: GivenFile, part: int, opened: Recording, how: ExtractionSettings, tell: Tell
    ) -> CellFeatures:
        """Measure a cell of a recording, and keep what is shown of it."""
        folder, limits = file.traces(part), how.reading.thresholds
        folder.mkdir(exist_ok=True)
        recording = opened.remembered(MOST_SAMPLES)
        found = recognise(recording)
        # What is shown is read first; the rest while someone looks at it.
        kept = keep_samples(recording, found, folder)
        early = {
            each.number: judged(recording.sweep(each.number), found[each.number], limits)[1]
            for each in kept
            if each.kind in MEASURED
        }
        stimuli = keep_index(kept, found, early, folder)
        if not part:
            tell(messages.Drawn(stimuli, recording.recorded.simulated))
            tell(messages.Doing("measuring"))
        analysis = analyse(recording, limits, found)
        about = recording_view(recording, analysis).as_json()
        # Some that are not measured are judged all the same.
        stimuli = keep_index(kept, found, analysis.qualities, folder)
        _write_json(file.recorded(part), about | {"stimuli": [asdict(each) for each in stimuli]})
        return features_of(recording, analysis, how)

    def _refuse(
        self, file: GivenFile, fault: messages.Fault, species: str | None = None
    ) -> messages.Predicted:
        failure = Failure(fault.message, hint=fault.hint, species=species)
        prediction, said = self._keep_cells(file, [failure])
        return messages.Predicted(len(prediction), said, fault)

    def _keep_cells(self, file: GivenFile, cells: Outcomes) -> tuple[Prediction, tuple[str, ...]]:
        """Predict what a recording gave, and keep it: a row for each cell and species."""
        settings, say = self._read_settings(file), _Messages(file)
        words = Listener(say, spell=as_flag).words  # the csv is that of the command line
        measured = [(Path(file.label), cell) for cell in cells]
        batch = recordings_batch(measured, settings, say, words)
        prediction = self.predictor.predict(batch, say)
        self._results(file.folder).put(file.number, file.label, [prediction])
        if len(cells) > 1:
            parts = {name: part for part, name in enumerate(batch.cell_ids)}
            rows = [parts[cell.cell_id] for cell in prediction]
            _write_json(file.parts, {"rows": rows, "electrodes": dict(prediction.electrodes)})
        return prediction, say.lines

    def _find_columns(self, file: GivenFile, tell: Tell) -> messages.Found:
        tell(messages.Doing("reading"))
        settings, say = self._read_settings(file), _Messages(file)
        refuse_bomb(file.path)
        refuse_other_files(file.path)
        frame = first_rows(file.path, settings, say)
        if frame is None:
            return messages.Found(None, say.lines)
        found = map_columns(frame, settings.layout, settings.columns, absent_ok=True)
        if found.absent:
            raise CohortError(f"{file.label}: there is no column '{found.absent[0]}'")
        return messages.Found(described(frame, found), say.lines)

    def _predict_table(self, file: GivenFile, tell: Tell) -> messages.Predicted:
        tell(messages.Doing("predicting"))
        settings, say = self._read_settings(file), _Messages(file)
        refuse_bomb(file.path)
        seen, alignments = SeenIds(), None
        parts, count = [], 0
        for each in read_table(file.path, settings, say):
            given, most = replace(each, source=file.label), self.settings.rows - count
            if len(given.cell_ids) > most:
                say(
                    f"only the first {self.settings.rows:,} rows are predicted; give the rest in "
                    "another file, or use the command line"
                )
                given = given.first(most)
            count += len(given.cell_ids)
            if given.cell_ids:
                named = unique(given, seen, say)
                if alignments is None:
                    alignments = self.predictor.alignments(named, say)
                parts.append(self.predictor.predict(named, say, alignments))
            tell(messages.Doing("predicting", count))
            if len(each.cell_ids) > most:
                break
        rows = self._results(file.folder).put(file.number, file.label, parts)
        file.forget()  # of other columns
        return messages.Predicted(rows, say.lines)

    def _explain_row(self, file: GivenFile, row: int) -> messages.Done:
        whole = self._results(file.folder).prediction(file.number, self.predictor)
        if whole is None:
            raise CohortError(f"there is no cell {row}")
        self._keep_details(file, whole.rows(np.array([row])), [row])
        return messages.Done()

    def _keep_details(self, file: GivenFile, prediction: Prediction, rows: Sequence[int]) -> None:
        for row, each in zip(rows, self._explained(file, prediction), strict=True):
            _write_json(file.details(row), cell_view(each, self._map).as_json())

    def _explained(self, file: GivenFile, prediction: Prediction) -> list[CellExplanation]:
        settings = self._read_settings(file)
        if file.kind == messages.TABLE:
            return explain_prediction(self.predictor, prediction, settings)
        files = dict.fromkeys(prediction.cells["cell_id"].astype(str), file.path)
        electrodes: dict[str, str] = {}
        with suppress(FileNotFoundError):
            electrodes = json.loads(file.parts.read_bytes())["electrodes"]
        recorded = replace(prediction, recordings=files, electrodes=electrodes)
        found = explain_prediction(self.predictor, recorded, settings)
        return [replace(each, name=file.label) for each in found]

    def _simulate(self, file: GivenFile, example: str, tell: Tell) -> messages.Done:
        from crosspatch.service.examples import write_example

        tell(messages.Doing("simulating"))
        write_example(example, self.predictor, file.path)
        return messages.Done()

    def _export(self, request: messages.Export, tell: Tell) -> messages.Done:
        numbers = [each.number for each in request.files]
        parts = self._results(request.out.parent).predictions(numbers, self.predictor)
        if not parts:
            raise CohortError("there is no predicted cell yet")
        if request.out.suffix == ".html":
            self._report(request, parts, tell)
            return messages.Done()
        with Output(request.out) as output:
            for part in parts.values():
                output.add(part)
        return messages.Done()

    def _report(self, request: messages.Export, parts: dict[int, Prediction], tell: Tell) -> None:
        from crosspatch.reporting.batch_report import write_batch_report

        explanations: list[CellExplanation] = []
        for file in request.files:
            room, part = REPORTED - len(explanations), parts.get(file.number)
            if room and part is not None and part.cells["unread"].isna().all():
                explanations += self._explained(file, part.first(room))
        write_batch_report(
            joined(list(parts.values())),
            request.out,
            explanations=explanations,
            messages=request.said,
            # Recordings that were not read are rows that say so.
            failed=dict(request.unread),
            progress=lambda done, total: tell(messages.Doing("drawing", done)),
        )

    def _read_settings(self, file: GivenFile) -> ReadSettings:
        return ReadSettings(
            self.predictor.layout,
            file.species,
            overrides_of(file.choices),
            file.reading,
            file.sheet,
            layer=require_layer(file.layer),
            layouts=self.predictor.layouts,
        )

    def _results(self, folder: Path) -> Results:
        return Results(folder, self.predictor.columns)


class _Messages:
    """Lines for the user, each once, with the file's own name."""

    def __init__(self, file: GivenFile) -> None:
        self.file = file
        self.lines: tuple[str, ...] = ()

    def __call__(self, line: str) -> None:
        named = _file_named(line, self.file)
        if named not in self.lines:
            self.lines += (named,)


def _fault(error: CrosspatchError, request: messages.WorkerRequest) -> messages.Fault:
    """What went wrong; the file is not named first, as it is named beside."""
    message = " ".join(error.message.split())
    if not isinstance(request, messages.Prepare | messages.Export):
        for name in (str(request.file.path), request.file.path.name):
            message = message.removeprefix(f"{name}: ").removeprefix(f"{name} ")
    return messages.Fault(_named(message, request), _named(error.hint, request), error.code)


def _named(line: str, request: messages.WorkerRequest) -> str:
    """A line in which no file is called other than its user calls it."""
    if isinstance(request, messages.Prepare):
        return line
    if isinstance(request, messages.Export):
        return _without_places(line, request.out.parent, "a file")
    return _file_named(line, request.file)


def _file_named(line: str, file: GivenFile) -> str:
    line = line.replace(str(file.path), file.label).replace(file.path.name, file.label)
    return _without_places(line, file.folder, file.label)


def _without_places(line: str, folder: Path, label: str) -> str:
    """A line that names nothing within the private folder; a library may cut it in a name."""
    return re.sub(re.escape(str(folder.parent)) + r"[^\s'\"]*", lambda _: label, line)


def _write_json(file: Path, content: object) -> None:
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    temporary.replace(file)


def main() -> None:
    """Answer the server's requests until it ends."""
    import pyarrow

    worker = Worker()
    pyarrow.set_cpu_count(1)
    np.seterr(all="ignore")
    answer_requests(worker.answer, sys.argv[1:])


if __name__ == "__main__":
    main()
