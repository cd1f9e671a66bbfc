"""What is printed fits the terminal, and loses what matters least."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosspatch.commands.terminal import (
    number_column,
    print_frame,
    print_text,
    terminal_width,
    text_column,
)

SWEEPS = pd.DataFrame(
    {
        "sweep": [0, 1],
        "stimulus": ["long square", "ramp"],
        "name": ["", ""],
        "pA": [-100.0, np.nan],
        "quality": ["passed", "baseline -15.0 mV, outside -110 to -35 mV"],
    }
)
COLUMNS = [
    number_column("sweep", "{sweep}"),
    text_column("stimulus"),
    text_column("name", rank=9),
    number_column("pA", "{pA:.1f}", rank=1),
    text_column("quality", fold=20),
]


def printed(monkeypatch, capsys, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_frame("Sweeps", SWEEPS, COLUMNS)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_wide_terminal_shows_all_but_what_is_empty(monkeypatch, capsys):
    assert printed(monkeypatch, capsys, 100) == [
        "Sweeps",
        "sweep  stimulus         pA  quality",
        "    0  long square  -100.0  passed",
        "    1  ramp                 baseline -15.0 mV, outside -110 to -35 mV",
        "",
    ]


def test_a_narrow_one_breaks_text_between_words(monkeypatch, capsys):
    assert printed(monkeypatch, capsys, 51)[3:] == [
        "    1  ramp                 baseline -15.0 mV,",
        "                            outside -110 to -35 mV",
        "",
    ]


def test_then_leaves_out_the_least_and_says_so(monkeypatch, capsys):
    found = printed(monkeypatch, capsys, 42)
    assert found[1:3] == ["sweep  stimulus     quality", "    0  long square  passed"]
    assert found[-2:] == ["(left out at 42 columns: pA)", ""]
    assert max(map(len, found)) <= 42


def test_what_always_matters_is_never_lost(monkeypatch, capsys):
    joined = "".join(printed(monkeypatch, capsys, 20)).replace(" ", "")
    for word in ("sweep", "stimulus", "longsquare", "passed"):
        assert word in joined


def test_wide_characters_and_markup_are_what_they_are(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    cells = pd.DataFrame({"cell": ["細胞細胞細胞", "[/x]"], "p": [0.5, 0.25]})
    print_frame("[b]", cells, [text_column("cell"), number_column("p", "{p:.2f}")])
    title, _, first, second, _ = capsys.readouterr().out.splitlines()
    assert title.strip() == "[b]"
    assert first.rstrip() == "細胞細胞細胞  0.50"
    assert second.rstrip() == "[/x]          0.25"


def test_text_is_broken_between_words_but_no_path_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    path = "/a/long-path/that-stands/in-no-line.csv"
    print_text(f"wrote {path}: 12 cells of both", 2)
    found = capsys.readouterr().out.splitlines()
    assert found == ["wrote", f"  {path}:", "  12 cells of both"]


def test_in_a_pipe_it_is_80_wide(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)
    assert terminal_width() == 80


@pytest.mark.parametrize("variable", [{}, {"NO_COLOR": "1"}])
def test_no_colour_goes_into_a_pipe(monkeypatch, capsys, variable):
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    assert "\x1b" not in "\n".join(printed(monkeypatch, capsys, 100))
