"""Errors a user can meet. The command line prints them in one line and exits with 2."""


class CrosspatchError(Exception):
    """Something the user can put right; the message says what, where and how."""


class CohortError(CrosspatchError):
    """A data directory, source file or cohort table is not as expected."""


class TaxonomyError(CohortError):
    """A cell type label that the taxonomy does not know."""


class LayoutError(CrosspatchError):
    """An unknown feature layout, or features that do not fit it."""


class ModelError(CrosspatchError):
    """A model cannot be built or fitted as asked."""


class EvaluationError(CrosspatchError):
    """A cohort cannot be evaluated under the protocol asked for."""


class NetworkError(CrosspatchError):
    """Something on the network cannot be had, or is not what was announced."""


class RecordingError(CrosspatchError):
    """A recording cannot be read or written as asked."""


def one_line(error: BaseException) -> str:
    """The whole message of an error, in one line."""
    return " ".join(str(error).split())


def in_words(error: BaseException) -> str:
    """What a library's error says, short and in one line."""
    return one_line(error)[:200] or type(error).__name__
