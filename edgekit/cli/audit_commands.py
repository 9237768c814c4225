"""Verbs about the audit log: audit verify, audit tail."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from edgekit.cli import evidence_commands
from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.evidence_commands import LogOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    audit = typer.Typer(help="Check and read the audit log.", no_args_is_help=True)
    audit.command("verify")(audit_verify)
    audit.command("tail")(audit_tail)
    evidence_commands.register(audit)
    app.add_typer(audit, name="audit")


def audit_verify(
    log: LogOption = None, root: RootOption = HostLayout.HOST, json_: JsonOption = False
) -> None:
    """Check that no record was changed, removed or cut off, from the first to the last."""
    from edgekit.operations.audit import verify_audit

    summary = verify_audit(log or HostLayout(root.resolve()).audit)
    if json_:
        typer.echo(render_json({"schema": "edgekit.audit-verify/1", **asdict(summary)}))
        return
    typer.echo(
        f"intact: {summary.records} records, {summary.requests} requests, "
        f"{summary.responses} responses, {summary.denied} denied, "
        f"{summary.orphans} without a response"
    )
    typer.echo(f"head: record {summary.head_seq}, chain {summary.head_chain[:32]}...")


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
