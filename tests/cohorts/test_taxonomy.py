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


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("PV", "Pvalb"),
        ("PV+", "Pvalb"),
        ("fast-spiking PV", "Pvalb"),
        ("Pvalb-IRES-Cre", "Pvalb"),
        ("SOM", "Sst"),
        ("Sst-IRES-Cre;Ai14(+)", "Sst"),
        ("Ndnf-IRES2-dgCre", "Lamp5"),
        ("LAMP5/PAX6/Other", "Lamp5"),
        ("Sncg Vip Nptx2", "Sncg"),
        ("Inh L1-2 PAX6 CDH12", "Lamp5"),
        ("Inh L2-4 SST FRZB", "Pvalb"),  # Pvalb by the revised subclass of Lee, Dalley et al.
        ("VIP interneuron", "Vip"),
        ("inhibitory", "GABAergic"),
        ("Exc L2-3 LINC00507 FREM3", "Glutamatergic"),
        ("L2/3 IT", "Glutamatergic"),
        # What a cell is not, what may be two things, and what is of several says nothing.
        ("PV-", None),
        ("PV-negative", None),
        ("non-PV", None),
        ("Sst-IRES-Cre;Ai14(-)", None),
        ("PV/SOM", None),
        ("Sst or Pvalb", None),
        ("Htr3a-Cre_NO152", None),
        ("basket", None),
        ("Serpinf1 Aqp5 Vip", None),
        ("", None),
    ],
)
def test_what_laboratories_call_subclasses(label: str, meant: str | None):
    assert load_taxonomy().meaning_of_label(label) == meant
