"""`edgekit model`: the models of this host, what they need, and which are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.report import format_bytes, render_json
from edgekit.core.host_layout import HostLayout

ModelArgument = Annotated[str, typer.Argument(help="Model, as `edgekit model list` names it.")]
FOR_GOOD_YEARS = 100
"""An end that far away means none."""


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        no_args_is_help=True, help="Models of this host: list, show, ps; create, rm."
    )
    group.command("list")(list_)
    group.command("show")(show)
    group.command("ps")(ps)
    group.command("create")(create)
    group.command("rm")(rm)
    app.add_typer(group, name="model")


def list_(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Show the installed models, and the memory that the plan gives each."""
    from edgekit.operations.models import list_models

    table = list_models(HostLayout(root.resolve()))
    if json_:
        typer.echo(render_json(table))
        return
    rows = [
        (
            model["name"],
            ", ".join(model["capabilities"]),
            f"{model['parameters']} {model['quantization']}",
            f"{model['slots']} x {model['context']}",
            format_bytes(model["memory_bytes"]),
            "on demand" if model["on_demand"] else "always",
        )
        for model in table["models"]
    ]
    _print_rows(("name", "can", "weights", "slots x tokens", "memory", "loaded"), rows)


def show(
    model: ModelArgument, root: RootOption = HostLayout.HOST, json_: JsonOption = False
) -> None:
    """Show one model: what it can do, its weights and its plan."""
    from edgekit.operations.models import show_model

    table = show_model(HostLayout(root.resolve()), model)
    if json_:
        typer.echo(render_json(table))
        return
    typer.echo(f"name          {table['name']}")
    typer.echo(f"can           {', '.join(table['capabilities'])}")
    typer.echo(f"weights       {table['parameters']} {table['quantization']} ({table['family']})")
    for weights in table["weights"]:
        typer.echo(f"              {weights['digest']}, {format_bytes(weights['size'])}")
    typer.echo(f"license       {table['license']}")
    typer.echo(f"engine        {table['engine']}, on {table['placement']}")
    typer.echo(f"slots         {table['slots']} of {table['context']} tokens")
    typer.echo(f"memory        {format_bytes(table['memory_bytes'])} planned, "
               f"loaded {'on demand' if table['on_demand'] else 'always'}")
    if table["modelfile"]:
        typer.echo(f"made by\n{table['modelfile'].rstrip()}")
    typer.echo(f"questions     {table['known_questions']} asked before it serves")


def ps(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Show the models that are in memory now."""
    from edgekit.operations.models import running_models

    table = running_models(HostLayout(root.resolve()))
    if json_:
        typer.echo(render_json(table))
        return
    rows = [
        (
            model["name"],
            format_bytes(model["size"]),
            _processor(model),
            str(model["context"]),
            _until(model["expires_at"]),
        )
        for model in table["models"]
    ]
    _print_rows(("name", "memory", "on", "tokens", "until"), rows)


def create(
    name: Annotated[str, typer.Argument(help="What clients will call it.")],
    modelfile: Annotated[Path, typer.Option("--file", "-f", help="The Modelfile.")],
    root: RootOption = HostLayout.HOST,
    json_: JsonOption = False,
) -> None:
    """Make a model of one that came in a verified set, by a Modelfile. Kept across upgrades."""
    from edgekit.core.modelfile import MAX_MODELFILE_BYTES
    from edgekit.operations.derived import create_model
    from edgekit.system.files import read_bounded

    data = read_bounded(modelfile, MAX_MODELFILE_BYTES, "Modelfile")
    made = create_model(HostLayout(root.resolve()), name, data, file=str(modelfile))
    if json_:
        typer.echo(render_json({"schema": "edgekit.model-made/1", **asdict(made)}))
        return
    typer.echo(f"{'replaced' if made.replaced else 'made'} {made.name} from {made.base}")
    for parameter in made.ignored:
        typer.echo(f"WARNING: {parameter} has no effect: the plan has decided it", err=True)
    _say_when(in_force=made.in_force)


def rm(
    name: Annotated[str, typer.Argument(help="A model that `model create` made.")],
    root: RootOption = HostLayout.HOST,
) -> None:
    """Forget a model that was made here; those of the release stay."""
    from edgekit.operations.derived import remove_model

    made = remove_model(HostLayout(root.resolve()), name)
    typer.echo(f"removed {made.name}")
    _say_when(in_force=made.in_force)


def _say_when(*, in_force: bool) -> None:
    if not in_force:
        typer.echo("in force when the service starts next", err=True)


def _processor(model: dict[str, Any]) -> str:
    share = 100 * model["size_vram"] // model["size"] if model["size"] else 0
    return {0: "processor", 100: "accelerator"}.get(share, f"{share} % accelerator")


def _until(expires_at: str) -> str:
    """When a model leaves memory, in words."""
    end = datetime.fromisoformat(expires_at)
    seconds = int((end - datetime.now(UTC)).total_seconds())
    if seconds > FOR_GOOD_YEARS * 365 * 86_400:
        return "stays"
    return f"{max(0, seconds)} s from now"


def _print_rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
