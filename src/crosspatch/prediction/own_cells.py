"""A few cells of the user's own rig whose subclass is known, by which the others are judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from crosspatch.cohorts.labelled import NO_LABEL
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError
from crosspatch.models.alignment import Labelled
from crosspatch.models.artifact import Artifact
from crosspatch.models.screen import EXCITATORY
from crosspatch.prediction.batches import Batch, ReadSettings
from crosspatch.prediction.table_cells import columns_there, no_column, read_table
from crosspatch.tables.endings import TABLE_SUFFIXES, suffix_of
from crosspatch.tables.opened import Table
from crosspatch.telling import Ask, Say


def meant_class(label: str, model: Artifact) -> str | None:
    """The model's class that a label means, or excitatory; None where it knows none."""
    classes = {name.lower(): name for name in model.classes}
    if label.lower() in classes:
        return classes[label.lower()]
    known, alignment = load_taxonomy(), model.about["alignment"]
    meant = known.meaning_of_label(label)
    if meant is not None and alignment is not None:
        meant = str(known.align([meant], alignment)[0])
    if meant in model.classes:
        return meant
    if meant == EXCITATORY and model.classifier.screen is not None:
        return meant
    # Classes of a laboratory's own model in its own spelling.
    alike = [name for name in model.classes if known.meaning_of_label(name) == meant]
    return alike[0] if meant is not None and len(alike) == 1 else None


def own_cells(
    given: Table | str,
    label: str,
    models: Mapping[str, Artifact],
    settings: ReadSettings,
    say: Say,
    ask: Ask | None = None,
) -> dict[str, Labelled]:
    """The labelled cells of a table for the model of each species, which is said.

    A CohortError if the table cannot be read, has no such column, or no cell of it can be used.
    """
    table = Path(given) if isinstance(given, str) else given
    name = str(table) if isinstance(table, Path) else "table of labelled cells"
    if isinstance(table, Path) and suffix_of(table) not in TABLE_SUFFIXES:
        raise CohortError(
            f"{name}: labelled cells are in a table ({', '.join(TABLE_SUFFIXES)}), one row per cell"
        )
    how = replace(settings, carry=(label,))
    there, _ = columns_there(table, how)
    if label not in there:
        raise no_column(name, label, there)
    batch = Batch.joined(list(read_table(table, how, say, ask=ask)))
    found, said = {}, []
    for species, model in models.items():
        if model.classifier.laboratory_ is None:
            continue
        alone = species if len(models) == 1 else None
        classes = [
            meant_class(text, model)
            if (said_species or alone) == species and text.strip().casefold() not in NO_LABEL
            else None
            for said_species, (text,) in zip(batch.species, batch.carried, strict=True)
        ]
        rows = np.flatnonzero([each in model.classes for each in classes])
        if len(rows):
            taken = [str(classes[row]) for row in rows]
            X = batch.X[rows][:, model.layout.within(settings.layout)]
            codes = np.searchsorted(model.classifier.classes_, taken)
            found[species] = Labelled(X.astype(np.float64), codes)
            counts = ", ".join(f"{each} {n}" for each, n in sorted(Counter(taken).items()))
            said.append(f"{len(rows)} {species} cells ({counts})")
    if not found:
        first = ", ".join(f"'{text}'" for text in dict.fromkeys(t for (t,) in batch.carried[:5]))
        raise CohortError(
            f"{name}: no cell of a known species has a label in column '{label}' ({first}) that "
            "is a class of the model",
            "give {species}, or another {my_label}",
        )
    say(f"{name}: labelled cells that have a say: {'; '.join(said)}")
    return found
