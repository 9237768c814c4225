"""Verbs about signing keys: keys init, new, root, sign, rotate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.progress import progress_listener

if TYPE_CHECKING:
    from edgekit.core.trust import DraftRoot
    from edgekit.operations.keys import SignedDocument

PolicyOption = Annotated[str, typer.Option(help="hybrid, cnsa2 or classical.")]
OutOption = Annotated[Path, typer.Option("--out", help="Where the root is written.")]
YearsOption = Annotated[
    int, typer.Option("--years", min=1, max=30, help="How long the root installs new sets.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    keys = typer.Typer(help="Make and use signing keys.", no_args_is_help=True)
    keys.command("init")(keys_init)
    keys.command("new")(keys_new)
    keys.command("root")(keys_root)
    keys.command("sign")(keys_sign)
    keys.command("rotate")(keys_rotate)
    app.add_typer(keys, name="keys")


def keys_init(
    folders: Annotated[list[Path], typer.Argument(help="One empty folder per signer.")],
    root_out: Annotated[Path, typer.Option("--root-out", help="Where the root is written.")],
    threshold: Annotated[int, typer.Option(help="How many signers must sign.")] = 2,
    policy: PolicyOption = "hybrid",
    insecure_developer: Annotated[
        bool, typer.Option("--insecure-developer", help="One unguarded signer, for a demo.")
    ] = False,
) -> None:
    """Make keys for all signers and a signed root, on this one machine.

    With signers on machines of their own use keys new, keys root and keys sign.
    """
    from edgekit.core.trust import format_fingerprint
    from edgekit.operations.keys import create_root
    from edgekit.system.clock import wall_clock

    created = create_root(
        tuple(folders),
        threshold=1 if insecure_developer else threshold,
        policy=policy,
        insecure_developer=insecure_developer,
        root_path=root_out,
        now=wall_clock(),
    )
    typer.echo(f"root         {created.path}")
    typer.echo(f"signers      {', '.join(created.signers)}; {created.threshold} must sign")
    typer.echo("fingerprint  " + format_fingerprint(created.fingerprint))
    if insecure_developer:
        typer.echo("WARNING: DEVELOPER keys; for demonstrations only", err=True)


def keys_new(
    folder: Annotated[Path, typer.Argument(help="Empty folder; its name is the signer's name.")],
    classical: Annotated[
        str,
        typer.Option("--classical", help="ed25519, ecdsa-p384, or hsm:ID?label=TOKEN."),
    ] = "ed25519",
) -> None:
    """Make one signer's keys, and the public half to hand to whoever makes the root."""
    from edgekit.core.trust import format_fingerprint
    from edgekit.operations.keys import new_signer

    created = new_signer(folder, classical)
    typer.echo(f"give away    {created.public_half}")
    typer.echo(f"keep         everything else in {folder}")
    typer.echo("read aloud   " + format_fingerprint(created.fingerprint))


def keys_root(
    signer: Annotated[
        list[Path], typer.Option("--signer", help="Public half, NAME.signer.json; repeat.")
    ],
    out: OutOption,
    threshold: Annotated[int, typer.Option(help="How many signers must sign.")] = 2,
    policy: PolicyOption = "hybrid",
    years: YearsOption = 10,
) -> None:
    """Make a root that names these signers. It counts once enough of them have signed it."""
    from edgekit.operations.keys import load_public_half, make_root
    from edgekit.system.clock import wall_clock

    halves = tuple(load_public_half(path) for path in signer)
    draft = make_root(
        halves, threshold=threshold, policy=policy, years=years, root_path=out, now=wall_clock()
    )
    _print_draft(draft, out)


def keys_sign(
    document: Annotated[Path, typer.Argument(help="A root document, or the folder of a set.")],
    key: Annotated[str, typer.Option("--key", help="Signer, file:DIR or hybrid:...")],
    previous: Annotated[
        Path | None, typer.Option("--previous", help="The root before this root.")
    ] = None,
) -> None:
    """Add one signer's signature to a root or a set, after checking it. Say what was signed."""
    from edgekit.operations.keys import sign_root, sign_set

    if document.is_dir():
        with progress_listener() as listener:
            signed = sign_set(document, key, listener)
    else:
        signed = sign_root(document, key, previous)
    _print_signed(signed, document)


def keys_rotate(
    root: Annotated[Path, typer.Option("--root", help="The current root, signed.")],
    out: OutOption,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", help="Signer who leaves; repeat.")
    ] = None,
    add: Annotated[
        list[Path] | None, typer.Option("--add", help="Public half of a new signer; repeat.")
    ] = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option("--revoke", help="NAME=REASON: leaves and never counts again; repeat."),
    ] = None,
    since_sequence: Annotated[
        int, typer.Option(min=0, help="Sequence from which the revoked are suspect.")
    ] = 0,
    threshold: Annotated[
        int | None, typer.Option(help="How many must sign; as before unless said.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="hybrid, cnsa2 or classical; as before unless said.")
    ] = None,
    minimum: Annotated[
        str | None, typer.Option(help="EPOCH.SEQUENCE: nothing older ever installs again.")
    ] = None,
    years: YearsOption = 10,
) -> None:
    """Make the root after the current one. It counts once old and new signers have signed it."""
    from edgekit.core.trust import Rotation
    from edgekit.operations.keys import (
        load_public_half,
        parse_minimum,
        parse_revocation,
        rotate_root,
    )
    from edgekit.system.clock import wall_clock

    rotation = Rotation(
        drop=tuple(drop or ()),
        add=tuple(load_public_half(path) for path in add or ()),
        revoke=tuple(parse_revocation(text, root) for text in revoke or ()),
        since_sequence=since_sequence,
        threshold=threshold,
        policy=policy,
        minimum=None if minimum is None else parse_minimum(minimum),
    )
    draft = rotate_root(root, rotation, years=years, root_path=out, now=wall_clock())
    _print_draft(draft, out, previous=root)


def _print_draft(draft: DraftRoot, path: Path, previous: Path | None = None) -> None:
    from edgekit.core.trust import format_date
    from edgekit.operations.keys import signer_fingerprints

    content = draft.content
    typer.echo(f"root {content.version}       {path}, until {format_date(content.expires)}")
    _print_people(signer_fingerprints(content))
    for entry in content.revoked:
        typer.echo(f"revoked      {entry.signer}: {entry.reason}")
    option = f" --previous {previous}" if previous else ""
    typer.echo(
        f"NOT SIGNED YET: compare the fingerprints, then {content.threshold('root')} of "
        f"{', '.join(content.signers('root'))}"
        + (" and the signers of the root before it" if previous else "")
        + f" run\n  edgekit keys sign {path}{option} --key file:DIR",
        err=True,
    )


def _print_signed(signed: SignedDocument, path: Path) -> None:
    from edgekit.core.trust import format_fingerprint

    typer.echo(f"{signed.signer} signed {signed.what}")
    _print_people(signed.people)
    for tally in signed.tallies:
        count = f"{len(tally.signed)} of {tally.threshold}"
        typer.echo(f"{tally.what}: {count} ({', '.join(tally.signed) or 'nobody'})")
        if tally.missing:
            rest = ", ".join(name for name in tally.may_sign if name not in tally.signed)
            typer.echo(f"NOT COMPLETE: {tally.missing} more of {rest} must sign", err=True)
    if signed.unknown:
        typer.echo("signers of the root before it: not counted, give --previous ROOT", err=True)
    if signed.complete:
        typer.echo(f"complete     {path}")
    if signed.fingerprint:
        typer.echo("fingerprint  " + format_fingerprint(signed.fingerprint))


def _print_people(people: dict[str, str]) -> None:
    from edgekit.core.trust import format_fingerprint

    for name, text in people.items():
        typer.echo(f"signer       {name}  {format_fingerprint(text)}")
