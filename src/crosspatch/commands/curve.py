"""The learning curve."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crosspatch.commands import options
from crosspatch.commands.options import ManyValues
from crosspatch.commands.printing import progress_bar
from crosspatch.commands.printing_results import print_curve
from crosspatch.commands.root import app
from crosspatch.commands.run import finish, load_and_print_cohorts


@app.command("learning-curve", cls=ManyValues)
def learning_curve(
    *,
    cohort: options.CohortNames = None,
    data_dir: options.DataDir = None,
    features: options.Features = None,
    models: options.ModelNames = None,
    protocol: options.ProtocolName = "donor",
    alignment: options.AlignmentName = "hodge2019",
    seed: options.Seed = 0,
    jobs: options.Processes,
    device: options.Device = "cpu",
    out: options.OutFolder = Path("learning-curve"),
    unverified: options.Unverified = False,
) -> None:
    """Score models against the number of labelled human cells, with and without mouse.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from crosspatch.evaluation.learning_curve import learning_curve as score

    cohorts = load_and_print_cohorts(
        cohort,
        ["transfer"],
        features,
        data_dir,
        verify=not unverified,
        out=out,
        seed=seed,
        jobs=jobs,
    )
    with progress_bar() as tell:
        found = score(
            cohorts,
            models=models,
            protocol=protocol,
            alignment=alignment,
            seed=seed,
            jobs=jobs,
            device=device,
            out=out,
            progress=partial(tell, "draws"),
        )
    print_curve(found)
    finish(cohorts, found.tables, out)
