"""A log is verified on a machine with Python and the cryptography package, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cryptography
import pytest

from edgekit.system.audit_files import segment_name
from tools.make_audit_vectors import FOLDER, read_vector

REPOSITORY = Path(__file__).parents[2]
SITE = Path(cryptography.__file__).parents[1]
PARTS = ("cryptography", "cffi", "_cffi_backend*", "pycparser")
"""What `pip install cryptography` brings."""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds nothing but these and a copy of edgekit."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for part in PARTS:
        for path in SITE.glob(part):
            (folder / path.name).symlink_to(path)
    (folder / "edgekit").symlink_to(REPOSITORY / "edgekit")
    return {"PATH": os.defpath, "PYTHONPATH": str(folder)}


def run(machine: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)], env=machine, cwd="/",
        capture_output=True, text=True, check=False,
    )


@pytest.mark.parametrize("name", ["intact", "altered-field", "checkpoint-root", "truncated-anchor"])
def test_a_log_is_verified_there(machine: dict[str, str], tmp_path: Path, name: str) -> None:
    header, body = read_vector(FOLDER / f"{name}.txt")
    log = tmp_path / "log"
    log.mkdir()
    (log / segment_name(1)).write_bytes(body)
    evidence: list[str | Path] = []
    for option, kind in (("--pubkey", "signer"), ("--k0", "key"), ("--anchor", "anchor")):
        evidence += [option, FOLDER / header[kind]] if kind in header else []
    done = run(machine, "-m", "edgekit", "audit", "verify", "--log", log, *evidence, "--json")
    assert done.returncode == int(header["code"]), done.stderr
    if header["expect"] == "intact":
        assert json.loads(done.stdout)["records"] == int(header["record"])
    else:
        assert f"record {header['record']} at byte {header['byte']}" in done.stderr


def test_that_machine_has_nothing_else(machine: dict[str, str]) -> None:
    for name in ("typer", "rich", "tuf", "securesystemslib", "fastapi"):
        assert run(machine, "-c", f"import {name}").returncode == 1
    done = run(machine, "-m", "edgekit", "status")
    assert done.returncode == 2
    assert "edgekit audit verify" in done.stderr
