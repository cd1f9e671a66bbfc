"""The pages in a real browser."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from crosspatch.service.uploads import State
from tests import made
from tests.command import crosspatch
from tests.features.made_files import write_small

PATIENCE = 60_000.0

expect.set_options(timeout=30_000)

ALL_DRAWN = "#live[data-finished=yes]:not(:has([data-plot]:not([data-drawn])))"


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium")
    if program is None:
        reason = "there is no chromium here; `make test` installs it where it may"
        if os.environ.get("CROSSPATCH_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # In containers root has no sandbox.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, service):
    """A page on which nothing may go wrong, and from which nothing goes elsewhere."""
    with new_page(browser, service) as opened:
        yield opened


@contextmanager
def new_page(browser: Browser, service, allowed: str = "^$", **options):
    wrong: list[str] = []

    def listen(message) -> None:
        if message.type in ("error", "warning") and not re.search(allowed, message.text):
            wrong.append(message.text)

    def look(request) -> None:
        if not request.url.startswith((service.address, "data:", "blob:")):
            wrong.append(f"asked {request.url}")

    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", listen)
    page.on("request", look)
    page.goto(service.address)
    try:
        yield page
    finally:
        context.close()
    assert not wrong


def drop(page: Page, files: list[Path]) -> None:
    """Let files fall on the page, as from a file manager."""
    content = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    carried = page.evaluate_handle(
        """(files) => {
            const carried = new DataTransfer();
            for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                carried.items.add(new File([bytes], name));
            }
            return carried;
        }""",
        content,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": carried})


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(_uncommented(text)))))


def _uncommented(text: str) -> list[str]:
    return [line for line in text.splitlines(keepends=True) if not line.startswith("#")]


def command_line(settings, tmp_path: Path, *given: str | Path) -> list[dict[str, str]]:
    """What `crosspatch predict` says of the same files."""
    out = tmp_path / "command.csv"
    models = [part for folder in settings.models for part in ("--model", str(folder))]
    done = crosspatch("predict", *given, *models, "--out", out)
    assert done.returncode in (0, 1), done.stderr
    return rows_of(out.read_text())


def test_an_abf_that_is_dropped_shows_its_sweeps_and_a_verdict(page, real_data):
    page.check("input[name=species][value=mouse]")
    drop(page, [real_data / "recordings" / "171116sh_0018.abf"])
    page.wait_for_url("**/cells/**")
    page.wait_for_selector(ALL_DRAWN)
    expect(page.locator("h1")).to_have_text("171116sh_0018")
    expect(page.locator(".said")).to_contain_text(
        re.compile("confident|ambiguous|outside reference")
    )
    sweeps = page.locator("[data-plot=sweeps]")
    assert sweeps.count() == 1
    # 17 sweeps, potential and command.
    assert sweeps.locator(".scatterlayer path.js-line").count() == 34
    expect(page.locator("[data-plot=phase] .scatterlayer path.js-line")).to_have_count(1)
    expect(page.locator("[data-plot=rates] .scatterlayer path.js-line")).to_have_count(1)
    assert page.locator("[data-plot=map] path.point").count() > 100
    expect(page.locator(".bars tbody tr")).to_have_count(4)
    expect(page.locator(".families")).to_contain_text("not measured")
    expect(page.get_by_role("heading", name="Quality and notes")).to_be_visible()


def test_sweeps_are_seen_before_the_answer_and_stay(page, service, tmp_path):
    page.set_input_files("#files", write_small(tmp_path / "cell.nwb"))
    page.wait_for_selector(ALL_DRAWN)
    address = page.url
    # As if it were measured again, slowly.
    (name,) = re.findall("/batches/([^/]+)/", address)
    file = service.jobs.batches.get(name).file(1)
    kept = file.recorded().rename(tmp_path / "recorded.json")
    file.state, file.stage = State.WORKING, "reading"
    drawn, file.drawn = file.drawn, None
    page.goto(address)
    expect(page.locator("h1")).to_have_text("cell")
    expect(page.locator(".said")).to_have_text("reading …")
    expect(page.locator("[data-plot]")).to_have_count(0)
    file.drawn, file.stage = drawn, "measuring"
    page.wait_for_selector("main:has([data-plot=sweeps]):not(:has([data-plot]:not([data-drawn])))")
    expect(page.locator("[data-plot=sweeps]")).to_have_count(len(drawn.stimuli))
    expect(page.locator(".said")).to_have_text("measuring …")
    expect(page.locator("#status")).to_have_text("measuring …")
    expect(page.locator("[data-plot=rates], .bars")).to_have_count(0)
    assert_good(page)
    first = page.locator("[data-plot=sweeps]").first
    first.evaluate("(place) => { place.mark = 'the same'; scrollTo(0, 400); }")
    place = first.bounding_box()
    kept.rename(file.recorded())
    file.stage = "predicting"
    page.wait_for_selector("[data-plot=rates][data-drawn]")
    expect(page.locator(".bars")).to_have_count(0)
    file.state, file.stage = State.DONE, ""
    page.wait_for_selector(ALL_DRAWN)
    expect(page.locator(".bars tbody tr")).to_have_count(4)
    assert first.evaluate("(place) => place.mark") == "the same"
    assert first.bounding_box() == pytest.approx(place, abs=1.5)


def test_who_waits_for_a_recording_that_fails_is_told_why(page, service, tmp_path):
    page.set_input_files("#files", write_small(tmp_path / "cell.nwb"))
    page.wait_for_selector(ALL_DRAWN)
    address = page.url
    (name,) = re.findall("/batches/([^/]+)/", address)
    file = service.jobs.batches.get(name).file(1)
    file.state, file.stage = State.WORKING, "measuring"
    page.goto(address)
    page.wait_for_selector("[data-plot=sweeps][data-drawn]")
    file.state, file.stage = State.FAILED, ""
    page.wait_for_url(f"**/batches/{name}")
    expect(page.locator("li.file")).to_have_attribute("data-state", "failed")


def test_zooming_in_fetches_what_thinning_left_out(page, real_data):
    page.check("input[name=species][value=mouse]")
    drop(page, [real_data / "recordings" / "171116sh_0018.abf"])
    page.wait_for_url("**/cells/**")
    page.wait_for_selector(ALL_DRAWN)
    place = page.locator("[data-plot=sweeps]").first
    step = "(place) => place.data[0].dx"
    coarse = place.evaluate(step)
    box = place.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    with page.expect_response(lambda answer: "start=" in answer.url) as asked:
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.21 * box["width"] + 12, box["y"] + 100, steps=4)
        page.mouse.up()
    assert asked.value.ok
    page.wait_for_timeout(500)
    assert place.evaluate(step) < coarse / 4
    place.locator(".nsewdrag").first.dblclick()
    page.wait_for_timeout(800)
    assert place.evaluate(step) == coarse


def test_files_that_cannot_be_read_say_why_and_do_not_stop_the_others(page, real_data, tmp_path):
    recordings = real_data / "recordings"
    whole = write_small(tmp_path / "whole.nwb")
    truncated = tmp_path / "truncated.nwb"
    content = whole.read_bytes()
    truncated.write_bytes(content[: len(content) // 2])
    drop(page, [recordings / "171116sh_0013_voltage_clamp.abf", truncated, whole])
    page.wait_for_selector("#live[data-finished=yes]")
    failed = page.locator("li.file[data-state=failed]")
    expect(failed).to_have_count(2)
    expect(failed.filter(has_text="voltage_clamp")).to_contain_text(
        "its 13 sweeps are in voltage clamp"
    )
    expect(failed.filter(has_text="truncated.nwb").locator(".problem").first).not_to_be_empty()
    expect(page.locator("li.file[data-state=done]")).to_contain_text("whole.nwb")
    expect(page.locator("[role=status]").first).to_contain_text("2 could not be read")


def test_a_kind_of_file_that_is_not_read_is_refused_in_words(browser, service, tmp_path):
    file = tmp_path / "thesis.docx"
    file.write_bytes(b"PK")
    with new_page(browser, service, allowed="415") as page:
        drop(page, [file])
        expect(page.locator("#problem")).to_contain_text("not taken")
        expect(page.locator("#list")).to_contain_text("not a file that can be read")


# Column, mean and standard deviation.
FOREIGN = (
    ("RMP (V)", -0.07, 0.004),
    ("Rin [GOhm]", 0.15, 0.03),
    ("membrane time constant (ms)", 12.0, 3.0),
    ("Rheobase (nA)", 0.12, 0.03),
    ("Sag ratio", 0.1, 0.02),
    ("AP threshold at rheobase (mV)", -38.0, 3.0),
    ("upstroke/downstroke ratio, rheobase", 1.6, 0.2),
    ("thing seven", 0.4, 0.05),
    ("firing rate hero (Hz)", 40.0, 8.0),
)


def foreign_table(file: Path, cells: int = 30) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"Cell": [f"cell {k}" for k in range(cells)]})
    for column, mean, deviation in FOREIGN:
        frame[column] = np.round(rng.normal(mean, deviation, cells), 5)
    frame.to_csv(file, index=False)
    return file


def test_a_table_with_foreign_columns_is_mapped_before_it_is_predicted(
    browser, service, settings, tmp_path
):
    with new_page(browser, service, allowed="422") as page:
        map_and_predict(page, settings, tmp_path)


def map_and_predict(page: Page, settings, tmp_path: Path) -> None:
    table = foreign_table(tmp_path / "theirs.csv")
    page.check("input[name=species][value=mouse]")
    drop(page, [table])
    page.wait_for_url("**/columns")
    rows = page.locator("tr[data-column]")
    expect(rows).to_have_count(len(FOREIGN) + 1)
    voltage = page.locator("tr[data-column='RMP (V)']")
    expect(voltage.locator("[name=feature]")).to_have_value("v_baseline")
    expect(voltage.locator("[name=unit]")).to_contain_text("V")
    unknown = page.locator("tr[data-column='thing seven']")
    expect(unknown.locator(".status")).to_have_text("not understood")
    # What cannot be is said, and nothing is predicted.
    unknown.locator("[name=feature]").select_option("v_baseline")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator("#problem")).not_to_be_empty()
    unknown.locator("[name=feature]").select_option("width_rheo")
    unknown.locator("[name=unit]").select_option("ms")
    page.get_by_role("button", name="Predict", exact=True).click()
    page.wait_for_selector("table.cells tbody tr")
    expect(page.locator("table.cells tbody tr")).to_have_count(30)
    with page.expect_download() as loading:
        page.get_by_role("link", name="csv", exact=True).click()
    ours = rows_of(Path(loading.value.path()).read_text())
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text('"thing seven": {feature: width_rheo, unit: ms}\n')
    theirs = command_line(settings, tmp_path, table, "--species", "mouse", "--columns", mapping)
    assert ours == theirs
    page.locator("table.cells tbody th a").first.click()
    page.wait_for_selector(ALL_DRAWN)
    expect(page.locator("h1")).to_have_text("cell 0")
    expect(page.locator("#values")).to_contain_text("width rheo")


def test_cells_are_sorted_filtered_and_downloaded_as_the_command_line_gives_them(
    page, settings, real_data, tmp_path
):
    files = sorted((real_data / "recordings").glob("*.abf"))
    page.check("input[name=species][value=mouse]")
    page.set_input_files("#files", files)
    page.wait_for_selector("#live[data-finished=yes]")
    with page.expect_download() as loading:
        page.get_by_role("link", name="csv", exact=True).click()
    ours = rows_of(Path(loading.value.path()).read_text())
    theirs = command_line(settings, tmp_path, *files, "--species", "mouse")
    by_id = {row["cell_id"]: row for row in ours}
    assert len(ours) == len(theirs) == 6
    for row in theirs:
        assert by_id[row["cell_id"]] == row
    page.get_by_role("link", name="p reference").click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text(re.compile("p reference"))
    shown = page.locator("table.cells tbody tr td.number:nth-of-type(6)").all_inner_texts()
    numbers = [float(text) for text in shown if text]
    assert numbers == sorted(numbers)
    page.get_by_label("Search").fill("0018")
    expect(page.locator("table.cells tbody tr")).to_have_count(1)
    page.get_by_label("Search").fill("")
    page.get_by_label("Verdict").select_option("insufficient data")
    expect(page.locator("#total")).to_contain_text("of 6 rows")
    with page.expect_download() as loading:
        page.get_by_role("link", name="h5ad", exact=True).click()
    with h5py.File(loading.value.path()) as file:
        assert file["X"].shape[0] == 6
    with page.expect_download() as loading:
        page.get_by_role("link", name="Report", exact=True).click()
    assert "171116sh_0018" in Path(loading.value.path()).read_text()


def test_fifty_files_at_once(page, tmp_path):
    first = write_small(tmp_path / "cell-00.nwb")
    files = [first]
    for number in range(1, 50):
        files.append(tmp_path / f"cell-{number:02d}.nwb")
        shutil.copy(first, files[-1])
    page.set_input_files("#files", files)
    page.wait_for_selector("#live[data-finished=yes]")
    page.wait_for_load_state()
    expect(page.locator("li.file[data-state=done]")).to_have_count(50)
    page.get_by_label("Search").fill("cell-49")
    expect(page.locator("table.cells tbody th")).to_have_text(["cell-49"])


def test_an_example_is_labelled_simulated(page):
    page.get_by_role("button", name="Mouse Pvalb").click()
    page.wait_for_url("**/cells/**")
    expect(page.locator(".warning").first).to_contain_text("SIMULATED")
    page.wait_for_selector(ALL_DRAWN)
    # A short square is shown from close by.
    place = page.locator("[data-stimulus='short square']")
    low, high = place.evaluate("(place) => place.layout.xaxis.range")
    assert high - low < 0.2


def test_files_are_removed_and_batches_deleted(page, service, tmp_path):
    page.set_input_files(
        "#files", [write_small(tmp_path / name) for name in ("one.nwb", "two.nwb")]
    )
    page.wait_for_selector("#live[data-finished=yes]")
    name = page.locator("#live").get_attribute("data-batch")
    assert name is not None
    batch = service.jobs.batches.get(name)
    page.get_by_role("button", name="Remove one.nwb").click()
    expect(page.locator("li.file")).to_have_count(1)
    assert len(list(batch.folder.glob("*/upload-*"))) == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete now").click()
    page.wait_for_url(f"{service.address}/")
    assert not batch.folder.exists()


def test_everything_is_reached_by_keyboard(page, tmp_path):
    # A browser under load may take a while until it lets us choose files in its place.
    page.on("filechooser", lambda chooser: None)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("input[name=species][value='']").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=species][value=mouse]").is_checked()
    page.keyboard.press("Tab")
    expect(page.locator("#upload summary")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(write_small(tmp_path / "cell.nwb"))
    page.wait_for_url("**/cells/**")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_pages_are_accessible_and_fit(browser, service, tmp_path, width, theme):
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
    with new_page(browser, service, **options) as page:
        assert_good(page)
        page.goto(f"{service.address}/api")
        assert_good(page)
        page.goto(service.address)
        table = foreign_table(tmp_path / "theirs.csv")
        recording = write_small(tmp_path / "cell.nwb")
        damaged = tmp_path / "a_rather_long_name_of_a_file_without_any_space_in_it_at_all.nwb"
        damaged.write_bytes(b"no recording")
        page.set_input_files("#files", [table, recording, damaged])
        page.wait_for_selector("#live[data-finished=yes]")
        assert_good(page)
        page.get_by_role("link", name="See the cell").click()
        page.wait_for_selector(ALL_DRAWN)
        assert_good(page)
        page.get_by_role("link", name="The batch").click()
        page.get_by_role("link", name="Check its columns").click()
        page.wait_for_selector("tr[data-column]")
        assert_good(page)


def test_the_counts_of_a_batch_are_seen_whole(browser, service, tmp_path):
    with new_page(browser, service) as page:
        page.check("input[name=species][value=mouse]")
        cells = made.cohort("mouse", donors=12, seed=7, spread=2.5).to_df()
        cells.iloc[:5] = np.nan
        cells.to_csv(tmp_path / "ours.csv", index_label="cell_id")
        page.set_input_files("#files", tmp_path / "ours.csv")
        page.wait_for_url("**/columns")
        page.get_by_role("button", name="Predict", exact=True).click()
        page.wait_for_selector("table.cells tbody tr")
        counts = page.get_by_role("region", name="Counts")
        assert counts.locator("thead th").count() >= 6  # four verdicts
        for width in (1440, 1200, 1125, 1024, 700):
            page.set_viewport_size({"width": width, "height": 900})
            seen, whole = counts.evaluate("(box) => [box.clientWidth, box.scrollWidth]")
            assert whole <= seen, width


def assert_good(page: Page) -> None:
    found = Axe().run(page)
    wrong = [
        (each["id"], [node["html"][:200] for node in each["nodes"][:3]])
        for each in found.response["violations"]
    ]
    assert not wrong
    # Tables scroll in their own frames, the page does not.
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def test_dark_and_light_are_kept(browser, service):
    with new_page(browser, service, color_scheme="light") as page:
        background = "getComputedStyle(document.documentElement).backgroundColor"
        light = page.evaluate(background)
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate(background) != light
        page.reload()
        assert page.evaluate(background) != light


def test_a_recording_without_a_command_asks_for_the_step(page, tmp_path):
    file = write_small(tmp_path / "silent.nwb")
    with h5py.File(file, "a") as content:
        sweeps = len(content["acquisition"])
        del content["stimulus"]
    page.check("input[name=species][value=mouse]")
    page.set_input_files("#files", file)
    page.wait_for_selector("li.file[data-state=failed]")
    page.wait_for_load_state()
    expect(page.locator("li.file .problem").first).to_contain_text("no command waveform")
    form = page.locator("form.reading")
    form.get_by_label("step from").fill("0.5")
    form.locator("[name=step_end]").fill("0.6")
    form.get_by_label("amplitudes").fill("much")
    form.get_by_role("button").click()
    expect(form.locator(".problem")).to_contain_text("numbers")
    form.get_by_label("amplitudes").fill(", ".join(str(20 * k - 60) for k in range(sweeps)))
    form.get_by_role("button").click()
    page.wait_for_selector("#live[data-finished=yes]")
    expect(page.locator("li.file")).not_to_contain_text("no command waveform")


def test_a_page_asks_for_the_token(browser, service_with):
    guarded = service_with(token="a-secret-of-this-test")  # noqa: S106
    with new_page(browser, guarded, allowed="401") as page:
        expect(page.locator("[role=alert]")).to_contain_text("token")
        page.get_by_label("Token").fill("a guess")
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("[role=alert]")).to_contain_text("not the token")
        page.get_by_label("Token").fill("a-secret-of-this-test")
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("#choose")).to_be_visible()
        assert "token" not in page.url
        page.get_by_role("link", name="Interface", exact=True).click()
        expect(page.get_by_role("heading", name="Ask from a program")).to_be_visible()
