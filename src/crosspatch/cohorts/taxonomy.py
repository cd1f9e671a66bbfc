"""Subclasses, and which of one species counts as which of another; kept as data."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.drawing.style import GREY
from crosspatch.errors import TaxonomyError

#: Sncg counts as Vip (Hodge et al. 2019; text of arXiv 2603.11000).
DEFAULT_ALIGNMENT = "hodge2019"
#: Column with the Cell Ontology's term for a cell's subclass, or for its class where it has none.
ONTOLOGY = "cell_ontology_id"


@dataclass(frozen=True)
class Taxonomy:
    """Which subclasses there are, and how they are aligned across species."""

    subclasses: tuple[str, ...]  #: every subclass, in the order in which they are listed
    #: Name of a reading to (subclass to the subclass it counts as across species).
    alignments: dict[str, dict[str, str]]
    colours: dict[str, str]  #: subclass to its colour in every figure
    other_colours: tuple[str, ...]  #: of classes that are none of these
    other_number: int  #: told with a name which of them it has
    classes: tuple[str, ...]  #: what a cell of no subclass may be
    ontology: dict[str, str]  #: subclass or class to its term of the Cell Ontology
    #: What others call them, a word each, to subclass or class; empty for what is of neither.
    words: dict[str, str]
    types: dict[str, str]  #: words of t-types, in lower case, that are of another subclass

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names of classes once each: subclasses as they are listed, then others by name."""
        there = {str(name) for name in names}
        known = [name for name in self.subclasses if name in there]
        return (*known, *sorted(there - set(known)))

    def known_as(self, name: str) -> str | None:
        """The subclass or class that a name is, or names in other words; None for any other."""
        return name if name in self.ontology else self.meaning_of_label(name)

    def colour(self, name: str) -> str:
        """The colour of a class in every figure; other classes may share one."""
        known = self.colours.get(name) or self.colours.get(self.words.get(name.lower(), ""))
        which = zlib.crc32(f"{self.other_number}{name}".encode()) % len(self.other_colours)
        return known or self.other_colours[which]

    def term(self, name: str) -> str | None:
        """The Cell Ontology's term for a subclass or class, in other words too; None for others."""
        known = self.known_as(name)
        return None if known is None else self.ontology[known]

    def align(self, subclasses: ArrayLike, alignment: str = DEFAULT_ALIGNMENT) -> NDArray[np.str_]:
        """Map subclasses to those both species share; `TaxonomyError` for an unknown alignment."""
        if alignment not in self.alignments:
            raise TaxonomyError(
                f"no alignment '{alignment}'; choose from: {', '.join(self.alignments)}"
            )
        rule = self.alignments[alignment]
        return np.array([rule.get(str(name), str(name)) for name in np.asarray(subclasses)])

    def meaning_of_label(self, label: str) -> str | None:
        """The subclass or class that a laboratory's label names; None where it names none, or two.

        Alternatives, as in ``LAMP5/PAX6/Other``, must agree; within one the first word that names
        a subclass counts, as in the t-types ``Sncg Vip Nptx2`` and ``Inh L1-2 PAX6 CDH12``. What a
        cell is said not to be, as in ``PV-negative``, names nothing.
        """
        if _NEGATIVE.search(label):
            return None
        if known := [name for words, name in self.types.items() if words in label.lower()]:
            return known[0]
        parts = re.split(r"[/+,;&|]|\bor\b|\band\b", label)
        named = {name for part in parts if (name := self._first_of(part)) is not None}
        if len(named) > 1:
            named.discard(_INTERNEURON)  # it agrees with any subclass
        return named.pop() if len(named) == 1 and "" not in named else None

    def _first_of(self, text: str) -> str | None:
        """What the first word says that is of a subclass; None where no word is known."""
        words = re.findall(r"[A-Za-z0-9]+", text)
        said = [self.words[w] for word in words for w in (word, word.lower()) if w in self.words]
        return next((name for name in said if name != _INTERNEURON), said[0] if said else None)


_INTERNEURON = "GABAergic"
#: Words and signs by which a label says what a cell is not.
_NEGATIVE = re.compile(
    r"\b(non|not|no|neg|negative|without|other than)\b|[-−–](\s|$|[/+,;&|)\]])", re.IGNORECASE
)


@cache
def load_taxonomy() -> Taxonomy:
    """Read the taxonomy shipped with the package."""
    text = (files("crosspatch.cohorts") / "data" / "taxonomy.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return Taxonomy(
        subclasses=tuple(data["subclasses"]),
        alignments=data["alignments"],
        colours=data["colours"],
        other_colours=tuple(data["other_colours"]["colours"]),
        other_number=data["other_colours"]["number"],
        classes=tuple(data["classes"]),
        ontology=data["ontology"],
        words={
            word: "" if name == "neither" else name
            for name, words in data["words"].items()
            for word in words
        },
        types=data["types"],
    )


def ordered(groups: Iterable[str]) -> list[str]:
    """Classes once each: all together, then subclasses as the taxonomy lists them, then others."""
    names = list(dict.fromkeys(str(group) for group in groups))
    known = [name for name in ("all", *load_taxonomy().subclasses) if name in names]
    return known + [name for name in names if name not in known]


def colour_of(group: str) -> str:
    """Colour of a class; grey for all together."""
    return GREY if group in ("", "all") else load_taxonomy().colour(group)
