"""Verbs that look at a set: verify, inspect."""

from __future__ import annotations

from typing import Annotated, Any

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

    trusting = Trusting(HostLayout(root.resolve()), fingerprint, insecure_developer_root)
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
    sbom: Annotated[
        bool, typer.Option("--sbom", help="Print the bill of materials (CycloneDX JSON).")
    ] = False,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Print the provenance (in-toto statement, SLSA).")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show what is inside a set, as safely as installing it, without reading its volumes."""
    from edgekit.core import set_files
    from edgekit.operations.verify import Trusting, attested, inspection, verify_metadata

    if sbom and provenance:
        raise typer.BadParameter("--sbom and --provenance are two documents; ask for one")
    trusting = Trusting(HostLayout(root.resolve()), fingerprint, insecure_developer_root)
    verified = verify_metadata(tuple(folders), trusting, check_installer=False)
    if sbom or provenance:
        name = set_files.SBOM if sbom else set_files.PROVENANCE
        typer.echo(attested(verified).document(name).decode("ascii"))
        return
    table = inspection(verified)
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
    typer.echo(f"rehearsed  {table['rehearsed_on'] or 'no engine was tried before signing'}")
    for image in table["images"]:
        typer.echo(f"image      {image['reference']}  {image['manifest'][:19]}")
    for role, row in table["roles"].items():
        typer.echo(f"{role:<10} {row['files']} files, {format_bytes(row['bytes'])}")
    for volume in table["volumes"]:
        typer.echo(f"volume     {volume['name']}  {format_bytes(volume['bytes'])}")
    _print_licenses(table)
    _print_attested(table)


def _print_licenses(table: dict[str, Any]) -> None:
    """Which licence whose, as the bill of materials says, and where the texts are."""
    for name, users in (table["sbom"] or {"licenses": {}})["licenses"].items():
        more = f" and {len(users) - 5} more" if len(users) > 5 else ""
        typer.echo(f"licence    {name or 'none named'}: {', '.join(users[:5])}{more}")
    terms = [text for text in table["licenses"] if text["path"].startswith("licenses/models/")]
    for text in terms:
        typer.echo(f"terms      {text['path']}  {format_bytes(text['bytes'])}")
    if len(terms) < len(table["licenses"]):
        typer.echo(f"texts      {len(table['licenses']) - len(terms)} more below licenses/")


def _print_attested(table: dict[str, Any]) -> None:
    sbom, provenance, summary = table["sbom"], table["provenance"], table["summary"]
    if sbom is not None:
        counts = ", ".join(f"{count} {kind}" for kind, count in sbom["components"].items())
        typer.echo(f"sbom       {counts or 'empty'}")
    if provenance is not None:
        typer.echo(
            f"made by    {provenance['builder']} {provenance['edgekit']} from "
            f"{provenance['inputs']} inputs, recipe {_short(provenance['recipe'])}, "
            f"lock {_short(provenance['lock'])}"
        )
    if summary is not None:
        typer.echo(
            f"checked    {summary['result'].lower()}, {', '.join(summary['levels'])}, by "
            f"{', '.join(summary['signed_by'])}"
        )


def _short(digest: str) -> str:
    """Twelve digits of a digest, for people."""
    return digest.partition(":")[2][:12]


def _print_signers(table: dict[str, Any]) -> None:
    typer.echo(f"signed by  {', '.join(table['signed_by'])} (policy {table['policy']})")
    if table["developer_root"]:
        typer.echo("WARNING: signed with DEVELOPER keys; for demonstrations only", err=True)
