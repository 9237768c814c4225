"""Verbs about carrying sets: media write, media check, diff."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from edgekit.core.findings import Finding
    from edgekit.operations.diff import Change
    from edgekit.operations.media_check import MediaReport

MAX_LINES_PER_FILE = 5
UNCHECKED = "signatures were NOT checked: this machine has no trusted root"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    media = typer.Typer(help="Write a set to a stick, check a stick.", no_args_is_help=True)
    media.command("write")(media_write)
    media.command("check")(media_check)
    app.add_typer(media, name="media")
    app.command("diff")(diff)


def media_write(
    folders: SetArgument,
    stick: Annotated[Path, typer.Argument(help="Folder where the stick is mounted.")],
    volumes: Annotated[
        str | None, typer.Option("--volumes", help="Only these volumes, such as 1-3 or 2,5.")
    ] = None,
    root: RootOption = HostLayout.HOST,
    fingerprint: FingerprintOption = None,
    insecure_developer_root: DeveloperOption = False,
    json_: JsonOption = False,
) -> None:
    """Copy a set to a stick, read it back from the stick, and say when it is safe to remove.

    The set gets a folder of its own on the stick, NAME-VERSION. An interrupted copy goes on where
    it stopped when the same command runs again. A host with an audit log adds its newest
    checkpoint (edgekit-anchors); nothing else on the stick is touched.
    """
    from edgekit.operations.audit_anchor import anchor_visitors
    from edgekit.operations.media_write import parse_volume_numbers, write_media
    from edgekit.operations.verify import Trusting

    numbers = None
    if volumes is not None:
        try:
            numbers = parse_volume_numbers(volumes)
        except ValueError as error:
            raise typer.BadParameter("--volumes wants numbers, such as 1-3 or 2,5") from error
    trusting = Trusting(HostLayout(root), fingerprint, insecure_developer_root)
    with progress_listener() as listener:
        written = write_media(tuple(folders), stick, numbers, trusting, listener)
        anchor_visitors(trusting.layout, (written.folder,), listener)
    if json_:
        typer.echo(render_json(written.table()))
        return
    typer.echo(f"written    {written.folder}")
    typer.echo(f"copied     {len(written.copied)} files; {len(written.kept)} were already there")
    typer.echo(f"read back  {format_bytes(written.read_back)}: every byte is right")
    if written.signers is None:
        typer.echo(UNCHECKED, err=True)
    typer.echo("safe to remove: eject the stick, then pull it out")


def media_check(
    folders: SetArgument,
    one_of_many: Annotated[
        bool,
        typer.Option("--one-of-many", help="The set lies on several sticks; this is not all."),
    ] = False,
    root: RootOption = HostLayout.HOST,
    fingerprint: FingerprintOption = None,
    insecure_developer_root: DeveloperOption = False,
    json_: JsonOption = False,
) -> None:
    """Read a set from its stick and name every file to copy again. Changes nothing.

    Needs no trusted root. Ends with 0 when the set is intact, 22 when something is damaged, 13 when
    files are missing, too short, too long, doubled or foreign.
    """
    from edgekit.operations.media_check import check_media
    from edgekit.operations.verify import Trusting

    trusting = Trusting(HostLayout(root), fingerprint, insecure_developer_root)
    with progress_listener() as listener:
        report = check_media(tuple(folders), trusting, listener, partial=one_of_many)
    if json_:
        typer.echo(render_json(report.table()))
    else:
        for line in finding_lines(report.findings):
            typer.echo(line)
        _print_verdict(report)
    raise typer.Exit(int(report.exit_code))


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """One line per finding; of a file with many bad blocks only the first few, and how many."""
    by_file: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_file.setdefault((finding.file, finding.folder), []).append(finding)
    lines: list[str] = []
    for (file, _), group in by_file.items():
        lines += [finding.line() for finding in group[:MAX_LINES_PER_FILE]]
        more = len(group) - MAX_LINES_PER_FILE
        if more > 0:
            lines.append(f"  and {more} more in {file}; --json lists all")
    return lines


def _print_verdict(report: MediaReport) -> None:
    from edgekit.core.findings import files_to_copy

    again = files_to_copy(report.findings)
    name = report.name or "the set"
    if again:
        typer.echo(f"{name}: copy again {', '.join(again)}")
    elif report.exit_code:
        typer.echo(f"{name}: every byte is right, but see above")
    else:
        read = format_bytes(report.read_bytes)
        count = len(report.volumes)
        volumes = "1 volume" if count == 1 else f"{count} volumes"
        typer.echo(f"{name} is intact: {volumes}, {read} read and right")
    if report.stopped:
        typer.echo("the volumes were not read: copy these files first, then check again")
    if report.signers is None:
        typer.echo(f"{UNCHECKED}; bytes were compared with SHA384SUMS")
    elif report.signers:
        typer.echo(f"signed by  {', '.join(report.signers)}")


def diff(
    a: Annotated[Path, typer.Argument(help="Folder of a set, usually the older one.")],
    b: Annotated[Path, typer.Argument(help="Folder of another set.")],
    root: RootOption = HostLayout.HOST,
    fingerprint: FingerprintOption = None,
    insecure_developer_root: DeveloperOption = False,
    json_: JsonOption = False,
) -> None:
    """Show what changes from one set to another. Both must be signed; volumes are not read."""
    from edgekit.operations.diff import diff_sets
    from edgekit.operations.verify import Trusting

    found = diff_sets(a, b, Trusting(HostLayout(root), fingerprint, insecure_developer_root))
    if json_:
        typer.echo(render_json(found.table()))
        return
    typer.echo(f"from       {found.a}")
    typer.echo(f"to         {found.b}")
    for change in found.changes:
        typer.echo(_change_line(change))
    if not found.changes:
        typer.echo("nothing differs")
    typer.echo(
        f"bytes      {format_bytes(found.new_bytes)} new, {format_bytes(found.shared_bytes)} "
        f"shared, {format_bytes(found.gone_bytes)} gone"
    )


def _change_line(change: Change) -> str:
    name = f"{change.what:<10} {change.name}"
    if change.before is None:
        return f"+ {name}: {change.after}"
    if change.after is None:
        return f"- {name}: {change.before}"
    return f"~ {name}: {change.before} -> {change.after}"
