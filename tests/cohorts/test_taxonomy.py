from __future__ import annotations

import pandas as pd
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


def test_types_outside_the_task_and_missing_labels_have_no_subclass():
    labels = pd.Series(["Serpinf1", None, "Sst"])
    found = load_taxonomy().subclass_of(labels, "mouse", "here")
    assert found.isna().tolist() == [True, True, False]


def test_unknown_label_is_refused_with_its_place():
    with pytest.raises(TaxonomyError, match=r"file\.csv.*'Chandelier' \(2 cells"):
        load_taxonomy().subclass_of(
            pd.Series(["VIP", "Chandelier", "Chandelier"]), "human", "file.csv"
        )
