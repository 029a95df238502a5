"""A stranger's first minutes: the bundled model behind `hark serve`, real sounds posted, true labels back."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import live_server

pytestmark = pytest.mark.checkpoint

SAMPLES = Path(__file__).parents[1] / "server" / "page" / "samples"
TRUE_LABELS = {
    "dog": {"Dog", "Bark"},
    "rooster": {"Crowing, cock-a-doodle-doo", "Chicken, rooster"},
    "rain": {"Rain"},
    "bells": {"Church bell", "Bell"},
    "baby": {"Baby cry, infant cry", "Crying, sobbing"},
    "fire": {"Fire", "Crackle"},
}


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with live_server(RUNTIME="torch") as live:
        yield live.url


def classify(server_url: str, sound: bytes, top_k: int = 3) -> dict[str, Any]:
    request = urllib.request.Request(f"{server_url}/classify?top_k={top_k}", data=sound, method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_real_sounds_get_true_labels(server_url: str):
    heard = {
        name: {label["label"] for label in classify(server_url, (SAMPLES / f"{name}.ogg").read_bytes())["labels"]}
        for name in TRUE_LABELS
    }
    right = [name for name, labels in heard.items() if labels & TRUE_LABELS[name]]
    assert len(right) >= 5, f"only {right} have a true label in their top three: {heard}"


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg (apt-get install ffmpeg)")
@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("webm", "libopus")])
@pytest.mark.parametrize("name", ["dog", "rooster", "rain"])
def test_what_phones_and_browsers_make_gets_the_same_labels(
    server_url: str, name: str, suffix: str, codec: str, tmp_path: Path
):
    made = tmp_path / f"{name}.{suffix}"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        SAMPLES / f"{name}.ogg",
        "-ar",
        "48000",
        "-c:a",
        codec,
        "-b:a",
        "128k",
        made,
    ]
    subprocess.run(command, check=True)
    original = classify(server_url, (SAMPLES / f"{name}.ogg").read_bytes(), 1)["labels"][0]
    again = {label["label"]: label["score"] for label in classify(server_url, made.read_bytes())["labels"]}
    assert original["label"] in again
    assert again[original["label"]] == pytest.approx(original["score"], abs=0.15)
