"""Trust on a host that really installs: below the floor, and sets signed on several machines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.appliance import DemoSet, RunningAppliance, free_port, tree_state

REASON = "1.1.0 does not start on this board"


def floor(host: RunningAppliance) -> int:
    done = host.edgekit("trust", "show", "--json")
    return int(json.loads(done.stdout)["floor"]["sequence"])


def audited(host: RunningAppliance) -> list[dict[str, str]]:
    done = host.edgekit("audit", "tail", "-n", "100")
    return [json.loads(line) for line in done.stdout.splitlines()]


def generation(host: RunningAppliance) -> str:
    return (host.root / "opt/edgekit/current").readlink().name


def test_an_older_set_is_installed_by_breaking_the_glass_and_the_log_says_why(
    demo_set: DemoSet, newer_set: DemoSet, tmp_path: Path
) -> None:
    host = RunningAppliance(newer_set, tmp_path / "h", free_port())
    host.install()
    newest = generation(host)
    before = tree_state(host.root)
    listen = ("--listen", f"127.0.0.1:{host.port}")
    done = host.edgekit("install", str(demo_set.folder), *listen)
    assert done.returncode == 23, done.stderr
    done = host.edgekit("install", str(demo_set.folder), *listen, "--insecure-downgrade", "")
    assert done.returncode == 20, done.stderr
    assert tree_state(host.root) == before

    done = host.edgekit("install", str(demo_set.folder), *listen, "--insecure-downgrade", REASON)
    assert done.returncode == 0, done.stderr
    assert generation(host).startswith("demo-small-1.0.0-")
    records = [r for r in audited(host) if r.get("break_glass")]
    assert [r["type"] for r in records] == ["install_begin", "install_commit"]
    assert {r["break_glass"] for r in records} == {REASON}
    assert {r["generation"] for r in records} == {generation(host)}
    assert host.edgekit("audit", "verify").returncode == 0
    assert floor(host) == 2, "the floor stays where it was"

    done = host.edgekit("install", str(newer_set.folder), *listen)
    assert done.returncode == 0, done.stderr
    assert generation(host) == newest
    done = host.edgekit("install", str(demo_set.folder), *listen)
    assert done.returncode == 23, "every way below the floor is asked for and logged by itself"


def edgekit(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgekit", *map(str, arguments)], text=True,
                          cwd=REPOSITORY, capture_output=True, check=False)


@pytest.mark.parametrize("signing", ["nobody", "one"])
def test_a_set_bundled_with_too_few_signatures_is_a_draft_until_the_rest_have_signed(
    tmp_path: Path, signing: str
) -> None:
    """2 of alice, bob, carol; the packager has alice's key, or none at all."""
    for name in ("alice", "bob", "carol"):
        assert edgekit("keys", "new", tmp_path / name).returncode == 0
    root = tmp_path / "1.root.json"
    halves = [f"--signer={path}" for path in sorted(tmp_path.glob("*/*.signer.json"))]
    assert edgekit("keys", "root", *halves, "--out", root).returncode == 0
    for name in ("alice", "bob"):
        last = edgekit("keys", "sign", root, "--key", f"file:{tmp_path}/{name}")
    fingerprint = last.stdout.splitlines()[-1].removeprefix("fingerprint  ")
    recipe = tmp_path / "demo-small.toml"
    recipe.write_text((REPOSITORY / "bundles/demo-small.toml").read_text("utf-8").replace(
        "../models/demo", str(REPOSITORY / "models/demo")), "utf-8")
    key = [] if signing == "nobody" else ["--key", f"file:{tmp_path}/alice"]
    done = edgekit("bundle", recipe, *key, "--trust-root", root, "--out", tmp_path / "sets")
    assert done.returncode == 3, done.stderr
    missing = 2 if signing == "nobody" else 1
    assert f"NOT COMPLETE: {missing} more of alice, bob, carol must sign" in done.stderr
    folder = tmp_path / "sets/demo-small-1.0.0"
    assert f"edgekit keys sign {folder} --key file:DIR" in done.stderr

    host = RunningAppliance(DemoSet(folder, fingerprint, tmp_path, root), tmp_path / "h",
                            free_port())
    done = host.edgekit("trust", "import", str(folder / "trust/1.root.json"), "--fingerprint",
                        fingerprint)
    assert done.returncode == 0, done.stderr
    assert host.edgekit("install", str(folder)).returncode == 21
    for name in ("bob", "carol")[-missing:]:
        done = edgekit("keys", "sign", folder, "--key", f"file:{tmp_path}/{name}")
        assert done.returncode == 0, done.stderr
    assert "complete     " in done.stdout
    done = host.edgekit("install", str(folder), "--listen", f"127.0.0.1:{host.port}")
    assert done.returncode == 0, done.stderr
    table = json.loads(host.edgekit("inspect", str(folder), "--json").stdout)
    expected = ["bob", "carol"] if signing == "nobody" else ["alice", "carol"]
    assert table["signed_by"] == expected
    shutil.rmtree(tmp_path / "h")
