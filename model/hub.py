"""`hark pull NAME`: a published checkpoint from where its authors host it to a folder of ours in the cache.

    name → published.py → download.py → convert/ → $HARK_CACHE/models/NAME

The folder appears at once or not at all; from then on nothing needs the network. HF_ENDPOINT names a mirror of the
Hugging Face hub. Besides the errors of `model/download.py` there are:

PullError
  ByHandError       its authors host it where only a person gets it
  UnusableError     what was downloaded cannot be converted
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from filelock import FileLock, Timeout
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers
from safetensors import SafetensorError

from model.checkpoint import CheckpointError
from model.convert.conversion import Flags, convert_checkpoint
from model.convert.errors import ConversionError
from model.convert.reading import WEIGHT_FILES
from model.download import (
    DiskError,
    MissingFileError,
    PullError,
    RefusedError,
    RemoteFile,
    UnreachableError,
    check_space,
    download,
)
from model.published import ByHand, HubRepo, Published, WebFile, find_published
from model.registry import UnknownModelError, is_checkpoint, model_cache

HUB_SETTINGS = ("config.json", "preprocessor_config.json")
"""What the converter reads beside the weights; a repository may lack them."""

SHA256 = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, the bytes of it that are done, and where it is known how many there are."""


class ByHandError(PullError):
    """No program can fetch this checkpoint; the message says where a person gets it, and what to do then."""


class UnusableError(PullError):
    """The download is complete and verified as far as it can be, but is not the checkpoint that it should be."""


def pull(name: str, progress: Progress = lambda step, done, total: None, endpoint: str | None = None) -> Path:
    """Give the folder of a published checkpoint, fetching and converting it unless it is in the cache.

    endpoint: address of a hub instead of HF_ENDPOINT's.

    Raises: UnknownModelError for a name that is not in `published.py`; PullError (see the tree) for everything else.
    """
    published = find_published(name)
    if published is None:
        raise UnknownModelError(f"no published checkpoint is called {name!r}; `hark models --published` lists them")
    folder = model_cache() / published.name
    if is_checkpoint(folder):
        return folder
    if isinstance(published.source, ByHand):
        raise ByHandError(f"{name} is in a {published.source.host}, which no program can read; {_by_hand(published)}")
    downloads = folder.parent / ".downloads" / published.name
    with _only_one(downloads, published.name, progress):
        if not is_checkpoint(folder):  # another process may have made it meanwhile
            _fetch(published, downloads, progress, endpoint)
            _convert(published, downloads, folder, progress)
            shutil.rmtree(downloads, ignore_errors=True)
    return folder


def _fetch(published: Published, downloads: Path, progress: Progress, endpoint: str | None) -> None:
    """Downloads everything that the converter needs."""
    try:
        if isinstance(published.source, HubRepo):
            _fetch_repo(published, published.source, downloads, progress, endpoint)
        for file in (published.labels, published.source):
            if isinstance(file, WebFile):
                sha256 = published.sha256 if file is published.source else None
                download(
                    RemoteFile(file.url, sha256=sha256), downloads / file.filename, partial(progress, file.filename)
                )
    except UnreachableError as error:
        mirror = ", set HF_ENDPOINT to a mirror" if isinstance(published.source, HubRepo) else ""
        folder = model_cache() / published.name
        raise UnreachableError(
            f"{published.name} is not on this machine yet and {error}; "
            f"connect to the internet{mirror}, or copy {folder} from a machine that has pulled it"
        ) from error
    except (MissingFileError, RefusedError) as error:
        if isinstance(published.source, HubRepo):
            raise
        raise type(error)(f"{error}; {_by_hand(published)}") from error


def _fetch_repo(
    published: Published, source: HubRepo, downloads: Path, progress: Progress, endpoint: str | None
) -> None:
    """Downloads the settings first, being small, then the first kind of weights that the repository has."""
    for filename in HUB_SETTINGS:
        if remote := _look_up(source, filename, endpoint):
            download(remote, downloads / filename, partial(progress, filename))
    for filename in WEIGHT_FILES:
        if remote := _look_up(source, filename, endpoint):
            return download(remote, downloads / filename, partial(progress, filename))
    raise MissingFileError(f"{source.repo} has neither {' nor '.join(WEIGHT_FILES)}; see {published.page}")


def _look_up(source: HubRepo, filename: str, endpoint: str | None) -> RemoteFile | None:
    """Asks the hub where a file is, how long, and for large files its SHA-256; None if the repository lacks it."""
    url = hf_hub_url(source.repo, filename, revision=source.revision, endpoint=endpoint)
    host = urlsplit(url).netloc
    try:
        metadata = get_hf_file_metadata(url)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise MissingFileError(
            f"{host} does not show {source.repo}; if that needs an account there, set HF_TOKEN"
        ) from error
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        raise RefusedError(f"{host} refuses {url} ({error.response.status_code}); try again later") from error
    except OfflineModeIsEnabled as error:
        raise UnreachableError("HF_HUB_OFFLINE is set") from error
    except Exception as error:  # of the client's HTTP library, which is another one in each of its major versions
        raise UnreachableError(f"{host} cannot be reached ({error})") from error
    if metadata.commit_hash is None:
        raise RefusedError(f"{host} does not answer like a Hugging Face hub; check HF_ENDPOINT and the proxy")
    address = urljoin(url, metadata.location)
    headers = build_hf_headers() if urlsplit(address).netloc == host else {}  # a token is for the hub alone
    return RemoteFile(address, metadata.size, _sha256(metadata.etag), headers)


def _sha256(etag: str | None) -> str | None:
    """The hub's ETag of a large file is its SHA-256, of a small one git's hash."""
    return etag if etag and SHA256.fullmatch(etag) else None


def _convert(published: Published, downloads: Path, folder: Path, progress: Progress) -> None:
    source = published.source
    path = downloads / source.filename if isinstance(source, WebFile) else downloads
    labels = downloads / published.labels.filename if published.labels else None
    size_bytes = sum(file.stat().st_size for file in downloads.iterdir())
    check_space(downloads, size_bytes)
    progress("converting", 0, None)
    try:
        convert_checkpoint(published.format, path, folder, Flags(labels=labels, name=published.name))
    except (ConversionError, CheckpointError) as error:
        shutil.rmtree(downloads, ignore_errors=True)
        raise UnusableError(
            f"{published.name} cannot be used as it was downloaded, and was thrown away: {error}"
        ) from error
    except (OSError, SafetensorError) as error:
        raise DiskError(f"{folder} cannot be written ({error})") from error


def _by_hand(published: Published) -> str:
    folder = model_cache() / published.name
    return f"download it by hand from {published.page}, then run: hark convert --from {published.format} FILE {folder}"


@contextmanager
def _only_one(downloads: Path, name: str, progress: Progress) -> Iterator[None]:
    """Lets one process at a time fetch a checkpoint; others wait for it and then find it in the cache."""
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        lock = FileLock(downloads.with_name(f"{name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("waiting for another hark pull", 0, None)
            lock.acquire()
    except OSError as error:
        raise DiskError(
            f"{downloads} cannot be written ({error.strerror or error}); set HARK_CACHE to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
