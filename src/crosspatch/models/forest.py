"""Random forests: on the features as they are, and on sparse principal components."""

from __future__ import annotations

from sklearn.ensemble import RandomForestClassifier

from crosspatch.features.layouts import VECTOR_LAYOUTS
from crosspatch.models.estimator import CellPipeline, MaybeLayout, known_layout
from crosspatch.models.sparse_pca import FamilyComponents, FamilySparsePCA, SparsePCASettings

#: Bins at rheobase, 40 and 80 pA above it, of six steps of 50 bins.
_STEPS = ((0, 50), (100, 150), (200, 250))

#: Components, non-zero loadings and positions of Gouwens et al. 2020 (method paper, table of
#: families).
GOUWENS_2020 = {
    "first_ap_v": FamilyComponents((267, 233, 267, 233, 233, 250, 233), uses=((0, 300),)),
    "first_ap_dv": FamilyComponents((150, 117, 150, 167, 100, 100, 100, 87, 87), uses=((0, 298),)),
    "isi_shape": FamilyComponents((100, 90, 80, 80)),
    "step_subthresh": FamilyComponents(n_components=3),
    "subthresh_norm": FamilyComponents((120, 100, 90, 50, 45, 40)),
    "inst_freq": FamilyComponents((150, 137, 112, 137, 125, 112), uses=_STEPS),
    "spiking_upstroke_downstroke_ratio": FamilyComponents((150, 137, 125), uses=_STEPS),
    "spiking_peak_v": FamilyComponents((150, 137, 125), uses=_STEPS),
    "spiking_fast_trough_v": FamilyComponents((150, 137, 112), uses=_STEPS),
    "spiking_threshold_v": FamilyComponents((150, 137, 125, 112, 125), uses=_STEPS),
    "spiking_width": FamilyComponents((150, 100, 112), uses=_STEPS),
    "inst_freq_norm": FamilyComponents(
        (150, 145, 125, 120, 110, 100, 90), of="inst_freq", per_step=50
    ),
}


def build_forest(random_state: int | None = None) -> RandomForestClassifier:
    """A class-balanced random forest (Gouwens et al. 2020).

    Missing values go the way that splits best.
    """
    return RandomForestClassifier(
        n_estimators=500, class_weight="balanced", random_state=random_state, n_jobs=1
    )


def build_spca_forest(layout: MaybeLayout = None, random_state: int | None = None) -> CellPipeline:
    """Sparse PCA by family, then a class-balanced random forest: the published baseline."""
    known = known_layout(layout)
    # The published table leaves psth out.
    vectors = known is not None and known.name in VECTOR_LAYOUTS
    components = SparsePCASettings(families=GOUWENS_2020, listed_only=vectors)
    forest = build_forest(random_state)
    return CellPipeline([("components", FamilySparsePCA(layout, components)), ("forest", forest)])
