"""Settings come from arguments and the environment, are checked, and each says what it means."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server.settings import VARIABLES_READ_ELSEWHERE, Settings


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_one_sentence(name: str) -> None:
    description = Settings.model_fields[name].description or ""
    assert description.endswith(".")
    assert description[0].isupper()
    assert ". " not in description


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `HARK_{name.upper()}` |" in text
        assert f"| {field.description} |" in text, name


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARK_MODELS", "aum-tiny, /models/mine")
    monkeypatch.setenv("HARK_API_KEYS", "sesame,mellon")
    monkeypatch.setenv("HARK_MAX_BATCH_AUDIO_SECONDS", "80")
    monkeypatch.setenv("HARK_PORT", "9000")
    settings = Settings(port=9001)
    assert settings.models == ["aum-tiny", "/models/mine"]
    assert [key.get_secret_value() for key in settings.api_keys] == ["sesame", "mellon"]
    assert settings.max_batch_audio_seconds == 80
    assert settings.port == 9001, "an argument wins over the environment"
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize(
    "values",
    [
        {"port": 70_000},
        {"models": []},
        {"models": ""},
        {"runtime": "abacus"},
        {"max_upload_bytes": 0},
        {"max_upload_bytes": 10, "max_json_bytes": 11},
        {"max_queue_audio_seconds": 10, "max_batch_audio_seconds": 20},
        {"timeout_seconds": -1},
        {"unknown": 1},
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**values)


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """HARK_PROT=1 was accepted, and the server listened on the default port."""
    monkeypatch.setenv("HARK_CACHE", "/tmp")
    Settings()
    monkeypatch.setenv("HARK_PROT", "1")
    with pytest.raises(ValidationError, match="there is no setting HARK_PROT"):
        Settings()


def test_variables_read_elsewhere_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert all(f"| `{name}` |" in text for name in VARIABLES_READ_ELSEWHERE)


def test_a_gpu_gets_larger_batches_by_default() -> None:
    assert Settings().batch_audio_seconds("cuda:0") > Settings().batch_audio_seconds("cpu")
    assert Settings(max_batch_audio_seconds=20).batch_audio_seconds("cuda") == 20
