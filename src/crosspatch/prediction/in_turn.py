"""Batches of one source after another: the first decides how cells of another rig are moved."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator

from crosspatch.models.alignment import Alignment
from crosspatch.prediction.batches import Batch
from crosspatch.prediction.prediction import Prediction
from crosspatch.prediction.predictor import Predictor
from crosspatch.tables.endings import CHUNK
from crosspatch.telling import Say


def predict_batches(
    predictor: Predictor, batches: Iterable[Batch], say: Say = lambda line: None
) -> Iterator[tuple[Batch, Prediction]]:
    """Predict on all cores, in order.

    The first batch of a source, of which is said most, alone: it decides how all its cells are
    moved.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    cores = os.cpu_count() or 1
    running: deque[tuple[Batch, Future[Prediction]]] = deque()
    source, alignments = None, None
    with ThreadPoolExecutor(cores) as pool:
        for batch in batches:
            first = batch.source != source
            if first:
                source, alignments = batch.source, predictor.alignments(batch, say)
            running.append((batch, pool.submit(predictor.predict, batch, say, alignments)))
            if first:
                running[-1][1].result()
            if len(running) > cores or running[0][1].done():
                before, found = running.popleft()
                yield before, found.result()
        for before, found in running:
            yield before, found.result()


def realigned(predictor: Predictor, prediction: Prediction) -> dict[tuple[str, str], Alignment]:
    """How cells of a prediction of a predictor were moved, where only its rows were kept."""
    names = ("source", "species", "species_known", "aligned")
    columns = (prediction.records[name].to_pylist() for name in names)
    rows = list(zip(*columns, strict=True))
    found: dict[tuple[str, str], Alignment] = {}
    for source in {source for source, *_, aligned in rows if aligned}:
        here = [number for number, row in enumerate(rows) if row[0] == source][:CHUNK]
        species = [rows[number][1] if rows[number][2] else None for number in here]
        batch = Batch(source, list(map(str, here)), species, prediction.X[here])
        found |= {(source, name): how for name, how in predictor.alignments(batch).items()}
    return found
