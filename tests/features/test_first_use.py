"""Measuring needs neither IPFX nor, before it begins, numba; what is compiled is kept."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.features.made_files import write_small


def python(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return done.stdout.splitlines()


def test_numba_waits_until_a_recording_is_measured():
    code = (
        "import sys\n"
        "import crosspatch.features.analysis, crosspatch.features.extraction\n"
        "import crosspatch.features.many, crosspatch.features.measuring.first_use\n"
        "print(sorted({'numba', 'ipfx', 'pynwb'} & set(sys.modules)))\n"
    )
    assert python(code) == ["[]"]


def test_a_recording_is_measured_without_ipfx(tmp_path):
    write_small(tmp_path / "cell.nwb", 3)
    code = (
        "import sys\n"
        "sys.modules['ipfx'] = None\n"
        "from crosspatch.features.extraction import extract_file\n"
        f"print(extract_file({str(tmp_path / 'cell.nwb')!r}).values.shape)\n"
    )
    assert python(code) == ["(3757,)"]


def test_it_is_compiled_once_and_said(tmp_path):
    code = "from crosspatch.features.measuring.first_use import prepare; prepare(print)"
    first = python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert [line.split(",")[0] for line in first] == ["compiling what measures recordings"]
    compiled = {path.name: path.stat().st_mtime for path in tmp_path.rglob("*.nbc")}
    assert len(compiled) == 4 + 2 * 6  # passes take numbers of two widths
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)) == []
    assert compiled == {path.name: path.stat().st_mtime for path in tmp_path.rglob("*.nbc")}
