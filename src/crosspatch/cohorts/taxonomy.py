"""Types and subclasses across species: labels of the sources to subclasses, kept as data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from crosspatch.errors import TaxonomyError
from crosspatch.species import SPECIES

#: Sncg counts as Vip (Hodge et al. 2019; text of arXiv 2603.11000).
DEFAULT_ALIGNMENT = "hodge2019"


@dataclass(frozen=True)
class Taxonomy:
    """Which label is which subclass."""

    #: Every subclass, in the order in which they are listed.
    subclasses: tuple[str, ...]
    #: Species to (source label to subclass).
    labels: dict[str, dict[str, str]]
    #: Species to (source label to the reason why it is not part of the task).
    outside: dict[str, dict[str, str]]
    #: Name of a reading to (subclass to the subclass it counts as across species).
    alignments: dict[str, dict[str, str]]
    #: Subclass to its colour in every figure.
    colours: dict[str, str]

    def subclass_of(self, labels: pd.Series, species: str, where: str) -> pd.Series:
        """Map the labels of a source to subclasses.

        Parameters
        ----------
        labels : Series of str
            Labels as the source writes them; missing where a cell has none.
        species : str
            ``mouse`` or ``human``.
        where : str
            File and column, for the error message.

        Returns
        -------
        Series of str
            The subclass; missing for unlabelled cells and types outside the task.

        Raises
        ------
        TaxonomyError
            If a label is in neither list.
        """
        known = set(self.labels[species]) | set(self.outside[species])
        unknown = labels[labels.notna() & ~labels.isin(known)]
        if len(unknown):
            raise TaxonomyError(
                f"{where}: label '{unknown.iloc[0]}' ({len(unknown)} cells with unknown labels) "
                f"is not in the {species} taxonomy; known: {', '.join(sorted(known))}. Correct "
                "the label or add it to cohorts/data/taxonomy.toml"
            )
        return labels.map(self.labels[species])

    def align(self, subclasses: ArrayLike, alignment: str = DEFAULT_ALIGNMENT) -> NDArray[np.str_]:
        """Map subclasses to the ones that both species share.

        Parameters
        ----------
        subclasses : array of str, shape (cells,)
        alignment : str
            Name of a reading, see `Taxonomy.alignments`.

        Raises
        ------
        TaxonomyError
            If there is no reading of this name.
        """
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
        labels={name: data[name]["labels"] for name in SPECIES},
        outside={name: data[name]["outside"] for name in SPECIES},
        alignments=data["alignments"],
        colours=data["colours"],
    )
