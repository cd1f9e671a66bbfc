"""Libraries that are installed on demand: which extra of crosspatch has them."""

from __future__ import annotations

import re
import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec

from crosspatch.errors import MissingLibraryError

#: Libraries that are installed by another name than they are imported by.
INSTALLED_AS = {
    "PIL": "pillow",
    "imblearn": "imbalanced-learn",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
#: How Python's own import machinery is called in a traceback.
_MACHINERY = ("importlib", "importlib._bootstrap", "importlib._bootstrap_external")


def extra_of(module: str) -> str | None:
    """The extra whose installation brings a library, as the package's metadata has it."""
    from importlib.metadata import requires  # only where something is missing

    wanted = re.compile(rf"{re.escape(_name(module))}(?![\w.-]).*; *extra == .(\w+).", re.I)
    found = filter(None, map(wanted.match, requires("crosspatch") or ()))
    return next((each[1] for each in found), None)


def _name(module: str) -> str:
    return INSTALLED_AS.get(module, module).replace("_", "-")


def install_command(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'crosspatch[{extra}]'"


def require(module: str) -> None:
    """A MissingLibraryError now, and not after all else is done, where a library is missing."""
    if find_spec(module) is None:
        raise _missing(module, extra_of(module))


def _missing(module: str, extra: str | None) -> MissingLibraryError:
    name = _name(module)
    return MissingLibraryError(
        f"{name} is not installed, which this needs",
        install_command(extra) if extra else f"pip install {name}",
    )


class _MissingLibraries(MetaPathFinder):
    """Asked last, for what nobody found: says how to install what crosspatch itself imports."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        extra = extra_of(fullname) if _is_ours() else None
        if extra is not None:
            raise _missing(fullname, extra)


def _is_ours() -> bool:
    """Whether a module of crosspatch imports, and not another library or the user."""
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") in _MACHINERY and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__package__")).partition(".")[0] == "crosspatch"


def name_missing_libraries() -> None:
    """From now on an import of ours that fails says what to install."""
    if not any(isinstance(each, _MissingLibraries) for each in sys.meta_path):
        sys.meta_path.append(_MissingLibraries())
