"""`hark pull` against a stand-in of the hub, with the real huggingface_hub client: from a name to golden logits."""

import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import save

from model import checkpoint, download, published, registry
from model.convert import conversion
from model.download import BrokenDownloadError, DiskError, MissingFileError, PullError, RefusedError, UnreachableError
from model.hub import ByHandError, UnusableError, pull
from model.published import Published, WebFile
from model.registry import UnknownModelError, find_checkpoint
from tests.golden import FIXTURES, assert_close, load_golden
from tests.model.hub_standin import Standin, run_standin

NAME = "ast-finetuned-speech-commands-v2"
REPO = f"MIT/{NAME}"


@pytest.fixture(scope="module")
def repo() -> dict[str, bytes]:
    """The golden Hugging Face AST, as a repository on the hub holds one."""
    return {
        "model.safetensors": save(load_golden("ast_hf").state),
        "config.json": (FIXTURES / "ast_hf.config.json").read_bytes(),
        "preprocessor_config.json": b'{"mean": -6.845978, "std": 5.5654526, "sampling_rate": 16000}',
    }


@pytest.fixture
def host(repo: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(download, "CHUNK_BYTES", 20_000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HARK_CACHE", str(tmp_path))
    with run_standin() as standin:
        standin.repos[REPO] = dict(repo)
        yield standin


@pytest.fixture
def official(host: Standin, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A checkpoint that its authors host as a plain file: the golden AuM of kaistmm/Audio-Mamba-AuM."""
    buffer = io.BytesIO()
    torch.save({f"module.{name}": tensor for name, tensor in load_golden("aum_bibi").state.items()}, buffer)
    host.files["official.pth"] = buffer.getvalue()
    source = WebFile(f"{host.url}/share/official.pth?dl=1", "official.pth")
    entry = Published("official", "aum", "aum", source, "https://example.org/page", "BSD-3-Clause", "golden")
    monkeypatch.setitem(published.PUBLISHED, entry.name, entry)
    return entry


def fail(host: Standin, error: type[Exception], message: str, name: str = NAME) -> None:
    """Pulls in vain: with this error, in one sentence, and without a checkpoint in the cache."""
    with pytest.raises(error, match=message) as caught:
        pull(name, endpoint=host.url)
    assert "\n" not in str(caught.value)
    assert registry.pulled_models() == []


def assert_golden(folder: Path, case: str, given: str = "input_values") -> None:
    """The published numbers came all the way through."""
    golden = load_golden(case)
    network = checkpoint.load(folder).network
    with torch.inference_mode():
        assert_close(network(golden[given]), golden["logits"])


def test_the_client_itself_takes_the_standin_for_a_hub(host, tmp_path, repo):
    """What the tests below show is worth as much as this."""
    for filename, content in repo.items():
        path = huggingface_hub.hf_hub_download(REPO, filename, cache_dir=tmp_path, endpoint=host.url)
        assert Path(path).read_bytes() == content


def test_a_pulled_checkpoint_gives_the_published_logits(host, tmp_path):
    folder = pull(NAME, endpoint=host.url)
    assert folder == tmp_path / "models" / NAME == find_checkpoint(NAME) == find_checkpoint(REPO)
    assert_golden(folder, "ast_hf")
    loaded = checkpoint.load(folder)
    assert loaded.name == NAME
    assert loaded.config.features.mean == -6.845978
    assert "sha256" in loaded.card


def test_hf_endpoint_names_the_mirror(host, tmp_path):
    """In a process of its own, because the client reads HF_ENDPOINT when it is imported."""
    command = [sys.executable, "-c", f"from model.hub import pull; print(pull({NAME!r}))"]
    environment = os.environ | {"HF_ENDPOINT": host.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "models" / NAME)
    assert (tmp_path / "models" / NAME / "config.json").is_file()


def test_only_the_checkpoint_stays(host, tmp_path):
    pull(NAME, endpoint=host.url)
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    files = ("README.md", "config.json", "golden.safetensors", "labels.json", "model.safetensors")
    assert kept - {f"models/.downloads/{NAME}.lock"} == {f"models/{NAME}/{file}" for file in files}


def test_the_hubs_own_id_is_a_name_too(host):
    assert pull(REPO, endpoint=host.url).name == NAME


def test_with_a_cached_copy_nothing_is_asked(host):
    folder = pull(NAME, endpoint=host.url)
    host.requests.clear()
    assert pull(NAME, endpoint=host.url) == folder
    assert host.requests == []


def test_weights_of_the_older_kind_will_do(host, repo):
    buffer = io.BytesIO()
    torch.save(load_golden("ast_hf").state, buffer)
    host.repos[REPO] = {"config.json": repo["config.json"], "pytorch_model.bin": buffer.getvalue()}
    assert_golden(pull(NAME, endpoint=host.url), "ast_hf")


def test_a_broken_download_goes_on_in_the_next_call(host, tmp_path):
    host.break_after = [100_000] + [0] * download.ATTEMPTS
    fail(host, BrokenDownloadError, "keeps breaking off; 0.1 MB are kept, and the same command goes on from there")
    host.requests.clear()
    pull(NAME, endpoint=host.url)
    assert host.byte_requests() == ["bytes=100000-"]


def test_progress_names_each_step(host):
    steps: list[str] = []
    pull(NAME, progress=lambda step, done, total: steps.append(step), endpoint=host.url)
    assert list(dict.fromkeys(steps)) == ["config.json", "preprocessor_config.json", "model.safetensors", "converting"]


def test_a_token_reaches_the_hub_and_not_its_storage(host, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull(NAME, endpoint=host.url)
    assert host.authorized_hosts == {"127.0.0.1"}


def test_the_hash_that_the_hub_states_is_checked(host):
    host.stated_sha256 = "0" * 64
    fail(host, BrokenDownloadError, "has the SHA-256 [0-9a-f]{64} instead of 0000")


def test_an_unknown_name_is_refused():
    with pytest.raises(
        UnknownModelError, match="no published checkpoint is called 'ast-nonsense'; `hark models --publ"
    ):
        pull("ast-nonsense")


def test_without_network_the_error_says_what_to_do(host, tmp_path):
    with run_standin() as gone:
        pass
    message = "not on this machine yet and .* cannot be reached .*set HF_ENDPOINT to a mirror, or copy .*models/"
    fail(gone, UnreachableError, message)


def test_the_clients_offline_switch_is_named(host, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fail(host, UnreachableError, "not on this machine yet and HF_HUB_OFFLINE is set")
    assert host.requests == []


@pytest.mark.parametrize(
    ("refusal", "error", "message"),
    [
        ((401, "RepoNotFound"), MissingFileError, "does not show MIT/.*set HF_TOKEN"),
        ((403, "GatedRepo"), MissingFileError, "does not show MIT/.*set HF_TOKEN"),
        ((404, "RevisionNotFound"), MissingFileError, "does not show MIT/"),
        ((429, ""), RefusedError, r"\(429\); try again later"),
        ((503, ""), RefusedError, r"\(503\); try again later"),
    ],
)
def test_a_hub_that_refuses_is_one_clear_error(host, refusal, error, message):
    host.refusal = refusal
    fail(host, error, message)


def test_a_repository_without_weights_is_one_clear_error(host):
    del host.repos[REPO]["model.safetensors"]
    fail(
        host,
        MissingFileError,
        r"has neither model\.safetensors nor pytorch_model\.bin; see https://huggingface\.co/MIT",
    )


def test_a_server_that_is_no_hub_is_one_clear_error(host):
    host.is_hub = False
    fail(host, RefusedError, "does not answer like a Hugging Face hub; check HF_ENDPOINT")


def test_weights_that_do_not_fit_are_thrown_away(host, tmp_path):
    host.repos[REPO]["model.safetensors"] = save({"other": torch.ones(2)})
    fail(host, UnusableError, f"{NAME} cannot be used as it was downloaded, and was thrown away: the file holds none")
    assert not (tmp_path / "models" / ".downloads" / NAME).exists()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_disk_that_fills_up_while_converting_leaves_no_half(host, tmp_path, monkeypatch, error):
    """Safetensors reports what the disk says as an error of its own."""

    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(conversion.checkpoint, "save", refuse)
    fail(host, DiskError, "cannot be written .*No space left on device")
    monkeypatch.undo()
    monkeypatch.setenv("HARK_CACHE", str(tmp_path))
    host.requests.clear()
    pull(NAME, endpoint=host.url)
    assert host.byte_requests() == []


def test_a_cache_that_cannot_be_made_is_one_clear_error(host, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HARK_CACHE", str(tmp_path / "file"))
    with pytest.raises(DiskError, match=r"cannot be written .*; set HARK_CACHE to another folder"):
        pull(NAME, endpoint=host.url)


def test_two_at_once_download_once(host):
    waited = threading.Event()
    folders: list[Path] = []

    def start_second(step: str, done: int, total: int | None) -> None:
        if step == "config.json" and not folders and not second.is_alive():
            second.start()
            assert waited.wait(10)

    def note(step: str, done: int, total: int | None) -> None:
        if step.startswith("waiting"):
            waited.set()

    second = threading.Thread(target=lambda: folders.append(pull(NAME, progress=note, endpoint=host.url)))
    folder = pull(NAME, progress=start_second, endpoint=host.url)
    second.join()
    assert folders == [folder]
    assert len(host.byte_requests()) == 1


def test_a_plain_file_is_pulled_and_converted(host, official):
    assert_golden(pull(official.name), "aum_bibi", given="input")


def test_labels_that_do_not_come_with_hark_come_with_the_checkpoint(host, official, monkeypatch):
    names = [f"word {index}" for index in range(35)]
    rows = [f"{index},/m/{index},{name}" for index, name in enumerate(names)]
    host.files["words.csv"] = "\n".join(["index,mid,display_name", *rows]).encode()
    labels = WebFile(f"{host.url}/share/words.csv", "labels.csv")
    entry = Published("labelled", "aum", "aum", official.source, official.page, "MIT", "golden", labels)
    monkeypatch.setitem(published.PUBLISHED, entry.name, entry)
    assert list(checkpoint.load(pull(entry.name)).labels.names) == names


def test_a_host_that_gives_a_page_leads_to_the_download_by_hand(host, official):
    host.content_type = "text/html"
    advice = r"web page instead of the file; download it by hand from https://example\.org/page, then run: hark convert"
    fail(host, RefusedError, advice, official.name)


def test_a_plain_file_that_is_gone_leads_there_too(host, official):
    host.files.clear()
    fail(host, MissingFileError, "download it by hand from", official.name)


def test_a_pickle_that_runs_code_is_refused_and_thrown_away(host, official, tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.ones(1)}, "x": _RunsCode()}, buffer)
    host.files["official.pth"] = buffer.getvalue()
    fail(host, UnusableError, "would run code when read", official.name)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_only_a_person_gets_says_where_and_what_then(host, tmp_path):
    place = tmp_path / "models" / "ssam-tiny"
    advice = f"by hand from https://drive.google.com/.*, then run: hark convert --from ssam FILE {place}"
    fail(host, ByHandError, advice, "ssam-tiny")
    assert host.requests == []


def test_every_error_is_a_pull_error():
    assert all(issubclass(error, PullError) for error in (ByHandError, UnusableError, UnreachableError, DiskError))


class _RunsCode:
    """Pickles as a call of os.system."""

    def __reduce__(self):
        return os.system, ("exit 1",)
