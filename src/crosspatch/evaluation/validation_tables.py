"""What answers are worth on cells whose label is known: scores, verdicts, calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.evaluation.intervals import (
    counts_by_donor,
    f1_of_counts,
    interval_of,
    resampled_f1,
    share_interval,
)
from crosspatch.evaluation.metrics import scores
from crosspatch.evaluation.results import Settings
from crosspatch.evaluation.uncertainty import REFUSED, expected_calibration_error, reliability_rows
from crosspatch.models.screen import EXCITATORY
from crosspatch.models.verdicts import COVERAGE, Verdict

#: Kind of result folder.
VALIDATION = "validation"
#: Columns of the answers that tables are made from: one row per cell and model.
ANSWERED = (
    *("species", "cell_id", "label", "class", "donor", "seen", "subclass", "probability"),
    *("set", "verdict"),
)
#: In column ``seen``, of a cell with too few features to be compared with the training cells.
UNCHECKED = "unchecked"
#: Columns with text of the user's, which a spreadsheet must not take for a formula.
USERS_TEXT = ("cell_id", "label", "donor")


@dataclass(frozen=True)
class ValidationTables:
    """What comes out of a validation; a model is called after its species."""

    #: One row per species and class, ``all`` first: cells, donors, F1 (of ``all`` macro-F1 over the
    #: classes that are there), and shares of the cells, each with its interval: ``right``,
    #: ``covered`` (the label is in the prediction set, of cells with enough data), ``confident``,
    #: ``confident_right`` (of the confident ones), ``ambiguous``, ``not_interneuron``, ``outside``,
    #: ``insufficient``. Excitatory cells have a row where the model knows them; ``all`` are the
    #: interneurons, as in other tables of scores.
    #: ``ece`` is the calibration error.
    scores: pd.DataFrame
    #: One row per species and label that the model does not know: shares as above, and ``called``,
    #: the subclass that most of the confident ones are called.
    unknown: pd.DataFrame
    confusion: pd.DataFrame  # cells by species, true and predicted class
    reliability: pd.DataFrame  # confidence and accuracy by species and bin of confidence
    answers: pd.DataFrame  # one row per cell and model, with the columns of `ANSWERED`


#: The tables by name.
VALIDATION_TABLES = tuple(field.name for field in fields(ValidationTables))

_Mask = Callable[[pd.DataFrame], pd.Series]


def _is(verdict: Verdict) -> _Mask:
    return lambda part: part["verdict"] == verdict


def _of_all(part: pd.DataFrame) -> pd.Series:
    return pd.Series(True, index=part.index)


# What a cell counts as that is given no subclass.
_INSTEAD = {each: each.value for each in Verdict} | {
    Verdict.INSUFFICIENT: REFUSED,
    Verdict.NOT_INTERNEURON: EXCITATORY,
}

#: Shares of cells that have a label the model knows: what counts, and of which cells.
_SHARES: dict[str, tuple[_Mask, _Mask]] = {
    "right": (lambda part: part["right"], _of_all),
    "covered": (lambda part: part["covered"], lambda part: part["subclass"] != REFUSED),
    "confident": (_is(Verdict.CONFIDENT), _of_all),
    "confident_right": (lambda part: part["right"], _is(Verdict.CONFIDENT)),
    "ambiguous": (_is(Verdict.AMBIGUOUS), _of_all),
    "not_interneuron": (_is(Verdict.NOT_INTERNEURON), _of_all),
    "outside": (_is(Verdict.OUTSIDE), _of_all),
    "insufficient": (_is(Verdict.INSUFFICIENT), _of_all),
}
#: Those of them that need no true class.
_OF_VERDICTS = ("confident", "ambiguous", "not_interneuron", "outside", "insufficient")


def validation_tables(answers: pd.DataFrame) -> ValidationTables:
    """Tables of answers with the columns `ANSWERED`.

    ``class`` is what the label means to the model, missing where it knows no such class; cells
    whose ``label`` is empty are not scored. ``subclass`` is empty where none is given.
    """
    found: dict[str, list[dict[str, object]]] = {name: [] for name in VALIDATION_TABLES}
    for species, part in answers[answers["label"] != ""].groupby("species", sort=False):
        of_model: dict[str, object] = {"species": species}
        known = _marked(part[part["class"].notna()])
        if len(known):
            found["scores"] += [of_model | row for row in _scores(known)]
            found["confusion"] += [of_model | row for row in _confusion(known)]
            confidence, right = _confidence(known[known["class"] != EXCITATORY])
            found["reliability"] += [of_model | r for r in reliability_rows(confidence, right)]
        found["unknown"] += [of_model | row for row in _unknown(part[part["class"].isna()])]
    made = {name: pd.DataFrame(rows) for name, rows in found.items() if name != "answers"}
    return ValidationTables(**made, answers=answers)


def _marked(known: pd.DataFrame) -> pd.DataFrame:
    """The cells, with whether each is right and covered; what is refused is wrong."""
    inside = [name in chosen for name, chosen in zip(known["class"], known["set"], strict=True)]
    called = known["subclass"].where(known["subclass"] != "", known["verdict"].map(_INSTEAD))
    return known.assign(
        subclass=called, right=called == known["class"], covered=np.array(inside, dtype=bool)
    )


def _shares(part: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Shares of some cells with their intervals."""
    found: dict[str, float] = {}
    for name in names:
        counts, of = _SHARES[name]
        here = part[of(part)]
        hits = counts(here).to_numpy(dtype=bool)
        low, high = share_interval(hits, here["donor"])
        share = float(hits.mean()) if len(hits) else np.nan
        found |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return found


def _counted(part: pd.DataFrame) -> dict[str, object]:
    return {"cells": len(part), "donors": part["donor"].nunique()}


def _scores(known: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A row of all interneurons, one per class, and one of excitatory cells."""
    inside = known[known["class"] != EXCITATORY]
    if len(inside):
        classes = load_taxonomy().ordered(inside["class"])
        truth = inside["class"], inside["subclass"]
        by_donor = counts_by_donor(*truth, inside["donor"], classes)
        low, high = interval_of(resampled_f1(by_donor[None]))
        confidence, right = _confidence(inside)
        yield {
            "class": "all",
            **_counted(inside),
            "f1": float(f1_of_counts(by_donor.sum(axis=0))),
            "f1_low": low,
            "f1_high": high,
            **_shares(inside, list(_SHARES)),
            "ece": expected_calibration_error(confidence, right) if len(right) else np.nan,
        }
        of_class = scores(*truth, classes)
        for name in classes:
            part = inside[inside["class"] == name]
            f1 = {"f1": of_class[f"f1_{name}"]}
            yield {"class": name, **_counted(part), **f1, **_shares(part, list(_SHARES))}
    if len(others := known[known["class"] == EXCITATORY]):
        nothing = dict.fromkeys(("f1", "f1_low", "f1_high", "ece"), np.nan)
        shares = _shares(others, list(_SHARES))
        yield {"class": EXCITATORY, **_counted(others), **nothing, **shares}


def _confidence(known: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of the subclass, and whether it is right, of the cells that are given one."""
    given = known[known["probability"].notna()]
    return given["probability"].to_numpy(float), given["right"].to_numpy(float)


def _confusion(known: pd.DataFrame) -> Iterator[dict[str, object]]:
    counts = Counter(zip(known["class"], known["subclass"], strict=True))
    for true in load_taxonomy().ordered(known["class"]):
        for predicted in load_taxonomy().ordered(known["subclass"]):
            yield {"true": true, "predicted": predicted, "cells": counts[true, predicted]}


def _unknown(part: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A row per label that the model does not know, the most frequent first."""
    for label in part["label"].value_counts().index:
        here = part[part["label"] == label]
        sure = here.loc[here["verdict"] == Verdict.CONFIDENT, "subclass"]
        called = str(sure.value_counts().index[0]) if len(sure) else ""
        shares = _shares(here, _OF_VERDICTS)
        yield {"label": label, **_counted(here), **shares, "called": called}


@dataclass(frozen=True)
class Validation:
    """What a model's answers are worth on labelled cells."""

    tables: ValidationTables
    settings: Settings  # which cells and models, and what must be known of the scores
    messages: tuple[str, ...] = ()  # what was said while the cells were read

    @property
    def cautions(self) -> list[str]:
        """What must be known of the scores before they are believed."""
        return cautions(self.settings)

    def __repr__(self) -> str:
        found = self.tables.scores
        if not len(found):
            return "Validation of no cell with a label that the model knows"
        said = [
            f"{row['cells']:,} {row['species']} cells: macro-F1 {row['f1']:.3f}, "
            f"sets cover {row['covered']:.0%}"
            for row in found[found["class"] == "all"].to_dict("records")
        ]
        return f"Validation of {'; '.join(said)}"


def promise_kept(low: float, high: float) -> str:
    """What an interval of the coverage says of the sets' promise, after "the sets"."""
    if high < COVERAGE:
        return f"DO NOT hold the label of the {COVERAGE:.0%} that is promised"
    if low > COVERAGE:
        return f"hold the label of more than the {COVERAGE:.0%} that is promised"
    return f"may well hold the label of the {COVERAGE:.0%} that is promised"


def cautions(settings: Settings) -> list[str]:
    """What the settings of a validation say that must be known of its scores."""
    found = []
    if settings["simulated"]:
        found.append("SIMULATED recordings: the scores say nothing about real neurons")
    found += [*_learned_from(settings), *_screened_by(settings)]
    if not settings["species_known"]:
        found.append(
            "the species of some cells is not known: they are judged by the model of each, of "
            "which one at most can be right"
        )
    if settings["group"] is None:
        found.append(
            "donors are not given: every cell counts as of its own, so that intervals are too "
            "narrow where several are of one animal or patient"
        )
    return found


def _learned_from(settings: Settings) -> Iterator[str]:
    """Which of the cells the models learned from, or that it is not known."""
    for species, seen in settings["seen"].items():
        if seen is None:
            yield (
                f"whether the {species} model learned from these cells cannot be checked: its "
                "training cells are not at hand"
            )
            continue
        learned = [f"{seen['itself']:,} of these cells"] if seen["itself"] else []
        if of_donor := seen["donor"]:
            which = "more" if learned else "of these"
            learned.append(f"other cells of the donors of {of_donor:,} {which}")
        if learned and not settings["new_cells"]:
            yield (
                f"THESE SCORES ARE NOT HONEST: the {species} model learned from "
                f"{' and from '.join(learned)}"
            )
        if few := seen.get(UNCHECKED):
            yield (
                f"whether the {species} model learned from {few:,} of these cells "
                "cannot be checked: they have too few features, and other names than its cells"
            )


def _screened_by(settings: Settings) -> Iterator[str]:
    """Of which datasets the models know what excitatory cells look like."""
    for species, about in settings["judged_by"].items():
        there = settings["cohorts"].get(species, {}).get("dataset", ())
        known = [name for name in about.get("screen") or () if name in there]
        if known:
            yield (
                f"the {species} model has learned from {' and '.join(known)} what excitatory cells "
                "look like: of another laboratory's it may find fewer"
            )
