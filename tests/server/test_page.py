"""The web page in a real browser, against a real server on the fake runtime."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server.live import live_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGE = Path("server/page")
SAMPLES = PAGE / "samples"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FAKE_MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

browser_needed = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs the playwright package and an installed chromium (apt-get install chromium)",
)


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with live_server(MODELS="first,second") as live:
        yield live.url


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_MICROPHONE])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: "Browser", server_url: str) -> Iterator["Page"]:
    """The open page; it must neither log an error nor ask any other host for anything."""
    context = browser.new_context()
    page = context.new_page()
    troubles: list[object] = []
    urls: list[str] = []
    page.on("pageerror", lambda error: troubles.append(error))  # playwright cannot hold a built-in method
    page.on("request", lambda request: urls.append(request.url))
    page.goto(server_url)
    yield page
    context.close()
    assert not troubles
    assert all(url.startswith((server_url, "blob:", "data:")) for url in urls)


def wait_for_result(page: "Page", name: str) -> None:
    page.wait_for_function(f"document.querySelector('#result-title').textContent.startsWith({name!r})")


@browser_needed
def test_a_chosen_file_gives_labels_timeline_and_waveform(page: "Page"):
    page.set_input_files("#file", SAMPLES / "morning.ogg")
    wait_for_result(page, "morning.ogg")
    assert page.locator("#labels li").count() == 10
    assert page.locator("#rows .row").count() >= 10
    assert page.locator("#axis span").first.text_content() == "0:00"
    assert "fake" in page.locator("#provenance").text_content()
    scores = [float(text) for text in page.locator("#labels .score").all_text_contents()]
    assert page.locator("#labels li.heard").count() == sum(score >= 0.5 for score in scores) > 0
    assert page.locator("#labels .bar i").first.get_attribute("title") == "heard from 0.50 on"
    drawn = "[...document.querySelector('#waveform').getContext('2d').getImageData(0, 0, 400, 80).data].some(Boolean)"
    assert page.evaluate(drawn)
    assert page.locator("#status").text_content().startswith("Heard: ")


@browser_needed
def test_a_dropped_file_is_tagged(page: "Page"):
    page.evaluate(
        """async () => {
            const transfer = new DataTransfer();
            const sample = await (await fetch("page/samples/dog.ogg")).blob();
            transfer.items.add(new File([sample], "dropped.ogg"));
            const drop = { dataTransfer: transfer, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent("drop", drop));
        }"""
    )
    wait_for_result(page, "dropped.ogg")


@browser_needed
def test_the_microphone_is_recorded_and_tagged(page: "Page"):
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_timeout(700)
    page.click("#record")
    wait_for_result(page, "recording.webm")
    assert page.locator("#record").get_attribute("aria-pressed") == "false"


@browser_needed
def test_what_is_no_sound_is_refused_in_the_servers_words_and_the_next_sound_works(page: "Page", tmp_path: Path):
    no_sound = tmp_path / "letter.wav"
    no_sound.write_text("dear server")
    page.set_input_files("#file", no_sound)
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").get_attribute("role") == "alert"
    # The result of an earlier sound stayed under an error that did not say whose it was.
    assert page.locator("#error-text").text_content().startswith("letter.wav: ")
    assert page.locator("#error-id").text_content().startswith("Request ")
    page.set_input_files("#file", SAMPLES / "rain.ogg")
    wait_for_result(page, "rain.ogg")
    assert page.locator("#error").is_hidden()


@browser_needed
def test_everything_can_be_done_with_the_keyboard(page: "Page"):
    page.wait_for_selector("#model-choice:not([hidden])")
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.sample || ''"))
    assert reached == ["model", "file", "record", "morning"]
    page.focus("[data-sample=rooster]")
    page.keyboard.press("Enter")
    wait_for_result(page, "rooster.ogg")
    event = page.locator(".event").first
    event.focus()
    assert re.match(r".+, 0:00\.0 to \d:\d\d\.\d, score [01]\.\d\d$", event.get_attribute("aria-label"))
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#player').played.length > 0")


@browser_needed
def test_another_model_tags_the_same_sound_again(page: "Page"):
    page.click("[data-sample=bells]")
    wait_for_result(page, "bells.ogg")
    page.select_option("#model", "second")
    page.wait_for_function("document.querySelector('#provenance').textContent.startsWith('second')")


@browser_needed
@pytest.mark.parametrize(("format_name", "suffix"), [("json", "json"), ("csv", "csv"), ("audacity", "txt")])
def test_the_result_can_be_downloaded(page: "Page", format_name: str, suffix: str):
    page.click("[data-sample=dog]")
    wait_for_result(page, "dog.ogg")
    with page.expect_download() as download:
        page.click(f"[data-format={format_name}]")
    assert download.value.suggested_filename == f"dog.ogg.{suffix}"
    assert Path(download.value.path()).read_text()


@browser_needed
def test_a_server_with_keys_asks_for_one(browser: "Browser"):
    with live_server(API_KEYS="secret") as live:
        page = browser.new_page()
        page.goto(live.url)
        page.click("[data-sample=dog]")
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        wait_for_result(page, "dog.ogg")
        page.close()


def test_the_page_loads_nothing_from_elsewhere():
    for file in PAGE.glob("*.*"):
        elsewhere = re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\s\"']+", file.read_text())
        assert not elsewhere, f"{file} names {elsewhere}"


def test_every_sample_is_credited_and_offered():
    offered = re.findall(r'data-sample="(\w+)"', (PAGE / "index.html").read_text())
    credits = (SAMPLES / "README.md").read_text()
    assert sorted(offered) == sorted(sample.stem for sample in SAMPLES.glob("*.ogg"))
    assert all(f"`{name}.ogg`" in credits for name in offered)
