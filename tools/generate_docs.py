"""Write the reference pages that are derived from code: exit codes, commands, configuration.

`python -m tools.generate_docs` writes them; with `--check` nothing is written, and the exit status
is 1 when a page differs from what would be written.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from edgekit import errors
from edgekit.cli.app import build_app
from edgekit.core.config_rules import keys_of
from edgekit.core.site_config import SCHEMA, TABLES, render_value
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from tools.conformance import render_conformance
from tools.reliability import load_rows, render_reliability

ROOT = Path(__file__).resolve().parent.parent
EXIT_CODES = ROOT / "edgekit/exit_codes.py"
HELP_COLUMNS = 90

_NOTE = "<!-- written by tools/generate_docs.py; change the code, then run it again -->\n"

_EXIT_CODES_HEAD = """\
# Exit codes

Every edgekit command ends with one of these. The number is stable; the text of a message is not.
Any code that is not listed means failure. The list is `edgekit/exit_codes.py`.

"Printed as" is the word in the first line of the message, `error[signature]: ...`, and the value of
`error` in the JSON document that `--json` prints. A dash means that no class in `edgekit/errors.py`
has this code. Code 2 prints `error[usage]`. `bundle` ends with 3 when signatures are missing.

    edgekit verify SET; echo $?

"""

_CLI_HEAD = f"""\
# Commands

The help text of every command, {HELP_COLUMNS} columns wide. `edgekit COMMAND --help` prints the
same. The program that a set carries to hosts has no `lock` and no `bundle`: it cannot fetch.

Results go to stdout, progress and messages to stderr. Exit codes: [exit-codes.md](exit-codes.md).

"""


_CONFIG_HEAD = """\
# Site configuration

`/etc/edgekit/edgekit.toml` holds what an operator decides on one host. It is not part of a release:
upgrades, rollbacks and repairs read it and never write it. Without the file every key has its
default. Unknown keys, wrong types and values out of range are refused with file, key and line (exit
code {code}); a daemon that finds such a file does not start, and says so in its journal.

    edgekit config check            # before it takes effect
    edgekit config show             # every key with the value in force

The file begins with `schema = {schema}`. A later edgekit reads older schemas and leaves the file as
it is, so that going back to the release before still finds the file it knows. The file must be
readable for all and writable for root alone (mode 0644): it holds no secrets, and the daemons read
it as users of their own.

"""


def main() -> int:
    """Write or check the pages; 1 when `--check` finds one out of date."""
    parser = argparse.ArgumentParser(description="write the generated reference pages")
    parser.add_argument("--check", action="store_true", help="write nothing, report differences")
    if parser.parse_args().check:
        differences = check(ROOT)
        print("".join(differences), end="")
        return 1 if differences else 0
    write(ROOT)
    return 0


def pages() -> dict[str, str]:
    """The text of every generated page by its path below the repository."""
    return {
        "docs/reference/exit-codes.md": render_exit_codes(documented_exit_codes()),
        "docs/reference/cli.md": render_cli(),
        "docs/reference/config.md": render_config(),
        "docs/reference/conformance.md": _NOTE + render_conformance(),
        "docs/reliability.md": render_reliability(load_rows()),
    }


def write(root: Path) -> None:
    """Write every page below `root`."""
    for name, text in pages().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def check(root: Path) -> list[str]:
    """Unified diffs from the pages as they are to the pages as they should be; empty is good."""
    differences: list[str] = []
    for name, text in pages().items():
        found = (root / name).read_text("utf-8") if (root / name).exists() else ""
        differences += difflib.unified_diff(
            found.splitlines(keepends=True), text.splitlines(keepends=True), name, f"{name} (new)"
        )
    return differences


def documented_exit_codes() -> list[tuple[int, str, str]]:
    """(number, name, docstring) of every member of the enum, in the order of the source.

    The docstring is the string literal below the member, and empty where there is none.
    """
    tree = ast.parse(EXIT_CODES.read_text("utf-8"))
    (enum,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    found = []
    for position, node in enumerate(enum.body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            number = ast.literal_eval(node.value)
            following = enum.body[position + 1] if position + 1 < len(enum.body) else None
            found.append((int(number), node.targets[0].id, _docstring(following)))
    return found


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return str(node.value.value)
    return ""


def error_classes() -> list[type[EdgekitError]]:
    """Every class of the error tree, the base included."""
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, EdgekitError)
    ]


def render_exit_codes(codes: list[tuple[int, str, str]]) -> str:
    """The page of exit codes."""
    slugs: dict[int, list[str]] = {}
    for kind in error_classes():
        slugs.setdefault(int(kind.exit_code), []).append(kind.slug)
    rows = ["| code | name | printed as | meaning |\n", "| ---: | --- | --- | --- |\n"]
    for number, name, text in codes:
        printed = ", ".join(f"`{slug}`" for slug in sorted(slugs.get(number, []))) or "-"
        rows.append(f"| {number} | `{name}` | {printed} | {text} |\n")
    return _NOTE + _EXIT_CODES_HEAD + "".join(rows)


def render_cli() -> str:
    """The page of command help, from the same parser that the program runs."""
    parts = [_NOTE, _CLI_HEAD]
    for path, text in _help_texts(typer.main.get_command(build_app()), None, "edgekit"):
        parts.append(f"## {path}\n\n```text\n{text}\n```\n\n")
    return "".join(parts).rstrip("\n") + "\n"


def render_config() -> str:
    """The page of the site configuration, from the classes that read it."""
    head = _CONFIG_HEAD.replace("{code}", str(int(ExitCode.CONFIG)))
    parts = [_NOTE, head.replace("{schema}", str(SCHEMA))]
    for name, kind in TABLES:
        parts.append(f"## `[{name}]`\n\n{inspect.getdoc(kind)}\n\n")
        parts.append("| key | type | allowed | default | meaning |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        for key in keys_of(kind):
            default = f"`{render_value(key.default)}`"
            cells = (f"`{key.name}`", key.rule.kind, key.rule.allowed, default, key.meaning)
            parts.append("| " + " | ".join(cells) + " |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _help_texts(command: Any, parent: Any, name: str) -> Iterator[tuple[str, str]]:
    """(command path, help text) of a command and all below it, parents first."""
    context = typer.Context(command, info_name=name, parent=parent, terminal_width=HELP_COLUMNS)
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, text
    for below in getattr(command, "commands", {}).values():
        yield from _help_texts(below, context, below.name)


if __name__ == "__main__":
    sys.exit(main())
