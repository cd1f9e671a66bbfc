from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from crosspatch.archive.web import WebSettings


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The data directory with the real tables; tests that need it skip where it is absent."""
    folder = os.environ.get("CROSSPATCH_DATA", "")
    if folder and (Path(folder) / "allen_human_gaba").is_dir():
        return Path(folder)
    reason = "the real tables are not here; name their directory in CROSSPATCH_DATA"
    if os.environ.get("CROSSPATCH_REQUIRE_DATA"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A user's cache of our own: tests neither read nor fill the real one."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def no_screen() -> Iterator[None]:
    """Models of made-up cells learn nothing from real tables, unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crosspatch.prediction.training.screen_for", lambda *given, **more: "")
        patch.setattr("crosspatch.prediction.training.scores_elsewhere", lambda *given: [])
        yield


@pytest.fixture
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are hardly trained, for tests of what stands around them."""
    from crosspatch.models import sequence_classifier
    from crosspatch.models.stages import TrainingStage

    def short(*, settings: Any, **more: Any) -> TrainingStage:
        return TrainingStage(settings=replace(settings, epochs=2), **more)

    monkeypatch.setattr(sequence_classifier, "TrainingStage", short)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str], list[Any]]:
    """Has a function of a module also put what it is given into a list."""

    def hear(module: ModuleType, name: str) -> list[Any]:
        given: list[Any] = []
        called = getattr(module, name)

        def spy(part: Any) -> Any:
            given.append(part)
            return called(part)

        monkeypatch.setattr(module, name, spy)
        return given

    return hear


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> WebSettings:
    """Little patience with servers, for whoever makes a `Web` of their own too."""
    settings = WebSettings(attempts=3, timeout=0.6, first_pause=0.01, longest_pause=0.05)

    def of_user(patience: float = float("inf")) -> WebSettings:
        return replace(settings, patience=patience)

    monkeypatch.setattr(WebSettings, "of_user", of_user)
    return settings


#: Files that take minutes, the longest first: a process that got one last would be alone with it.
LONG = (
    *("test_guide", "test_security", "test_cli", "test_learning_curve", "test_browser"),
    *("test_ipfx", "test_training", "test_cli_recordings", "test_api", "test_site"),
    *("test_batch_report", "test_fuzz", "test_scikit_learn", "test_benchmark", "test_watching"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
