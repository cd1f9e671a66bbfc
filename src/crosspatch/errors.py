"""Errors a user can meet. The command line prints them in one line and exits with 2."""

from __future__ import annotations

from collections.abc import Callable
from string import Formatter
from typing import ClassVar


class CrosspatchError(Exception):
    """Something the user can put right; the message says what is wrong and where.

    Parameters
    ----------
    message : str
    hint : str
        What to do. ``{name}`` stands for the parameter of that name, which is ``--name`` at the
        command line and something else on a page; other braces are doubled.
    """

    code: ClassVar[str] = "error"  # what kind of error it is, for programs

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def in_words(self, spell: Callable[[str], str] = "'{}'".format) -> str:
        """The message and what to do, with parameters spelled as the reader knows them."""
        parameters = {name for _, name, _, _ in Formatter().parse(self.hint) if name}
        hint = self.hint.format(**{name: spell(name) for name in parameters})
        return "; ".join(part for part in (self.message, hint) if part)

    def __str__(self) -> str:
        return self.in_words()


class CohortError(CrosspatchError):
    """A data directory, source file or cohort table is not as expected."""

    code = "cohort"


class TaxonomyError(CohortError):
    """A cell type label that the taxonomy does not know."""

    code = "taxonomy"


class LayoutError(CrosspatchError):
    """An unknown feature layout, or features that do not fit it."""

    code = "layout"


class ModelError(CrosspatchError, ValueError):
    """A model cannot be built or fitted as asked; a `ValueError` as well, as scikit-learn's are."""

    code = "model"


class EvaluationError(CrosspatchError):
    """A cohort cannot be evaluated under the protocol asked for."""

    code = "evaluation"


class NetworkError(CrosspatchError):
    """Something on the network cannot be had, or is not what was announced."""

    code = "network"


class RecordingError(CrosspatchError):
    """A recording cannot be read or written as asked."""

    code = "recording"


class MissingLibraryError(CrosspatchError, ModuleNotFoundError):
    """A library of an extra that is not installed; the hint is how to install it."""

    code = "missing-library"


def as_flag(parameter: str) -> str:
    """How the command line, and a csv of predictions, spells a parameter."""
    return "--" + parameter.replace("_", "-")


def one_line(error: BaseException) -> str:
    """The whole message of an error, in one line."""
    return " ".join(str(error).split())


def in_words(error: BaseException) -> str:
    """What a library's error says, short and in one line."""
    return one_line(error)[:200] or type(error).__name__
