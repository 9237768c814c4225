"""`edgekit tls`: what clients of the network need to trust this host."""

from __future__ import annotations

import typer

from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Encryption towards clients of the network.")
    group.command("show")(show)

    @group.callback()
    def only_groups() -> None:
        """Keep `show` a command of its own."""

    app.add_typer(group, name="tls")


def show(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Print this host's certificate authority (on stdout, PEM) and what it is for."""
    from edgekit.operations.tls import show_tls

    report = show_tls(HostLayout(root.resolve()))
    if json_:
        typer.echo(render_json(report.table()))
        return
    lines = {
        "listens": f"https://{report.address}" if report.address else "on this host only",
        "names": ", ".join(report.names),
        "until": report.not_after,
        "SHA-256": report.fingerprint,
        "clients": "need a certificate" if report.client_certificates else "need an API key",
    }
    for name, text in lines.items():
        typer.echo(f"{name:8} {text}", err=True)
    if report.authority:
        typer.echo(report.authority, nl=False)
    else:
        typer.echo("the site's own certificate is served: its issuer gives the root", err=True)
