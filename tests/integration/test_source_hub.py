"""Weights from a hub: the real client against a local hub that misbehaves in every way known."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Event, Finished, Started, Warned
from edgekit.core.lock import LockedFile
from edgekit.core.names import RelPath
from edgekit.errors import (
    DiskFullError,
    RefusedContentError,
    SourceDigestError,
    SourceError,
    UnreachableError,
)
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.hub import Patience, fetch_hub, lock_hub
from tests.support.hub import LocalHub
from tests.support.tiny_disk import tiny_disk

NAME = "org/tiny"
QUICK = Patience(attempts=3, first_wait_s=0.01)
MODEL, CONFIG = RelPath("model.gguf"), RelPath("config.json")
# The client keeps what it received in pieces of 10 MB: below that a cut leaves nothing to resume.
PIECE = 10 << 20


def gguf(fill: bytes, size: int = 4096) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + fill * size


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache")


def lock(cache: BlobCache, revision: str = "main") -> tuple[str, tuple[LockedFile, ...]]:
    return lock_hub(NAME, revision, [MODEL, CONFIG], cache, patience=QUICK)


def leftovers(cache: BlobCache) -> list[str]:
    return [path.name for path in (cache.directory / "tmp").iterdir()]


def test_lock_and_fetch(hub: LocalHub, cache: BlobCache) -> None:
    data = gguf(b"a")
    commit = hub.commit(NAME, {"model.gguf": data, "config.json": b"{}", "other.bin": b"x"})
    found, locked = lock(cache)
    assert found == commit
    assert locked == (LockedFile(MODEL, len(data), Digest.of(data, "sha256")),
                      LockedFile(CONFIG, 2, Digest.of(b"{}", "sha256")))
    assert not any("model.gguf" in path for _, path, _ in hub.requests)
    events: list[Event] = []
    places = fetch_hub(NAME, commit, locked, cache, events.append, patience=QUICK)
    assert places[MODEL].read_bytes() == data
    assert places[CONFIG].read_bytes() == b"{}"
    task = f"fetch {NAME}/model.gguf"
    assert events[0] == Started(task, len(data))
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == len(data)
    assert events[-1] == Finished(task)
    assert leftovers(cache) == []


def test_a_second_run_asks_for_nothing(hub: LocalHub, cache: BlobCache) -> None:
    hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b"{}"})
    commit, locked = lock(cache)
    fetch_hub(NAME, commit, locked, cache, patience=QUICK)
    hub.requests.clear()
    fetch_hub(NAME, commit, locked, cache, patience=QUICK)
    assert hub.requests == []


def test_a_branch_that_moves_after_the_lock(hub: LocalHub, cache: BlobCache) -> None:
    old = gguf(b"a")
    hub.commit(NAME, {"model.gguf": old, "config.json": b'{"v": 1}'})
    commit, locked = lock(cache)
    hub.commit(NAME, {"model.gguf": gguf(b"b"), "config.json": b'{"v": 2}'})
    places = fetch_hub(NAME, commit, locked, cache, patience=QUICK)
    assert places[MODEL].read_bytes() == old
    assert places[CONFIG].read_bytes() == b'{"v": 1}'


def test_a_branch_that_moves_while_the_lock_is_made(hub: LocalHub, cache: BlobCache) -> None:
    """The name is asked for once; small files come from the commit of that answer."""
    first = hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b'{"v": 1}'})

    def move(path: str) -> None:
        if path.endswith("config.json") and hub.find(NAME, "main") == hub.find(NAME, first):
            hub.commit(NAME, {"model.gguf": gguf(b"b"), "config.json": b'{"v": 2}'})

    hub.on_request = move
    commit, locked = lock(cache)
    assert commit == first
    assert locked[1].sha256 == Digest.of(b'{"v": 1}', "sha256")
    assert sum("/revision/main" in path for _, path, _ in hub.requests) == 1


def test_same_size_with_other_bytes(hub: LocalHub, cache: BlobCache) -> None:
    data = gguf(b"a")
    hub.commit(NAME, {"model.gguf": data, "config.json": b"{}"})
    commit, locked = lock(cache)
    hub.faults.other_bytes["model.gguf"] = gguf(b"b")
    with pytest.raises(SourceDigestError) as caught:
        fetch_hub(NAME, commit, locked, cache, patience=QUICK)
    assert "model.gguf" in caught.value.message
    assert caught.value.needed == str(Digest.of(data, "sha256"))
    assert leftovers(cache) == []
    hub.faults.other_bytes.clear()
    assert fetch_hub(NAME, commit, locked, cache, patience=QUICK)[MODEL].read_bytes() == data


def test_a_small_file_with_other_bytes(hub: LocalHub, cache: BlobCache, tmp_path: Path) -> None:
    hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b'{"v": 1}'})
    commit, locked = lock(cache)
    hub.faults.other_bytes["config.json"] = b'{"v": 2}'
    with pytest.raises(SourceDigestError, match=r"config\.json"):
        fetch_hub(NAME, commit, locked, BlobCache(tmp_path / "fresh"), patience=QUICK)


def test_more_bytes_than_locked_are_cut_off(hub: LocalHub, cache: BlobCache) -> None:
    hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b"{}"})
    commit, locked = lock(cache)
    hub.faults.other_bytes["model.gguf"] = gguf(b"a", 3 * PIECE)
    with pytest.raises(SourceDigestError, match=r"model\.gguf"):
        fetch_hub(NAME, commit, locked, cache, patience=QUICK)
    assert leftovers(cache) == []


def big_repository(hub: LocalHub, cache: BlobCache) -> tuple[bytes, str, tuple[LockedFile, ...]]:
    data = gguf(os.urandom(1 << 20), 24)
    hub.commit(NAME, {"model.gguf": data, "config.json": b"{}"})
    hub.faults.truncate_at = PIECE + 4096
    return (data, *lock(cache))


def ranges(hub: LocalHub) -> list[str | None]:
    return [asked for method, path, asked in hub.requests if method == "GET" and "/cdn/" in path]


def test_a_cut_connection_is_resumed(hub: LocalHub, cache: BlobCache) -> None:
    data, commit, locked = big_repository(hub, cache)
    hub.faults.cuts = 2
    events: list[Event] = []
    places = fetch_hub(NAME, commit, locked, cache, events.append, patience=QUICK)
    assert places[MODEL].read_bytes() == data
    assert ranges(hub) == [None, f"bytes={PIECE}-", f"bytes={2 * PIECE}-"]
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == len(data)


def test_200_for_a_range_does_not_mix_bytes(hub: LocalHub, cache: BlobCache) -> None:
    data, commit, locked = big_repository(hub, cache)
    hub.faults.cuts, hub.faults.ignore_range = 1, True
    events: list[Event] = []
    places = fetch_hub(NAME, commit, locked, cache, events.append, patience=QUICK)
    assert places[MODEL].read_bytes() == data
    amounts = [event.amount for event in events if isinstance(event, Advanced)]
    assert min(amounts) > 0
    assert sum(amounts) == len(data)


def test_a_wrong_offset_is_noticed(hub: LocalHub, cache: BlobCache) -> None:
    data, commit, locked = big_repository(hub, cache)
    hub.faults.cuts, hub.faults.wrong_offset = 1, 7
    with pytest.raises(SourceDigestError, match=r"model\.gguf"):
        fetch_hub(NAME, commit, locked, cache, patience=QUICK)
    assert leftovers(cache) == []
    hub.faults.wrong_offset = 0
    assert fetch_hub(NAME, commit, locked, cache, patience=QUICK)[MODEL].read_bytes() == data


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("where", ["/api/models", "/cdn/"])
def test_a_busy_hub_is_asked_again(
    hub: LocalHub, cache: BlobCache, status: int, where: str
) -> None:
    hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b"{}"})
    hub.faults.busy, hub.faults.busy_paths = [status], where
    commit, locked = lock(cache)
    events: list[Event] = []
    fetch_hub(NAME, commit, locked, cache, events.append, patience=QUICK)
    assert hub.faults.busy == []
    told = [event for event in events if isinstance(event, Warned)]
    assert len(told) == (1 if (status, where) == (503, "/cdn/") else 0)  # 429: the client's own


def test_a_hub_that_stays_busy(hub: LocalHub, cache: BlobCache) -> None:
    hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b"{}"})
    hub.faults.busy = [503] * 50
    with pytest.raises(UnreachableError):
        lock(cache)
    assert len(hub.requests) == QUICK.attempts


def test_an_unreachable_hub(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
        with pytest.raises(UnreachableError) as caught:
            lock(cache)
    assert "HF_ENDPOINT" in (caught.value.hint or "")


def test_something_that_is_not_a_hub(hub: LocalHub, cache: BlobCache) -> None:
    with pytest.raises(SourceError, match="not on the hub"):
        lock(cache)
    hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b"{}"})
    with pytest.raises(SourceError, match="revision"):
        lock(cache, "nowhere")
    with pytest.raises(SourceError, match=r"absent\.gguf is not in"):
        lock_hub(NAME, "main", [RelPath("absent.gguf")], cache, patience=QUICK)
    hub.faults.unauthorized = True
    with pytest.raises(SourceError):
        lock(cache)


def test_a_commit_that_is_gone(hub: LocalHub, cache: BlobCache) -> None:
    hub.commit(NAME, {"model.gguf": gguf(b"a"), "config.json": b"{}"})
    _, locked = lock(cache)
    with pytest.raises(SourceError):
        fetch_hub(NAME, "0" * 40, locked, cache, patience=QUICK)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "weights.zip"])
def test_refused_by_name_before_asking(hub: LocalHub, cache: BlobCache, name: str) -> None:
    hub.commit(NAME, {name: b"x"})
    with pytest.raises(RefusedContentError, match=name):
        lock_hub(NAME, "main", [RelPath(name)], cache, patience=QUICK)
    assert hub.requests == []


def test_small_files_are_refused_when_the_lock_is_made(hub: LocalHub, cache: BlobCache) -> None:
    hub.commit(NAME, {"config.json": b'{"auto_map": {"AutoModel": "modeling.Evil"}}'})
    with pytest.raises(RefusedContentError, match="auto_map"):
        lock_hub(NAME, "main", [CONFIG], cache, patience=QUICK)


def test_large_files_are_refused_when_they_arrive(hub: LocalHub, cache: BlobCache) -> None:
    data = b"\x80\x04" + bytes(99)
    hub.commit(NAME, {"model.gguf": data})
    commit, locked = lock_hub(NAME, "main", [MODEL], cache, patience=QUICK)
    with pytest.raises(RefusedContentError, match=r"model\.gguf"):
        fetch_hub(NAME, commit, locked, cache, patience=QUICK)
    assert not cache.has(Digest.of(data, "sha256"), len(data))


def test_what_is_in_the_cache_already_is_judged_too(hub: LocalHub, cache: BlobCache) -> None:
    data = b"\x80\x04" + bytes(99)
    with cache.writer() as writer:
        writer.write(data)
    with pytest.raises(RefusedContentError):
        fetch_hub(NAME, "0" * 40, [LockedFile(MODEL, len(data), writer.digest)], cache)


def test_a_full_disk(hub: LocalHub, tmp_path: Path) -> None:
    hub.commit(NAME, {"model.gguf": gguf(b"a", 12 << 20), "small.gguf": gguf(b"b")})
    small = RelPath("small.gguf")
    with tiny_disk(tmp_path / "disk", 4) as disk:
        cache = BlobCache(disk / "cache")
        commit, locked = lock_hub(NAME, "main", [MODEL, small], cache, patience=QUICK)
        with pytest.raises(DiskFullError), pytest.warns(UserWarning, match="free disk space"):
            fetch_hub(NAME, commit, locked, cache, patience=QUICK)
        assert leftovers(cache) == []
        places = fetch_hub(NAME, commit, locked[1:], cache, patience=QUICK)
        assert places[small].read_bytes() == gguf(b"b")
