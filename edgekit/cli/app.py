"""All commands by name. Each imports what it needs when it runs, so `--help` stays fast."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from edgekit import __version__
from edgekit.system.resources import is_frozen

SetArgument = Annotated[
    list[Path], typer.Argument(help="Folder of the set; several when it lies on several sticks.")
]
OptionalSetArgument = Annotated[
    list[Path] | None, typer.Argument(help="Folder of the set; several when on several sticks.")
]
RootOption = Annotated[
    Path, typer.Option("--root", help="Install below this folder instead of the host itself.")
]
ProfileOption = Annotated[
    Path | None, typer.Option("--profile", help="A class of hosts (TOML) instead of this host.")
]
HostOption = Annotated[
    Path | None,
    typer.Option("--host", help="A report of `edgekit probe` instead of this host."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
FingerprintOption = Annotated[
    str | None,
    typer.Option("--fingerprint", help="Trust the set's own root, named by its fingerprint."),
]
DeveloperOption = Annotated[
    bool,
    typer.Option("--insecure-developer-root", help="Accept a root whose one key nobody guards."),
]

CONNECTED_MODULE = "edgekit.cli.connected"


def build_app() -> typer.Typer:
    """The whole command tree. The host's frozen program has no verbs that fetch."""
    app = typer.Typer(
        name="edgekit",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Carry language models across an air gap, and serve them there.",
    )

    @app.callback(invoke_without_command=True)
    def top(
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        if version:
            typer.echo(f"edgekit {__version__}")
            raise typer.Exit

    if not is_frozen():
        importlib.import_module(CONNECTED_MODULE).register(app)
    for name in (
        "set_commands", "host_commands", "trust_commands", "audit_commands", "media_commands",
        "config_commands", "care_commands", "api_key_commands",
        "tls_commands", "model_commands",
    ):
        importlib.import_module(f"edgekit.cli.{name}").register(app)
    return app
