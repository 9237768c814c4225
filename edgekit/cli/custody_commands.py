"""Verbs about where the audit log goes, and who can check it: audit export, anchor, key, prune."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.evidence_commands import (
    MOMENT,
    AnchorsOption,
    KeysOption,
    LogOption,
    PubkeyOption,
)
from edgekit.cli.progress import progress_listener
from edgekit.cli.report import format_bytes, render_json
from edgekit.core.host_layout import HostLayout


class Format(StrEnum):
    """Other systems' forms, beside the records themselves."""

    CEF = "cef"
    SYSLOG = "syslog"


def register(audit: typer.Typer) -> None:
    """Add the verbs to `audit`."""
    audit.command("export")(audit_export)
    audit.command("anchor")(audit_anchor)
    audit.command("key")(audit_key)
    audit.command("rekey")(audit_rekey)
    audit.command("prune")(audit_prune)
    audit.command("report")(audit_report)


def audit_export(
    out: Annotated[Path, typer.Option("--out", help="Folder that the package goes into.")],
    first: Annotated[
        int | None, typer.Option("--from", min=1, help="Number of the first record.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=1, help="Number of the last record.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help=MOMENT)] = None,
    until: Annotated[str | None, typer.Option("--until", help=MOMENT)] = None,
    new: Annotated[bool, typer.Option("--new", help="Only what was not exported before.")] = False,
    form: Annotated[
        list[Format] | None,
        typer.Option("--format", help="Another form beside JSON lines; may be given again."),
    ] = None,
    root: RootOption = HostLayout.HOST,
    json_: JsonOption = False,
) -> None:
    """Write a range of the log as a signed package, to be verified on another machine.

    The range begins with the segment that holds its first record. Everything unless told.
    """
    from edgekit.core.audit_query import parse_moment
    from edgekit.operations.audit_export import Wanted, export_audit
    from edgekit.system.clock import wall_clock

    now = wall_clock() * 1_000_000
    moments = [None if text is None else parse_moment(text, now) for text in (since, until)]
    wanted = Wanted(first, last, moments[0], moments[1], new)
    formats = tuple(sorted({one.value for one in form or ()}))
    with progress_listener() as listener:
        done = export_audit(HostLayout(root.resolve()), out, wanted, formats, listener)
    manifest, size = done.manifest, sum(file.size for file in done.manifest.files)
    if json_:
        table = {
            "schema": "edgekit.audit-exported/1",
            "folder": str(done.folder),
            "log_id": manifest.log_id,
            "first": manifest.first,
            "last": manifest.last,
            "files": len(manifest.files),
            "bytes": size,
            "signer": done.signer,
        }
        typer.echo(render_json(table))
        return
    typer.echo(f"export   {done.folder}")
    typer.echo(
        f"records  {manifest.first} to {manifest.last}, {len(manifest.files)} files, "
        f"{format_bytes(size)}"
    )
    typer.echo(f"signed   by audit key {done.signer[:24]}...")


def audit_anchor(
    to: Annotated[Path, typer.Option("--to", help="Folder on a medium that leaves the host.")],
    root: RootOption = HostLayout.HOST,
) -> None:
    """Put the log's newest checkpoint on a medium, to hold the log against later."""
    from edgekit.operations.audit_anchor import write_anchor
    from edgekit.system.audit_files import ANCHOR_FOLDER

    done = write_anchor(HostLayout(root.resolve()), to / ANCHOR_FOLDER)
    typer.echo(f"anchor   {done.path}")
    typer.echo(f"covers   records up to {done.checkpoint.value.seq}; {done.after} came after it")


def audit_key(
    out: Annotated[Path, typer.Option("--out", help="New file for the auditor, mode 0600.")],
    root: RootOption = HostLayout.HOST,
) -> None:
    """Hand the MAC key of the running epoch to an auditor, for `verify --k0` elsewhere.

    With it every record from here on can be checked one by one; right after the first installation
    that is the whole log. Who has it could also forge MACs: give it to one person.
    """
    from edgekit.operations.audit_key import hand_over_mac_key

    key = hand_over_mac_key(HostLayout(root.resolve()), out)
    typer.echo(f"key      {out}")
    typer.echo(f"covers   records from epoch {key.epoch} on")


def audit_rekey(
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log.")],
    root: RootOption = HostLayout.HOST,
) -> None:
    """Seal the log under a new random MAC key from the next epoch on.

    Who was given a key before can check the records up to there, and neither check nor forge those
    after. An auditor who should go on needs the new one, too: `edgekit audit key`.
    """
    from edgekit.operations.audit_key import replace_mac_key

    key = replace_mac_key(HostLayout(root.resolve()), reason)
    typer.echo(f"sealed   under a new key from epoch {key.epoch} on")
    typer.echo("next     edgekit audit key --out FILE, for an auditor who should go on")


def audit_prune(
    before: Annotated[
        str | None, typer.Option("--before", help=f"Only what is older. {MOMENT}")
    ] = None,
    insecure_unexported: Annotated[
        str | None,
        typer.Option(
            "--insecure-unexported",
            metavar="REASON",
            help="Remove what was never exported, too; the log keeps the reason.",
        ),
    ] = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Remove the log's oldest segments, once they were exported.

    What goes is recorded first, and the rest verifies as before. The newest two segments stay.
    """
    from edgekit.core.audit_query import parse_moment
    from edgekit.operations.audit_prune import prune_audit
    from edgekit.system.clock import wall_clock

    moment = None if before is None else parse_moment(before, wall_clock() * 1_000_000)
    done = prune_audit(HostLayout(root.resolve()), moment, insecure_unexported)
    if not done.segments:
        typer.echo(f"nothing to remove; exported up to record {done.exported_to}")
        return
    typer.echo(
        f"removed  records {done.first} to {done.last}: {done.segments} segments, "
        f"{format_bytes(done.bytes)}"
    )
    if done.forced:
        typer.echo(f"WARNING  exported were only records up to {done.exported_to}", err=True)
    typer.echo(f"begins   with record {done.kept_from}")


def audit_report(
    out: Annotated[Path, typer.Option("--out", help="The page, an HTML file.")],
    since: Annotated[str | None, typer.Option("--since", help=MOMENT)] = None,
    until: Annotated[str | None, typer.Option("--until", help=MOMENT)] = None,
    log: LogOption = None,
    pubkey: PubkeyOption = None,
    k0: KeysOption = None,
    anchor: AnchorsOption = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Write what the log proves and holds as a page to read, print and sign. Needs no network.

    Who, how much, what was refused, errors, changes to the host, and how far the log is vouched
    for. Ends as `audit verify` does; the page of a log that is not intact says so.
    """
    from edgekit.core.audit_query import Query, parse_moment
    from edgekit.exit_codes import ExitCode
    from edgekit.operations.audit import Brought
    from edgekit.operations.audit_report import report_audit
    from edgekit.system.clock import wall_clock

    now = wall_clock() * 1_000_000
    moments = [None if text is None else parse_moment(text, now) for text in (since, until)]
    layout = HostLayout(root.resolve())
    brought = Brought(pubkey, tuple(k0 or ()), tuple(anchor or ()))
    query = Query(since=moments[0], until=moments[1])
    done = report_audit(layout, log or layout.audit, brought, query, out)
    typer.echo(f"wrote {done.path}")
    if done.problem is not None:
        raise done.problem
    if done.summary is not None and done.summary.has_warnings:
        raise typer.Exit(int(ExitCode.WARNINGS))
