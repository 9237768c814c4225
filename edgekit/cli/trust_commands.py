"""Verbs about trust: keys init, trust import, trust show."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import DeveloperOption, JsonOption, RootOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    keys = typer.Typer(help="Make and use signing keys.", no_args_is_help=True)
    keys.command("init")(keys_init)
    app.add_typer(keys, name="keys")
    trust = typer.Typer(help="Decide and show whom this host believes.", no_args_is_help=True)
    trust.command("import")(trust_import)
    trust.command("show")(trust_show)
    app.add_typer(trust, name="trust")


def keys_init(
    folders: Annotated[list[Path], typer.Argument(help="One empty folder per signer.")],
    root_out: Annotated[Path, typer.Option("--root-out", help="Where the root is written.")],
    threshold: Annotated[int, typer.Option(help="How many signers must sign.")] = 2,
    policy: Annotated[str, typer.Option(help="hybrid, cnsa2 or classical.")] = "hybrid",
    insecure_developer: Annotated[
        bool, typer.Option("--insecure-developer", help="One unguarded signer, for a demo.")
    ] = False,
) -> None:
    """Make keys for one or more signers and a root document that names them."""
    from edgekit.core.trust import format_fingerprint
    from edgekit.operations.trust import create_root

    created = create_root(
        tuple(folders),
        threshold=1 if insecure_developer else threshold,
        policy=policy,
        insecure_developer=insecure_developer,
        root_path=root_out,
        now=int(time.time()),
    )
    typer.echo(f"root         {created.path}")
    typer.echo(f"signers      {', '.join(created.signers)}; {created.threshold} must sign")
    typer.echo("fingerprint  " + format_fingerprint(created.fingerprint))
    if insecure_developer:
        typer.echo("WARNING: DEVELOPER keys; for demonstrations only", err=True)


def trust_import(
    document: Annotated[Path, typer.Argument(help="A root document, such as trust/1.root.json.")],
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", help="The root's fingerprint, as read to you.")
    ],
    root: RootOption = HostLayout.HOST,
    insecure_developer_root: DeveloperOption = False,
) -> None:
    """Believe the signers of a root from now on, because its fingerprint is the one you heard."""
    from edgekit.operations.trust import import_root

    trusted = import_root(
        document, fingerprint, HostLayout(root), insecure_developer=insecure_developer_root
    )
    typer.echo(
        f"this host now believes sets signed by {trusted.threshold('targets')} of: "
        f"{', '.join(trusted.signers('targets'))}"
    )


def trust_show(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Say in plain words who may sign what for this host."""
    from edgekit.core.trust import format_fingerprint
    from edgekit.operations.trust import show_trust

    host = show_trust(HostLayout(root))
    trusted = host.require_root()
    table = {
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
        "floor": {"epoch": host.floor.epoch, "sequence": host.floor.sequence},
    }
    if json_:
        typer.echo(render_json(table))
        return
    typer.echo(f"root version {trusted.version}, until {trusted.root.expires:%Y-%m-%d}")
    typer.echo(
        f"  sets    must be signed by {trusted.threshold('targets')} of: "
        f"{', '.join(trusted.signers('targets'))}"
    )
    typer.echo(
        f"  a new root must be signed by {trusted.threshold('root')} of: "
        f"{', '.join(trusted.signers('root'))}"
    )
    typer.echo(f"  policy  {trusted.policy}")
    typer.echo(f"  floor   epoch {host.floor.epoch}, sequence {host.floor.sequence}")
    typer.echo("  " + format_fingerprint(trusted.fingerprint))
    if trusted.developer:
        typer.echo("WARNING: this is a DEVELOPER root; for demonstrations only", err=True)
