"""A child process that does what it is told, for the tests of what happens then."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from crosspatch.processes import Tell, answer_requests


def answer(request: Any, tell: Tell) -> Any:
    what, given = request
    if what == "echo":
        return given
    if what == "tell":
        for each in given:
            tell(each)
        return "told"
    if what == "sleep":
        time.sleep(given)
    if what == "exit":
        os._exit(given)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "take":
        try:
            return len(bytearray(given))
        except MemoryError:
            return "no memory"
    return None


if __name__ == "__main__":
    answer_requests(answer, sys.argv[1:])
