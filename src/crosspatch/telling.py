"""How a user is told something, or asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: Told a line that the user should read.
Say = Callable[[str], None]


#: Asked which feature an ambiguous column is: the column and the candidates; None to leave it out.
Ask = Callable[[str, Sequence[str]], str | None]
