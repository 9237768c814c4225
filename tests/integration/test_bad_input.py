"""What goes wrong in the field, against the real installer on the real demo set: every refusal has
its own exit code, says what and where, and leaves the host exactly as it was."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.appliance import DemoSet, RunningAppliance, free_port, tree_state

REPOSITORY = Path(__file__).resolve().parents[2]
VOLUME = "vol-0001.ekv"


@pytest.fixture
def host(demo_set: DemoSet, tmp_path: Path) -> RunningAppliance:
    """A private root that trusts the demo set's root and has nothing installed."""
    running = RunningAppliance(demo_set, tmp_path / "h", free_port())
    running.trust()
    return running


@pytest.fixture
def damaged(demo_set: DemoSet, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of the set in which one file is a real copy that a test may change."""

    def copy(name: str) -> Path:
        folder = tmp_path / "set"
        shutil.copytree(demo_set.folder, folder, copy_function=os.link)
        (folder / name).unlink()
        shutil.copyfile(demo_set.folder / name, folder / name)
        return folder

    return copy


def flip(path: Path, offset: int) -> None:
    """Invert one bit of the byte at an offset (negative: from the end)."""
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def refused(
    host: RunningAppliance, folder: Path, code: int, *words: str, audited: bool = False
) -> None:
    """Install must fail with this code and words, and change nothing.

    With `audited` the attempt had begun: two records in the audit log are all that may remain.
    """
    before = tree_state(host.root)
    done = host.edgekit("install", str(folder), "--listen", f"127.0.0.1:{host.port}")
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    after = tree_state(host.root)
    if audited:
        before = {name: state for name, state in before.items() if "audit" not in name}
        after = {name: state for name, state in after.items() if "audit" not in name}
        empty = {"var/lib/edgekit/staging", "opt", "opt/edgekit", "opt/edgekit/generations"}
        after = {name: state for name, state in after.items() if name not in empty}
    assert after == before


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("README.txt", 22), ("edgekit", 22), ("manifest.json", 22), ("volumes.json", 22),
        ("SHA384SUMS", 22), ("SHA384SUMS.sig", 21), ("trust/1.root.json", 22),
    ],
)
def test_a_flipped_byte_in_any_small_file_is_refused(
    host: RunningAppliance, damaged: Callable[[str], Path], name: str, code: int
) -> None:
    folder = damaged(name)
    flip(folder / name, (folder / name).stat().st_size // 2)
    if name == "edgekit":
        (folder / name).chmod(0o755)
    refused(host, folder, code, name)


def test_a_flipped_byte_in_the_release_statement_is_refused(
    host: RunningAppliance, damaged: Callable[[str], Path]
) -> None:
    folder = damaged("release.json")
    flip(folder / "release.json", 100)
    before = tree_state(host.root)
    done = host.edgekit("install", str(folder))
    assert done.returncode in (10, 21), done.stderr
    assert tree_state(host.root) == before


@pytest.mark.parametrize("offset", [0, 20_000_001, -1])
def test_a_flipped_byte_in_a_volume_names_volume_and_block(
    host: RunningAppliance, damaged: Callable[[str], Path], offset: int
) -> None:
    folder = damaged(VOLUME)
    flip(folder / VOLUME, offset)
    size = (folder / VOLUME).stat().st_size
    block = (size - 1 if offset < 0 else offset) // (8 << 20)
    refused(host, folder, 22, f"volume {VOLUME} is damaged", f"block {block},",
            f"copy {VOLUME} again", audited=True)


def test_a_missing_volume_is_named(
    host: RunningAppliance, damaged: Callable[[str], Path]
) -> None:
    folder = damaged(VOLUME)
    (folder / VOLUME).unlink()
    refused(host, folder, 13, f"volume {VOLUME} is missing")


def test_a_truncated_volume_is_named_with_both_sizes(
    host: RunningAppliance, damaged: Callable[[str], Path]
) -> None:
    folder = damaged(VOLUME)
    size = (folder / VOLUME).stat().st_size
    os.truncate(folder / VOLUME, size - 1)
    refused(host, folder, 13, f"volume {VOLUME} has the wrong size", str(size - 1), str(size))


def test_a_foreign_file_is_named(host: RunningAppliance, damaged: Callable[[str], Path]) -> None:
    folder = damaged("README.txt")
    (folder / "vol-0009.ekv").write_bytes(b"not ours")
    refused(host, folder, 13, "vol-0009.ekv")


def test_sidecar_files_of_other_systems_are_ignored(
    host: RunningAppliance, damaged: Callable[[str], Path]
) -> None:
    folder = damaged("README.txt")
    (folder / ".DS_Store").write_bytes(b"mac")
    (folder / "._vol-0001.ekv").write_bytes(b"mac")
    (folder / "System Volume Information").mkdir()
    assert host.edgekit("inspect", str(folder)).returncode == 0


def test_an_empty_folder_is_no_set(host: RunningAppliance, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(host, tmp_path / "empty", 13, "no bundle set here", "release.json")


def test_a_host_that_trusts_nobody_says_how_to_begin(demo_set: DemoSet, tmp_path: Path) -> None:
    stranger = RunningAppliance(demo_set, tmp_path / "h", free_port())
    refused(stranger, demo_set.folder, 20, "trusts nobody yet", "edgekit trust import")


def test_a_set_signed_by_someone_else_is_refused(demo_set: DemoSet, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "keys", "init", str(tmp_path / "mallory"), "--root-out",
         str(other), "--insecure-developer"], capture_output=True, text=True, check=True,
        cwd=REPOSITORY,
    )
    fingerprint = done.stdout.partition("fingerprint")[2]
    host = RunningAppliance(demo_set, tmp_path / "h", free_port())
    imported = host.edgekit("trust", "import", str(other), "--fingerprint", fingerprint,
                            "--insecure-developer-root")
    assert imported.returncode == 0, imported.stderr
    refused(host, demo_set.folder, 21, "not signed by enough trusted signers", "mallory")


def test_a_wrong_fingerprint_is_refused(demo_set: DemoSet, tmp_path: Path) -> None:
    host = RunningAppliance(demo_set, tmp_path / "h", free_port())
    done = host.edgekit("trust", "import", str(demo_set.root), "--fingerprint", "ab" * 48,
                        "--insecure-developer-root")
    assert (done.returncode, "another fingerprint" in done.stderr) == (24, True)
    assert not (host.root / "var").exists()


def test_a_developer_root_must_be_asked_for_by_name(demo_set: DemoSet, tmp_path: Path) -> None:
    host = RunningAppliance(demo_set, tmp_path / "h", free_port())
    done = host.edgekit("trust", "import", str(demo_set.root), "--fingerprint",
                        demo_set.fingerprint)
    assert (done.returncode, "developer root" in done.stderr) == (20, True)


def test_a_port_in_use_is_refused_before_anything_is_copied(host: RunningAppliance) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", host.port))
        squatter.listen()
        refused(host, host.demo_set.folder, 35, f"127.0.0.1:{host.port}", "--listen")


def test_a_second_install_while_one_runs_is_refused(host: RunningAppliance) -> None:
    argv = [host.demo_set.program, "install", str(host.demo_set.folder), "--root", str(host.root),
            "--listen", f"127.0.0.1:{host.port}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        while first.poll() is None and not (host.root / "var/lib/edgekit/staging").exists():
            pass
        second = host.edgekit("install", str(host.demo_set.folder))
        first.communicate(timeout=120)
    assert first.returncode == 0
    assert second.returncode == 41, second.stderr
    assert "process" in second.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot run here: mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_too_little_disk_is_refused_with_needed_and_found(
    demo_set: DemoSet, small_disk: Path
) -> None:
    host = RunningAppliance(demo_set, small_disk / "h", free_port())
    host.trust()
    refused(host, demo_set.folder, 32, "not enough free disk", "needed", "MiB")


def test_a_full_disk_while_bundling_is_said_and_the_cache_stays_usable(
    demo_set: DemoSet, small_disk: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "demo-small.toml"
    text = (REPOSITORY / "bundles/demo-small.toml").read_text("utf-8")
    recipe.write_text(text.replace("../models/demo", str(REPOSITORY / "models/demo")), "utf-8")
    bundle = [sys.executable, "-m", "edgekit", "bundle", str(recipe), "--key",
              f"file:{demo_set.signer}", "--trust-root", str(demo_set.root)]
    done = subprocess.run([*bundle, "--out", str(small_disk / "out")], capture_output=True,
                          text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 43, done.stderr
    assert list((small_disk / "out").glob("*")) == []
    again = subprocess.run([*bundle, "--out", str(demo_set.root.parent / "again")],
                           capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert again.returncode == 0, again.stderr
    shutil.rmtree(demo_set.root.parent / "again")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    text = (REPOSITORY / "bundles/demo-small.toml").read_text("utf-8")
    path = tmp_path / "recipe.toml"
    path.write_text(text, "utf-8")
    return path


def lock(recipe: Path, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit", "lock", str(recipe), "--cache", str(cache)],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env={**os.environ, **environment},
    )


def test_an_unknown_key_in_a_recipe_is_named_with_its_line(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text("utf-8").replace("license =", "licence =", 1)
    recipe.write_text(text, "utf-8")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if row.startswith("licence"))
    done = lock(recipe, tmp_path / "cache")
    assert done.returncode == 11, done.stderr
    assert f"line {line}" in done.stderr or "missing key" in done.stderr


def test_an_unreachable_hub_is_said(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text("utf-8").replace('{ folder = "../models/demo/gguf" }',
                                             '{ hub = "someone/something" }')
    recipe.write_text(text, "utf-8")
    done = lock(recipe, tmp_path / "cache", HF_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 71, done.stderr
    assert not recipe.with_name("recipe.lock.json").exists()


def test_locked_without_a_lock_says_what_to_run(demo_set: DemoSet, recipe: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "bundle", str(recipe), "--locked", "--key",
         f"file:{demo_set.signer}", "--trust-root", str(demo_set.root)],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )
    assert (done.returncode, "edgekit lock" in done.stderr) == (12, True)
