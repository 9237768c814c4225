"""`edgekit config`: check, show and apply the site's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="The site's own configuration of this host.")
    group.command("check")(check)
    group.command("show")(show)
    group.command("apply")(apply)
    app.add_typer(group, name="config")


def check(
    file: Annotated[
        Path | None, typer.Argument(help="A file to check instead of this host's own.")
    ] = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Say whether a configuration can take effect; names file, key and line of what is wrong."""
    from edgekit.errors import ConfigError
    from edgekit.system.site_config import check_site_file, load_site_config

    path = file or HostLayout(root.resolve()).site_config
    if file is None:
        check_site_file(path)
    elif not file.exists():
        raise ConfigError("there is no such file", where=str(file))
    load_site_config(path)
    there = "is in order" if path.exists() else "does not exist: every key has its default"
    typer.echo(f"{path} {there}")


def show(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Print every key with the value in force, in the form of the file."""
    from edgekit.core.site_config import config_table, render_config
    from edgekit.system.site_config import load_site_config

    config = load_site_config(HostLayout(root.resolve()).site_config)
    if json_:
        typer.echo(render_json(config_table(config)))
        return
    typer.echo(render_config(config), nl=False)


def apply(root: RootOption = HostLayout.HOST) -> None:
    """Put the configuration into force; when the API then does not answer, go back by itself."""
    from edgekit.cli.progress import progress_listener
    from edgekit.operations.site import apply_config

    layout = HostLayout(root.resolve())
    with progress_listener() as listener:
        apply_config(layout, listener)
    when = "in force at the next `edgekit serve`" if layout.is_private else "in force"
    typer.echo(f"{layout.site_config} is {when}")
