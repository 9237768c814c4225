"""An environment is made once, and shared by the releases that have the same wheels."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.digest import Digest
from edgekit.core.environment import (
    MadeEnvironment,
    encode_environments,
    parse_environments,
    plan_environment,
)
from edgekit.core.install_plan import InstallPlan
from edgekit.core.names import RelPath
from edgekit.core.release import Entry
from edgekit.engines.carried_python import carried_python, python_program
from edgekit.errors import DiskFullError, FormatError
from edgekit.system.environments import added_digest, share_environment
from edgekit.system.files import all_files
from edgekit.system.generations import (
    build_generation,
    damaged_environments,
    remove_generation,
)
from tests.support.wheel_maker import WheelMaker
from tests.unit.test_planner import HostBuilder, plan

PREFIX = RelPath("engines/v")
PROGRAM = str(python_program(str(PREFIX)))
CODE = "import greeting.word as w; print(w.word, w.__cached__)"


# ------------------------------------------------------------------------------- what decides


def entry(path: str, data: bytes = b"x", *, executable: bool = False) -> Entry:
    return Entry(RelPath(path), "engine", len(data), Digest.of(data), executable)


def test_every_file_and_wheel_decides_what_is_made() -> None:
    tree, wheels = [entry("engines/v/a"), entry("engines/v/b")], [entry("engines/v/wheels/w.whl")]
    made_of = plan_environment(PREFIX, tree, wheels).made_of
    assert plan_environment(PREFIX, tree[::-1], wheels).made_of == made_of
    others = [
        (tree[:1], wheels), (tree, []), (tree, [entry("engines/v/wheels/w.whl", b"y")]),
        ([tree[0], entry("engines/v/b", executable=True)], wheels),
        ([tree[0], entry("engines/v/b", b"y")], wheels),
    ]
    found = {plan_environment(PREFIX, *parts).made_of for parts in others}
    assert len(found - {made_of}) == len(others)


def test_what_was_made_reads_back_and_nothing_else_does() -> None:
    made = (MadeEnvironment("engines/v", str(Digest.of(b"a")), str(Digest.of(b"b"))),)
    data = encode_environments(made)
    assert parse_environments(data) == made
    for old, new in ((b"engines/v", b"../v"), (b"sha384", b"md5"), (b"/1", b"/2")):
        with pytest.raises(FormatError):
            parse_environments(data.replace(old, new, 1))


# ------------------------------------------------------------------------------- linking


@pytest.fixture
def packs(tmp_path: Path) -> tuple[Path, Path, Digest]:
    """A pack with what was installed into it, the same pack without, the digest of what was."""
    old, new = tmp_path / "old", tmp_path / "new"
    for pack in (old, new):
        pack.mkdir()
        (pack / "carried").write_text("carried", "utf-8")
    before = all_files(old)
    for name in ("site/a.py", "site/deep/b.so"):
        path = old / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, "utf-8")
    return old, new, added_digest(old, before)


def test_what_was_installed_is_linked(packs: tuple[Path, Path, Digest]) -> None:
    old, new, installed = packs
    assert share_environment(old, new, installed)
    assert all_files(new) == all_files(old) == {"carried", "site/a.py", "site/deep/b.so"}
    assert (new / "site/a.py").stat().st_ino == (old / "site/a.py").stat().st_ino
    assert (new / "carried").stat().st_ino != (old / "carried").stat().st_ino


@pytest.mark.parametrize("harm", ["bytes", "more", "less", "mode", "gone", "dangling"])
def test_what_is_not_as_it_was_installed_is_not_taken(
    packs: tuple[Path, Path, Digest], harm: str
) -> None:
    old, new, installed = packs
    path = old / "site/a.py"
    if harm == "bytes":
        path.write_text("site/a.px", "utf-8")
    elif harm == "mode":
        path.chmod(0o755)
    elif harm in ("less", "dangling"):
        path.unlink()
    if harm == "more":
        (old / "site/c.py").write_text("c", "utf-8")
    elif harm == "dangling":
        path.symlink_to("nowhere")
    elif harm == "gone":
        shutil.rmtree(old)
    assert not share_environment(old, new, installed)
    assert all_files(new) == {"carried"}


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN, errno.EACCES, errno.ENOSYS])
def test_what_cannot_be_linked_is_not_taken_and_leaves_nothing(
    packs: tuple[Path, Path, Digest], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old, new, installed = packs
    refuse_second_link(monkeypatch, number)
    assert not share_environment(old, new, installed)
    assert sorted(path.name for path in new.rglob("*")) == ["carried"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_it(
    packs: tuple[Path, Path, Digest], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_second_link(monkeypatch, number)
    with pytest.raises(DiskFullError):
        share_environment(*packs)


def refuse_second_link(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What no file system does on request: the second link fails with this error."""
    link = os.link

    def once(source: Path, target: Path, **options: bool) -> None:
        monkeypatch.setattr(os, "link", fail)
        link(source, target, **options)

    def fail(source: Path, target: Path, **options: bool) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "link", once)


def test_a_file_in_a_folders_place_is_not_linked_over(packs: tuple[Path, Path, Digest]) -> None:
    old, new, installed = packs
    (new / "site").write_text("a file", "utf-8")
    assert not share_environment(old, new, installed)
    assert all_files(new) == {"carried", "site"}


# ------------------------------------------------------------------------------- releases


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> InstallPlan:
    """An installation of a pack with this Python, the real installer and one wheel, blobs there."""
    root = tmp_path_factory.mktemp("host")
    base = plan(root, HostBuilder())
    wheel = WheelMaker(
        name="greeting", members={"greeting/word.py": b"word = 'hello'\n"}
    ).write(root)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirements = root / "requirements.txt"
    requirements.write_text(f"greeting==1.0 --hash=sha256:{digest}\n", "utf-8")
    uv = Path(sys.executable).parent / "uv"
    files = [(file.path, file.source, file.executable) for file in carried_python(str(PREFIX))]
    files += [(RelPath(f"{PREFIX}/bin/uv"), uv, True),
              (RelPath(f"{PREFIX}/requirements.txt"), requirements, False),
              (RelPath(f"{PREFIX}/wheels/{wheel.name}"), wheel, False)]
    entries = []
    for path, source, executable in files:
        blob = Digest.of(source.read_bytes())
        place = base.layout.blob(blob)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        place.chmod(0o444)
        entries.append(Entry(path, "engine", source.stat().st_size, blob, executable))
    tree = tuple(entries[:-1])
    return replace(base, generation="demo-1", tree=tree, units=(),
                   environments=(plan_environment(PREFIX, tree, entries[-1:]),))


def word_of(release: InstallPlan, generation: str) -> str:
    """What the wheel's module says, run by the release's own Python from its byte code."""
    folder = release.layout.generation(generation)
    done = subprocess.run(
        [folder / PROGRAM, "-I", "-B", "-c", CODE], capture_output=True, text=True, check=False,
        env={"LD_LIBRARY_PATH": str(folder / str(PREFIX) / "python/lib")}, cwd="/",
    )
    assert done.returncode == 0, done.stderr
    word, cached = done.stdout.split()
    assert Path(cached).is_file()
    assert cached.startswith(str(folder))
    return word


def module_of(release: InstallPlan, generation: str) -> Path:
    (found,) = release.layout.generation(generation).rglob("greeting/word.py")
    return found


def test_the_next_release_links_what_the_last_one_made(release: InstallPlan) -> None:
    layout, second = release.layout, replace(release, generation="demo-2")
    build_generation(release, {})
    ((_, wheel),) = release.environments[0].wheels
    aside = layout.blob(wheel).rename(layout.root / "aside")  # nothing can be installed without it
    build_generation(second, {})
    aside.rename(layout.blob(wheel))
    first_module, module = (module_of(release, name) for name in ("demo-1", "demo-2"))
    assert first_module.stat().st_ino == module.stat().st_ino
    remove_generation(layout, "demo-1")
    assert word_of(release, "demo-2") == "hello"

    module.chmod(0o644)
    module.write_text("word = 'damaged'\n", "utf-8")
    pack = layout.generation("demo-2") / str(PREFIX)
    assert damaged_environments(layout, "demo-2", release.tree) == (pack,)
    build_generation(second, {})
    assert damaged_environments(layout, "demo-2", release.tree) == ()
    assert module_of(release, "demo-2").read_text("utf-8") == "word = 'hello'\n"
    assert word_of(release, "demo-2") == "hello"


def test_damage_that_two_releases_share_is_mended_in_both(release: InstallPlan) -> None:
    layout = release.layout
    names = ("shared-1", "shared-2", "shared-3")
    for name in names[:2]:
        build_generation(replace(release, generation=name), {})
    module = module_of(release, "shared-2")
    assert module.stat().st_ino == module_of(release, "shared-1").stat().st_ino
    for repaired in (names[1], names[2]):  # the release itself, and a new one
        module = module_of(release, "shared-2")
        module.chmod(0o644)
        module.write_text("word = 'damaged'\n", "utf-8")
        assert damaged_environments(layout, "shared-1", release.tree)
        build_generation(replace(release, generation=repaired), {})
        for name in names[: names.index(repaired) + 1]:
            assert damaged_environments(layout, name, release.tree) == ()
            assert word_of(release, name) == "hello"
        hidden = [path.name for path in layout.generations.iterdir() if path.name[0] == "."]
        assert hidden == []


@pytest.mark.parametrize(
    "harm", ["more", "a folder of more", "folder for file", "file for folder", "link for folder",
             "link to a folder", "pipe", "note", "note is a folder", "note of another kind"]
)
def test_a_repair_leaves_what_was_installed_and_nothing_else(
    release: InstallPlan, tmp_path: Path, harm: str
) -> None:
    layout, mine = release.layout, replace(release, generation="harmed")
    build_generation(mine, {})
    folder = layout.generation("harmed")
    was, note, module = all_files(folder), folder / "environments.json", module_of(mine, "harmed")
    (tmp_path / "elsewhere").mkdir()
    if harm == "more":
        module.with_name("sitecustomize.py").write_text("1", "utf-8")
    elif harm == "a folder of more":
        (module.parent / "a/b").mkdir(parents=True)
        (module.parent / "a/b/c.py").write_text("1", "utf-8")
    elif harm == "folder for file":
        module.unlink()
        (module / "deep").mkdir(parents=True)
        (module / "deep/file").write_text("1", "utf-8")
    elif harm in ("file for folder", "link for folder"):
        shutil.rmtree(module.parent)
        if harm == "file for folder":
            module.parent.write_text("1", "utf-8")
        else:
            module.parent.symlink_to(tmp_path / "elsewhere")
    elif harm == "link to a folder":
        module.with_name("more").symlink_to(tmp_path / "elsewhere")
    elif harm == "pipe":
        module.unlink()
        os.mkfifo(module)
    elif harm == "note":
        note.write_bytes(b"\0" * 100)
    elif harm == "note is a folder":
        note.unlink()
        note.mkdir()
    else:
        note.write_text(note.read_text("utf-8").replace("/1", "/9"), "utf-8")
    damaged = folder / str(PREFIX) if "note" not in harm else note
    assert damaged_environments(layout, "harmed", release.tree) == (damaged,)
    build_generation(mine, {})
    assert damaged_environments(layout, "harmed", release.tree) == ()
    assert all_files(folder) == was
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not (module.parent / "a").exists()
    assert word_of(mine, "harmed") == "hello"


def test_a_folder_that_cannot_be_asked_about_is_damage(
    release: InstallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = release.layout
    build_generation(replace(release, generation="unread"), {})
    stat = os.stat

    def fail(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("/greeting"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return stat(path, **options)

    def fail_link(path: Any) -> os.stat_result:
        return fail(path, follow_symlinks=False)

    module_of(release, "unread").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        patched.setattr(os, "lstat", fail_link)
        assert len(damaged_environments(layout, "unread", release.tree)) == 1


def test_a_release_without_a_note_is_an_older_one(release: InstallPlan) -> None:
    build_generation(replace(release, generation="old"), {})
    (release.layout.generation("old") / "environments.json").unlink()
    assert damaged_environments(release.layout, "old", release.tree) == ()


def test_a_repair_that_is_cut_off_is_done_again(
    release: InstallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, mine = release.layout, replace(release, generation="cut")
    build_generation(mine, {})
    module_of(mine, "cut").with_name("more.py").write_text("1", "utf-8")

    def cut(folder: Path, kept: frozenset[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("edgekit.system.generations.remove_others", cut)
        with pytest.raises(KeyboardInterrupt):
            build_generation(mine, {})
    assert damaged_environments(layout, "cut", release.tree)
    build_generation(mine, {})
    assert damaged_environments(layout, "cut", release.tree) == ()
