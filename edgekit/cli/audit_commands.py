"""Verbs about the audit log: audit verify, audit tail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import custody_commands, evidence_commands
from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.evidence_commands import AnchorsOption, KeysOption, LogOption, PubkeyOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout
from edgekit.exit_codes import ExitCode

FirstOption = Annotated[
    int | None,
    typer.Option(
        "--from",
        min=1,
        help="Number of the record that the log begins with; as the log itself says unless given.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    audit = typer.Typer(help="Check and read the audit log.", no_args_is_help=True)
    audit.command("verify")(audit_verify)
    audit.command("prove")(audit_prove)
    audit.command("consistency")(audit_consistency)
    audit.command("check-proof")(audit_check_proof)
    audit.command("tail")(audit_tail)
    evidence_commands.register(audit)
    custody_commands.register(audit)
    app.add_typer(audit, name="audit")


def audit_verify(
    log: LogOption = None,
    pubkey: PubkeyOption = None,
    k0: KeysOption = None,
    anchor: AnchorsOption = None,
    first: FirstOption = None,
    root: RootOption = HostLayout.HOST,
    json_: JsonOption = False,
) -> None:
    """Check that no record was changed, removed or cut off, from the first to the last.

    --log may be the folder of an export, on any machine.

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


def audit_prove(
    seq: Annotated[int, typer.Argument(min=1, help="Number of the record.")],
    log: LogOption = None,
    pubkey: PubkeyOption = None,
    first: FirstOption = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Print the proof that a record is in the log, for who has the audit key and not the log."""
    from edgekit.operations.audit import Brought
    from edgekit.operations.audit_proof import prove_record

    folder = log or HostLayout(root.resolve()).audit
    typer.echo(prove_record(folder, seq, Brought(pubkey, first=first)).decode("ascii"))


def audit_consistency(
    old: Annotated[Path, typer.Argument(help="The older checkpoint.")],
    new: Annotated[Path, typer.Argument(help="The newer checkpoint.")],
    log: LogOption = None,
    pubkey: PubkeyOption = None,
    first: FirstOption = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Print the proof that one checkpoint's log continues another's, unchanged."""
    from edgekit.operations.audit import Brought
    from edgekit.operations.audit_proof import prove_consistency

    folder = log or HostLayout(root.resolve()).audit
    proof = prove_consistency(folder, old, new, Brought(pubkey, first=first))
    typer.echo(proof.decode("ascii"))


def audit_check_proof(
    proof: Annotated[Path, typer.Argument(help="What `prove` or `consistency` printed.")],
    pubkey: Annotated[Path, typer.Option("--pubkey", help="The host's audit key.")],
) -> None:
    """Check a proof, on any machine and without the log."""
    from edgekit.operations.audit_proof import check_proof

    proven = check_proof(proof, pubkey)
    old, new = proven.old.value, proven.new.value
    if proven.record is not None:
        typer.echo(f"record {proven.record['seq']} is in log {new.log_id}, signed to {new.seq}")
        typer.echo(json.dumps(dict(proven.record), sort_keys=True))
    else:
        typer.echo(f"log {new.log_id}: record {new.seq} continues record {old.seq}, unchanged")


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
