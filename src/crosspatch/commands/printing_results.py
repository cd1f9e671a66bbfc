"""What commands print of evaluations and explanations of models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from crosspatch.commands.printing import print_frame, print_rows

if TYPE_CHECKING:
    import pandas as pd

    from crosspatch.evaluation.learning_curve import LearningCurve
    from crosspatch.evaluation.results import BenchmarkResult, CalibrationTables
    from crosspatch.explanation.explain import Explanation


def _spread(header: str, name: str, digits: int = 4) -> tuple[str, str, str]:
    """A column of mean and standard deviation."""
    return header, f"{{{name}_mean:.{digits}f}}", f" ± {{{name}_sd:.{digits}f}}"


def _spreads(*names: str) -> Iterable[tuple[str, str, str]]:
    return (_spread(name.replace("_", " "), name, 3) for name in names)


def _interval(digits: int) -> tuple[str, str]:
    """A column of confidence intervals."""
    return "95 % interval", f"[{{ci_low:+.{digits}f}}, {{ci_high:+.{digits}f}}]"


_P_VALUE = ("p", "{p_value:.3f}")

# What a paired comparison gave.
_COMPARED = (("macro-F1", "{delta_macro_f1:+.4f}"), _interval(4), _P_VALUE)


def print_result(result: BenchmarkResult) -> None:
    """Scores and paired differences."""
    summary = result.summary
    print(f"\n{result.settings['protocol']}: {result.settings['protocol_about']}")
    print_frame(
        "Results (mean ± SD over runs)",
        summary,
        [
            "task",
            "features",
            "model",
            _spread("macro-F1", "macro_f1"),
            ("published", "{published_macro_f1:.4f}"),
            _spread("accuracy", "accuracy"),
            ("published", "{published_accuracy:.4f}"),
        ],
        n_text=3,
    )
    if summary["published_macro_f1"].notna().any():
        print(
            "published: arXiv 2603.11000, other cells (after its own QC of recordings) and "
            "features, folds that ignore the donor; for orientation, not a like-for-like comparison"
        )
    if len(result.comparisons):
        print_frame(
            "Paired differences, corrected resampled t-test",
            result.comparisons,
            ["task", ("difference", "{model_a} − {model_b}"), *_COMPARED],
        )


def print_calibration(found: CalibrationTables) -> None:
    """How honest the uncertainty is."""
    print_frame(
        "Calibration (expected calibration error; shares of cells)",
        found.calibration,
        [
            "task",
            "model",
            *_spreads("ece", "confident", "accuracy_confident", "outside", "refused"),
        ],
    )
    print_frame(
        "90 % prediction sets",
        found.coverage,
        [
            *("task", "model", "sets", "class"),
            *_spreads("coverage", "set_size", "one_class", "empty"),
        ],
        n_text=4,
    )
    print_frame(
        "By what is present",
        found.families,
        [
            *("task", "model", "present"),
            *_spreads("macro_f1", "accuracy", "coverage", "set_size", "refused"),
        ],
        n_text=3,
    )


def print_curve(curve: LearningCurve) -> None:
    """The learning curve."""
    print(f"\n{curve.settings['protocol']}: {curve.settings['protocol_about']}")
    every = curve.summary[curve.summary["cut"] == "all"]
    number = ("cells a class", "{cells_per_class}")
    print_frame(
        "Macro-F1 by labelled human cells of each class (mean ± SD over draws)",
        every.assign(mouse=every["mouse"].map({True: "with", False: "without"})),
        ["model", "mouse", number, _spread("macro-F1", "macro_f1")],
    )
    print_frame(
        "What mouse adds, corrected resampled t-test",
        curve.gains,
        [("difference", "{model} − {without}"), "cut", number, *_COMPARED],
    )


def print_explanation(found: Explanation) -> None:
    """What an explanation of models found."""
    importance = found.tables["importance"]
    print_frame(
        "Fall in macro-F1 without a family, on held-out donors",
        importance[importance["scope"] == "macro_f1"],
        ["species", "model", "family", "how", ("fall", "{drop:+.3f}"), _interval(3)],
        n_text=4,
    )
    print_frame(
        "Does attention say so? Rank correlation over families",
        found.tables["agreement"],
        [
            ("compared", "{what}"),
            "species",
            "model",
            ("Spearman", "{spearman:.2f}"),
            _interval(3),
            "verdict",
        ],
        n_text=3,
    )
    if len(found.tables["conserved"]):
        _print_conserved(found.tables["conserved"])
    print_frame(
        "How far subclasses lie apart in the sparse-PCA space",
        found.tables["separation"],
        ["species", ("measure", "{metric}"), "a", "b", ("value", "{value:.2f}"), _P_VALUE],
        n_text=4,
    )


def _print_conserved(conserved: pd.DataFrame) -> None:
    counts = conserved.groupby(["level", "group"], sort=False)["verdict"].value_counts()
    kinds = ("same", "opposite", "mouse only", "human only", "neither")
    print_rows(
        "Features that separate a group from the rest, in mouse and human",
        ("level", "group", *kinds),
        [
            (str(level), str(group), *(str(counts.get((level, group, kind), 0)) for kind in kinds))
            for level, group in dict.fromkeys((k[0], k[1]) for k in counts.index)
        ],
    )
