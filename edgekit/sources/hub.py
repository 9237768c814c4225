"""Weights from a Hugging Face hub, through the hub's own client.

A name (branch, tag) is resolved to a commit once, when the lock is made; from then on only the
commit is asked for, so a name that moves cannot mix content. What arrives is believed when its
SHA-256 is the locked one. Environment: HF_ENDPOINT chooses the hub, HF_TOKEN the account.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Finished, Listener, Started, Warned, ignore_events
from edgekit.core.lock import LockedFile
from edgekit.core.names import RelPath
from edgekit.core.weights_policy import check_weights_name
from edgekit.errors import (
    EdgekitError,
    FormatError,
    SourceDigestError,
    SourceError,
    UnreachableError,
)
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.content import check_stored_weights
from edgekit.system.files import translate_os_error

T = TypeVar("T")

MAX_PLAIN_BYTES = 256 << 20
"""The most a file may weigh that the hub keeps without LFS, in bytes."""
_TIMEOUT_S = 30.0
_MAX_RETRY_AFTER_S = 60.0
_PASSING = (408, 429, 500, 502, 503, 504)

constants.HF_HUB_DISABLE_TELEMETRY = True
# The client's own lines on stderr would tear the progress display; retries are told as events.
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to try, and how long to wait before the second try (doubled each time)."""

    attempts: int = 4
    first_wait_s: float = 1.0


def lock_hub(
    repository: str, revision: str, files: Sequence[RelPath], cache: BlobCache,
    listener: Listener = ignore_events, *, patience: Patience = Patience(),
) -> tuple[str, tuple[LockedFile, ...]]:
    """The commit that `revision` names now, and the files' sizes and SHA-256 at that commit.

    Large files are taken from the hub's metadata and not fetched; small ones, for which the hub
    knows no SHA-256, are fetched into the cache and hashed. Raises RefusedContentError,
    UnreachableError, DiskFullError, or SourceError for what the hub does not have.
    """
    for path in files:
        check_weights_name(path)
    info = _model_info(repository, revision, listener, patience)
    commit = info.sha or ""
    if re.fullmatch(r"[0-9a-f]{40}", commit) is None:
        raise SourceError(f"{repository} at {revision} has no commit", found=repr(commit[:60]),
                          needed="40 hex digits")
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    locked = []
    for path in files:
        sibling = siblings.get(path.text)
        if sibling is None:
            raise SourceError(f"{path} is not in {repository}", where=f"{repository}@{commit}",
                              hint="check the file names in the recipe")
        if sibling.lfs is not None:
            locked.append(_large_file(path, sibling.lfs.size, sibling.lfs.sha256, repository))
        else:
            download = _Download(repository, commit, path, None, MAX_PLAIN_BYTES)
            locked.append(_fetch(download, cache, listener, patience))
    return commit, tuple(locked)


def fetch_hub(
    repository: str, commit: str, locked: Iterable[LockedFile], cache: BlobCache,
    listener: Listener = ignore_events, *, patience: Patience = Patience(),
) -> dict[RelPath, Path]:
    """Every locked file's place in the cache, fetching at `commit` what is not there yet.

    Raises SourceDigestError naming a file of which other bytes arrived (they are not kept, so a
    rerun starts afresh), RefusedContentError, UnreachableError or DiskFullError.
    """
    places = {}
    for file in locked:
        if not cache.has(file.sha256, file.size):
            download = _Download(repository, commit, file.path, file, file.size)
            _fetch(download, cache, listener, patience)
        places[file.path] = cache.path(file.sha256)
        check_stored_weights(file.path, places[file.path])
    return places


@dataclass(frozen=True, slots=True)
class _Download:
    """One file to fetch; `expected` is None while a lock is being made."""

    repository: str
    commit: str
    path: RelPath
    expected: LockedFile | None
    max_bytes: int

    @property
    def task(self) -> str:
        return f"fetch {self.repository}/{self.path}"


def _large_file(path: RelPath, size: int, sha256: str, repository: str) -> LockedFile:
    try:
        return LockedFile(path, size, Digest("sha256", sha256))
    except FormatError as error:
        raise SourceError(f"the hub gives no usable digest of {path}", where=repository,
                          found=error.found) from error


def _model_info(
    repository: str, revision: str, listener: Listener, patience: Patience
) -> ModelInfo:
    def ask() -> ModelInfo:
        api = HfApi(endpoint=_endpoint())
        return api.model_info(repository, revision=revision, files_metadata=True,
                              timeout=_TIMEOUT_S)

    return _persist(ask, f"{repository} at {revision}", listener, patience)


def _fetch(
    download: _Download, cache: BlobCache, listener: Listener, patience: Patience
) -> LockedFile:
    """Fetch into a working directory, check, and move into the cache."""
    path, expected = download.path, download.expected
    listener(Started(download.task, expected.size if expected else None))
    with cache.scratch() as folder:
        place = _persist(lambda: _ask_file(download, folder, listener), str(path), listener,
                         patience)
        size = place.stat().st_size
        if expected is not None and size != expected.size:
            raise _other_bytes(download, f"{size} bytes", f"{expected.size} bytes")
        check_stored_weights(path, place)
        try:
            digest = cache.add_file(place, expected.sha256 if expected else None, move=True)
        except SourceDigestError as error:
            raise _other_bytes(download, error.found, error.needed) from error
    listener(Finished(download.task))
    return LockedFile(path, size, digest)


def _ask_file(download: _Download, folder: Path, listener: Listener) -> Path:
    endpoint = _endpoint()
    # Xet content comes over other protocols than the plain HTTP of a local hub.
    constants.HF_HUB_DISABLE_XET |= endpoint is not None and endpoint.startswith("http://")
    return Path(hf_hub_download(
        download.repository, download.path.text, revision=download.commit, endpoint=endpoint,
        local_dir=folder / "files",
        # Not the user's own hub cache: what rotted there would be taken for the hub's bytes.
        cache_dir=folder / "cache",
        tqdm_class=_progress_class(download, listener),
    ))


def _progress_class(download: _Download, listener: Listener) -> Any:
    """What the client takes for a progress bar: turns it into events and stops a flood of bytes."""
    reported = 0

    class Progress:
        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            self.n = initial

        def update(self, amount: float = 1) -> None:
            nonlocal reported
            self.n += int(amount)
            if self.n > download.max_bytes:
                raise _other_bytes(download, f"{self.n} bytes or more",
                                   f"at most {download.max_bytes} bytes")
            if self.n > reported:
                listener(Advanced(download.task, self.n - reported))
                reported = self.n

        def __enter__(self) -> Progress:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing is held."""

        def __getattr__(self, _name: str) -> Callable[..., None]:
            return lambda *_args, **_kwargs: None

    return Progress


def _other_bytes(download: _Download, found: str | None, needed: str | None) -> SourceDigestError:
    return SourceDigestError(
        f"the hub sent other bytes of {download.path} than expected",
        where=f"{download.repository}@{download.commit[:12]}/{download.path}", found=found,
        needed=needed, hint="run the same command again; if it stays, ask who changed the hub",
    )


def _persist(call: Callable[[], T], what: str, listener: Listener, patience: Patience) -> T:
    """Call, and call again after a wait while the failure is one that passes."""
    wait = patience.first_wait_s
    for attempt in range(1, patience.attempts + 1):
        try:
            return call()
        except (OSError, httpx2.HTTPError, ValueError, TypeError, KeyError) as error:
            if attempt == patience.attempts or not _passes(error):
                raise _explain(error, what) from error
            pause = max(wait, _retry_after(error))
            listener(Warned(f"{what}: {_one_line(error)}; trying again in {pause:.0f} s"))
        time.sleep(pause)
        wait *= 2
    raise AssertionError("unreachable: the last attempt returns or raises")


def _passes(error: Exception) -> bool:
    """Whether trying again may help. What the client has retried itself is not retried here."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING
    if isinstance(error, httpx2.TransportError):
        return True
    # The client says so, by an OSError without a number, when a file arrives short.
    return type(error) is OSError and error.errno is None


def _retry_after(error: Exception) -> float:
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    text = error.response.headers.get("Retry-After", "")
    return min(float(text), _MAX_RETRY_AFTER_S) if re.fullmatch(r"\d{1,6}", text) else 0.0


def _explain(error: Exception, what: str) -> EdgekitError:
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, what)
    if isinstance(error, LocalEntryNotFoundError):
        cause = error.__cause__ or error
        if not isinstance(cause, FileMetadataError):
            return _unreachable(cause, what)
    elif isinstance(error, OfflineModeIsEnabled | httpx2.TransportError):
        return _unreachable(error, what)
    elif isinstance(error, OSError) and error.errno is not None:
        return translate_os_error(error, f"fetching {what}")
    return SourceError(f"{what}: the hub's answer cannot be used", found=_one_line(error))


def _explain_status(error: HfHubHTTPError, what: str) -> EdgekitError:
    if error.response.status_code in _PASSING:
        return _unreachable(error, what)
    reasons: tuple[tuple[type[Exception], str, str | None], ...] = (
        (GatedRepoError, "is gated", "accept its terms on the hub, then set HF_TOKEN"),
        (RepositoryNotFoundError, "is not on the hub, or is private",
         "check the name, or set HF_TOKEN"),
        (RevisionNotFoundError, "is a revision the hub does not have", None),
        (EntryNotFoundError, "is not on the hub at this commit", "edgekit lock RECIPE"),
    )
    for kind, text, hint in reasons:
        if isinstance(error, kind):
            return SourceError(f"{what} {text}", found=_one_line(error), hint=hint)
    return SourceError(f"{what}: the hub refuses", found=_one_line(error),
                       hint="check HF_TOKEN and HF_ENDPOINT")


def _unreachable(error: BaseException, what: str) -> UnreachableError:
    return UnreachableError(
        f"{what}: the hub cannot be reached", where=_endpoint() or "the hub's own address",
        found=_one_line(error), hint="check the network and HF_ENDPOINT, then run it again",
    )


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no text'}"


def _endpoint() -> str | None:
    value = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return value or None
