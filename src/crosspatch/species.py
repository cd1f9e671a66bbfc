"""The species whose cells can be told apart: everything that differs between them, in one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from crosspatch.errors import CohortError

#: A species, as it stands in tables, models and requests.
SpeciesName = Literal["mouse", "human"]


@dataclass(frozen=True)
class Species:
    """One species."""

    name: SpeciesName
    latin: str
    words: re.Pattern[str]  # what names it within a text
    #: Whether its cells are predicted by the subclasses that all species share. The others are
    #: mapped to these only where species are compared; see `crosspatch.cohorts.taxonomy`.
    aligned: bool
    best_model: str  # the model that measured best (README)
    default_layout: str  # features of its default model; see `crosspatch.features.layouts`
    #: Datasets that its default model learns from: those that helped when they were held out.
    default_cohort: str
    simulated_cells: int  # cells of a simulated cohort: enough to train on, few enough to wait for
    #: Cells of a subclass among any twenty simulated ones in a row: the shares of the Allen sets,
    #: evened out so that a small folder has cells of every subclass.
    simulated_shares: Mapping[str, int]
    #: Ages of simulated donors: at least, less than, and days (D) or years (Y).
    simulated_ages: tuple[int, int, str]
    colour: str  # in figures (Okabe and Ito, safe for colour-blind readers)
    marker: str  # in figures, and the same in text
    sign: str


@cache
def _words(names: str, taxon: int) -> re.Pattern[str]:
    """What names a species: words, or its number in the NCBI taxonomy, alone or in an address."""
    number = rf"(taxon[a-z]*|tax ?id|txid|\bid)[ :/=]*{taxon}\b|^\s*{taxon}(\.0)?\s*$"
    return re.compile(rf"\b({names})\b|{number}", re.IGNORECASE)


MOUSE = Species(
    name="mouse",
    latin="Mus musculus",
    words=_words(r"mouse|mice|murine|mus musculus|m\. ?musculus|c57\w*", 10090),
    aligned=False,
    best_model="vote",
    default_layout="shared",
    default_cohort="allen-mouse",
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
    words=_words(r"humans?|homo sapiens|h\. ?sapiens", 9606),
    aligned=True,
    best_model="vote",
    default_layout="full",
    default_cohort="allen-human+allen-human-l1",
    simulated_cells=60,
    simulated_shares={"Lamp5": 4, "Pvalb": 7, "Sst": 5, "Vip": 4},
    simulated_ages=(20, 75, "Y"),
    colour="#0072b2",
    marker="D",
    sign="◆",
)

#: By name, in the order in which they are listed, drawn and seeded: a new one comes last.
SPECIES: dict[str, Species] = {each.name: each for each in (MOUSE, HUMAN)}


#: Species that are recorded from and are none of these, by what they are called here.
_OTHERS: dict[str, tuple[str, int]] = {
    "rat (Rattus norvegicus)": (r"rats?|rattus|r\. ?norvegicus", 10116),
    "macaque (Macaca)": (r"macaques?|macaca|monkeys?|rhesus|m\. ?mulatta", 9544),
    "marmoset (Callithrix jacchus)": (r"marmosets?|callithrix", 9483),
    "ferret (Mustela putorius furo)": (r"ferrets?|mustela", 9669),
    "guinea pig (Cavia porcellus)": (r"guinea pigs?|cavia", 10141),
    "gerbil (Meriones unguiculatus)": (r"gerbils?|meriones", 10047),
    "hamster": (r"hamsters?|mesocricetus|cricetulus", 10036),
    "cat (Felis catus)": (r"cats?|felis", 9685),
    "rabbit (Oryctolagus cuniculus)": (r"rabbits?|oryctolagus", 9986),
    "pig (Sus scrofa)": (r"(?<!guinea )pigs?|sus scrofa", 9823),
    "zebrafish (Danio rerio)": (r"zebrafish|danio", 7955),
    "fruit fly (Drosophila melanogaster)": (r"drosophila|fruit fl(?:y|ies)", 7227),
}
#: A Latin name, as the DANDI archive asks for.
_LATIN = re.compile(r"[A-Z][a-z]{2,} [a-z]{3,}( [a-z]+)?")


def species_within(text: str) -> SpeciesName | None:
    """The species that a text names, in any spelling; None if it names another, none or several."""
    found = _all_within(text)
    return found[0] if len(found) == 1 and found[0] in SPECIES else None


def species_told(text: str | None) -> str | None:
    """What a file says the species is: one of `SPECIES`, else another one, in words.

    None if it says nothing, or what cannot be a species.
    """
    text = (text or "").strip()
    found = _all_within(text)
    if not found and _LATIN.fullmatch(text):
        return text
    return found[0] if len(found) == 1 else None


def _all_within(text: str) -> list[Any]:
    """Names of the species in a text."""
    text = text.replace("_", " ")
    found: list[Any] = [each.name for each in SPECIES.values() if each.words.search(text)]
    return found + [name for name, words in _OTHERS.items() if _words(*words).search(text)]


def require_species(name: str | None) -> None:
    """Refuse a species given by the user that is not known; none is fine."""
    if name is not None and name not in SPECIES:
        raise CohortError(f"no species '{name}'; use {' or '.join(SPECIES)}")
