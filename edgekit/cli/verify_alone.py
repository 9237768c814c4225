"""`edgekit audit verify` where nothing is installed but Python and cryptography: an auditor's
machine, with a copy of this package. Every other verb wants the whole program.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgekit.cli.report import render_error, render_json
from edgekit.core.audit_summary import render_summary
from edgekit.core.host_layout import HostLayout
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.operations.audit import Brought, verify_audit

VERB = ["audit", "verify"]


def main(arguments: Sequence[str]) -> int:
    """Same options, words and exit codes as the command of the whole program."""
    if list(arguments[:2]) != VERB:
        print("edgekit: without typer and rich only `edgekit audit verify` works", file=sys.stderr)
        return int(ExitCode.USAGE)
    options = _options(arguments[2:])
    brought = Brought(options.pubkey, tuple(options.k0), tuple(options.anchor), options.first)
    try:
        summary = verify_audit(options.log or HostLayout(options.root).audit, brought)
    except EdgekitError as error:
        print(render_error(error), file=sys.stderr)
        return int(error.exit_code)
    print(render_json(summary.table()) if options.json else render_summary(summary))
    return int(ExitCode.WARNINGS if summary.has_warnings else ExitCode.OK)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgekit audit verify", description=__doc__)
    parser.add_argument("--log", type=Path, help="folder of the log, or of an export")
    parser.add_argument("--pubkey", type=Path, help="the host's audit key, public half")
    parser.add_argument("--k0", type=Path, action="append", default=[], help="a MAC key")
    parser.add_argument(
        "--anchor", type=Path, action="append", default=[], help="a checkpoint carried away"
    )
    parser.add_argument("--from", type=int, dest="first", help="number of the first record")
    parser.add_argument("--root", type=Path, default=HostLayout.HOST, help="the host's root folder")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser.parse_args(arguments)
