"""Settings come from arguments and the environment, are checked, and each says what it means."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server import cli
from server.settings import Settings
from server.settings_rules import VARIABLES_READ_ELSEWHERE, SettingsFileError, doubts


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
        {"timeout_seconds": float("inf")},
        {"drain_seconds": float("nan")},
        {"spool_memory_bytes": 11, "max_upload_bytes": 10},
        {"fake_window_seconds": 1, "runtime": "torch"},
        {"api_keys": "a,b", "admin_keys": "b"},
        {"model_root": "/no/such/folder"},
        {"classes_folder": __file__},
        {"otlp_endpoint": "collector:4318"},
        {"otlp_endpoint": "http://"},
        {"otlp_endpoint": "http://collector:http"},
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


def test_contradictions_name_both_sides() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(max_queue_audio_seconds=10, max_batch_audio_seconds=20, max_upload_bytes=10, max_json_bytes=11)
    assert "max_json_bytes must not exceed max_upload_bytes, which is 10" in str(refused.value)
    assert "max_batch_audio_seconds must not exceed max_queue_audio_seconds, which is 10" in str(refused.value)


def test_defaults_do_not_contradict_a_limit_that_is_set() -> None:
    assert Settings(max_upload_bytes=1000).max_json_bytes > 1000


def test_what_is_seldom_meant_is_said() -> None:
    assert not list(doubts(Settings()))
    assert "timeout_seconds is 60 but drain_seconds 30" in next(doubts(Settings(timeout_seconds=60)))
    assert "without api_keys" in next(doubts(Settings(admin_keys="boss", host="0.0.0.0")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hark.toml"
    path.write_text(
        'port = 7000\nmodels = ["a", "b"]\nmax_requests = 7\napi_keys = ["sesame"]\ntraffic_split = {a = 9, b = 1}\n'
    )
    return path


def test_arguments_win_over_the_environment_which_wins_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARK_CONFIG", str(file))
    monkeypatch.setenv("HARK_PORT", "8001")
    monkeypatch.setenv("HARK_MAX_REQUESTS", "8")
    settings = Settings(port=9000)
    assert (settings.port, settings.max_requests, settings.models) == (9000, 8, ["a", "b"])
    assert settings.traffic_split == {"a": 9, "b": 1}
    assert settings.api_keys[0].get_secret_value() == "sesame"
    assert settings.drain_seconds == 30, "what nobody sets has its default"


def test_an_argument_names_the_file_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = file.with_name("other.toml")
    other.write_text("port = 7001")
    monkeypatch.setenv("HARK_CONFIG", str(file))
    assert Settings(config=other).port == 7001


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("prot = 1", "there is no setting prot"),
        ("config = 'a.toml'", "there is no setting config"),
        ("[server]\nport = 1", "there is no setting server"),
        ("port 1", "is not TOML"),
        (b"\xff", "is not TOML"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: str | bytes, part: str) -> None:
    path = tmp_path / "hark.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsFileError, match=part):
        Settings(config=path)
    with pytest.raises(SettingsFileError, match="cannot be read: No such file"):
        Settings(config=tmp_path / "none.toml")
    with pytest.raises(SettingsFileError, match="cannot be read: Is a directory"):
        Settings(config=tmp_path)


def test_a_files_values_are_checked_like_any(tmp_path: Path) -> None:
    (tmp_path / "hark.toml").write_text('port = "many"')
    with pytest.raises(ValidationError, match="port"):
        Settings(config=tmp_path / "hark.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HARK_PORT", "tcp://10.0.0.7:80"),
        ("HARK_SERVICE_HOST", "10.0.0.7"),
        ("HARK_SERVICE_PORT_HTTP", "80"),
        ("HARK_PORT_80_TCP_ADDR", "10.0.0.7"),
    ],
)
def test_the_variables_of_a_kubernetes_service_are_explained(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Service named hark stopped every pod beside it with "port: Input should be a valid integer"."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match="enableServiceLinks: false") as refused:
        Settings()
    assert refused.value.error_count() == 1


@pytest.mark.parametrize("arguments", [("--config", "/no/such/file.toml"), ()])
def test_the_start_is_stopped_with_one_sentence(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARK_PORT", "tcp://10.0.0.7:80")
    assert cli.run(["serve", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("hark: ")
    assert printed.err.count("\n") == 1
    assert "Value error" not in printed.err


def test_a_settings_file_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    """The byte order mark that Notepad writes first was an "invalid statement at column 1"."""
    (tmp_path / "hark.toml").write_bytes(b"\xef\xbb\xbfport = 8123\n")
    assert Settings(config=tmp_path / "hark.toml").port == 8123
