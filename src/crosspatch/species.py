"""The species whose cells can be told apart: everything that differs between them, in one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from crosspatch.errors import CohortError

#: A species, as it stands in tables, models and requests.
SpeciesName = Literal["mouse", "human"]


@dataclass(frozen=True)
class Species:
    """One species."""

    name: SpeciesName
    latin: str
    also: tuple[str, ...]  # what else an NWB file may call it, in small letters
    words: re.Pattern[str]  # what names it within the text of a table
    #: Whether its cells are predicted by the subclasses that all species share. The others are
    #: mapped to these only where species are compared; see `crosspatch.cohorts.taxonomy`.
    aligned: bool
    best_model: str  # the model that measured best in the layout both species have (README)
    first_models: tuple[str, ...]  # models of a first benchmark: one of each kind that tells most
    simulated_cells: int  # cells of a simulated cohort: enough to train on, few enough to wait for
    #: Cells of a subclass among any twenty simulated ones in a row: the shares of the Allen sets,
    #: evened out so that a small folder has cells of every subclass.
    simulated_shares: Mapping[str, int]
    #: Ages of simulated donors: at least, less than, and days (D) or years (Y).
    simulated_ages: tuple[int, int, str]
    colour: str  # in figures (Okabe and Ito, safe for colour-blind readers)
    marker: str  # in figures, and the same in text
    sign: str


MOUSE = Species(
    name="mouse",
    latin="Mus musculus",
    also=("house mouse",),
    words=re.compile(r"\b(mouse|mice|murine|mus[ _]musculus|m\. ?musculus)\b", re.IGNORECASE),
    aligned=False,
    best_model="boosting",
    first_models=("spca-forest", "boosting", "bilstm-attention"),
    simulated_cells=80,
    simulated_shares={"Lamp5": 3, "Pvalb": 5, "Sst": 7, "Vip": 5},
    simulated_ages=(45, 75, "D"),
    colour="#d55e00",
    marker="o",
    sign="●",
)
HUMAN = Species(
    name="human",
    latin="Homo sapiens",
    also=(),
    words=re.compile(r"\b(humans?|homo[ _]sapiens|h\. ?sapiens)\b", re.IGNORECASE),
    aligned=True,
    best_model="vote",
    first_models=("spca-forest", "forest", "boosting", "bilstm-attention", "ensemble"),
    simulated_cells=60,
    simulated_shares={"Lamp5": 4, "Pvalb": 7, "Sst": 5, "Vip": 4},
    simulated_ages=(20, 75, "Y"),
    colour="#0072b2",
    marker="D",
    sign="◆",
)

#: By name, in the order in which they are listed, drawn and seeded: a new one comes last.
SPECIES: dict[str, Species] = {each.name: each for each in (MOUSE, HUMAN)}


def species_called(name: str) -> SpeciesName | None:
    """The species of this name, English or Latin."""
    name = name.strip().lower()
    for each in SPECIES.values():
        if name in (each.name, each.latin.lower(), *each.also):
            return each.name
    return None


def species_within(text: str) -> SpeciesName | None:
    """The species that a text names; None if it names none or several."""
    named = [each.name for each in SPECIES.values() if each.words.search(text)]
    return named[0] if len(named) == 1 else None


def require_species(name: str | None) -> None:
    """Refuse a species given by the user that is not known; none is fine."""
    if name is not None and name not in SPECIES:
        raise CohortError(f"no species '{name}'; use {' or '.join(SPECIES)}")
