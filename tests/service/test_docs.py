"""The Python example of the documentation, as it stands there and on the page of the interface."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import httpx
import pytest

from tests.features.made_files import write_small

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.mark.parametrize("place", ["docs", "page"])
def test_the_python_example_runs(service, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path / "cell.nwb")
    if place == "docs":
        text = DOCS.read_text(encoding="utf-8")
        (code,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
        code = code.replace("http://localhost:8700", service.address)
    else:
        page = httpx.get(f"{service.address}/api").text
        code = unescape(re.findall(r"<pre[^>]*>(import time.*?)</pre>", page, re.S)[0])
    exec(code, {})  # noqa: S102, our own documentation
    assert "cell " in capsys.readouterr().out


def test_every_call_is_listed_on_the_page(service):
    page = unescape(httpx.get(f"{service.address}/api").text)
    paths = httpx.get(f"{service.address}/api/v1/openapi.json").json()["paths"]
    assert len(paths) > 10
    assert all(path in page for path in paths)
