"""Documents that can drift from the code: generated pages, links, exit codes and their errors."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from edgekit.exit_codes import ExitCode
from tools import generate_docs

ROOT = generate_docs.ROOT
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def documents() -> list[Path]:
    found = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("changes/*.md"), *ROOT.glob("README.md")]
    return sorted(found)


def relative_links(text: str) -> Iterator[str]:
    """Targets of inline links outside code, without their fragment; web addresses left out."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in LINK.findall(text):
        path = unquote(target.partition("#")[0])
        if path and not SCHEME.match(target):
            yield path


def test_generated_pages_are_up_to_date() -> None:
    assert "".join(generate_docs.check(ROOT)) == "", "run: python -m tools.generate_docs"


def test_check_sees_drift(tmp_path: Path) -> None:
    page = tmp_path / "docs/reference/exit-codes.md"
    assert generate_docs.check(tmp_path)
    assert not page.exists()
    generate_docs.write(tmp_path)
    assert generate_docs.check(tmp_path) == []
    page.write_text(page.read_text("utf-8").replace("| 21 |", "| 12 |"), "utf-8")
    assert any(line.startswith("+| 21 |") for line in generate_docs.check(tmp_path))


def test_help_width_does_not_depend_on_the_terminal() -> None:
    narrow = {"COLUMNS": "40", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tools.generate_docs", "--check"],
        cwd=ROOT, env=narrow, check=False, capture_output=True, text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_command_is_documented() -> None:
    page = generate_docs.render_cli()
    for name in ("edgekit", "edgekit bundle", "edgekit install", "edgekit trust import"):
        assert f"\n## {name}\n" in page


def test_links_are_found() -> None:
    text = "[a](x.md#part) `[b](no.md)` [c](https://e.org/x)\n```\n[d](no.md)\n```\n[e](#here)"
    assert list(relative_links(text)) == ["x.md"]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(path: Path) -> None:
    for target in relative_links(path.read_text("utf-8")):
        assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"


def test_exit_codes_are_unique_and_documented() -> None:
    codes = generate_docs.documented_exit_codes()
    numbers = [number for number, _, _ in codes]
    assert len(set(numbers)) == len(numbers)
    assert {name: number for number, name, _ in codes} == {
        name: int(code) for name, code in ExitCode.__members__.items()
    }
    assert [name for _, name, text in codes if not text.strip()] == []


def test_every_error_has_a_code_of_the_enum_and_its_own_slug() -> None:
    kinds = generate_docs.error_classes()
    assert len(kinds) > 20
    assert [kind.__name__ for kind in kinds if not isinstance(kind.exit_code, ExitCode)] == []
    slugs = [kind.slug for kind in kinds]
    assert len(set(slugs)) == len(slugs)
