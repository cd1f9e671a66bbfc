"""Whatever a program sends to the interface, it is answered as the description says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.errors import SchemathesisError
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.features.made_files import write_small
from tests.service.made_tables import table

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]

# A report is drawn anew each time.
SLOW = (".html", ".h5ad", ".csv")

_there: dict[str, Any] = {}


@pytest.fixture(scope="module")
def described(service, tmp_path_factory):
    """The description, and a batch with a recording, a table that waits, and a damaged file."""
    client = service.client()
    batch = service.batch(client)
    recording = write_small(tmp_path_factory.mktemp("schema") / "cell.nwb").read_bytes()
    service.give(client, batch, "cell.nwb", recording)
    service.give(client, batch, "cells.csv", table(["a", "b"]), columns="ask")
    service.give(client, batch, "damaged.abf", b"ABF2 and no more")
    states = [each["state"] for each in service.finished(client, batch)["files"]]
    assert states == ["done", "columns", "failed"]
    _there.update(service=service, batch=batch)
    return schemathesis.openapi.from_url(f"{service.address}/api/v1/openapi.json")


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
    """Of what is made up, most batches and files become some that there are."""
    given = dict(path_parameters or {})
    if "batch" in given and len(str(given["batch"])) % 4:
        given["batch"] = _there["batch"]
        if context.operation.method == "delete":
            given["batch"] = _there["service"].jobs.new(None, "default").id
    if isinstance(given.get("file"), int) and given["file"] % 4:
        given["file"] = given["file"] % 3 + 1
    if isinstance(given.get("row"), int) and given["row"] % 2:
        given["row"] = 0
    return given


def test_no_request_is_answered_with_a_bug(described):
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) > 15
    wrong = []
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=3 if operation.path.endswith(SLOW) else 20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=120)

        try:
            ask()
        except (SchemathesisError, FailureGroup) as error:
            wrong.append(f"{operation.label}: {error}")
    assert not wrong, "\n\n".join(wrong)


def test_the_batch_is_still_there(described):
    """Else the requests above reached little."""
    service, batch = _there["service"], _there["batch"]
    answer = httpx.get(f"{service.address}/api/v1/batches/{batch}")
    assert answer.status_code == 200
    assert answer.json()["files"][0]["name"] == "cell.nwb"
