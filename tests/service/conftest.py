from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from crosspatch.explanation.map import build_map, kept_in
from crosspatch.prediction.training import train
from crosspatch.service.jobs import Jobs
from crosspatch.service.queue import Workers
from crosspatch.service.server import create_app
from crosspatch.service.settings import ServiceSettings
from crosspatch.species import SPECIES
from tests import made
from tests.prediction.conftest import COUNTS

#: Models and files of tests are small, machines can be slow.
PATIENCE = 120.0


@dataclass
class Service:
    """A service that answers on a free port of loopback."""

    address: str
    jobs: Jobs
    settings: ServiceSettings
    _clients: list[httpx.Client] = field(default_factory=list)

    def client(self, **more: Any) -> httpx.Client:
        client = httpx.Client(base_url=f"{self.address}/api/v1", timeout=PATIENCE, **more)
        self._clients.append(client)
        return client

    def batch(self, client: httpx.Client, **options: Any) -> str:
        answer = client.post("/batches", json=options)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["batch"])

    def give(
        self, client: httpx.Client, batch: str, name: str, content: bytes, **query: str
    ) -> httpx.Response:
        query["name"] = name
        return client.post(f"/batches/{batch}/files", params=query, content=content)

    def finished(self, client: httpx.Client, batch: str) -> dict[str, Any]:
        """The batch when nothing more happens."""
        deadline = time.monotonic() + PATIENCE
        while True:
            state: dict[str, Any] = client.get(f"/batches/{batch}").json()
            if state["finished"]:
                return state
            assert time.monotonic() < deadline, state
            time.sleep(0.05)


def unpacked(content: bytes) -> list[dict[str, Any]]:
    """Sweeps as the description of the interface says, with the values of each signal."""
    size = int.from_bytes(content[:4], "little")
    found: list[dict[str, Any]] = json.loads(content[4 : 4 + size])
    codes = np.frombuffer(content[4 + size :], dtype="<i2")
    for each in found:
        for signal in (each["voltage"], each["current"]):
            mine, codes = np.split(codes, [signal["count"]])
            values = signal["base"] + signal["step"] * mine.astype(float)
            signal["values"] = np.where(mine == -(2**15), np.nan, values)
    assert not len(codes)
    return found


@contextmanager
def serving(settings: ServiceSettings) -> Iterator[Service]:
    workers = Workers(settings)
    workers.start(lambda said: None)
    app = create_app(settings, workers)
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, log_level="warning", timeout_graceful_shutdown=1, access_log=False
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    service = Service(f"http://127.0.0.1:{port}", app.state.jobs, settings)
    try:
        yield service
    finally:
        for client in service._clients:
            client.close()
        server.should_exit = True
        thread.join(timeout=PATIENCE)


@pytest.fixture(scope="session")
def service_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Small models of made-up cells and a small map of them."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the processes of one run make them once
    folder = base / "service-models"
    with (base / "service-models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = base / "service-models-making"
            cohorts = {
                species: made.cohort(species, COUNTS, donors=50, spread=1.5) for species in SPECIES
            }
            for species, cohort in cohorts.items():
                train(cohort, model="logistic", out=making / species)
            build_map(cohorts).save(making / "map")
            making.rename(folder)
    shutil.copytree(folder / "map", kept_in("shared"), dirs_exist_ok=True)
    return tuple(folder / species for species in SPECIES)


@pytest.fixture(scope="session")
def settings(
    service_models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> ServiceSettings:
    return ServiceSettings(
        models=service_models, data_dir=tmp_path_factory.mktemp("no-data"), seconds=120.0
    )


@pytest.fixture(scope="session")
def service(
    settings: ServiceSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that all tests share; what they upload are batches of their own.

    Its files are in a temporary directory of its own: that of the system has those of others, such
    as the services of tests that run at the same time.
    """
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            temporary = str(tmp_path_factory.mktemp("temporary"))
            patch.setattr(tempfile, "tempdir", temporary)
            patch.setenv("TMPDIR", temporary)
            running = stack.enter_context(serving(settings))
        yield running


@pytest.fixture
def service_with(settings: ServiceSettings) -> Iterator[Callable[..., Service]]:
    """Starts services with other settings."""
    with ExitStack() as stack:

        def start(**changed: Any) -> Service:
            return stack.enter_context(serving(replace(settings, **changed)))

        yield start


@pytest.fixture
def client(service: Service) -> httpx.Client:
    return service.client()
