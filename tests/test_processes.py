from __future__ import annotations

import threading
import time

import pytest

from crosspatch.processes import Child, DiedError, LateError, StoppedError

LONG = 60.0


@pytest.fixture
def child():
    started = Child("tests.answering")
    started.wait_ready()
    yield started
    started.close()


def test_requests_are_answered_and_counted(child):
    assert child.ask(("echo", {"a": [1, None]}), LONG) == {"a": [1, None]}
    assert child.ask(("echo", 2), LONG) == 2
    assert child.answers == 2
    assert child.alive


def test_what_a_child_says_meanwhile_comes_in_order(child):
    said: list[object] = []
    assert child.ask(("tell", [1, "two", None]), LONG, told=said.append) == "told"
    assert said == [1, "two", None]


def test_a_late_child_is_ended(child):
    began = time.monotonic()
    with pytest.raises(LateError, match=r"gave up after 0\.3 s"):
        child.ask(("sleep", LONG), 0.3)
    assert time.monotonic() - began < LONG / 2
    assert not child.alive


def test_an_answer_that_is_no_longer_wanted_ends_the_child(child):
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    with pytest.raises(StoppedError):
        child.ask(("sleep", LONG), LONG, stopped=stopped.is_set)
    assert not child.alive


@pytest.mark.parametrize(
    ("request_", "how"), [(("exit", 3), "exit code 3"), (("kill", None), "signal 9")]
)
def test_it_is_said_how_a_child_died(child, request_, how):
    with pytest.raises(DiedError, match=how):
        child.ask(request_, LONG)
    assert not child.alive
    with pytest.raises(DiedError):
        child.ask(("echo", 1), LONG)


def test_a_child_gets_no_more_memory_than_it_may_have():
    child = Child("tests.answering", memory=2**28)
    child.wait_ready()
    try:
        assert child.ask(("take", 2**20), LONG) == 2**20
        assert child.ask(("take", 2**30), LONG) == "no memory"
    finally:
        child.close()


def test_a_child_that_does_not_start_is_said():
    child = Child("tests.there_is_no_such_module")
    with pytest.raises(DiedError, match="could not be started"):
        child.wait_ready()


def test_closing_twice_is_harmless(child):
    child.close()
    child.close()
    assert not child.alive
