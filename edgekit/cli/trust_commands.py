"""Verbs about trust on a host: trust import, trust show; and the table of the keys verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli import key_commands
from edgekit.cli.app import DeveloperOption, JsonOption, RootOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout

if TYPE_CHECKING:
    from edgekit.operations.trust import ShownTrust

_POLICY_WORDS = {
    "hybrid": "a classical and an ML-DSA-87 signature of each",
    "cnsa2": "an ML-DSA-87 signature of each",
    "classical": "a classical signature of each",
}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    key_commands.register(app)
    trust = typer.Typer(help="Decide and show whom this host believes.", no_args_is_help=True)
    trust.command("import")(trust_import)
    trust.command("show")(trust_show)
    app.add_typer(trust, name="trust")


def trust_import(
    documents: Annotated[
        list[Path], typer.Argument(help="Root documents, such as trust/*.root.json.")
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", help="The first root's fingerprint, as read to you."),
    ] = None,
    root: RootOption = HostLayout.HOST,
    insecure_developer_root: DeveloperOption = False,
) -> None:
    """Believe the signers of a root: the first because of its fingerprint, each next one because
    the one before vouches for it."""
    from edgekit.operations.trust import import_roots

    imported = import_roots(
        tuple(documents),
        fingerprint,
        HostLayout(root),
        insecure_developer=insecure_developer_root,
    )
    trusted = imported.root
    if not imported.accepted:
        typer.echo(f"nothing new: this host already trusts root {trusted.version}")
    typer.echo(
        f"this host now believes sets signed by {trusted.threshold('targets')} of: "
        f"{', '.join(trusted.signers('targets'))}"
    )
    for entry in trusted.revoked:
        typer.echo(f"and never again {entry.signer}: {entry.reason}")


def trust_show(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Say in plain words who may sign what for this host, and until when."""
    from edgekit.operations.trust import show_trust
    from edgekit.system.clock import wall_clock

    shown = show_trust(HostLayout(root), wall_clock())
    if json_:
        typer.echo(render_json(_trust_table(shown)))
        return
    _print_trust(shown)


def _trust_table(shown: ShownTrust) -> dict[str, Any]:
    """The same as plain JSON values (`edgekit.trust/1`)."""
    trusted, floor = shown.host.require_root(), shown.host.floor
    return {
        "schema": "edgekit.trust/1",
        "version": trusted.version,
        "policy": trusted.policy,
        "developer": trusted.developer,
        "fingerprint": trusted.fingerprint,
        "expires": str(trusted.root.expires),
        "roles": {
            role: {"threshold": trusted.threshold(role), "signers": list(trusted.signers(role))}
            for role in ("root", "targets")
        },
        "revoked": [
            {"signer": e.signer, "reason": e.reason, "since_sequence": e.since_sequence}
            for e in trusted.revoked
        ],
        "minimum": {"epoch": trusted.minimum[0], "sequence": trusted.minimum[1]},
        "floor": {"epoch": floor.epoch, "sequence": floor.sequence},
        "time": {
            "floor": floor.time_floor,
            "decides": shown.time.seconds,
            "clock": shown.time.clock,
        },
        "warnings": list(shown.warnings),
    }


def _print_trust(shown: ShownTrust) -> None:
    from edgekit.core.trust import format_date, format_fingerprint

    trusted, floor = shown.host.require_root(), shown.host.floor
    days = (trusted.expires - shown.time.seconds) // 86_400
    typer.echo(
        f"this host believes root {trusted.version}, until {format_date(trusted.expires)} "
        f"({days} days)"
    )
    typer.echo(
        f"  a set installs when {trusted.threshold('targets')} of these signed it: "
        f"{', '.join(trusted.signers('targets'))}"
    )
    typer.echo(
        f"  the next root counts when {trusted.threshold('root')} of these signed it: "
        f"{', '.join(trusted.signers('root'))}"
    )
    typer.echo(f"  to sign means {_POLICY_WORDS[trusted.policy]} (policy {trusted.policy})")
    for entry in trusted.revoked:
        typer.echo(f"  {entry.signer} never counts again: {entry.reason}")
    if floor.epoch:
        typer.echo(f"  nothing older than epoch {floor.epoch}, sequence {floor.sequence} installs")
    if trusted.minimum > (0, 0):
        typer.echo(
            f"  nor, whatever the operator says, than epoch {trusted.minimum[0]}, sequence "
            f"{trusted.minimum[1]}"
        )
    typer.echo(f"  it is {format_date(shown.time.seconds)} or later (clock {shown.time.clock})")
    typer.echo("  fingerprint " + format_fingerprint(trusted.fingerprint))
    for warning in shown.warnings:
        typer.echo(f"WARNING: {warning}", err=True)
    if trusted.developer:
        typer.echo("WARNING: this is a DEVELOPER root; for demonstrations only", err=True)
