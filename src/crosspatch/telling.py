"""How a user is told something, shown how far work is, or asked."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Sequence
from functools import partial

#: Told a line that the user should read.
Say = Callable[[str], None]

#: Asked which feature an ambiguous column is: the column and the candidates; None to leave it out.
Ask = Callable[[str, Sequence[str]], str | None]

#: Told how many pieces of work are done, and of how many.
Progress = Callable[[int, int], None]

#: Told what is being done, how many pieces of it are done, and of how many.
Stage = Callable[[str, int, int], None]


def notebook_bars() -> Stage | None:
    """Bars that show in a notebook how far work is; None where no notebook runs."""
    there = sys.modules.get("IPython")
    shell = there.get_ipython() if there else None
    if not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, DisplayHandle

    bars: dict[str, DisplayHandle] = {}

    def tell(what: str, done: int, total: int) -> None:
        bar = HTML(
            f"{html.escape(what)}: {done:,} of {total:,} "
            f'<progress max="{total}" value="{done}" style="width: 40%"></progress>'
        )
        if what in bars:
            bars[what].update(bar)
        else:
            bars[what] = DisplayHandle()
            bars[what].display(bar)

    return tell


def notebook_bar(what: str) -> Progress | None:
    """One of `notebook_bars`."""
    bars = notebook_bars()
    return bars and partial(bars, what)
