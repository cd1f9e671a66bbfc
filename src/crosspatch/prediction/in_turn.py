"""Batches of one source after another: the first decides how cells of another rig are moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crosspatch.models.alignment import Alignment
from crosspatch.prediction.batches import Batch, side_by_side
from crosspatch.prediction.prediction import Prediction
from crosspatch.prediction.predictor import Alignments, Predictor
from crosspatch.tables.endings import CHUNK
from crosspatch.telling import Say


def predict_batches(
    predictor: Predictor, batches: Iterable[Batch], say: Say = lambda line: None
) -> Iterator[tuple[Batch, Prediction]]:
    """Predict on all cores, in order; the first batch of a source decides how its cells are moved.

    It is predicted alone, and of it most is said.
    """
    decided: dict[str, Alignments] = {}

    def predict(batch: Batch) -> tuple[Batch, Prediction]:
        if batch.source not in decided:
            decided.clear()
            decided[batch.source] = predictor.alignments(batch, say)
        return batch, predictor.predict(batch, say, decided[batch.source])

    return side_by_side(predict, batches)


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
