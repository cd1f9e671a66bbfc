"""The command line as a user types it: in this process, or in one of its own where that counts."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from crosspatch.commands.main import main


def crosspatch(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command here; a process of its own would import everything anew.

    Parameters
    ----------
    *arguments
        What a user types behind ``crosspatch``.
    cwd : Path, optional
    **environment
        Variables to be set; ``CROSSPATCH_DATA`` is unset unless given. The terminal is wide, so
        that no message is broken into lines, unless ``COLUMNS`` is given.
    """
    typed = ["crosspatch", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", typed)
        patch.delenv("CROSSPATCH_DATA", raising=False)
        patch.setenv("COLUMNS", "1000")
        for name, value in environment.items():
            patch.setenv(name, value)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(typed, code, out.getvalue(), err.getvalue())


def crosspatch_process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The same in a process of its own, with all it prints, warnings too."""
    return subprocess.run(
        [sys.executable, "-m", "crosspatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "CROSSPATCH_DATA"},
        timeout=600,
    )
