"""Verbs of the isolated host: probe, plan, install, serve, status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli.app import (
    DeveloperOption,
    FingerprintOption,
    HostOption,
    JsonOption,
    OptionalSetArgument,
    ProfileOption,
    RootOption,
    SetArgument,
)
from edgekit.cli.progress import progress_listener
from edgekit.cli.report import format_bytes, render_json
from edgekit.cli.wishes import (
    ContextOption,
    EngineOption,
    KvOption,
    OvercommitOption,
    PlacementOption,
    UsersOption,
    VariantOption,
    wishes_of,
)
from edgekit.core.host_layout import HostLayout
from edgekit.core.preflight import Check

ListenOption = Annotated[
    str | None,
    typer.Option(
        "--listen", help="Address and port of the API, where the site's configuration has none."
    ),
]


MAX_STDIN_CHARS = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("probe")(probe)
    app.command("plan")(plan)
    app.command("install")(install)
    app.command("serve")(serve)
    app.command("status")(status)
    app.command("run")(run)
    app.command("rollback")(rollback)
    app.command("pin")(pin)
    app.command("gc")(gc)
    app.command("remove")(remove)


def probe(
    root: RootOption = HostLayout.HOST,
    bandwidth: Annotated[
        bool, typer.Option("--bandwidth", help="Measure memory speed, too (half a second).")
    ] = False,
) -> None:
    """Print facts about this host as JSON, each with its source. Changes nothing."""
    from edgekit.core.facts import report_table
    from edgekit.operations.probe import probe_host

    layout = HostLayout(root.resolve())
    report = probe_host(places=(layout.state, layout.opt), bandwidth=bandwidth)
    typer.echo(render_json(report_table(report)))


def plan(
    folders: OptionalSetArgument = None,
    root: RootOption = HostLayout.HOST,
    fingerprint: FingerprintOption = None,
    insecure_developer_root: DeveloperOption = False,
    listen: ListenOption = None,
    profile: ProfileOption = None,
    host: HostOption = None,
    users: UsersOption = None,
    engine: EngineOption = None,
    variant: VariantOption = None,
    context: ContextOption = None,
    kv_type: KvOption = None,
    placement: PlacementOption = None,
    insecure_overcommit: OvercommitOption = False,
    every: Annotated[bool, typer.Option("--all", help="Show every way that was weighed.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="What runs here: its plan, and what it really took.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show what install would do on this host, or another, and why. Changes nothing."""
    if compare:
        _print_comparison(root, json_=json_)
        return
    if not folders:
        raise typer.BadParameter("name the folder of a set, or use --compare")
    from edgekit.cli.plan_text import render_plan
    from edgekit.core.install_plan import plan_table
    from edgekit.operations.install import InstallOptions
    from edgekit.operations.install import plan as make_plan
    from edgekit.operations.probe import load_host, profile_wishes

    layout = HostLayout(root.resolve())
    wishes = wishes_of(
        users=users, engine=engine, variant=variant, context=context, kv_type=kv_type,
        placement=placement, insecure_overcommit=insecure_overcommit,
    )
    options = InstallOptions(
        tuple(folders),
        layout,
        listen,
        fingerprint,
        insecure_developer_root,
        load_host(profile, host, places=(layout.state, layout.opt)),
        wishes=profile_wishes(wishes, profile),
    )
    outlook = make_plan(options)
    if json_:
        typer.echo(render_json(plan_table(outlook.require())))
        return
    for check in outlook.checks:
        _print_check(check)
    typer.echo(render_plan(plan_table(outlook.require()), every=every))


def _print_comparison(root: Path, *, json_: bool) -> None:
    from edgekit.cli.plan_text import render_comparison
    from edgekit.operations.compare import compare_installed

    table = compare_installed(HostLayout(root.resolve()))
    typer.echo(render_json(table) if json_ else render_comparison(table))


def _print_check(check: Check) -> None:
    where = f" at {check.where}" if check.where else ""
    found = f"; found {check.found}" if check.found else ""
    typer.echo(f"{check.verdict:<8} {check.name}{where}: needed {check.needed}{found}")
    if check.verdict == "warned":
        typer.echo(f"         {check.message}\n         hint: {check.hint}")


def install(
    folders: SetArgument,
    root: RootOption = HostLayout.HOST,
    fingerprint: FingerprintOption = None,
    insecure_developer_root: DeveloperOption = False,
    listen: ListenOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as plan.")] = False,
    insecure_downgrade: Annotated[
        str | None,
        typer.Option("--insecure-downgrade", help="Why an older set is let in; audited."),
    ] = None,
    users: UsersOption = None,
    engine: EngineOption = None,
    variant: VariantOption = None,
    context: ContextOption = None,
    kv_type: KvOption = None,
    placement: PlacementOption = None,
    insecure_overcommit: OvercommitOption = False,
    json_: JsonOption = False,
) -> None:
    """Verify a set, install it and answer a question with it, or leave the host as it was."""
    from edgekit.core.trust import format_fingerprint
    from edgekit.operations.audit_anchor import anchor_visitors
    from edgekit.operations.audit_key import publish_audit_key
    from edgekit.operations.install import InstallOptions
    from edgekit.operations.install import install as run_install

    if dry_run:
        plan(
            folders, root, fingerprint, insecure_developer_root, listen, users=users,
            engine=engine, variant=variant, context=context, kv_type=kv_type,
            placement=placement, insecure_overcommit=insecure_overcommit, json_=json_,
        )
        return
    options = InstallOptions(
        tuple(folders),
        HostLayout(root.resolve()),
        listen,
        fingerprint,
        insecure_developer_root,
        insecure_downgrade=insecure_downgrade,
        wishes=wishes_of(
            users=users, engine=engine, variant=variant, context=context, kv_type=kv_type,
            placement=placement, insecure_overcommit=insecure_overcommit,
        ),
    )
    with progress_listener() as listener:
        receipt = run_install(options, listener)
        anchor_visitors(options.layout, options.folders, listener)
        audit_key = publish_audit_key(options.layout)
    if json_:
        secrets = {"api_key": receipt.api_key, "audit_key": audit_key}
        typer.echo(render_json({**receipt.table(), **secrets}))
        return
    if receipt.already_installed:
        typer.echo(f"already installed: {receipt.generation}")
        return
    typer.echo(f"installed  {receipt.generation}")
    typer.echo(f"serves     http://{receipt.listen}  (OpenAI: /v1, Ollama: /api)")
    typer.echo("took       " + ", ".join(f"{k} {v:.1f} s" for k, v in receipt.seconds.items()))
    typer.echo(f"audit key  {format_fingerprint(audit_key)}")
    if receipt.api_key:
        typer.echo(f"api key    {receipt.api_key}")
        typer.echo("           shown once; only its hash is kept", err=True)


def serve(root: RootOption) -> None:
    """Run an installation made with --root in the foreground until Ctrl-C."""
    from edgekit.operations.serve import serve as run_serve

    def ready(listen: str) -> None:
        typer.echo(f"serving on http://{listen}, stop with Ctrl-C")

    run_serve(HostLayout(root.resolve()), ready)


def status(root: RootOption = HostLayout.HOST, json_: JsonOption = False) -> None:
    """Show what is installed here, who vouches for it, and whether it answers."""
    from edgekit.operations.status import host_status

    table = host_status(HostLayout(root.resolve()))
    if json_:
        typer.echo(render_json(table))
        return
    typer.echo(f"generation  {table['generation']}")
    typer.echo(f"previous    {table['previous'] or 'none'}")
    if table["pinned"]:
        typer.echo(f"pinned      {', '.join(table['pinned'])}")
    typer.echo(
        f"api         http://{table['listen']}  "
        f"{'answers' if table['alive'] else 'DOES NOT ANSWER'}"
    )
    for model in table["models"]:
        typer.echo(
            f"model       {model['name']}  {model['quantization']} on {model['engine']}, "
            f"{model['slots']} slots of {model['context']} tokens, "
            f"{format_bytes(model['memory_bytes'])} of memory"
        )
    floor = table["floor"]
    typer.echo(
        f"floor       epoch {floor['epoch']}, sequence {floor['sequence']}, policy "
        f"{table['policy']}"
    )
    if trust := table["trust"]:
        typer.echo(
            f"signed      by {', '.join(trust['signers'])} under root {trust['root_version']}, "
            f"{trust['age_days']} days ago"
        )
    space = table["space"]
    typer.echo(
        f"space       {format_bytes(space['taken_bytes'])} taken, "
        f"{format_bytes(space['free_bytes'])} free"
    )
    for trouble in table["troubles"]:
        typer.echo(f"TROUBLE: {trouble}", err=True)
    typer.echo(f"audit       {_audit_line(table['audit'])}")
    for warning in table["warnings"]:
        typer.echo(f"WARNING: {warning}", err=True)
    if table["developer_root"]:
        typer.echo("WARNING: this host trusts a DEVELOPER root; for demonstrations only", err=True)


def run(
    model: Annotated[str, typer.Argument(help="Model, as `edgekit status` names it.")],
    prompt: Annotated[
        str | None, typer.Argument(help="The question; without one: a chat, or standard input.")
    ] = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Ask an installed model, as root of this host: one question, or in a chat at a terminal."""
    from edgekit.operations.ask import ask_model

    layout = HostLayout(root.resolve())
    if prompt is None and sys.stdin.isatty():
        from edgekit.cli.chat import chat_at_terminal

        chat_at_terminal(layout, model)
        return
    question = sys.stdin.read(MAX_STDIN_CHARS) if prompt is None else prompt
    for piece in ask_model(layout, model, question.strip()):
        print(piece, end="", flush=True)
    print()


def rollback(
    generation: Annotated[
        str | None, typer.Argument(help="An installed release instead of the one before.")
    ] = None,
    root: RootOption = HostLayout.HOST,
) -> None:
    """Go back to the release that served before this one; it must answer its known questions."""
    from edgekit.operations.rollback import rollback as run_rollback

    with progress_listener() as listener:
        left, reached = run_rollback(HostLayout(root.resolve()), listener, generation)
    typer.echo(f"went back from {left} to {reached}")


def pin(
    generation: Annotated[str, typer.Argument(help="An installed release, as status names it.")],
    root: RootOption = HostLayout.HOST,
    remove_: Annotated[bool, typer.Option("--remove", help="Let gc have it again.")] = False,
) -> None:
    """Keep a release on this host whatever gc removes, so that rollback GENERATION finds it."""
    from edgekit.operations.clean import pin_generation

    pins = pin_generation(HostLayout(root.resolve()), generation, pinned=not remove_)
    typer.echo(f"pinned: {', '.join(sorted(pins)) or 'none'}")


def gc(root: RootOption = HostLayout.HOST) -> None:
    """Remove releases and blobs that no current, previous or pinned release needs."""
    from edgekit.operations.clean import collect_garbage

    collected = collect_garbage(HostLayout(root.resolve()))
    names = ", ".join(collected.generations) or "no release"
    typer.echo(
        f"removed {names} and {collected.blobs} blobs, {format_bytes(collected.freed_bytes)}"
    )


def remove(
    root: RootOption = HostLayout.HOST,
    with_audit_log: Annotated[
        bool, typer.Option("--with-audit-log", help="Remove the audit log, too.")
    ] = False,
) -> None:
    """Stop and remove everything edgekit put on this host; the audit log stays unless told."""
    from edgekit.operations.clean import remove_appliance

    layout = HostLayout(root.resolve())
    remove_appliance(layout, with_audit_log=with_audit_log)
    kept = "" if with_audit_log else f"; the audit log stays in {layout.audit}"
    typer.echo(f"removed{kept}")


def _audit_line(audit: dict[str, Any]) -> str:
    """What is kept of texts, and where copies of records go."""
    texts, forward, log = audit["texts"], audit["forward"], audit["log"]
    rules = len(texts["keys"]) + len(texts["models"])
    line = f"{format_bytes(log['used_bytes'])} of {format_bytes(log['limit_bytes'])}"
    line += f" ({log['percent']} %); texts {texts['default']}"
    line += f" ({rules} other rules)" if rules else ""
    if forward["to"] == "none":
        return f"{line}; records stay here"
    waiting, dropped = forward["waiting"], forward["dropped"]
    return f"{line}; copies to {forward['to']}, {waiting} waiting, {dropped} dropped"
