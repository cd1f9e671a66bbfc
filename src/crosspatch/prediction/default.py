"""The model that is used when none is given: trained once from the Allen tables, then kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import platformdirs

from crosspatch.errors import MissingLibraryError, ModelError
from crosspatch.models import artifact
from crosspatch.models.artifact import Artifact
from crosspatch.processes import cores
from crosspatch.species import SPECIES
from crosspatch.telling import Say, Stage
from crosspatch.versions import code_digest, library_versions


def default_model(
    species: str,
    say: Say,
    *,
    data_dir: str | Path | None = None,
    jobs: int | None = 1,
    progress: Stage | None = None,
) -> Artifact:
    """The default model of a species, from the user's cache or trained now, which is said.

    Another version of crosspatch, of its libraries or of the tables means another model. A
    CohortError if it must be trained and the tables are not there, a ModelError if it cannot be
    kept.
    """
    best, layout = SPECIES[species].best_model, SPECIES[species].default_layout
    # Cohorts pin the tables.
    code = code_digest("features", "cohorts", "models", "evaluation", "prediction")
    learnt = SPECIES[species].default_cohort
    parts = (best, layout, learnt, code)
    kept = platformdirs.user_cache_path("crosspatch") / "models"
    key, libraries = _digest(parts), library_versions()
    folder = kept / f"{species}-{key}-{_digest(libraries)}"
    if "" in libraries.values():  # nothing is trained here; one that was, elsewhere, will do
        there = kept.glob(f"{species}-{key}-*")
        folder = max(there, key=lambda each: each.stat().st_mtime, default=folder)
    if folder.is_dir():
        try:
            return artifact.load(folder)
        except ModelError as error:
            say(f"{error}; training it again")
    try:  # a model that is kept needs none of this
        from crosspatch.cohorts.loading import load_cohort
        from crosspatch.prediction.training import train
    except MissingLibraryError as error:
        raise ModelError(
            f"no {species} model was given, and none is kept in {kept}",
            f"give one with {{model}}, or to train one, {error.hint}",
        ) from error
    cohort = load_cohort(learnt, layout, data_dir)
    say(
        f"no {species} model was given: training '{best}' on {cohort.n_obs:,} Allen "
        f"cells, once; it is kept in {folder}"
    )

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(f"train {species} model", done, total)

    try:
        return train(cohort, data_dir=data_dir, jobs=jobs or cores(), progress=tell, out=folder)
    except ModelError as error:
        raise ModelError(
            f"the default model could not be kept: {error}",
            "or train one with `crosspatch train` and give it with {model}",
        ) from error


def _digest(of: Sequence[str] | Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:12]
