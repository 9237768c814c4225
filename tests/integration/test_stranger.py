"""A stranger with ssh-keygen, sha384sum and openssl checks a set by the lines written for them.

The lines are those of the set's own README.txt and of docs/how-to/check-a-set-without-edgekit.md,
run as they stand, on a Debian without Python and without edgekit.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from edgekit.core.signers import load_public_key
from edgekit.core.sshsig import allowed_signer
from tests.support.appliance import DemoSet
from tests.support.newer_openssl import CannotFetchError, lend_newer_openssl
from tests.support.sets import RootBuilder, SetBuilder, damaged, signer
from tools.sealed_host import build_rootfs, default_cache_dir, missing_requirements
from tools.sealed_resources import private_namespaces

HOW_TO = Path(__file__).resolve().parents[2] / "docs/how-to/check-a-set-without-edgekit.md"
TOOLS = ("ssh-keygen", "openssl")
ML_DSA_SINCE = (3, 5)


# ------------------------------------------------------------------------------- what is to be run


def paragraphs(text: str, indent: int) -> list[str]:
    """Blocks of lines that are indented by at least `indent` spaces, without the indent."""
    blocks = re.findall(rf"(?m)(?:^ {{{indent}}}.*\n?)+", text)
    return [textwrap.dedent(block) for block in blocks]


def readme_commands(folder: Path) -> str:
    """What README.txt tells a stranger to run."""
    text = (folder / "README.txt").read_text("utf-8")
    return paragraphs(text.partition("FOR A STRANGER WITHOUT EDGEKIT\n")[2], 6)[0]


def courier_commands(folder: Path) -> str:
    """What README.txt tells the courier to run."""
    text = (folder / "README.txt").read_text("utf-8")
    return paragraphs(text.partition("FOR THE COURIER\n")[2].partition("FOR THE OPERATOR")[0], 6)[0]


def how_to_commands(heading: str) -> str:
    """All indented lines of a section of the how-to, but the one that enters the folder."""
    section = HOW_TO.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    section = re.sub(r"(?ms)^```.*?^```", "", section)
    return "".join(paragraphs(section, 4)).replace("cd demo-1.0.0\n", "")


# ------------------------------------------------------------------------------ where it is run


@dataclass(frozen=True)
class Machine:
    """A Debian without Python, with two more programs of this machine and their libraries."""

    rootfs: Path
    state: Path

    def run(
        self, commands: str, folder: Path, signer_line: str
    ) -> subprocess.CompletedProcess[str]:
        """Run lines in the set's folder, which is read-only there; stops at the first failure."""
        home = self.state / "upper/root"
        home.mkdir(exist_ok=True)
        (home / "allowed_signers").write_text(signer_line + "\n")
        layers = f"lowerdir={self.rootfs},upperdir=upper,workdir=work"
        script = f"""
            set -eu
            cd {shlex.quote(str(self.state))}
            mount -t overlay -o {shlex.quote(layers)} stranger root
            mkdir -p root/media/stick
            mount --bind -o ro {shlex.quote(str(folder))} root/media/stick
            mount --rbind /dev root/dev
            exec chroot root /usr/bin/env -i HOME=/root PATH=/usr/bin /bin/bash -euo pipefail -c \\
                {shlex.quote("cd /media/stick" + chr(10) + commands)}
        """
        return subprocess.run(
            [*private_namespaces(), "--net", "bash", "-c", script],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
        )

    def file(self, name: str) -> bytes:
        """A file that the commands wrote."""
        return (self.state / "upper" / name).read_bytes()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    yield from _machine(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def newer_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The same with the openssl of Debian's next stable release, which checks ML-DSA."""
    for machine in _machine(tmp_path_factory.mktemp("newer")):
        try:
            lend_newer_openssl(machine.state / "upper")
        except CannotFetchError as error:
            pytest.skip(f"cannot run here: openssl 3.5 or newer cannot be fetched: {error}")
        yield machine


def _machine(state: Path) -> Iterator[Machine]:
    missing = missing_requirements()
    missing += [f"{tool} is not installed" for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip("cannot run here: " + "; ".join(missing))
    rootfs = build_rootfs(default_cache_dir(), report=print)
    with ExitStack() as stack:
        for name in ("upper", "work", "root"):
            (state / name).mkdir()
        for tool in TOOLS:
            _lend(Path(shutil.which(tool) or ""), rootfs, state / "upper")
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        yield Machine(rootfs, state)


def _lend(program: Path, rootfs: Path, upper: Path) -> None:
    """Put a program into the machine, and those of its libraries that are not there."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    libraries = re.findall(r"=> (/\S+)", listed.stdout)
    for source in (program, *map(Path, libraries)):
        place = source.parent.resolve() / source.name
        target = upper / place.relative_to("/")
        if not (rootfs / place.relative_to("/")).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source.resolve(), target)


@dataclass(frozen=True)
class Given:
    """A set and the line that its signer gave the stranger by another way."""

    folder: Path
    line: str


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A small set by one developer, for damaging; its signer is called ann."""
    root = RootBuilder(signers=("ann",), threshold=1, developer=True)
    folder = SetBuilder(roots=(root,)).write(tmp_path_factory.mktemp("small") / "demo")
    return Given(folder, allowed_signer("ann", load_public_key(signer("ann").keys()[0])))


@pytest.fixture(scope="module")
def real(demo_set: DemoSet) -> Given:
    key = load_pem_private_key((demo_set.signer / "classical.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return Given(demo_set.folder, allowed_signer(demo_set.signer.name, key.public_key()))


# ------------------------------------------------------------------------------------------ tests


def test_the_machine_has_no_python_and_no_edgekit(machine: Machine, small: Given) -> None:
    look = "ls -d /usr/bin/*python* /usr/lib/python* /opt/* /usr/*bin/*edgekit* 2>/dev/null || "
    look += "type " + " ".join((*TOOLS, "sha384sum"))
    done = machine.run(look, small.folder, small.line)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        f"/usr/bin/{tool}" for tool in (*TOOLS, "sha384sum")
    ]


def test_a_stranger_checks_a_real_set_by_its_own_readme(machine: Machine, real: Given) -> None:
    commands = readme_commands(real.folder)
    assert "ssh-keygen -Y verify" in commands
    assert "sha384sum -c" in commands
    done = machine.run(commands, real.folder, real.line)
    assert done.returncode == 0, done.stderr
    assert 'Good "edgekit-set" signature for developer' in done.stdout
    assert "vol-0001.ekv: OK" in done.stdout
    assert real.line in (real.folder / "README.txt").read_text("utf-8")


def test_the_readme_says_which_host_can_run_the_program(real: Given) -> None:
    requirements = json.loads((real.folder / "manifest.json").read_bytes())["requirements"]
    newest = ".".join(str(number) for number in requirements["glibc"])
    assert f"glibc {newest} or newer" in (real.folder / "README.txt").read_text("utf-8")


def test_the_courier_checks_a_real_set(machine: Machine, real: Given) -> None:
    done = machine.run(courier_commands(real.folder), real.folder, real.line)
    assert done.returncode == 0, done.stderr
    assert all(line.endswith(": OK") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    "name",
    ["README.txt", "edgekit", "manifest.json", "volumes.json", "release.json", "vol-0001.ekv",
     "trust/1.root.json"],
)
def test_a_flipped_bit_fails_and_names_the_file(
    machine: Machine, small: Given, name: str
) -> None:
    commands = readme_commands(small.folder)
    assert machine.run(commands, small.folder, small.line).returncode == 0
    with damaged(small.folder / name, 3):
        done = machine.run(commands, small.folder, small.line)
        courier = machine.run(courier_commands(small.folder), small.folder, small.line)
    for failed in (done, courier):
        assert failed.returncode == 1
        assert [line for line in failed.stdout.splitlines() if "FAILED" in line] == [
            f"{name}: FAILED"
        ]


@pytest.mark.parametrize(("name", "offset"), [("SHA384SUMS", 0), ("SHA384SUMS.sig", 200)])
def test_a_changed_list_or_signature_fails_before_any_file_is_looked_at(
    machine: Machine, small: Given, name: str, offset: int
) -> None:
    commands = readme_commands(small.folder)
    with damaged(small.folder / name, offset):
        done = machine.run(commands, small.folder, small.line)
    assert done.returncode != 0
    assert "OK" not in done.stdout


def test_another_signers_line_fails(machine: Machine, small: Given) -> None:
    line = allowed_signer("ann", load_public_key(signer("eve").keys()[0]))
    done = machine.run(readme_commands(small.folder), small.folder, line)
    assert done.returncode != 0
    assert "Good" not in done.stdout


def test_the_lines_of_the_how_to_work(machine: Machine, real: Given) -> None:
    for heading in ("Was it damaged?", "Who made it?", "Is it the root that was read to me?"):
        commands = how_to_commands(heading)
        done = machine.run(commands, real.folder, real.line)
        assert done.returncode == 0, (heading, done.stderr)
    assert "./edgekit" not in commands
    found = [path for path in machine.file("tmp/found").decode().splitlines() if path]
    assert "release.json" in found


# ----------------------------------------------------------------------- the envelope, by openssl


def envelope_commands(machine: Machine, given: Given) -> str:
    """The section's lines; without the last one where this machine's openssl has no ML-DSA."""
    commands = how_to_commands("Who signed the release statement?")
    answer = machine.run("openssl version", given.folder, given.line).stdout
    version = tuple(int(part) for part in answer.split()[1].split(".")[:2])
    last = "openssl pkeyutl -verify -rawin -pubin -inkey /tmp/pq.pem"
    assert commands.count(last) == 1
    if version < ML_DSA_SINCE:
        commands = "\n".join(line for line in commands.splitlines() if not line.startswith(last))
    return commands


def check_post_quantum(machine: Machine) -> None:
    """What the last line of the section does, whatever this machine's openssl can."""
    key = load_pem_public_key(machine.file("tmp/pq.pem"))
    assert isinstance(key, MLDSA87PublicKey)
    key.verify(machine.file("tmp/pq.sig"), machine.file("tmp/pq"))


def test_openssl_checks_the_release_envelope(machine: Machine, real: Given) -> None:
    done = machine.run(envelope_commands(machine, real), real.folder, real.line)
    assert done.returncode == 0, done.stderr
    assert "signed" in done.stdout.splitlines()
    check_post_quantum(machine)
    assert machine.file("tmp/pq").startswith(b"tuf\x01")
    assert len(machine.file("tmp/pq")) == 68


def test_stock_openssl_checks_the_post_quantum_signature(
    newer_machine: Machine, real: Given, small: Given
) -> None:
    """Every line of the section as it stands; edgekit's own libraries have no part in it."""
    for given in (real, small):
        commands = envelope_commands(newer_machine, given)
        assert "-inkey /tmp/pq.pem" in commands
        done = newer_machine.run(commands, given.folder, given.line)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "Signature Verified Successfully"


def test_stock_openssl_refuses_a_changed_payload_and_another_key(
    newer_machine: Machine, small: Given
) -> None:
    commands = envelope_commands(newer_machine, small).replace("| grep -x signed", "|| true")
    release = (small.folder / "release.json").read_bytes()
    payload = release.index(b'"payload":"') + 11
    with damaged(small.folder / "release.json", payload + 40, bit=1):
        done = newer_machine.run(commands, small.folder, small.line)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Signature Verification Failure")
    other = "openssl genpkey -algorithm ML-DSA-87 | openssl pkey -pubout > /tmp/pq.pem\n"
    last = commands.rindex("openssl pkeyutl")
    done = newer_machine.run(commands[:last] + other + commands[last:], small.folder, small.line)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Signature Verification Failure")


def test_openssl_refuses_another_signer_and_a_changed_payload(
    machine: Machine, small: Given
) -> None:
    commands = envelope_commands(machine, small)
    done = machine.run(commands, small.folder, small.line)
    assert done.returncode == 0, done.stderr
    check_post_quantum(machine)
    eve = allowed_signer("ann", load_public_key(signer("eve").keys()[0]))
    assert machine.run(commands, small.folder, eve).returncode == 1
    payload = (small.folder / "release.json").read_bytes().index(b'"payload":"') + 11
    with damaged(small.folder / "release.json", payload + 40, bit=1):
        assert machine.run(commands, small.folder, small.line).returncode == 1
        with_pq = commands.replace("| grep -x signed", "|| true")
        machine.run(with_pq, small.folder, small.line)
        with pytest.raises(InvalidSignature):
            check_post_quantum(machine)


def test_the_signature_is_not_over_the_bare_encoding(machine: Machine, small: Given) -> None:
    machine.run(envelope_commands(machine, small), small.folder, small.line)
    key = load_pem_public_key(machine.file("tmp/pq.pem"))
    assert isinstance(key, MLDSA87PublicKey)
    with pytest.raises(InvalidSignature):
        key.verify(machine.file("tmp/pq.sig"), machine.file("tmp/pae"))
    mine = MLDSA87PrivateKey.generate()
    mine.public_key().verify(mine.sign(b"tuf\x01"), b"tuf\x01")
