"""A cold start: what `predict` of one recording imports, in the command and in its child."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.recordings import made_files

# Python runs it when it starts: it notes what is imported from outside the standard library.
NOTES = """
import os, sys
from importlib.machinery import PathFinder

class Notes:
    seen = set(sys.stdlib_module_names)

    def find_spec(self, name, path=None, target=None):
        room = name.partition(".")[0]
        found = not room.startswith("_sysconfigdata") and room not in self.seen
        if found and PathFinder.find_spec(room) is not None:
            with open(os.path.join(os.environ["NOTES"], str(os.getpid())), "a") as file:
                file.write(room + " ")
        self.seen.add(room)

sys.meta_path.insert(0, Notes())
"""

#: Of the command line; numbers; tables of what was predicted.
COMMAND = {"crosspatch", "typer", "rich", "pydantic", "numpy", "pyarrow"}
#: What these import in turn.
OF_THESE = {
    *("annotated_doc", "annotated_types", "pydantic_core", "shellingham", "typing_extensions"),
    *("typing_inspection", "cloudpickle", "dateutil", "six"),
}
#: Of the process that reads and measures.
OF_NWB = {"h5py"}
INFLATING = {"isal"}
READER = {"crosspatch", "numpy", "numba", "llvmlite", *OF_NWB, *INFLATING}
#: What numba imports in turn.
OF_NUMBA = {"scipy", "yaml", "colorama", "cffi", "_cffi_backend", "pycparser"}


@pytest.fixture(
    scope="module",
    params=[(made_files.write_abf2, "one.abf"), (made_files.write_nwb, "one.nwb")],
    ids=["abf", "nwb"],
)
def imported(tmp_path_factory, model_folders, request) -> tuple[set[str], set[str], set[str]]:
    """What the command and its child import for a file, and what only its format takes."""
    (notes := tmp_path_factory.mktemp("notes") / "notes").mkdir()
    (notes.parent / "sitecustomize.py").write_text(NOTES)
    write, name = request.param
    paths = [str(notes.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = ["crosspatch", "predict", write(notes.parent / name), "--species", "mouse"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--model", model_folders["mouse"], "--out", "out.csv"],
        cwd=notes.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NOTES": str(notes)},
    )
    assert process.wait(600) == 0  # the first time on a machine, code is compiled
    found = {int(file.name): set(file.read_text().split()) for file in notes.iterdir()}
    of_command = found.pop(process.pid)
    (of_reader,) = found.values()
    return of_command, of_reader, OF_NWB if name.endswith(".nwb") else set()


def test_the_command_takes_few_libraries(imported):
    assert imported[0] <= COMMAND | OF_THESE


def test_what_reads_takes_few_libraries(imported):
    assert imported[1] <= READER | OF_NUMBA
    assert imported[1] & OF_NWB == imported[2]
