"""What every command has: a purpose, an example that is right, completion, an exit code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import typer.main

from crosspatch.commands import completion
from crosspatch.commands.main import main
from crosspatch.commands.root import EXIT_CODES, PURPOSES, app
from tests.command import crosspatch, crosspatch_process

ROOT: Any = typer.main.get_command(app)
GUIDE = Path(__file__).parents[1] / "docs" / "command_line.md"


def every_command(group: Any = ROOT, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield from every_command(each, *names, name)
        else:
            yield (*names, name), each


COMMANDS = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_a_command_shows_an_example_that_it_takes(name):
    shown = re.fullmatch(r"Example: crosspatch (.+)", COMMANDS[name].epilog)
    assert shown, "register it with `crosspatch.commands.root.command`"
    words = shlex.split(shown[1])
    assert tuple(words[: len(name)]) == name
    COMMANDS[name].make_context(" ".join(name), words[len(name) :])  # as if it were typed


def test_every_command_is_for_something_and_each_purpose_has_an_example():
    assert {each.rich_help_panel for each in ROOT.commands.values()} == set(PURPOSES)
    for example in PURPOSES.values():
        _, name, *words = shlex.split(example)
        command = ROOT.commands[name]
        context = command.make_context(name, words)
        if hasattr(command, "commands"):
            assert words[0] in command.commands, context


def test_help_lists_them_by_purpose_and_fits_80_columns():
    shown = crosspatch_process("--help").stdout
    assert max(map(len, shown.splitlines())) <= 80
    places = [shown.index(f"\n{purpose}:\n") for purpose in PURPOSES]
    assert places == sorted(places)
    assert not set("╭│╰─\x1b") & set(shown)
    for name, each in ROOT.commands.items():
        start = shown.index(f"\n{each.rich_help_panel}:\n")
        assert f"\n  {name} " in shown[start:].split("\n\n", 2)[0] + "\n"


def test_exit_codes_are_the_same_in_help_and_guide():
    told = GUIDE.read_text(encoding="utf-8")
    shown = " ".join(crosspatch("--help").stdout.split())
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in told
        assert f"{code} {meaning}" in shown


def test_a_fault_of_ours_ends_with_3_and_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr("crosspatch.commands.main.app", Mock(side_effect=ZeroDivisionError))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_wrong_options_and_inputs_end_with_2(tmp_path: Path):
    for typed in (("predict",), ("models", "--what"), ("inspect", tmp_path / "no.abf"), ("no",)):
        assert crosspatch(*typed, cwd=tmp_path).returncode == 2, typed


def completed(line: str) -> list[str]:
    """What bash is offered where a line ends, and that nothing heavy was imported for it."""
    words = line.split(" ")
    code = (
        "import sys; sys.argv = ['crosspatch']\n"
        "from crosspatch.commands.main import main\n"
        "try: main()\n"
        "finally: print('HEAVY', sorted({'pandas', 'torch', 'sklearn', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ
        | {
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "_CROSSPATCH_COMPLETE": "complete_bash",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    *found, heavy = done.stdout.split("\n")[:-1]
    assert heavy == "HEAVY []"
    return found


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("crosspatch pre", ["predict"]),
        ("crosspatch cohort b", ["build"]),
        ("crosspatch predict x.abf --species ", ["human", "mouse"]),
        ("crosspatch run --models ld", ["lda", "lda-unlabelled", "lda-mouse"]),
        ("crosspatch run --protocol d", ["donor", "dataset"]),
        ("crosspatch run --cohort allen-l", ["allen-l23-mouse", "allen-l23-human"]),
    ],
)
def test_the_shell_completes(line, names):
    assert completed(line) == names


def test_every_cohort_is_completed():
    from crosspatch.cohorts.dataset import collections, datasets

    known = {"auto", "simulated", *datasets(), *collections()}
    assert set(completion.COHORT_NAMES) == known


def test_completion_can_be_installed():
    assert "--install-completion" in crosspatch("--help").stdout
