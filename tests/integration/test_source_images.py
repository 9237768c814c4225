"""Container images with the real skopeo: Debian's registry, and one that lies."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.digest import Digest
from edgekit.core.events import Advanced, Event
from edgekit.core.recipe import Target
from edgekit.errors import (
    DiskFullError,
    RefusedContentError,
    SourceDigestError,
    SourceError,
    UnreachableError,
)
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.images import fetch_image, lock_image, parse_reference
from tests.support.registry import CONFIG, LAYER, NAME, FakeRegistry
from tests.support.tiny_disk import tiny_disk
from tools.demo_image import BUSYBOX, REFERENCE, push, write_layout
from tools.demo_registry import DemoRegistry, demo_registry

TARGET = Target("x86_64", (2, 36), (3, 11))
ARM = Target("aarch64", (2, 36), (3, 11))
APP = f"{NAME}/app:1"


@pytest.fixture(autouse=True)
def _tools() -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("cannot run here: skopeo is not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRegistry]:
    if shutil.which("docker-registry") is None or not BUSYBOX.is_file():
        pytest.skip("cannot run here: docker-registry or a static busybox is not installed")
    with demo_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def registry(
    served: DemoRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DemoRegistry:
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(served.config))
    write_layout(tmp_path / "layout")
    push(tmp_path / "layout", served.port)
    return served


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    with FakeRegistry(tmp_path) as server:
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(server.config))
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache")


def leftovers(cache: BlobCache) -> list[str]:
    return [path.name for path in (cache.directory / "tmp").iterdir()]


@pytest.mark.parametrize("target", [TARGET, ARM])
@pytest.mark.usefixtures("registry")
def test_lock_and_fetch(cache: BlobCache, target: Target) -> None:
    locked = lock_image("hello", REFERENCE, target)
    assert [blob.media_type for blob in locked.blobs] == [CONFIG, LAYER]
    events: list[Event] = []
    places = fetch_image(locked, cache, events.append)
    assert set(places) == {blob.digest for blob in (locked.manifest, *locked.blobs)}
    for blob in (locked.manifest, *locked.blobs):
        data = places[blob.digest].read_bytes()
        assert (len(data), Digest.of(data, "sha256")) == (blob.size, blob.digest)
    arch = {"x86_64": b"amd64", "aarch64": b"arm64"}[target.arch]
    assert b'"architecture":"%s"' % arch in places[locked.blobs[0].digest].read_bytes()
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == sum(
        blob.size for blob in (locked.manifest, *locked.blobs))
    assert leftovers(cache) == []


def test_the_demo_image_is_the_same_every_time(tmp_path: Path) -> None:
    if not BUSYBOX.is_file():
        pytest.skip("cannot run here: no static busybox")
    first, second = write_layout(tmp_path / "a"), write_layout(tmp_path / "b")
    assert first == second
    assert write_layout(tmp_path / "c", marker="x") != first


def test_a_tag_that_moves_after_the_lock(
    registry: DemoRegistry, cache: BlobCache, tmp_path: Path
) -> None:
    locked = lock_image("hello", REFERENCE, TARGET)
    write_layout(tmp_path / "new", marker="-moved")
    push(tmp_path / "new", registry.port)
    assert lock_image("hello", REFERENCE, TARGET) != locked
    assert locked.manifest.digest in fetch_image(locked, cache)


def test_tag_and_digest_must_agree(registry: DemoRegistry, tmp_path: Path) -> None:
    index = write_layout(tmp_path / "layout")
    both = f"{REFERENCE}@{index}"
    plain = lock_image("hello", REFERENCE, TARGET)
    assert lock_image("hello", both, TARGET).manifest == plain.manifest
    by_digest = f"{NAME}/edgekit/hello@{plain.manifest.digest}"
    assert lock_image("hello", by_digest, TARGET).manifest == plain.manifest
    write_layout(tmp_path / "new", marker="-moved")
    push(tmp_path / "new", registry.port)
    with pytest.raises(SourceDigestError, match="tag names other content"):
        lock_image("hello", both, TARGET)


def test_a_blob_that_rotted_in_the_registry(registry: DemoRegistry, cache: BlobCache) -> None:
    locked = lock_image("hello", REFERENCE, TARGET)
    layer = locked.blobs[1].digest.value
    stored = registry.storage / f"docker/registry/v2/blobs/sha256/{layer[:2]}/{layer}/data"
    good = stored.read_bytes()
    stored.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        with pytest.raises(SourceDigestError) as caught:
            fetch_image(locked, cache)
        assert REFERENCE in (caught.value.where or "")
        assert leftovers(cache) == []
    finally:
        stored.write_bytes(good)
    assert len(fetch_image(locked, cache)) == 3


def test_skopeo_is_not_believed(
    fake: FakeRegistry, cache: BlobCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A skopeo that changes a byte after its own check."""
    fake.put_manifest(fake.image())
    locked = lock_image("app", APP, TARGET)
    layer = locked.blobs[1].digest.value
    program = tmp_path / "bin" / "skopeo"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n{shutil.which("skopeo")} "$@" || exit\nfor last; do :; done\n'
        f'printf L | dd of="${{last#dir:}}/{layer}" conv=notrunc 2>/dev/null\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(SourceDigestError) as caught:
        fetch_image(locked, cache)
    assert layer in (caught.value.where or "")
    assert not cache.has(locked.blobs[1].digest, locked.blobs[1].size)


@pytest.mark.usefixtures("registry")
def test_what_the_registry_does_not_have() -> None:
    with pytest.raises(SourceError, match="not in the registry"):
        lock_image("x", f"{NAME}/edgekit/absent:1", TARGET)


@pytest.mark.usefixtures("registry")
def test_a_full_disk(tmp_path: Path) -> None:
    locked = lock_image("hello", REFERENCE, TARGET)
    with tiny_disk(tmp_path / "disk", 1) as disk:
        cache = BlobCache(disk / "cache")
        with cache.writer() as writer:
            writer.write(bytes(512 << 10))
        with pytest.raises(DiskFullError):
            fetch_image(locked, cache)
        assert cache.has(writer.digest, writer.size, verify=True)
        assert leftovers(cache) == []


def test_an_unreachable_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        config = tmp_path / "registries.conf"
        config.write_text(f'[[registry]]\nprefix = "{NAME}"\ninsecure = true\n'
                          f'location = "127.0.0.1:{probe.getsockname()[1]}"\n')
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(config))
        with pytest.raises(UnreachableError):
            lock_image("app", APP, TARGET)


def test_an_image_without_an_index(fake: FakeRegistry, cache: BlobCache) -> None:
    digest = fake.put_manifest(fake.image())
    locked = lock_image("app", APP, TARGET)
    assert str(locked.manifest.digest) == digest
    assert len(fetch_image(locked, cache)) == 3
    with pytest.raises(SourceError, match="another platform"):
        lock_image("app", APP, ARM)


def foreign(fake: FakeRegistry) -> dict[str, Any]:
    image = fake.image()
    image["layers"][0]["urls"] = ["http://127.0.0.1:1/layer"]
    return image


def layer_type(media_type: str) -> Callable[[FakeRegistry], dict[str, Any]]:
    def make(fake: FakeRegistry) -> dict[str, Any]:
        image = fake.image()
        image["layers"][0]["mediaType"] = media_type
        return image

    return make


REFUSED: dict[str, Callable[[FakeRegistry], Any]] = {
    "foreign urls": foreign,
    "foreign type": layer_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    "nondistributable": layer_type("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    "unknown layer": layer_type("application/vnd.example.layer"),
    "schema 1": lambda fake: fake.image(schemaVersion=1),
    "unknown manifest": lambda fake: fake.image(mediaType="application/vnd.example.manifest"),
    "artifact": lambda fake: fake.image(config=fake.put_blob(b"{}", "application/vnd.x.config")),
    "no layers": lambda fake: fake.image(layers=None),
    "bad size": lambda fake: fake.image(
        layers=[{"mediaType": LAYER, "digest": "sha256:" + "0" * 64, "size": -1}]),
    "bad digest": lambda fake: fake.image(
        layers=[{"mediaType": LAYER, "digest": "md5:00", "size": 1}]),
    "duplicate key": lambda _fake: b'{"schemaVersion": 2, "schemaVersion": 1}',
    "not json": lambda _fake: b"<html>",
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_refused(fake: FakeRegistry, make: Callable[[FakeRegistry], Any]) -> None:
    fake.put_manifest(make(fake))
    with pytest.raises(RefusedContentError) as caught:
        lock_image("app", APP, TARGET)
    assert f"{NAME}/app" in caught.value.message


def index_of(fake: FakeRegistry, *platforms: dict[str, str]) -> dict[str, Any]:
    manifests = []
    for number, platform in enumerate(platforms):
        image = fake.image(platform["architecture"], annotations={"n": str(number)})
        digest = fake.put_manifest(image, None)
        size = len(fake.answers[f"app/manifests/{digest}"][1])
        manifests.append({"mediaType": image["mediaType"], "digest": digest, "size": size,
                          "platform": platform})
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}


INDEX = "application/vnd.oci.image.index.v1+json"
LINUX = {"os": "linux", "architecture": "amd64"}


def test_an_index_with_variants_and_attestations(fake: FakeRegistry) -> None:
    index = index_of(fake, {**LINUX, "variant": "v3"}, LINUX, {**LINUX, "os": "windows"},
                     {"os": "unknown", "architecture": "unknown"},
                     {**LINUX, "architecture": "arm64", "variant": "v8"})
    fake.put_manifest(index, media_type=INDEX)
    locked = lock_image("app", APP, TARGET)
    assert str(locked.manifest.digest) == index["manifests"][1]["digest"]
    locked = lock_image("app", APP, ARM)
    assert str(locked.manifest.digest) == index["manifests"][4]["digest"]


@pytest.mark.parametrize("platforms", [[LINUX, LINUX], [{**LINUX, "architecture": "s390x"}]])
def test_an_index_with_no_single_answer(
    fake: FakeRegistry, platforms: list[dict[str, str]]
) -> None:
    fake.put_manifest(index_of(fake, *platforms), media_type=INDEX)
    with pytest.raises(SourceError, match="images for linux/amd64"):
        lock_image("app", APP, TARGET)


def test_an_index_that_lies_about_the_architecture(fake: FakeRegistry) -> None:
    index = index_of(fake, {**LINUX, "architecture": "arm64"})
    index["manifests"][0]["platform"] = LINUX
    fake.put_manifest(index, media_type=INDEX)
    with pytest.raises(SourceError, match="another platform"):
        lock_image("app", APP, TARGET)


def test_a_manifest_swapped_behind_its_digest(fake: FakeRegistry, cache: BlobCache) -> None:
    digest = fake.put_manifest(fake.image())
    locked = lock_image("app", APP, TARGET)
    path = f"app/manifests/{digest}"
    kind, data = fake.answers[path]
    fake.answers[path] = (kind, data.replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
    with pytest.raises(SourceDigestError):
        fetch_image(locked, cache)
    with pytest.raises(SourceDigestError):
        lock_image("app", f"{NAME}/app@{digest}", TARGET)


def test_an_image_removed_after_the_lock(fake: FakeRegistry, cache: BlobCache) -> None:
    digest = fake.put_manifest(fake.image())
    locked = lock_image("app", APP, TARGET)
    del fake.answers[f"app/manifests/{digest}"]
    with pytest.raises(SourceError) as caught:
        fetch_image(locked, cache)
    assert "edgekit lock" in (caught.value.hint or "")


def test_references() -> None:
    digest = "sha256:" + "0" * 64
    cases = {"a": ("a", None, None), "a/b:1": ("a/b", "1", None),
             "localhost:5000/a": ("localhost:5000/a", None, None),
             "localhost:5000/a:1": ("localhost:5000/a", "1", None),
             f"a@{digest}": ("a", None, digest), f"h:1/a:2@{digest}": ("h:1/a", "2", digest)}
    for text, (name, tag, wanted) in cases.items():
        parsed = parse_reference(text)
        assert (parsed.name, parsed.tag) == (name, tag)
        assert (str(parsed.digest) if parsed.digest else None) == wanted
    for text in ("", "a b", "-:-:-", "a@sha256:00", "a:"):
        with pytest.raises(SourceError):
            parse_reference(text)
