"""Verbs of the connected side: lock, bundle. Not part of the program that hosts get."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import HostOption, JsonOption, ProfileOption
from edgekit.cli.progress import progress_listener
from edgekit.cli.report import format_bytes, render_json
from edgekit.exit_codes import ExitCode

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe, a TOML file.")]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Where fetched and built things are kept.")
]


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/edgekit`, as the field does it."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgekit"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("lock")(lock)
    app.command("bundle")(bundle)


def lock(recipe: RecipeArgument, cache: CacheOption = None) -> None:
    """Resolve every name of a recipe to content, once, and write the lock beside it."""
    from edgekit.operations.lock import lock_path, make_lock

    with progress_listener() as listener:
        locked = make_lock(recipe, cache or default_cache(), listener)
    wheels = sum(len(house.wheels) for house in locked.wheelhouses)
    typer.echo(
        f"{lock_path(recipe)}: {len(locked.variants)} weight variants, {wheels} wheels, "
        f"{len(locked.images)} images"
    )


def bundle(
    recipe: RecipeArgument,
    trust_root: Annotated[
        list[Path], typer.Option("--trust-root", help="Root to carry; repeat, oldest first.")
    ],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="Signer, file:DIR or hybrid:...; repeat for more."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder the set is made in.")] = Path(),
    locked: Annotated[
        bool, typer.Option("--locked", help="Use the lock as it is; resolve no name.")
    ] = False,
    profile: ProfileOption = None,
    host: HostOption = None,
    cache: CacheOption = None,
    no_rehearsal: Annotated[
        bool,
        typer.Option(
            "--insecure-no-rehearsal", help="Sign without having started the engines here."
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Fetch, lay out and sign everything a recipe names, as one set for the stick."""
    from dataclasses import asdict

    from edgekit.core.trust import format_fingerprint
    from edgekit.operations.bundle import BundleOptions
    from edgekit.operations.bundle import bundle as run_bundle
    from edgekit.operations.probe import load_host

    options = BundleOptions(
        recipe=recipe,
        out=out,
        cache=cache or default_cache(),
        keys=tuple(key or ()),
        roots=tuple(trust_root),
        locked=locked,
        host=load_host(profile, host, places=()),
        rehearse=not no_rehearsal,
    )
    with progress_listener() as listener:
        result = run_bundle(options, listener)
    if json_:
        table = {
            "schema": "edgekit.bundled/1",
            **asdict(result),
            "directory": str(result.directory),
            "seconds": round(result.seconds, 1),
        }
        typer.echo(render_json(table))
        if result.missing:
            raise typer.Exit(ExitCode.WARNINGS)
        return
    typer.echo(f"set          {result.directory}")
    typer.echo(f"size         {format_bytes(result.total_bytes)} in {result.volumes} volumes")
    typer.echo(f"time         {result.seconds:.1f} s")
    typer.echo("fingerprint  " + format_fingerprint(result.fingerprint))
    if result.developer:
        typer.echo("WARNING: signed with DEVELOPER keys; for demonstrations only", err=True)
    if result.missing:
        typer.echo(
            f"WARNING: NOT COMPLETE: {result.missing} more of {', '.join(result.may_sign)} must "
            f"sign (so far {', '.join(result.signed_by) or 'nobody'}); no host takes this set "
            f"before\n  edgekit keys sign {result.directory} --key file:DIR",
            err=True,
        )
        raise typer.Exit(ExitCode.WARNINGS)
