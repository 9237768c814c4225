"""Looking after a host: doctor, scrub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.progress import progress_listener
from edgekit.cli.report import format_bytes, render_json
from edgekit.core.host_layout import HostLayout
from edgekit.exit_codes import ExitCode


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("doctor")(doctor)
    app.command("scrub")(scrub)


def doctor(
    root: RootOption = HostLayout.HOST,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Write an archive for whoever helps, without secrets."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Say what is wrong with this host, the likeliest cause first, and what to type.

    Ends with 3 when something is wrong.
    """
    from dataclasses import asdict

    from edgekit.operations.doctor import diagnose
    from edgekit.operations.support_bundle import write_support_bundle

    layout = HostLayout(root.resolve())
    if bundle is not None:
        names = write_support_bundle(layout, bundle)
        typer.echo(f"wrote {bundle}: {', '.join(names)}", err=True)
    found = diagnose(layout)
    if json_:
        findings = [asdict(one) for one in found]
        typer.echo(render_json({"schema": "edgekit.doctor/1", "findings": findings}))
    elif not found:
        typer.echo("nothing is wrong")
    else:
        for number, one in enumerate(found, 1):
            typer.echo(f"{number}. {one.problem}\n   seen  {one.evidence}\n   type  {one.command}")
    if found:
        raise typer.Exit(ExitCode.WARNINGS)


def scrub(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Read everything that is installed again and compare it with what was signed."""
    from dataclasses import asdict

    from edgekit.operations.scrub import scrub as run_scrub

    with progress_listener() as listener:
        report = run_scrub(HostLayout(root.resolve()), listener)
    if json_:
        typer.echo(render_json({"schema": "edgekit.scrub/1", **asdict(report)}))
        return
    typer.echo(f"{report.files} files, {format_bytes(report.bytes)}: all as signed")
