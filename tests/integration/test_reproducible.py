"""Two builds of one lock, in different surroundings, differ in their signatures and nowhere else.

Between the two builds differ: time zone, locale, umask, hash seed, the paths of checkout, Python
environment, temporary files, cache and result, the ages of all sources, the clock, and what was
frozen before (nothing: each has a cache of its own). The same are: the lock, SOURCE_DATE_EPOCH, the
signer, the Python interpreter and the installed libraries.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PyInstaller.archive.readers import CArchiveReader

from tests.support.appliance import DemoSet
from tools.rootfs import default_cache_dir

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ("edgekit", "systemd", "profiles", "bundles", "models/demo", "LICENSE")
EPOCH = 1_767_225_600
DAY_S = 86_400
CACHES = ("__pycache__", "*.pyc")


@dataclass(frozen=True)
class Surroundings:
    """Where and how one build runs; `umask` and `variables` are the process's own.

    With `relative` the cache is named from the checkout, as people do on a command line.
    """

    base: Path
    checkout: str
    age_days: int
    umask: int
    variables: dict[str, str]
    relative: bool

    def build(self, snapshot: Path, keys: Path) -> Path:
        """The set that this build makes of the small demo recipe."""
        checkout = self.base / self.checkout
        shutil.copytree(snapshot, checkout)
        for path in sorted(checkout.rglob("*")):
            os.utime(path, (EPOCH - self.age_days * DAY_S,) * 2)
        temporary = self.base / "temporary"
        temporary.mkdir()
        environment = self.base / "environment"
        environment.symlink_to(sys.prefix)
        done = subprocess.run(
            [str(environment / "bin/python"), "-m", "edgekit", "bundle", "bundles/demo-small.toml",
             "--locked", "--key", f"file:{keys / 'developer'}", "--trust-root",
             str(keys / "root.json"), "--out", str(self.base / "sets"), "--cache",
             self._cache(checkout), "--json"],
            cwd=checkout, umask=self.umask, capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.base), "PYTHONPATH": str(checkout),
                 "TMPDIR": str(temporary), "SOURCE_DATE_EPOCH": str(EPOCH), **_network(),
                 **self.variables},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return Path(json.loads(done.stdout)["directory"])

    def _cache(self, checkout: Path) -> str:
        """A cache of its own: downloads that are already here, and nothing frozen."""
        cache = self.base / "cache of this build"
        downloads = default_cache_dir().parent / "sha256"
        if downloads.is_dir():
            shutil.copytree(downloads, cache / "sha256")
        return os.path.relpath(cache, checkout) if self.relative else str(cache)


def _network() -> dict[str, str]:
    """How this machine reaches package indexes."""
    return {name: value for name, value in os.environ.items()
            if name.upper().endswith("_PROXY") or name.startswith(("PIP_", "UV_", "SSL_CERT"))}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sets of one snapshot of this checkout."""
    base = tmp_path_factory.mktemp("reproducible")
    snapshot, keys = base / "snapshot", base / "keys"
    for name in SOURCES:
        source, target = REPOSITORY / name, snapshot / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*CACHES))
        else:
            shutil.copy(source, target)
    subprocess.run(
        [sys.executable, "-m", "edgekit", "keys", "init", str(keys / "developer"), "--root-out",
         str(keys / "root.json"), "--insecure-developer"],
        cwd=REPOSITORY, check=True, capture_output=True,
    )
    monday = Surroundings(
        base / "a", "checkout", age_days=1, umask=0o022,
        variables={"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}, relative=False,
    )
    tuesday = Surroundings(
        base / "another-place", "deeper/copy of it", age_days=400, umask=0o077,
        variables={"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "4242",
                   "PYTHONOPTIMIZE": "1"}, relative=True,
    )
    with ThreadPoolExecutor(2) as pool:
        one, two = (pool.submit(place.build, snapshot, keys) for place in (monday, tuesday))
        return one.result(), two.result()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_builds_differ_in_signatures_only(pair: tuple[Path, Path]) -> None:
    one, two = map(contents, pair)
    assert list(one) == list(two)
    manifests = [json.loads(found["manifest.json"])["entries"] for found in (one, two)]
    assert _unlike(*manifests) == [], "files of the set that two builds made differently"
    different = {name for name in one if one[name] != two[name]}
    enveloped = {name for name in one if b'"signatures":[{"keyid":' in one[name][-99999:]}
    assert different == enveloped - {"trust/1.root.json"} | {"SHA384SUMS", "SHA384SUMS.sig"}
    for name in sorted(enveloped):
        first, second = json.loads(one[name]), json.loads(two[name])
        assert _statement(first, one, different) == _statement(second, two, different), name
        pairs = zip(first["signatures"], second["signatures"], strict=True)
        assert all(a["keyid"] == b["keyid"] for a, b in pairs)
    lines = [set(found["SHA384SUMS"].splitlines()) for found in (one, two)]
    assert {line.split()[1].decode() for line in lines[0] ^ lines[1]} == different - {
        "SHA384SUMS", "SHA384SUMS.sig"
    }


def _statement(envelope: dict[str, Any], found: dict[str, bytes], different: set[str]) -> str:
    """What was signed; digests of files that hold signatures themselves are put in words."""
    text = base64.b64decode(envelope["payload"]).decode()
    for name in sorted(different):
        for algorithm in ("sha256", "sha384", "sha512"):
            value = hashlib.new(algorithm, found[name]).hexdigest()
            text = text.replace(value, f"{algorithm} of {name}")
    return text


def _unlike(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> list[str]:
    first, second = ({entry["path"]: entry for entry in entries} for entries in (one, two))
    return sorted(path for path in first | second if first.get(path) != second.get(path))


def test_nothing_of_the_builder_is_in_the_programs(pair: tuple[Path, Path]) -> None:
    """No path of a build reaches what is frozen; the interpreter's own prefix may be there."""
    for folder in pair:
        base = folder.parent.parent
        for name in ("edgekit", "vol-0001.ekv", "manifest.json"):
            assert str(base).encode() not in (folder / name).read_bytes()


# ------------------------------------------------------------------------- what the program holds

LIBRARIES = {
    "annotated_doc", "annotated_types", "anyio", "click", "cryptography", "edgekit", "fastapi",
    "h11", "httptools", "idna", "jinja2", "markdown_it", "markupsafe", "mdurl", "opentelemetry",
    "prometheus_client", "prompt_toolkit", "pydantic", "pydantic_core", "rich", "securesystemslib",
    "shellingham", "sniffio", "starlette", "tuf", "typer", "typing_extensions",
    "typing_inspection", "uvicorn", "wcwidth",
}
"""What the program on the host may hold beside the standard library. Each reads what is untrusted
or comes with one that does: a new name here is a decision (docs/adr/0003-dependencies.md)."""

NEVER = {
    "PyInstaller", "_pytest", "attr", "cyclonedx", "fastjsonschema", "hf_xet", "httpcore", "httpx",
    "huggingface_hub", "hypothesis", "mypy", "ollama", "openai", "packageurl", "pip", "pytest",
    "requests", "setuptools", "urllib3", "xllamacpp",
}
"""Test tools, and whatever could fetch."""


def frozen_modules(program: Path) -> set[str]:
    archive = CArchiveReader(str(program))
    return set(archive.open_embedded_archive("PYZ.pyz").toc)


def test_the_frozen_program_holds_no_test_tools(demo_set: DemoSet) -> None:
    modules = frozen_modules(demo_set.folder / "edgekit")
    tops = {name.partition(".")[0] for name in modules}
    assert {"edgekit", "tuf", "cryptography"} <= tops
    assert tops & NEVER == set()
    standard = sys.stdlib_module_names | {n for n in tops if n.startswith("_sysconfigdata_")}
    assert tops - standard - LIBRARIES == set()


def test_the_frozen_program_cannot_bundle(demo_set: DemoSet) -> None:
    modules = frozen_modules(demo_set.folder / "edgekit")
    assert "edgekit.system.bundle_set" in modules
    operations = ("edgekit.operations.bundle", "edgekit.operations.gather")
    fetching = ("edgekit.sources", "edgekit.cli.connected", *operations)
    assert [name for name in modules if name.startswith(fetching)] == []
