"""From facts to a decision for every model of a set, or a refusal that says by how much. Pure.

Total and deterministic: the same set, report and wishes give the same selection, and every way that
was possible is in it with its numbers and its verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgekit.core.carried_model import ALWAYS, AUTO, DEMAND, CarriedModel
from edgekit.core.facts import HostReport
from edgekit.core.planning.candidates import Question, Way, ways
from edgekit.core.planning.devices import HEADROOM_PERCENT
from edgekit.core.planning.values import MIB, Candidate, Selection, Wishes
from edgekit.core.planning.weigh import Room
from edgekit.core.release import Manifest
from edgekit.errors import IncompatibleHostError, InsufficientError

NO_WISHES = Wishes()


def check_compatible(manifest: Manifest, report: HostReport) -> None:
    """Refuse a host the set is not for. Raises IncompatibleHostError with found and needed."""
    needed = manifest.requirements
    system, cpu = report.system, report.cpu
    if cpu.arch.value != needed.arch:
        raise IncompatibleHostError(
            "this set is for another processor architecture",
            found=str(cpu.arch.value),
            needed=needed.arch,
            hint="ask the packager for a set for this architecture",
        )
    if system.glibc.value is None or system.glibc.value < needed.glibc:
        found = system.glibc.value
        raise IncompatibleHostError(
            "this set needs a newer C library",
            needed=f"glibc {needed.glibc[0]}.{needed.glibc[1]}",
            found=f"glibc {found[0]}.{found[1]}" if found else "unknown",
            hint="ask the packager for a set built on an older distribution",
        )
    missing = sorted(set(needed.cpu_flags) - set(cpu.flags.value or ()))
    if missing:
        raise IncompatibleHostError(
            "this processor lacks instructions that the engine uses",
            found=cpu.name.value,
            needed=", ".join(missing),
            hint="ask the packager for an engine for older processors",
        )


def select_all(
    manifest: Manifest,
    report: HostReport,
    wishes: Wishes = NO_WISHES,
    failed: tuple[tuple[str, str, str], ...] = (),
) -> tuple[Selection, ...]:
    """Decide for every model in the set; models take of the memory in manifest order.

    Where not all of them fit beside each other, those that need not always be there are loaded on
    demand: each may then take all that the others leave, and only so many are in memory as fit.

    `failed` are (model, key of a candidate, what it said) of ways that were tried and did not
    start: they are not chosen again. Raises InsufficientError (by how much, and what would fit) or
    IncompatibleHostError.
    """
    usable = report.memory.usable()
    if usable is None:
        raise IncompatibleHostError(
            "this host does not say how much memory is free", needed="MemAvailable in /proc/meminfo"
        )
    room = Room(usable * (100 - HEADROOM_PERCENT) // 100)

    def select(model: CarriedModel, room: Room) -> Selection:
        tried = {key: words for name, key, words in failed if name == model.name}
        return _with_claim(select_model(model, manifest, report, room, wishes, tried), report)

    try:
        placed, left = _side_by_side(manifest.models, room, select, {DEMAND})
    except InsufficientError:
        if sum(model.load != ALWAYS for model in manifest.models) < 2:  # nobody to share with
            raise
        placed, left = _side_by_side(manifest.models, room, select, {DEMAND, AUTO})
    for model in manifest.models:
        if model.name not in placed:
            placed[model.name] = replace(select(model, left), shared_room=left.host)
    return tuple(placed[model.name] for model in manifest.models)


def _side_by_side(
    models: tuple[CarriedModel, ...],
    room: Room,
    select: Callable[[CarriedModel, Room], Selection],
    left_out: set[str],
) -> tuple[dict[str, Selection], Room]:
    """Those models that stay in memory by name, and the room that they leave."""
    placed = {}
    for model in models:
        if model.load in left_out:
            continue
        placed[model.name] = selection = select(model, room)
        need, devices = selection.chosen.need, selection.chosen.serving.devices
        assert need is not None
        room = room.after(need, devices, shared=selection.host_claim > need.host)
    return placed, room


def _with_claim(selection: Selection, report: HostReport) -> Selection:
    need = selection.chosen.need
    assert need is not None
    shared = any(gpu.integrated.value for gpu in report.gpus if need.device)
    return replace(selection, host_claim=need.total if shared else need.host)


def select_model(
    model: CarriedModel,
    manifest: Manifest,
    report: HostReport,
    room: Room,
    wishes: Wishes = NO_WISHES,
    tried: dict[str, str] | None = None,
) -> Selection:
    """The first way that fits, is as wished, and has not failed before."""
    if not manifest.engines:
        raise IncompatibleHostError(
            "the set carries no engine for this host",
            needed="llama.cpp or vLLM",
            hint="add an [[engine]] to the recipe",
        )
    users = wishes.users if wishes.users is not None else manifest.users
    question = Question(model, manifest.engines, users, report, room, wishes)
    found = [_judged(way, wishes, tried or {}) for way in ways(question)]
    best = next((way for way in found if way[2].fits), None)
    if best is None and wishes.insecure_overcommit:
        asked = (way for way in found if way[2].need is not None and _is_wished(way, wishes))
        best = next(asked, None)
    if best is None:
        raise _nothing_fits(model, [way[2] for way in found], room, wishes)
    pack, variant, chosen = best
    reason = chosen.reason if chosen.fits else f"taken although it {chosen.reason}"
    chosen = chosen.with_verdict(chosen=True, reason=reason)
    candidates = tuple(chosen if way is best else way[2] for way in found)
    return Selection(model, pack, variant, chosen, candidates)


def _judged(way: Way, wishes: Wishes, tried: dict[str, str]) -> Way:
    """The way, ruled out when it is not as wished or has failed before."""
    pack, variant, candidate = way
    if not _is_wished(way, wishes):
        return pack, variant, _ruled_out(candidate, f"not as asked for: {wishes.given()}")
    if candidate.key() in tried:
        return pack, variant, _ruled_out(candidate, f"did not start: {tried[candidate.key()]}")
    return way


def _is_wished(way: Way, wishes: Wishes) -> bool:
    _, _, candidate = way
    pairs = (
        (wishes.engine, candidate.engine),
        (wishes.provider, candidate.provider),
        (wishes.quantization, candidate.quantization),
        (wishes.placement, candidate.serving.placement),
    )
    return all(wish is None or wish == found for wish, found in pairs)


def _ruled_out(candidate: Candidate, reason: str) -> Candidate:
    return Candidate(
        candidate.model, candidate.engine, candidate.provider, candidate.quantization,
        candidate.format, candidate.serving, candidate.need, fits=False, chosen=False,
        reason=reason,
    )


def _nothing_fits(
    model: CarriedModel, candidates: list[Candidate], room: Room, wishes: Wishes
) -> InsufficientError | IncompatibleHostError:
    weighed = [c for c in candidates if c.need is not None and not c.reason.startswith("not as")]
    if not weighed:
        reasons = dict.fromkeys(f"{c.engine} {c.provider}: {c.reason}" for c in candidates)
        return IncompatibleHostError(
            f"nothing in the set can serve {model.name} on this host",
            found="; ".join(reasons)[:500] or "no variant",
            needed="an engine and a variant for this host",
            hint="edgekit bundle RECIPE --host REPORT",
        )
    smallest = min(weighed, key=lambda c: c.need.total if c.need else 0)
    assert smallest.need is not None
    short = -(-smallest.need.total // MIB) - room.host // MIB
    asked = f" as asked for ({wishes.given()})" if wishes.given() else ""
    return InsufficientError(
        f"not enough memory for {model.name}{asked}",
        needed=f"{-(-smallest.need.total // MIB)} MiB for the smallest choice",
        found=f"{room.host // MIB} MiB that may be used",
        hint=f"free {max(1, short)} MiB more, or give less: "
        f"edgekit plan SET --context {max(256, smallest.context // 2)}",
    )
