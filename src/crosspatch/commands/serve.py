"""Answer in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.printing import progress_bar, say_on_stderr
from crosspatch.commands.root import command


@command("serve", "Serve", "serve --open")
def serve_pages(
    *,
    model: options.ModelFolders = None,
    host: Annotated[
        str, typer.Option(help="Address to answer at; any but loopback demands a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8700,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the pages in the browser.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CROSSPATCH_TOKEN", help="Demanded of everyone. (default: made up if needed)"
        ),
    ] = None,
    sets: options.SetsKind = "all-cells",
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            default_factory=lambda: min(options.cores(), 4),
            show_default="cores, at most 4",
            help="Files at a time, each about 0.5 GiB.",
        ),
    ],
    keep: Annotated[
        float, typer.Option(min=0.01, help="Hours after which files and results are deleted.")
    ] = 8.0,
    upload: Annotated[float, typer.Option(min=0.001, help="Largest file, GiB.")] = 1.0,
    storage: Annotated[float, typer.Option(min=0.001, help="All files together, GiB.")] = 20.0,
    memory: Annotated[float, typer.Option(min=1, help="Memory of a process, GiB.")] = 4.0,
    seconds: options.Limit = 300.0,
    data_dir: options.DataDir = None,
) -> None:
    """Answer in the browser: drop a recording, see the cell. Nothing leaves the machine."""
    from crosspatch.service.server import serve
    from crosspatch.service.settings import ServiceSettings

    settings = ServiceSettings(
        models=tuple(model or ()),
        sets=sets,
        data_dir=data_dir,
        host=host,
        port=port,
        token=token,
        workers=workers,
        seconds=seconds,
        memory=round(memory * 2**30),
        upload=round(upload * 2**30),
        storage=round(storage * 2**30),
        keep=keep,
    )
    with progress_bar(goes_on=False) as tell:
        serve(settings, say_on_stderr, training=tell, open_browser=open_browser)
