"""What is installed and at hand, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from crosspatch.commands import options
from crosspatch.commands.documents import AsJson, document
from crosspatch.commands.root import command
from crosspatch.commands.terminal import number_column, print_rows, print_text, text_column

if TYPE_CHECKING:
    from crosspatch.prediction.installed import Installation, KeptModel, OptionalLibraries


@command("doctor", "Serve", "doctor")
def doctor(data_dir: options.DataDir = None, as_json: AsJson = False) -> None:
    """Say what is installed, which data and models are at hand, and what is missing."""
    from crosspatch.prediction.installed import installation

    with document(as_json) as give:
        found = installation(data_dir)
        missing = missing_things(found)
        give({**asdict(found), "missing": missing})
        if not as_json:
            _print_found(found)
            print_text("\n".join(f"missing: {each}" for each in missing) or "nothing is missing", 2)


def missing_things(found: Installation) -> list[str]:
    """What is missing, and how to get it."""
    missing = [
        f"{', '.join(each.missing)}: {each.install}" for each in found.extras if each.missing
    ]
    data = found.data
    if data.missing:
        missing.append(
            f"{len(data.missing)} of the public tables in {data.path}: crosspatch fetch tables"
        )
    if data.changed:
        missing.append(
            f"the pinned version of {', '.join(data.changed)} in {data.path}: move them away, "
            "then crosspatch fetch tables"
        )
    if not any(not each.fault for each in found.models):
        missing.append(
            "a trained model: the first `crosspatch predict` trains one from the public tables "
            "(a minute), or crosspatch train --target human --out human-model"
        )
    return missing


def _print_found(found: Installation) -> None:
    """Everything, in short."""
    print(f"crosspatch {found.version}, Python {found.python}, {found.system}\n")
    columns = (text_column("extra"), text_column("libraries", fold=24), text_column("missing"))
    rows = [(each.name or "(core)", _libraries(each), _absent(each)) for each in found.extras]
    print_rows("Libraries", columns, rows)
    print_text(f"networks are trained on: {found.device or 'nothing, torch is missing'}", 2)
    data = found.data
    whole = data.there + len(data.missing) + len(data.changed)
    print_text(
        f"data directory: {data.path} (from {data.origin}), {data.there} of {whole} tables, "
        "verified",
        2,
    )
    print()
    if found.models:
        print_rows(
            f"Models in {found.models[0].folder.parent}",
            (text_column("folder", fold=24), text_column("model", fold=24)),
            [(each.folder.name, _said_of(each)) for each in found.models],
        )
    if found.caches:
        print_rows(
            f"Kept in {found.caches[0].path.parent} (may be deleted)",
            (text_column("folder"), number_column("files"), number_column("MB")),
            [(c.path.name, f"{c.files:,}", f"{c.size / 1e6:.1f}") for c in found.caches],
        )


def _libraries(extra: OptionalLibraries) -> str:
    """What is installed of an extra, with versions."""
    return ", ".join(f"{name} {found}" for name, found in extra.libraries.items() if found)


def _absent(extra: OptionalLibraries) -> str:
    return str(len(extra.missing)) if extra.missing else ""


def _said_of(model: KeptModel) -> str:
    return model.fault or f"{model.model} of {model.species} cells"
