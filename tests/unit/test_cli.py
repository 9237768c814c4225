"""The command line as scripts and people meet it: exit codes, texts, JSON, a fast start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit import errors
from edgekit.cli.main import main
from edgekit.cli.report import error_table, format_bytes, render_error
from edgekit.core import trust
from edgekit.core.digest import Digest
from edgekit.core.lock import Lock, encode_lock
from edgekit.errors import DigestError, EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.system.signing import create_signer
from edgekit.system.trust_store import TrustStore
from tests.support.sets import RootBuilder, SetBuilder, damaged

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = """\
format = 1
name = "demo"
version = "1.0.0"
sequence = 1
[target]
arch = "x86_64"
"""


class Terminal:
    """Runs command lines in this process and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def run(self, *arguments: object) -> int:
        code = main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(self.out)
        return table


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    before = signal.getsignal(signal.SIGTERM)
    yield Terminal(capsys)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set in `demo`."""
    base = tmp_path_factory.mktemp("cli")
    SetBuilder().write(base / "demo")
    return base


def fingerprint() -> str:
    return trust.fingerprint(RootBuilder().data())


# ------------------------------------------------------------------------------------- the errors


def test_a_folder_that_does_not_exist_is_no_set(terminal: Terminal, tmp_path: Path) -> None:
    code = terminal.run("verify", tmp_path / "nothing", "--root", tmp_path)
    assert code == ExitCode.SET_SHAPE
    assert terminal.out == ""
    assert terminal.err == (
        "error[set-shape]: no bundle set here\n"
        f"  where   {tmp_path}/nothing\n"
        "  needed  a folder with release.json\n"
        "  found   No such file or directory\n"
    )


def test_a_host_that_trusts_nobody_says_how_to_begin(
    terminal: Terminal, made: Path, tmp_path: Path
) -> None:
    for command in ("verify", "inspect", "plan"):
        assert terminal.run(command, made / "demo", "--root", tmp_path) == ExitCode.TRUST
        assert terminal.err == (
            "error[trust]: this host trusts nobody yet\n"
            "  needed  the root of the people who make your bundles\n"
            "hint: edgekit trust import SET/trust/1.root.json --fingerprint '...'\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_set_signed_with_unknown_keys_is_refused(
    terminal: Terminal, made: Path, tmp_path: Path
) -> None:
    stranger = RootBuilder(signers=("cid", "dora")).trusted()
    TrustStore(tmp_path / "var/lib/edgekit/trust").save_root(stranger)
    assert terminal.run("verify", made / "demo", "--root", tmp_path) == ExitCode.SIGNATURE
    assert terminal.err == (
        "error[signature]: release.json is not signed by enough trusted signers\n"
        "  needed  2 of cid, dora (policy hybrid)\n"
        "  found   none that counts\n"
        "hint: ask who made this set; do not install it\n"
    )


def test_a_damaged_volume_tells_the_courier_what_to_do(
    terminal: Terminal, made: Path, tmp_path: Path
) -> None:
    arguments = ("verify", made / "demo", "--root", tmp_path, "--fingerprint", fingerprint())
    with damaged(made / "demo/vol-0001.ekv", 0):
        assert terminal.run(*arguments) == ExitCode.DIGEST
    assert terminal.err.startswith("error[digest]: volume vol-0001.ekv is damaged\n  where   block")
    assert terminal.err.endswith("hint: copy vol-0001.ekv again\n")
    assert terminal.run(*arguments) == ExitCode.OK


def test_errors_are_json_too_when_json_is_asked_for(
    terminal: Terminal, made: Path, tmp_path: Path
) -> None:
    code = terminal.run("verify", made / "demo", "--root", tmp_path, "--json")
    assert code == ExitCode.TRUST
    assert terminal.json() == {
        "schema": "edgekit.error/1", "error": "trust", "code": 20,
        "message": "this host trusts nobody yet",
        "needed": "the root of the people who make your bundles",
        "hint": "edgekit trust import SET/trust/1.root.json --fingerprint '...'",
    }
    assert terminal.err.startswith("error[trust]: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("verify", "--nope"), "no such option: --nope"),
     (("verify",), "missing argument 'folders'"),
     (("veriffy",), "no such command 'veriffy'. Did you mean 'verify'?"),
     (("audit", "tail", "-n", "x"), "invalid value for '-n': Input should be a valid integer"),
     (("audit", "tail", "-n", "0"), "invalid value for '-n': Input should be greater than"),
     (("keys", "sign", "x"), "missing option '--key'")],
)
def test_a_wrong_command_line_says_what_is_wrong(
    terminal: Terminal, arguments: tuple[str, ...], message: str
) -> None:
    assert terminal.run(*arguments) == ExitCode.USAGE
    assert terminal.out == ""
    first, hint = terminal.err.splitlines()
    assert first.startswith(f"error[usage]: {message}")
    assert not first.endswith(".")
    assert hint == "hint: edgekit --help"


def test_a_wrong_command_line_is_json_when_json_is_asked_for(terminal: Terminal) -> None:
    assert terminal.run("verify", "--json") == ExitCode.USAGE
    assert terminal.json() == {
        "schema": "edgekit.error/1", "error": "usage", "code": 2,
        "message": "missing argument 'folders'", "hint": "edgekit --help"}


@pytest.mark.parametrize("group", [(), ("keys",), ("trust",), ("audit",)])
def test_a_group_without_a_verb_prints_its_help(
    terminal: Terminal, group: tuple[str, ...]
) -> None:
    assert terminal.run(*group) == ExitCode.USAGE
    assert (terminal.out + terminal.err).lstrip().startswith("Usage: edgekit")
    assert "error[" not in terminal.err


def test_a_wrong_recipe_names_file_key_and_line(terminal: Terminal, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE + 'libc = "musl"\n')
    assert terminal.run("lock", recipe, "--cache", tmp_path / "cache") == ExitCode.RECIPE
    assert terminal.err == (
        f"error[recipe]: unknown key\n  where   {recipe}, key target.libc, line 7\n"
    )


def test_a_missing_and_a_stale_lock_are_told_apart_by_text(
    terminal: Terminal, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    create_signer(tmp_path / "dev")
    (tmp_path / "root.json").write_bytes(RootBuilder().data())
    arguments = ("bundle", recipe, "--key", f"file:{tmp_path}/dev", "--trust-root",
                 tmp_path / "root.json", "--out", tmp_path / "out", "--locked",
                 "--cache", tmp_path / "cache")
    assert terminal.run(*arguments) == ExitCode.LOCK
    assert terminal.err.startswith("error[lock]: this recipe has no lock\n")
    assert terminal.err.endswith(f"hint: edgekit lock {recipe}\n")
    (tmp_path / "r.lock.json").write_bytes(encode_lock(Lock(Digest.of(b"old"), (), (), ())))
    assert terminal.run(*arguments) == ExitCode.LOCK
    assert terminal.err.startswith("error[lock]: the lock is of an older recipe\n")
    assert not list((tmp_path / "out").glob("*") if (tmp_path / "out").exists() else ())


def test_nothing_installed_says_so(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal.run("status", "--root", tmp_path) == ExitCode.NOT_INSTALLED
    assert terminal.err.startswith("error[not-installed]: ")


# -------------------------------------------------------------------------------------- the trust


def test_a_set_is_verified_by_its_fingerprint(
    terminal: Terminal, made: Path, tmp_path: Path
) -> None:
    arguments = ("verify", made / "demo", "--root", tmp_path, "--fingerprint", fingerprint())
    assert terminal.run(*arguments) == ExitCode.OK
    assert terminal.out == (
        "demo 1.0.0 is intact: every byte is what was signed\n"
        "signed by  ann, ben (policy hybrid)\n"
    )
    assert terminal.run(*arguments, "--json") == ExitCode.OK
    assert terminal.json()["schema"] == "edgekit.inspect/1"
    assert terminal.json()["signed_by"] == ["ann", "ben"]
    assert terminal.run("inspect", *arguments[1:]) == ExitCode.OK
    assert "document   3 files, 12 B" in terminal.out


def test_a_wrong_fingerprint_is_refused(terminal: Terminal, made: Path, tmp_path: Path) -> None:
    arguments = ("--root", tmp_path, "--fingerprint", "ab" * 48)
    assert terminal.run("verify", made / "demo", *arguments) == ExitCode.FINGERPRINT
    root = made / "demo/trust/1.root.json"
    assert terminal.run("trust", "import", root, *arguments) == ExitCode.FINGERPRINT
    assert terminal.err.startswith("error[fingerprint]: this root has another fingerprint\n")
    assert terminal.run("trust", "show", "--root", tmp_path) == ExitCode.TRUST


def test_a_root_is_imported_shown_and_believed(
    terminal: Terminal, made: Path, tmp_path: Path
) -> None:
    typed = trust.format_fingerprint(fingerprint()).upper()
    root = made / "demo/trust/1.root.json"
    arguments = ("trust", "import", root, "--root", tmp_path, "--fingerprint", typed)
    assert terminal.run(*arguments) == ExitCode.OK
    assert terminal.out == "this host now believes sets signed by 2 of: ann, ben\n"
    assert terminal.run(*arguments) == ExitCode.OK
    assert terminal.run("trust", "show", "--root", tmp_path, "--json") == ExitCode.OK
    shown = terminal.json()
    assert (shown["fingerprint"], shown["policy"]) == (fingerprint(), "hybrid")
    assert shown["roles"]["targets"] == {"threshold": 2, "signers": ["ann", "ben"]}
    assert terminal.run("verify", made / "demo", "--root", tmp_path) == ExitCode.OK


def test_a_second_root_never_replaces_the_first(
    terminal: Terminal, made: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(RootBuilder(signers=("cid", "dora")).data())
    print_of_other = trust.fingerprint(other.read_bytes())
    first = made / "demo/trust/1.root.json"
    host = tmp_path / "host"
    assert terminal.run("trust", "import", first, "--root", host, "--fingerprint",
                        fingerprint()) == ExitCode.OK
    assert terminal.run("trust", "import", other, "--root", host, "--fingerprint",
                        print_of_other) == ExitCode.TRUST
    assert "already trusts another root" in terminal.err
    assert terminal.run("verify", made / "demo", "--root", host) == ExitCode.OK


def test_a_developer_set_must_be_asked_for_by_name_and_warns(
    terminal: Terminal, tmp_path: Path
) -> None:
    root = RootBuilder(signers=("dev",), threshold=1, developer=True)
    folder = SetBuilder(roots=(root,)).write(tmp_path / "demo")
    arguments = ("verify", folder, "--root", tmp_path / "host", "--fingerprint",
                 trust.fingerprint(root.data()))
    assert terminal.run(*arguments) == ExitCode.TRUST
    assert "--insecure-developer-root" in terminal.err
    assert terminal.run(*arguments, "--insecure-developer-root") == ExitCode.OK
    assert "WARNING: signed with DEVELOPER keys" in terminal.err


def test_keys_are_made_once_and_never_overwritten(terminal: Terminal, tmp_path: Path) -> None:
    root = tmp_path / "root.json"
    folders = [tmp_path / name for name in ("ann", "ben")]
    assert terminal.run("keys", "init", *folders, "--root-out", root) == ExitCode.OK
    assert "signers      ann, ben; 2 must sign" in terminal.out
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.stat().st_mode & 0o777 for path in before if path.suffix == ".pem"} == {0o600}
    for out in (root, tmp_path / "other.json"):
        assert terminal.run("keys", "init", *folders, "--root-out", out) == ExitCode.TRUST
    one = ("keys", "init", tmp_path / "solo", "--root-out", tmp_path / "solo.json")
    assert terminal.run(*one, "--threshold", 1) == ExitCode.TRUST
    assert not (tmp_path / "solo").exists()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    assert "PRIVATE" not in terminal.out + terminal.err


# ---------------------------------------------------------------------------------- start and help


HELP = """
import contextlib, io, sys
from edgekit.cli.app import build_app
from edgekit.cli.main import main
import typer

def paths(command, path=()):
    yield path
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from paths(below, (*path, name))

count = 0
for path in list(paths(typer.main.get_command(build_app()))):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*path, "--help"])
    assert code == 0, (path, code)
    assert out.getvalue().lstrip().startswith("Usage: edgekit"), path
    count += 1
heavy = {"fastapi", "uvicorn", "starlette", "huggingface_hub", "PyInstaller", "tuf",
         "securesystemslib", "cryptography", "httpx", "requests", "asyncio", "rich", "h11"}
print(count, *sorted(heavy & set(sys.modules)))
"""


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_every_command_works_and_loads_nothing_heavy() -> None:
    count, *loaded = python("-c", HELP).split()
    assert int(count) >= 15
    assert loaded == []


def test_the_version_is_printed(terminal: Terminal) -> None:
    assert terminal.run("--version") == ExitCode.OK
    assert terminal.out.startswith("edgekit ")
    assert python("-m", "edgekit", "--version") == terminal.out


def test_an_unknown_daemon_is_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "daemon", "nobody"], cwd=REPOSITORY, capture_output=True,
        text=True, check=False, timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, "edgekit: no daemon named nobody\n")


# -------------------------------------------------------------------------------------- rendering


def test_an_error_is_shown_in_a_fixed_order_and_long_parts_are_indented() -> None:
    error = DigestError("it broke", hint="fix it", found="one\ntwo", needed="three", where="here")
    assert render_error(error) == (
        "error[digest]: it broke\n  where   here\n  needed  three\n  found   one\n"
        "          two\nhint: fix it"
    )
    assert render_error(DigestError("it broke")) == "error[digest]: it broke"
    assert error_table(DigestError("it broke")) == {
        "schema": "edgekit.error/1", "error": "digest", "code": 22, "message": "it broke"}


def all_errors() -> list[type[EdgekitError]]:
    found = [EdgekitError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_error_has_a_slug_of_its_own_and_a_code_of_its_tens() -> None:
    kinds = [kind for kind in all_errors() if kind.__module__ == errors.__name__]
    assert len({kind.slug for kind in kinds}) == len(kinds) > 25
    for kind in kinds[1:]:
        parents = [base for base in kind.__mro__[1:] if base in kinds[1:]]
        for parent in parents:
            assert kind.exit_code // 10 == parent.exit_code // 10
        assert kind.exit_code not in (ExitCode.OK, ExitCode.INTERNAL)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"),
     (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB"), (1 << 50, "1024.0 TiB")],
)
def test_sizes_are_shown_for_people(count: int, shown: str) -> None:
    assert format_bytes(count) == shown
