"""Verbs that look at a set: verify, inspect."""

from __future__ import annotations

from typing import Any

import typer

from edgekit.cli.app import (
    DeveloperOption,
    FingerprintOption,
    JsonOption,
    RootOption,
    SetArgument,
)
from edgekit.cli.progress import progress_listener
from edgekit.cli.report import format_bytes, render_json
from edgekit.core.host_layout import HostLayout


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("verify")(verify)
    app.command("inspect")(inspect)


def verify(
    folders: SetArgument,
    root: RootOption = HostLayout.HOST,
    fingerprint: FingerprintOption = None,
    insecure_developer_root: DeveloperOption = False,
    json_: JsonOption = False,
) -> None:
    """Check who signed a set and every byte of it. Changes nothing."""
    from edgekit.operations.verify import Trusting, inspection, verify_everything

    trusting = Trusting(HostLayout(root), fingerprint, insecure_developer_root)
    with progress_listener() as listener:
        verified = verify_everything(tuple(folders), trusting, listener)
    table = inspection(verified)
    if json_:
        typer.echo(render_json(table))
        return
    typer.echo(f"{table['name']} {table['version']} is intact: every byte is what was signed")
    _print_signers(table)


def inspect(
    folders: SetArgument,
    root: RootOption = HostLayout.HOST,
    fingerprint: FingerprintOption = None,
    insecure_developer_root: DeveloperOption = False,
    json_: JsonOption = False,
) -> None:
    """Show what is inside a set, as safely as installing it, without reading its volumes."""
    from edgekit.operations.verify import Trusting, inspection, verify_metadata

    trusting = Trusting(HostLayout(root), fingerprint, insecure_developer_root)
    table = inspection(verify_metadata(tuple(folders), trusting))
    if json_:
        typer.echo(render_json(table))
        return
    typer.echo(
        f"{table['name']} {table['version']}  (epoch {table['epoch']}, sequence "
        f"{table['sequence']})"
    )
    _print_signers(table)
    needs = table["requirements"]
    typer.echo(
        f"needs      {needs['arch']}, glibc {needs['glibc']}, "
        f"cpu {' '.join(needs['cpu_flags']) or 'any'}"
    )
    for model in table["models"]:
        typer.echo(
            f"model      {model['name']}  {model['parameters']} parameters, {model['license']}"
        )
        for variant in model["variants"]:
            typer.echo(
                f"           {variant['format']} {variant['quantization']} "
                f"{format_bytes(variant['bytes'])}"
            )
    for engine in table["engines"]:
        typer.echo(f"engine     {engine['kind']} ({engine['provider']} {engine['version']})")
    for image in table["images"]:
        typer.echo(f"image      {image['reference']}  {image['manifest'][:19]}")
    for role, row in table["roles"].items():
        typer.echo(f"{role:<10} {row['files']} files, {format_bytes(row['bytes'])}")
    for volume in table["volumes"]:
        typer.echo(f"volume     {volume['name']}  {format_bytes(volume['bytes'])}")


def _print_signers(table: dict[str, Any]) -> None:
    typer.echo(f"signed by  {', '.join(table['signed_by'])} (policy {table['policy']})")
    if table["developer_root"]:
        typer.echo("WARNING: signed with DEVELOPER keys; for demonstrations only", err=True)
