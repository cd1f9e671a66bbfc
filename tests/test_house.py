"""The code itself: how complex, long and typed it is, and what it calls things."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from radon.complexity import cc_visit

SRC = Path(__file__).parents[1] / "src" / "crosspatch"

#: Above it a function is hard to follow.
COMPLEX = 10
#: Share of functions that may be complex: readers of damaged files, mostly.
MOST_COMPLEX = 0.03
#: A longer file says why.
LONG = 400
WHY_LONG = "Longer than 400 lines"
#: Uses of `Any` per 1,000 lines.
MOST_ANY = 5.0
#: Species named in code; everything else asks `crosspatch.species`.
MOST_SPECIES = 43

#: They show whole commands to a reader.
SPELL_COMMANDS = {"reporting/report.py"}
#: Where species are data.
KNOW_SPECIES = ("species.py", "cohorts/datasets/")
#: Public names that two modules may have.
SAME_NAME: set[str] = {
    "main"  # of the command line, and of a process
}
#: Names of files that two folders may have: cells that are loaded and that are simulated, and the
#: command of what it explains.
SAME_FILE = {"__init__", "cells", "explain"}


@cache
def modules() -> dict[str, str]:
    """Text of every file, by its path in the package."""
    files = sorted(SRC.rglob("*.py"))
    return {str(file.relative_to(SRC)): file.read_text(encoding="utf-8") for file in files}


def literals(text: str) -> Iterator[tuple[int, str]]:
    """Strings of a module that are not docstrings, with their lines."""
    tree = ast.parse(text)
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, described) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(string)) if id(node) not in docstrings:
                yield node.lineno, string


def test_few_functions_are_complex():
    found = {
        f"{name}: {block.fullname} ({block.complexity})": block.complexity
        for name, text in modules().items()
        for block in cc_visit(text)
        if block.letter in ("F", "M")
    }
    complex_ones = [name for name, complexity in found.items() if complexity > COMPLEX]
    assert len(complex_ones) <= MOST_COMPLEX * len(found), "\n".join(complex_ones)


def test_a_long_file_says_why():
    silent = [
        name
        for name, text in modules().items()
        if len(text.splitlines()) > LONG
        and WHY_LONG not in (ast.get_docstring(ast.parse(text)) or "")
    ]
    assert not silent, f"split them, or begin a sentence of the docstring with '{WHY_LONG}'"


def test_only_commands_know_flags():
    flags = [
        f"{name}:{line}: {text}"
        for name, code in modules().items()
        if not name.startswith("commands/") and name not in SPELL_COMMANDS
        for line, text in literals(code)
        if re.search(r"--[a-z][a-z-]+", text)
    ]
    assert not flags, "name the {parameter} in the hint of an error:\n" + "\n".join(flags)


def public_names(text: str) -> Iterator[str]:
    """Classes, functions and constants of a module; not what it only registers somewhere."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not any(map(registers, node.decorator_list)):
                yield node.name
        elif isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def registers(decorator: ast.expr) -> bool:
    """Whether it makes a command or an answer of the service, as `command("run", …)` does."""
    owner = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(owner, ast.Name):
        return owner.id == "command"
    if not isinstance(owner, ast.Attribute) or not isinstance(owner.value, ast.Name):
        return False
    return owner.value.id == "router" or owner.value.id.endswith("app")


def test_no_public_name_is_given_twice():
    where = defaultdict(list)
    for name, text in modules().items():
        for public in set(public_names(text)) - SAME_NAME:
            if not public.startswith("_"):
                where[public].append(name)
    twice = {public: names for public, names in where.items() if len(names) > 1}
    assert not twice


def test_no_file_is_called_like_another():
    names = Counter(Path(name).stem for name in modules())
    assert {name for name, count in names.items() if count > 1} <= SAME_FILE


def test_species_are_named_in_few_places():
    named = Counter(
        name
        for name, code in modules().items()
        if not name.startswith(KNOW_SPECIES)
        for _, text in literals(code)
        if text in ("mouse", "human")
    )
    assert named.total() <= MOST_SPECIES, named


def test_types_are_named():
    lines = sum(len(text.splitlines()) for text in modules().values())
    untyped = Counter({name: len(re.findall(r"\bAny\b", t)) for name, t in modules().items()})
    assert untyped.total() <= MOST_ANY * lines / 1000, untyped.most_common(20)
