"""Train a model, and look at one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.completion import complete_dataset, complete_model
from crosspatch.commands.documents import AsJson, document
from crosspatch.commands.printing import progress_bar
from crosspatch.commands.root import command, model_app
from crosspatch.commands.terminal import print_text
from crosspatch.errors import CohortError

if TYPE_CHECKING:
    from anndata import AnnData


@command("train", "Train and compare", "train --target human --out human-model")
@options.with_own_table
def train(
    *,
    target: Annotated[
        str | None,
        typer.Option(
            help="human, mouse, datasets by name, joined by +, or a cohort table (.h5ad).",
            autocompletion=complete_dataset,
        ),
    ] = None,
    own: AnnData | None = None,
    out: options.OutFolder,
    source: Annotated[
        str | None,
        typer.Option(
            help="Second species, for models that learn from it: mouse, or .h5ad.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name (`crosspatch models`). (default: what measured best)",
            autocompletion=complete_model,
        ),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="shared, or full (human). (default: full for human alone)")
    ] = None,
    taxonomy: options.HumanLabels = None,
    alignment: Annotated[
        str | None,
        typer.Option(
            help="Reading of mouse subclasses, hodge2019 or published-code. (default: hodge2019, "
            "and none for mouse alone)"
        ),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            metavar="RUN:FOLD",
            help="Leave out the test cells of this fold of `crosspatch run --calibration` (with "
            "--layer where the model takes it), to predict them.",
        ),
    ] = None,
    seed: options.Seed = 0,
    jobs: options.Processes,
    device: options.Device = "cpu",
    data_dir: options.DataDir = None,
    unverified: options.Unverified = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on all cells of a cohort, calibrated, to be used by `crosspatch predict`.

    The cells are those of public datasets (--target) or your own (--table, --label, --group).
    """
    from crosspatch.cohorts.loading import default_layout, load_cohort
    from crosspatch.prediction.training import left_out
    from crosspatch.prediction.training import train as train_model

    if (target is None) == (own is None):
        raise CohortError("", "give {target}, or a table of your own cells with {table}; not both")
    if own is not None and (source or features or taxonomy):
        what = "{source}, {features} and {taxonomy}"
        raise CohortError("", f"{what} are for public datasets; omit them with {{table}}")
    fold = left_out(leave_out)
    if target and source is None:  # with one, both are in the features that both species have
        features = features or default_layout(target)
    load = partial(load_cohort, data_dir=data_dir, verify=not unverified)
    with document(as_json) as give:
        with progress_bar(goes_on=False) as tell:
            trained = train_model(
                load(target, features, taxonomy=taxonomy) if target else own,
                None if source is None else load(source, features),
                model=model,
                alignment=alignment,
                seed=seed,
                jobs=jobs,
                device=device,
                leave_out=fold,
                data_dir=data_dir,
                progress=partial(tell, "train"),
                out=out,
            )
        give({"folder": out, "model": trained.about})
        if not as_json:
            print_text((out / "card.md").read_text(encoding="utf-8"))
        print_text(f"wrote {out}/: {', '.join([*trained.about['files'], 'model.json'])}", 2)


@command("show", None, "model show human-model", model_app)
def model_show(
    folder: Annotated[Path, typer.Argument(help="Model folder, from `crosspatch train`.")],
) -> None:
    """Check a model and print its card."""
    from crosspatch.models.artifact import CARD_FILE, load, other_versions

    model = load(folder)
    print_text((folder / CARD_FILE).read_text(encoding="utf-8"))
    print(f"sha256 {model.digest}")
    for each in other_versions(model.about):
        print_text(f"note: {each}; its predictions were checked and are the same")
