"""Subclasses, and which of one species counts as which of another; kept as data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    classes: tuple[str, ...]  #: what a cell of no subclass may be
    ontology: dict[str, str]  #: subclass or class to its term of the Cell Ontology

    def align(self, subclasses: ArrayLike, alignment: str = DEFAULT_ALIGNMENT) -> NDArray[np.str_]:
        """Map subclasses to those both species share; `TaxonomyError` for an unknown alignment."""
        if alignment not in self.alignments:
            raise TaxonomyError(
                f"no alignment '{alignment}'; choose from: {', '.join(self.alignments)}"
            )
        rule = self.alignments[alignment]
        return np.array([rule.get(str(name), str(name)) for name in np.asarray(subclasses)])


@cache
def load_taxonomy() -> Taxonomy:
    """Read the taxonomy shipped with the package."""
    text = (files("crosspatch.cohorts") / "data" / "taxonomy.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return Taxonomy(
        subclasses=tuple(data["subclasses"]),
        alignments=data["alignments"],
        colours=data["colours"],
        classes=tuple(data["classes"]),
        ontology=data["ontology"],
    )
