"""How a user is told something, shown how far work is, or asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: Told a line that the user should read.
Say = Callable[[str], None]

#: Asked which feature an ambiguous column is: the column and the candidates; None to leave it out.
Ask = Callable[[str, Sequence[str]], str | None]

#: Told how many pieces of work are done, and of how many.
Progress = Callable[[int, int], None]

#: Told what is being done, how many pieces of it are done, and of how many.
Stage = Callable[[str, int, int], None]
