"""The report: one page that needs nothing else, says what was measured, and plays the worst mistakes."""

import base64
import importlib.util
import io
import json
import re
import shutil
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.training.charts import mean_curve, reliability_chart
from model.training.clips import Clip
from model.training.evaluate import evaluate
from model.training.metrics import calibration, precision_recall
from model.training.predictions import Predictions, ensemble
from model.training.report import NUMBERS, REPORT, number, render, write_report
from tests.model.training.judged import DOG, RAIN, predictions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def scored(tmp_path: Path) -> Predictions:
    """Six noises, the last gone; two misses and two false alarms; no speech; a name that tries to be markup."""
    clips = []
    for i in range(6):
        path = tmp_path / f"<b>{i}</b>.wav".replace("/", "")
        soundfile.write(path, np.random.default_rng(i).uniform(-0.5, 0.5, 8000), 16000)
        clips.append(Clip(path, (DOG,) if i % 2 else (RAIN,), str(i), None, ""))
    clips[5].file.unlink()
    scores = [[0.1, 0.9, 0], [0.8, 0.1, 0], [0.7, 0.2, 0], [0.9, 0.2, 0], [0.1, 0.6, 0], [0.2, 0.6, 0]]
    truth = [[not dog, dog, 0] for dog in (True, False) * 3]
    found = predictions(scores, truth, thresholds={DOG: 0.25}, name="tiny & co")
    return replace(found, clips=clips, unreadable=("broken.wav: no sound",))


ALONE = {"meta", "link", "input", "br", "path", "rect", "circle"}


class Elements(HTMLParser):
    """Collects start tags, and checks that every element is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ALONE:
            return
        assert self.open.pop() == tag


def parse(page: str) -> list[tuple[str, dict[str, str | None]]]:
    elements = Elements()
    elements.feed(page)
    assert not elements.open
    return elements.found


def test_the_page_is_well_formed_and_asks_for_nothing_elsewhere(scored: Predictions) -> None:
    page = render(scored, evaluate(scored), "manifest.csv")
    for tag, attributes in parse(page):
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), f"<{tag}> asks for {attributes[name]}"
    assert not re.search(r"https?://|url\(|@import", page)


def test_names_from_outside_are_never_markup(scored: Predictions) -> None:
    page = render(scored, evaluate(scored), "<i>manifest</i>.csv")
    assert "<b>0" not in page
    assert "<i>manifest" not in page
    assert "<title>tiny &amp; co: evaluation</title>" in page


def test_mistakes_can_be_heard_unless_their_clip_is_gone(scored: Predictions) -> None:
    page = render(scored, evaluate(scored), "manifest.csv")
    sounds = [attributes["src"] for tag, attributes in parse(page) if tag == "audio"]
    assert len(sounds) == 2  # clip 2, tagged dog instead of rain; clip 5, tagged the other way round, is gone
    assert page.count("The clip can no longer be read") == 2
    for sound in sounds:
        waveform, rate = soundfile.read(io.BytesIO(base64.b64decode((sound or "").split(",")[1])))
        assert (rate, len(waveform)) == (16000, 4800)


def test_it_says_what_was_left_out_and_what_has_no_clip(scored: Predictions) -> None:
    page = render(scored, evaluate(scored), "manifest.csv")
    assert "1 clips could not be read" in page
    assert "1 labels have no clip here" in page
    assert page.count('<tr data-label="') == 3
    assert page.count('<figure data-label="') == 2


def test_an_ensemble_stands_beside_its_members(scored: Predictions) -> None:
    other = replace(scored, name="other")
    together = ensemble([scored, other])
    page = render(together, evaluate(together), "manifest.csv", [evaluate(scored), evaluate(other)])
    headings = re.findall(r'<th scope="col">([^<]*)</th>', page)
    assert headings == ["tiny &amp; co", "other", "ensemble"]


def test_predictions_without_a_mistake_make_a_page(tmp_path: Path) -> None:
    perfect = predictions([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3]], [[1, 0, 0], [0, 1, 0]])
    page = render(perfect, evaluate(perfect), "manifest.csv")
    parse(page)
    assert page.count("<li>None.</li>") == 2
    assert "∞" in page


def test_page_and_numbers_are_written_and_replaced_for_all_to_read(scored: Predictions, tmp_path: Path) -> None:
    for _ in range(2):
        path = write_report(tmp_path / "new" / "report", scored, evaluate(scored), "manifest.csv")
    assert path == tmp_path / "new" / "report" / REPORT
    assert sorted(file.name for file in path.parent.iterdir()) == [NUMBERS, REPORT]
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    assert json.loads((path.parent / NUMBERS).read_text())["labels"][2]["label"] == "Speech"


def test_the_mean_curve_is_the_mean_of_the_best_precision_at_each_recall() -> None:
    perfect = precision_recall(np.array([0.9, 0.8, 0.1]), np.array([1, 1, 0]))
    poor = precision_recall(np.array([0.9, 0.8, 0.1]), np.array([0, 1, 0]))
    recall, precision = mean_curve([perfect, poor])
    np.testing.assert_allclose(precision, 0.75)
    assert recall[[0, -1]].tolist() == [0, 1]


def test_empty_bins_are_not_drawn() -> None:
    chart = reliability_chart(calibration(np.array([0.05, 0.95]), np.array([0, 1])))
    assert chart.count('class="bar"') == 2


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (float("nan"), ""), (float("inf"), "∞"), (-np.inf, "-∞")]
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs the playwright package and an installed chromium (apt-get install chromium)",
)
def test_in_a_browser_labels_are_sorted_and_filtered_and_mistakes_play(scored: Predictions, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    path = write_report(tmp_path / "report", scored, evaluate(scored), "manifest.csv")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        troubles: list[object] = []
        page.on("pageerror", lambda error: troubles.append(error))
        page.goto(path.as_uri())
        first = page.locator("#labels tbody tr td").first
        page.click("#labels th:nth-child(1)")
        assert first.text_content() == "Dog"
        page.click("#labels th:nth-child(1)")
        assert first.text_content() == "Speech"
        for _ in range(2):
            page.click("#labels th:nth-child(3)")  # what is undefined comes last either way
            assert page.locator("#labels tbody tr td").nth(2 * 8).text_content() == "Speech"
        page.fill("#filter", "rai")
        assert page.locator("#labels tbody tr:visible").count() == 1
        assert page.locator("#curves figure:visible").count() == 1
        duration = page.evaluate("""async () => {
            const player = document.querySelector("audio");
            player.preload = "metadata";
            player.load();
            await new Promise((resolve) => (player.onloadedmetadata = resolve));
            return player.duration;
        }""")
        assert duration == pytest.approx(0.3, abs=0.05)
        browser.close()
    assert not troubles


def test_a_file_name_that_is_no_text_is_shown_escaped(scored: Predictions, tmp_path: Path) -> None:
    """Such a name, among the unreadable, cost the whole report after all clips were scored."""
    named = replace(scored, unreadable=("caf\udce9.wav: gone",))
    page = write_report(tmp_path / "out", named, evaluate(named), "clips.csv")
    assert "caf\\udce9.wav: gone" in page.read_text(encoding="utf-8")
