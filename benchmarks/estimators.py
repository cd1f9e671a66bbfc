"""scikit-learn's checks of every estimator: how many pass, and which are waived, and why.

    python benchmarks/estimators.py

Needs no data. `tests/models/test_scikit_learn.py` runs the same checks. Writes
benchmarks/results/estimators.md and prints it.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import sklearn
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks

from crosspatch import estimator
from crosspatch.models.absence import FamilyDropout
from crosspatch.models.discriminant import LinearDiscriminant
from crosspatch.models.kernel import StandardInputs
from crosspatch.models.registry import MODEL_NAMES
from crosspatch.models.sparse_pca import FamilySparsePCA, SparsePCA

#: What makes the checks quick: they are of the contract, not of how good a model is.
QUICK = {
    "training__epochs": 2,
    "training__batch_size": 16,
    "training__learning_rate": 0.05,
    "network__hidden": 8,
    "network__attention_hidden": 8,
    "forest__n_estimators": 10,
    "copies": 1,
    "n_folds": 2,
    # Of some checks the features are noise, of which a calibrated model refuses to learn.
    "minimum_information": 0.0,
}

_STEPS = "scikit-learn's Pipeline fits its steps in place; scikit-learn waives this for it too"
_WEIGHTS = "a forest draws cells by weight, as scikit-learn's own does, which waives this too"
_SINGLE = "networks compute in single precision: sums of a batch depend on its size by 1e-7"

#: Checks that need not be passed, by the kind of estimator, and why.
WAIVED = {
    "Pipeline": {
        "check_estimators_overwrite_params": _STEPS,
        "check_dont_overwrite_parameters": _STEPS,
    },
    "RandomForestClassifier": {
        "check_sample_weight_equivalence_on_dense_data": _WEIGHTS,
        "check_sample_weight_equivalence_on_sparse_data": _WEIGHTS,
        "check_classifiers_one_label_sample_weights": "scikit-learn's forest divides by zero if "
        "all cells of a class weigh nothing; it waives this too",
    },
    "SequenceClassifier": {"check_methods_subset_invariance": _SINGLE},
    "FinetuneClassifier": {"check_methods_subset_invariance": _SINGLE},
    "JointClassifier": {"check_methods_subset_invariance": _SINGLE},
}

#: Checks of scikit-learn that `check_estimator` leaves out: of tables, and of names that come out.
OF_TABLES = ("check_dataframe_column_names_consistency",)
OF_TRANSFORMERS = (
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
)

Check = Callable[[BaseEstimator], object]


def estimators() -> dict[str, BaseEstimator]:
    """All of them by name, without a layout, quick to fit."""
    found = {name: estimator(name) for name in MODEL_NAMES}
    found |= {
        "calibrated lda": estimator("lda", calibrated=True),
        "family dropout": FamilyDropout(LinearDiscriminant()),
        "standard inputs": StandardInputs(),
        "sparse PCA": SparsePCA(),
        "sparse PCA by family": FamilySparsePCA(),
    }
    found["forest"].set_params(n_estimators=10)
    found["boosting"].set_params(n_estimators=15)
    for model in found.values():
        known = model.get_params()
        model.set_params(**{name: value for name, value in QUICK.items() if name in known})
    return found


def waived(model: BaseEstimator) -> dict[str, str]:
    """Checks that an estimator is not expected to pass, and why."""
    kind = "Pipeline" if isinstance(model, Pipeline) else type(model).__name__
    return WAIVED.get(kind, {})


def further_checks(model: BaseEstimator) -> Iterator[tuple[str, Check]]:
    """Checks that `check_estimator` leaves out."""
    for name in (*OF_TABLES, *(OF_TRANSFORMERS if hasattr(model, "transform") else ())):
        yield name, partial(getattr(estimator_checks, name), type(model).__name__)


def row_of(name: str, model: BaseEstimator) -> tuple[str, set[str], list[str]]:
    """The row of an estimator, the names of its waived checks that fail, and what else fails."""
    done = estimator_checks.check_estimator(
        model, expected_failed_checks=waived(model), on_fail=None, on_skip=None
    )
    states = [(each["check_name"], each["status"]) for each in done]
    for check, run in further_checks(model):
        run(model)
        states.append((check, "passed"))
    failed = [check for check, state in states if state == "failed"]
    lacking = {check for check, state in states if state == "xfail"}
    passed = sum(state == "passed" for _, state in states)
    skipped = sum(state == "skipped" for _, state in states)
    return f"| {name} | {passed} | {len(lacking)} | {skipped} |", lacking, failed


def main() -> None:
    """Run the checks and write the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = [
        f"scikit-learn {sklearn.__version__}, torch {torch.__version__}, {platform.machine()}.",
        "Skipped are checks of array types that are not installed.",
        "",
        "| estimator | passed | waived | skipped |",
        "|---|---|---|---|",
    ]
    why: dict[str, str] = {}
    for name, model in estimators().items():
        row, lacking, failed = row_of(name, model)
        if failed:
            raise SystemExit(f"{name} fails {', '.join(failed)}")
        lines.append(row)
        why |= {f"{name}: `{check}`": waived(model)[check] for check in sorted(lacking)}
    lines += ["", "Waived:", "", *(f"- {where}: {reason}" for where, reason in why.items())]
    text = "\n".join(lines) + "\n"
    (Path(__file__).parent / "results" / "estimators.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
