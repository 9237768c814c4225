"""Wheelhouses with the real uv and pip: a folder of made wheels, and once the real index."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.events import Event, Finished, Started
from edgekit.core.recipe import Target
from edgekit.errors import (
    MissingToolError,
    RefusedContentError,
    SourceDigestError,
    SourceError,
    UnreachableError,
)
from edgekit.sources import wheels
from edgekit.sources.blob_cache import BlobCache
from edgekit.sources.wheel_file import check_wheel, wheel_glibc_floor
from edgekit.sources.wheels import fetch_wheels, lock_wheels
from tests.support.elf import make_elf
from tests.support.wheel_maker import WheelMaker

TARGET = Target("x86_64", (2, 36), (3, 11))
ARM = Target("aarch64", (2, 36), (3, 11))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place wheels may come from, by pip's own settings."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache")


def leftovers(cache: BlobCache) -> list[str]:
    return [path.name for path in (cache.directory / "tmp").iterdir()]


def test_lock_and_fetch(index: Path, cache: BlobCache, tmp_path: Path) -> None:
    WheelMaker(requires=("dep>=1",)).write(index)
    dep = WheelMaker("dep", "1.5").write(index)
    WheelMaker("dep", "0.5").write(index)
    events: list[Event] = []
    locked = lock_wheels(["pkg==1.0"], TARGET, cache, events.append)
    assert [(w.name, w.version, w.filename) for w in locked] == [
        ("dep", "1.5", "dep-1.5-py3-none-any.whl"), ("pkg", "1.0", "pkg-1.0-py3-none-any.whl")]
    assert locked[0].size == dep.stat().st_size
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    fresh = BlobCache(tmp_path / "fresh")
    places = fetch_wheels(locked, TARGET, fresh)
    assert places[dep.name].read_bytes() == dep.read_bytes()
    assert leftovers(cache) == leftovers(fresh) == []


def test_a_second_fetch_needs_no_index(
    index: Path, cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    WheelMaker().write(index)
    locked = lock_wheels(["pkg==1.0"], TARGET, cache)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert len(fetch_wheels(locked, TARGET, cache)) == 1


def test_a_second_lock_fetches_only_what_changed(
    index: Path, cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    WheelMaker(requires=("dep>=1",)).write(index)
    dep = WheelMaker("dep", "1.5").write(index)
    first = lock_wheels(["pkg==1.0"], TARGET, cache)
    fetched: list[list[str]] = []
    download = wheels._download

    def watch(pins: list[wheels._Pin], target: Target, folder: Path) -> list[Path]:
        fetched.append([pin.name for pin in pins])
        return download(pins, target, folder)

    monkeypatch.setattr(wheels, "_download", watch)
    assert lock_wheels(["pkg==1.0"], TARGET, cache, earlier=first) == first
    assert fetched == []
    WheelMaker("dep", "1.5", members={"dep/new.py": b"1"}).write(index)  # published again
    again = lock_wheels(["pkg==1.0"], TARGET, cache, earlier=first)
    assert fetched.pop() == ["dep"]
    assert again[0].sha256 == Digest.of(dep.read_bytes(), "sha256") != first[0].sha256
    WheelMaker("dep", "1.6").write(index)
    newer = lock_wheels(["pkg==1.0"], TARGET, cache, earlier=again)
    assert [wheel.version for wheel in newer] == ["1.6", "1.0"]
    assert fetched.pop() == ["dep"]
    cache.path(newer[1].sha256).unlink()
    assert lock_wheels(["pkg==1.0"], TARGET, cache, earlier=newer) == newer
    assert fetched.pop() == ["pkg"]


def test_what_the_rules_refuse_by_now_does_not_stay(index: Path, cache: BlobCache) -> None:
    WheelMaker(members={"pkg-1.0.data/scripts/tool": b"#!python\n"}).write(index)
    first = lock_wheels(["pkg==1.0"], TARGET, cache, allow_scripts=("tool",))
    assert lock_wheels(["pkg==1.0"], TARGET, cache, allow_scripts=("tool",), earlier=first) == first
    with pytest.raises(RefusedContentError, match="tool"):
        lock_wheels(["pkg==1.0"], TARGET, cache, earlier=first)


def test_markers_and_tags_are_the_targets(index: Path, cache: BlobCache) -> None:
    WheelMaker(requires=('arm-only; platform_machine == "aarch64"',
                         'old-only; python_version < "3.11"')).write(index)
    WheelMaker("arm_only", tag="py3-none-manylinux_2_28_aarch64").write(index)
    WheelMaker("old_only").write(index)
    assert [w.name for w in lock_wheels(["pkg==1.0"], TARGET, cache)] == ["pkg"]
    assert [w.name for w in lock_wheels(["pkg==1.0"], ARM, cache)] == ["arm-only", "pkg"]
    old = Target("x86_64", (2, 36), (3, 10))
    assert [w.name for w in lock_wheels(["pkg==1.0"], old, cache)] == ["old-only", "pkg"]


def test_the_wheel_for_the_targets_c_library(index: Path, cache: BlobCache) -> None:
    for minor in (17, 28, 36, 39):
        WheelMaker(tag=f"cp311-cp311-manylinux_2_{minor}_x86_64").write(index)
    def chosen(minor: int) -> str:
        return lock_wheels(["pkg==1.0"], Target("x86_64", (2, minor), (3, 11)), cache)[0].filename

    assert "manylinux_2_36_" in chosen(36)
    assert "manylinux_2_28_" in chosen(31)
    assert "manylinux_2_17_" in chosen(20)


def test_a_tag_that_lies_about_the_c_library(index: Path, cache: BlobCache) -> None:
    WheelMaker(tag="cp311-cp311-manylinux_2_17_x86_64",
               members={"pkg/a.so": make_elf("GLIBC_2.38")}).write(index)
    with pytest.raises(SourceError, match="newer C library") as caught:
        lock_wheels(["pkg==1.0"], TARGET, cache)
    assert caught.value.found == "glibc 2.38"
    assert "pkg-1.0" in (caught.value.where or "")
    assert len(lock_wheels(["pkg==1.0"], Target("x86_64", (2, 38), (3, 11)), cache)) == 1


def test_a_wheel_that_changed_after_the_lock(
    index: Path, cache: BlobCache, tmp_path: Path
) -> None:
    good = WheelMaker().write(index).read_bytes()
    locked = lock_wheels(["pkg==1.0"], TARGET, cache)
    (index / "pkg-1.0-py3-none-any.whl").unlink()
    WheelMaker(members={"pkg/evil.py": b""}).write(index)
    fresh = BlobCache(tmp_path / "fresh")
    with pytest.raises(SourceDigestError, match="other bytes") as caught:
        fetch_wheels(locked, TARGET, fresh)
    assert "pkg" in (caught.value.where or "")
    assert leftovers(fresh) == []
    (index / "pkg-1.0-py3-none-any.whl").write_bytes(good)
    assert len(fetch_wheels(locked, TARGET, fresh)) == 1


def test_source_packages_are_refused(index: Path, cache: BlobCache) -> None:
    (index / "pkg-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(RefusedContentError):
        lock_wheels(["pkg==1.0"], TARGET, cache)


def test_refused_content(index: Path, cache: BlobCache) -> None:
    WheelMaker(members={"evil.pth": b"import os"}).write(index)
    with pytest.raises(RefusedContentError, match="every start"):
        lock_wheels(["pkg==1.0"], TARGET, cache)
    assert leftovers(cache) == []


def test_no_solution(index: Path, cache: BlobCache) -> None:
    with pytest.raises(SourceError) as caught:
        lock_wheels(["absent==1.0"], TARGET, cache)
    assert "absent" in (caught.value.found or "")


@pytest.mark.usefixtures("index")
def test_an_unreachable_index(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{probe.getsockname()[1]}/simple")
        with pytest.raises(UnreachableError):
            lock_wheels(["absent==1.0"], TARGET, cache)


@pytest.mark.usefixtures("index")
def test_without_uv(cache: BlobCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(MissingToolError, match="uv"):
        lock_wheels(["pkg==1.0"], TARGET, cache)


def test_the_real_engine_wheel(cache: BlobCache) -> None:
    """From the user's own index: resolved, fetched, and loadable on old hosts."""
    try:
        locked = lock_wheels(["xllamacpp==2026.10.11549"], TARGET, cache)
    except UnreachableError as error:
        pytest.skip(f"cannot run here: no package index ({error.message})")
    assert [w.name for w in locked] == ["xllamacpp"]
    place = fetch_wheels(locked, TARGET, cache)[locked[0].filename]
    floor = wheel_glibc_floor(place)
    assert floor is not None
    assert floor <= (2, 17)
    assert check_wheel(place, filename=locked[0].filename).glibc == floor
