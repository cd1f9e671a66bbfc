"""What several sources say of cells in their own words, in one way of writing."""

from __future__ import annotations

import pandas as pd


def layers(written: pd.Series) -> pd.Series:
    """Cortical layers as ``1``, ``2/3``, ``5/6``, ``6a``, from ``L2/3``, ``5_6`` or ``1.0``."""
    text = written.str.strip().str.upper().str.replace(r"^(LAYER|L)\s*", "", regex=True)
    return text.str.replace("_", "/").str.replace(r"\.0$", "", regex=True).str.lower()


def post_patch(written: pd.Series) -> pd.Series:
    """What became of the nucleus after recording, such as ``nucleus_present``, ``entire_cell``."""
    return written.str.strip().str.lower().str.replace(r"[\s-]+", "_", regex=True)


def human_donors(written: pd.Series) -> pd.Series:
    """The Allen Institute's numbers of human donors, ``H19.03.002``; a few are in lower case.

    A second spelling must never split a donor.
    """
    return written.str.strip().str.upper()


def lobes(written: pd.Series) -> pd.Series:
    """Lobes as the Allen Institute abbreviates them, from words or codes such as ``TCx_L1``."""
    starts = {"T": "TemL", "F": "FroL", "P": "ParL", "O": "OccL"}
    return written.str.extract(
        r"^([TFPO])(?:Cx|emporal|rontal|arietal|ccipital)", expand=False
    ).map(starts)


def diseases(written: pd.Series) -> pd.Series:
    """What a donor had, in lower case; every kind of tumour is ``tumor``."""
    text = written.str.strip().str.lower()
    return text.mask(text.str.contains("tumor", na=False), "tumor")
