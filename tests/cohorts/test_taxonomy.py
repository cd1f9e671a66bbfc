from __future__ import annotations

import pytest

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import TaxonomyError


def test_sncg_counts_as_vip_or_as_the_published_code_has_it():
    taxonomy = load_taxonomy()
    subclasses = ["Sncg", "Vip", "Lamp5", "Sst", "Pvalb"]
    assert taxonomy.align(subclasses).tolist() == ["Vip", "Vip", "Lamp5", "Sst", "Pvalb"]
    by_code = taxonomy.align(subclasses, "published-code")
    assert by_code.tolist() == ["Lamp5", "Vip", "Lamp5", "Sst", "Pvalb"]


def test_unknown_alignment_names_the_known_ones():
    with pytest.raises(TaxonomyError, match="hodge2019, published-code"):
        load_taxonomy().align(["Vip"], "mine")
