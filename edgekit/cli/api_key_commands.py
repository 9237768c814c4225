"""`edgekit key`: the API keys of this host's clients (signing keys are `edgekit keys`)."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.report import render_json
from edgekit.core.api_keys import MAX_LIMIT, SCOPES, ApiKey, KeyLimits
from edgekit.core.host_layout import HostLayout

Limit = Annotated[int, typer.Option(min=0, max=MAX_LIMIT, help="0: no limit of its own.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        no_args_is_help=True, help="API keys of this host's clients: add, list, revoke."
    )
    group.command("add")(add)
    group.command("list")(list_)
    group.command("revoke")(revoke)
    app.add_typer(group, name="key")


def add(
    note: Annotated[str, typer.Argument(help="Whom or what it is for; shown by `key list`.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help=f"One of {', '.join(SCOPES)}; may be given again."),
    ] = None,
    requests_per_minute: Limit = 0,
    tokens_per_minute: Limit = 0,
    tokens_per_day: Limit = 0,
    concurrent: Limit = 0,
    root: RootOption = HostLayout.HOST,
    json_: JsonOption = False,
) -> None:
    """Make a key (scope `chat` unless said) and print it once; it works at once."""
    from edgekit.operations.api_keys import add_key

    change = add_key(
        HostLayout(root.resolve()),
        scopes=tuple(scope or ("chat",)),
        note=note,
        limits=KeyLimits(requests_per_minute, tokens_per_minute, tokens_per_day, concurrent),
    )
    if json_:
        table = {"schema": "edgekit.api-key/1", **_table(change.key), "api_key": change.token}
        typer.echo(render_json({**table, "in_force": change.in_force}))
        return
    typer.echo(change.token)
    typer.echo("shown once; only its hash is kept", err=True)
    _say_when(in_force=change.in_force)


def list_(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Show the keys: their names, scopes and limits, never their secrets."""
    from edgekit.operations.api_keys import list_keys

    keys = list_keys(HostLayout(root.resolve())).keys
    if json_:
        table = {"schema": "edgekit.api-keys-list/1", "keys": [_table(key) for key in keys]}
        typer.echo(render_json(table))
        return
    for key in keys:
        day = datetime.fromtimestamp(key.created, UTC).strftime("%Y-%m-%d")
        limits = ", ".join(
            f"{count} {name.replace('_', ' ')}"
            for name, count in asdict(key.limits).items()
            if count
        )
        typer.echo(
            f"{key.id}  {day}  {','.join(key.scopes):24}  {limits or 'no limits'}  {key.note}"
        )


def revoke(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The 8 digits after `ek_`.")],
    root: RootOption = HostLayout.HOST,
) -> None:
    """Refuse a key from now on. What it already asked is still answered."""
    from edgekit.operations.api_keys import revoke_key

    change = revoke_key(HostLayout(root.resolve()), identity)
    typer.echo(f"revoked {change.key.id}  {change.key.note}")
    _say_when(in_force=change.in_force)


def _say_when(*, in_force: bool) -> None:
    if not in_force:
        typer.echo("no gateway runs: in force when the next one starts", err=True)


def _table(key: ApiKey) -> dict[str, object]:
    table = asdict(key)
    del table["sha384"]
    return table
