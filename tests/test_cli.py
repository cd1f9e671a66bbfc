from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest

from crosspatch.cohorts import table
from crosspatch.commands.main import main
from crosspatch.commands.printing import ask_at_terminal
from crosspatch.errors import CrosspatchError
from crosspatch.evaluation.results import read_results
from tests import made
from tests.command import crosspatch, crosspatch_process


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.data_directory(tmp_path_factory.mktemp("data"))


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from crosspatch.commands.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'sklearn', 'anndata', 'lightgbm'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, flag], capture_output=True, text=True, check=True
        )
        assert "HEAVY []" in done.stdout
    assert crosspatch_process("--version").stdout.startswith("crosspatch 0.")


def test_build_and_describe(directory: Path, tmp_path: Path):
    out = tmp_path / "human.h5ad"
    built = crosspatch(
        *("cohort", "build", "--dataset", "allen-human", "--layout", "full", "-o", out),
        *("--data-dir", directory, "--unverified"),
    )
    assert built.returncode == 0, built.stderr
    assert "12 cells, 93 features" in built.stdout
    assert "not the pinned versions" in built.stdout
    assert table.read(out).shape == (12, 93)
    told = crosspatch("cohort", "describe", out).stdout
    for word in ("Lamp5", "chirp", "input_resistance", "MOhm", "median"):
        assert word in told


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert done.stderr.startswith("crosspatch: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_errors_of_the_user_are_one_line_and_exit_code_2(directory: Path, tmp_path: Path):
    typed = "run", "--data-dir", tmp_path / "nowhere", "--out", tmp_path / "out"
    missing = crosspatch_process(*typed)
    assert_one_line(missing, "does not exist", "crosspatch fetch tables")
    variable = crosspatch("run", CROSSPATCH_DATA=str(tmp_path / "elsewhere"))
    assert_one_line(variable, "elsewhere", "CROSSPATCH_DATA")
    changed = crosspatch("run", "--data-dir", directory, "--out", tmp_path / "out")
    assert_one_line(changed, "not the pinned version", "--unverified")
    unknown = crosspatch(
        "run", "--data-dir", directory, "--unverified", "--protocol", "loo", "--out", tmp_path
    )
    assert_one_line(unknown, "no protocol 'loo'", "donor")
    few = crosspatch(
        *("run", "--cohort", "allen-human", "--data-dir", directory, "--unverified"),
        *("--task", "human", "--models", "forest", "--out", tmp_path / "out"),
    )
    assert_one_line(few, "class 'Lamp5' has 3 cells", "5 folds")
    no_table = crosspatch("cohort", "describe", tmp_path / "no.h5ad")
    assert_one_line(no_table, "no.h5ad is missing")
    assert not list(tmp_path.glob("out/*.csv"))


@pytest.mark.parametrize(
    ("typed", "now"),
    [
        ("explain", "`crosspatch explain-models`"),
        ("explain --jobs 1 --out explanation", "`crosspatch explain-models`"),
        ("explain --models boosting --runs=1", "`crosspatch explain-models`"),
        ("run --task learning-curve", "`crosspatch learning-curve`"),
        ("run --task learning-curve human", "by itself"),
        ("run --task learning-curve --calibration", "no calibration"),
    ],
)
def test_what_commands_were_called_before_is_answered_in_one_line(
    tmp_path: Path, typed: str, now: str
):
    assert_one_line(crosspatch(*typed.split(), cwd=tmp_path), now)
    assert not list(tmp_path.iterdir())


def test_a_column_is_asked_for_until_the_answer_is_one_of_the_choices(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("9\nx\n2\n"))
    assert ask_at_terminal("Rin", ["input_resistance", "seal"]) == "seal"
    assert capsys.readouterr().out.count("0 to 2") == 2


def test_parameters_of_an_error_are_spelled_as_flags(monkeypatch, capsys):
    error = CrosspatchError("no step in 'a.abf'", "give {step_start} and {quality}, or {{x}}")
    monkeypatch.setattr("crosspatch.commands.main.app", Mock(side_effect=error))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "crosspatch: no step in 'a.abf'; give --step-start and --quality, or {x}\n"


def test_unknown_options_exit_with_2():
    assert crosspatch("run", "--colour", "blue").returncode == 2


def test_run_takes_several_models_goes_on_after_a_kill_and_repeats_itself(tmp_path: Path):
    table.write(made.cohort("human"), tmp_path / "human.h5ad")

    def command(out: str, jobs: int = 1) -> list[str | Path]:
        return [
            *("run", "--cohort", tmp_path / "human.h5ad", "--protocol", "quick"),
            *("--models=logistic", "svm", "forest", "--jobs", str(jobs), "--seed", "3"),
            *("--task", "human", "--out", tmp_path / out),
        ]

    whole = crosspatch(*command("whole"))
    assert whole.returncode == 0, whole.stderr
    for word in ("logistic", "svm", "forest", "macro-F1", "Paired differences"):
        assert word in whole.stdout

    folds = tmp_path / "killed" / "folds"

    def started(n_folds: int) -> subprocess.Popen[str]:
        """The same command, with at least so many more folds stored."""
        wanted = len(list(folds.glob("*.json"))) + n_folds
        process = subprocess.Popen(
            [sys.executable, "-m", "crosspatch", *map(str, command("killed", 2))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A job in the background has it ignored, and hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        deadline = time.monotonic() + 300
        while len(list(folds.glob("*.json"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    process = started(5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = started(3)
    os.kill(process.pid, signal.SIGINT)
    assert "stopped; give the same command again to go on" in process.communicate()[1]
    assert process.returncode == 130
    stored = {file: file.stat().st_mtime_ns for file in folds.glob("*.json")}
    assert len(stored) >= 8
    assert crosspatch(*command("killed")).returncode == 0
    for file, written in stored.items():
        assert file.stat().st_mtime_ns == written
    one, two = (read_results(tmp_path / name).results for name in ("whole", "killed"))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))


def test_run_says_which_rows_of_transfer_are_there_twice(tmp_path: Path, monkeypatch):
    files = [tmp_path / f"{species}.h5ad" for species in ("human", "mouse")]
    for file in files:
        table.write(made.cohort(file.stem), file)
    given = ["run", "--cohort", *files, "--protocol", "quick", "--jobs", 1, "--out", tmp_path]
    done = crosspatch(*given, "--models", "lda", "lda-mouse")
    assert done.returncode == 0, done.stderr
    assert "in task transfer these learn without mouse and repeat task human: lda\n" in done.stdout
    result = read_results(tmp_path).results.query("model == 'lda'").set_index(["run", "fold"])
    once, again = (result.loc[result["task"] == task, "macro_f1"] for task in ("human", "transfer"))
    pd.testing.assert_series_equal(once, again)
    # The folds are there: the same in JSON, and nothing else, without a report.
    monkeypatch.setattr("crosspatch.commands.run.finish", Mock())
    found = json.loads(crosspatch(*given, "--models", "lda", "lda-mouse", "--json").stdout)
    for name in ("summary", "confusion", "comparisons"):
        written = pd.read_csv(tmp_path / f"{name}.csv")
        pd.testing.assert_frame_equal(
            pd.DataFrame(found["tables"][name]), written, check_dtype=False
        )
    assert found["settings"]["protocol"] == "quick"


def test_the_floors_of_the_fast_models_on_real_tables(real_data: Path, tmp_path: Path):
    """Far below these something is broken; benchmarks/ holds the numbers themselves."""
    done = crosspatch(
        *("run", "--data-dir", real_data, "--protocol", "quick", "--task", "human"),
        *("--features", "full", "--models", "lda", "logistic", "--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    scores = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("model")["macro_f1_mean"]
    assert scores["lda"] > 0.74
    assert scores["logistic"] > 0.7
    assert f"{scores.idxmax()} by tested cells, task human" in done.stdout
    assert "labels: agree with SEA-AD" in done.stdout
    assert "Of the 40 cells that SEA-AD labels unlike Lee, Dalley et al." in done.stdout


def test_every_command_explains_itself():
    from typer.main import get_command

    from crosspatch.commands.root import app

    def words(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, below in getattr(command, "commands", {}).items():
            yield from words(below, (*path, name))

    found = list(words(get_command(app), ()))
    assert ("fetch", "recordings") in found
    for path in found:
        done = crosspatch(*path, "--help")
        assert done.returncode == 0, path
        assert "Usage" in done.stdout
