"""Verbs about the audit log: audit verify, audit tail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import evidence_commands
from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.evidence_commands import LogOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout
from edgekit.exit_codes import ExitCode


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    audit = typer.Typer(help="Check and read the audit log.", no_args_is_help=True)
    audit.command("verify")(audit_verify)
    audit.command("tail")(audit_tail)
    evidence_commands.register(audit)
    app.add_typer(audit, name="audit")


def audit_verify(
    log: LogOption = None,
    pubkey: Annotated[
        Path | None,
        typer.Option("--pubkey", help="The host's audit key; the log's own unless given."),
    ] = None,
    k0: Annotated[
        list[Path] | None, typer.Option("--k0", help="A MAC key; repeat for several.")
    ] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option("--anchor", help="A checkpoint carried away; repeat for several."),
    ] = None,
    first: Annotated[
        int, typer.Option("--from", min=1, help="Number of the record that the log begins with.")
    ] = 1,
    root: RootOption = HostLayout.HOST,
    json_: JsonOption = False,
) -> None:
    """Check that no record was changed, removed or cut off, from the first to the last.

    Ends with 3 when the log is intact but nothing from outside vouches for its newest records.
    """
    from edgekit.core.audit_summary import render_summary
    from edgekit.operations.audit import Brought, verify_audit

    brought = Brought(pubkey, tuple(k0 or ()), tuple(anchor or ()), first)
    summary = verify_audit(log or HostLayout(root.resolve()).audit, brought)
    if json_:
        typer.echo(render_json(summary.table()))
    else:
        typer.echo(render_summary(summary))
    if summary.has_warnings:
        raise typer.Exit(int(ExitCode.WARNINGS))


def audit_tail(
    log: LogOption = None,
    count: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many.")] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with every new record.")
    ] = False,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Print the newest records, oldest first, one JSON document per line."""
    from edgekit.operations.audit import tail_audit
    from edgekit.operations.audit_search import follow_audit

    folder = log or HostLayout(root.resolve()).audit
    for record in follow_audit(folder, count) if follow else tail_audit(folder, count):
        print(json.dumps(record, sort_keys=True), flush=True)
