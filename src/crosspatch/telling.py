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


class Messages:
    """Keeps the lines that are said, and says them to whoever asked for them."""

    def __init__(self, say: Say | None) -> None:
        self.say = say
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)
        if self.say is not None:
            self.say(line)

    def summarise(self) -> None:
        """Print what was said that nobody asked for: a few lines, or the first of many."""
        if self.say is None:
            more = f" (and {len(self.lines) - 1} more in .messages)"
            for line in self.lines if len(self.lines) <= 5 else [self.lines[0] + more]:
                print(f"crosspatch: {line}")


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
