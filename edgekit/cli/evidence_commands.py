"""Verbs that ask the audit log: search, stats; and what was kept beside it: text, erase, keygen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.app import JsonOption, RootOption
from edgekit.cli.report import render_json
from edgekit.core.host_layout import HostLayout

if TYPE_CHECKING:
    from edgekit.core.audit_query import Query

LogOption = Annotated[
    Path | None, typer.Option("--log", help="Folder of the log; the host's own unless said.")
]
MOMENT = "UTC as 2026-11-25 or 2026-11-25T09:30, or how long ago: 15m, 6h, 7d."
PubkeyOption = Annotated[
    Path | None,
    typer.Option("--pubkey", help="The host's audit key; the log's own unless given."),
]
KeysOption = Annotated[
    list[Path] | None, typer.Option("--k0", help="A MAC key; repeat for several.")
]
AnchorsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--anchor", help="A checkpoint carried away, or a folder of them; repeat for several."
    ),
]
SinceOption = Annotated[str | None, typer.Option("--since", help=MOMENT)]
UntilOption = Annotated[str | None, typer.Option("--until", help=MOMENT)]
KeyOption = Annotated[
    list[str] | None, typer.Option("--key", help="Id of an API key, as records name it.")
]
ModelOption = Annotated[list[str] | None, typer.Option("--model", help="Name of a model.")]


def register(audit: typer.Typer) -> None:
    """Add the verbs to `audit`."""
    audit.command("search")(audit_search)
    audit.command("stats")(audit_stats)
    audit.command("keygen")(audit_keygen)
    audit.command("text")(audit_text)
    audit.command("erase")(audit_erase)


def log_folder(log: Path | None, root: Path) -> Path:
    """The log that a command is about."""
    return log or HostLayout(root.resolve()).audit


def make_query(
    since: str | None,
    until: str | None,
    keys: list[str] | None,
    models: list[str] | None,
) -> Query:
    """The query of the options that several verbs share. Raises FormatError."""
    from edgekit.core.audit_query import Query, parse_moment
    from edgekit.system.clock import wall_clock

    now = wall_clock() * 1_000_000
    return Query(
        since=None if since is None else parse_moment(since, now),
        until=None if until is None else parse_moment(until, now),
        keys=frozenset(keys or ()),
        models=frozenset(models or ()),
    )


def audit_search(
    since: SinceOption = None,
    until: UntilOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", help="503, 5xx, or open: no ending yet.")
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="request, denied, install_commit, ...")
    ] = None,
    request: Annotated[
        list[str] | None, typer.Option("--request", help="Id of a request (x-request-id).")
    ] = None,
    text_file: Annotated[
        Path | None,
        typer.Option("--text-file", help="Find this text, prompt or answer, by keyed digest."),
    ] = None,
    digest_key: Annotated[
        Path | None, typer.Option("--digest-key", help="Key of the digests, when not on this host.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="How many.")] = 1000,
    log: LogOption = None,
    root: RootOption = HostLayout.HOST,
    json_: JsonOption = False,
) -> None:
    """Find records: a request and what became of it are one line.

    All that is given must hold; an option given twice means either. Reads only; `audit verify`
    says whether the log is intact.
    """
    from dataclasses import replace

    from edgekit.cli.audit_view import render_entry
    from edgekit.core.audit_query import parse_status
    from edgekit.operations.audit_search import digest_key as load_digest_key
    from edgekit.operations.audit_search import search_audit, text_digests
    from edgekit.system.files import read_bounded

    query = replace(
        make_query(since, until, key, model),
        statuses=frozenset(map(parse_status, status or ())),
        types=frozenset(type_ or ()),
        requests=frozenset(request or ()),
    )
    if text_file is not None:
        secret = load_digest_key(HostLayout(root.resolve()), digest_key)
        text = read_bounded(text_file, 64 << 20, "text")
        query = replace(query, digests=text_digests(text, secret))
    matches = search_audit(log_folder(log, root), query, limit)
    if json_:
        typer.echo(render_json(matches.table()))
        return
    for entry in matches.entries:
        typer.echo(render_entry(entry))
    if matches.more:
        typer.echo(f"only the first {limit} are shown; -n shows more", err=True)


def audit_stats(
    since: SinceOption = None,
    until: UntilOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    log: LogOption = None,
    root: RootOption = HostLayout.HOST,
    json_: JsonOption = False,
) -> None:
    """Sum up the log: requests, tokens, times, refusals, per key and per model, and over time."""
    from edgekit.cli.audit_view import render_stats
    from edgekit.operations.audit_search import audit_stats as collect

    stats = collect(log_folder(log, root), make_query(since, until, key, model))
    if json_:
        typer.echo(render_json(stats.table()))
        return
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    for line in render_stats(stats, ascii_only=ascii_only):
        typer.echo(line)


def audit_keygen(
    folder: Annotated[Path, typer.Argument(help="New folder for the two halves of the key.")],
) -> None:
    """Make the auditor's key: hosts seal texts to its public half, its private half opens them.

    Run it on the auditor's own machine. `auditor.pub.pem` goes to /etc/edgekit on the hosts;
    `auditor.pem` never does. Without it the texts are lost.
    """
    from edgekit.operations.audit_texts import PRIVATE_NAME, PUBLIC_NAME, make_auditor_key

    name = make_auditor_key(folder)
    typer.echo(f"key      {name}")
    typer.echo(f"private  {folder / PRIVATE_NAME}  (keep it off the hosts; there is no other copy)")
    typer.echo(f"public   {folder / PUBLIC_NAME}  (to /etc/edgekit/{PUBLIC_NAME} on every host)")


def audit_text(
    request: Annotated[str, typer.Argument(help="Id of the request (x-request-id).")],
    key: Annotated[
        Path | None, typer.Option("--key", help="The auditor's private key, for sealed texts.")
    ] = None,
    log: LogOption = None,
    texts: Annotated[
        Path | None, typer.Option("--texts", help="Folder of texts; the host's own unless said.")
    ] = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Print the texts that were kept of a request, after holding them to its record."""
    from edgekit.operations.audit_texts import read_texts

    layout = HostLayout(root.resolve())
    for kept in read_texts(log or layout.audit, texts or layout.texts, request, key):
        typer.echo(f"{kept.part}  {kept.digest[:32]}...", err=True)
        if kept.text is None:
            typer.echo(f"{kept.part} was erased, or was not brought along", err=True)
        else:
            sys.stdout.buffer.write(kept.text + b"\n")
            sys.stdout.buffer.flush()


def audit_erase(
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the audit log.")],
    request: Annotated[
        list[str] | None, typer.Option("--request", help="Id of a request; may be given again.")
    ] = None,
    before: Annotated[str | None, typer.Option("--before", help=MOMENT)] = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Erase kept texts. Their records stay, and the log verifies as before."""
    from edgekit.core.audit_query import parse_moment
    from edgekit.operations.audit_texts import erase_texts
    from edgekit.system.clock import wall_clock

    moment = None if before is None else parse_moment(before, wall_clock() * 1_000_000)
    erased = erase_texts(HostLayout(root.resolve()), frozenset(request or ()), moment, reason)
    typer.echo(f"erased {erased.files} texts of {erased.requests} requests; their records stay")
