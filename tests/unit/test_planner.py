"""From facts to a decision: memory sums checked against measurements, the ladder, and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest

from edgekit.core.carried_model import CarriedModel, CarriedVariant
from edgekit.core.digest import Digest
from edgekit.core.engine_pack import EnginePack
from edgekit.core.facts import (
    CpuFacts,
    DiskFacts,
    Fact,
    GpuFacts,
    HostReport,
    MemoryFacts,
    SystemFacts,
    unknown_facts,
)
from edgekit.core.host_layout import HostLayout
from edgekit.core.install_plan import InstallPlan, plan_install, plan_table
from edgekit.core.names import RelPath
from edgekit.core.planning.devices import serving_threads
from edgekit.core.planning.llama_memory import PROCESS_BYTES, llama_need
from edgekit.core.planning.llama_shape import LlamaShape
from edgekit.core.planning.rungs import MAX_SLOTS
from edgekit.core.planning.select import check_compatible, select_all
from edgekit.core.planning.values import CPU, MIB, MemoryNeed, Selection, Wishes
from edgekit.core.release import CarriedImage, Entry, Manifest, Requirements
from edgekit.core.trust import ReleaseStatement
from edgekit.errors import FormatError, IncompatibleHostError, InsufficientError
from edgekit.exit_codes import ExitCode
from edgekit.system.resources import read_unit_templates

GIB = 1 << 30
T = TypeVar("T")
PACK = EnginePack("llama.cpp", "wheel", "1.0", RelPath("engine/llama"), RelPath("engine/llama/run"))


@dataclass
class HostBuilder:
    """A roomy x86_64 host with Debian 12's C library unless told otherwise."""

    arch: str = "x86_64"
    flags: tuple[str, ...] | None = ("avx", "avx2", "fma")
    glibc: tuple[int, int] | None = (2, 36)
    systemd: int | None = 252
    available: int | None = 64 * GIB
    limit: int | None = None
    limit_used: int | None = None
    threads: int | None = 8
    cores: int | None = 4
    quota: int | None = None
    fast: int | None = None
    gpus: tuple[GpuFacts, ...] = ()
    disks: dict[str, tuple[int | None, bool]] = field(default_factory=dict)

    def report(self) -> HostReport:
        def fact(value: T) -> Fact[T]:
            return Fact(value, "test")

        return HostReport(
            cpu=unknown_facts(
                CpuFacts, "test", arch=fact(self.arch), name=fact("a processor"),
                flags=fact(self.flags), usable_threads=fact(self.threads),
                physical_cores=fact(self.cores), quota=fact(self.quota),
                performance_cores=fact(self.fast),
            ),
            memory=unknown_facts(
                MemoryFacts, "test", total=fact(64 * GIB), available=fact(self.available),
                limit=fact(self.limit), limit_used=fact(self.limit_used), swap=fact(0),
            ),
            disks=tuple(
                unknown_facts(
                    DiskFacts, "test", path=path, free=fact(free), read_only=fact(read_only))
                for path, (free, read_only) in self.disks.items()
            ),
            gpus=self.gpus,
            system=unknown_facts(
                SystemFacts, "test", glibc=fact(self.glibc), systemd=fact(self.systemd)),
        )


def variant(size: int = 100 * MIB, *, quantization: str = "Q8_0", **shape: int) -> CarriedVariant:
    """A GGUF variant of a small llama, 4 layers with a cache of 512 bytes per cell and layer."""
    facts = {
        "layers": 4, "width": 64, "ffn": 128, "heads": 4, "kv_heads": 2, "key_width": 64,
        "value_width": 64, "context": 1 << 17, "vocabulary": 1000,
    } | shape
    path = RelPath(f"models/m/{quantization.lower()}.gguf")
    return CarriedVariant("gguf", quantization, (path,), size, tuple(sorted(facts.items())))


def model(
    *variants: CarriedVariant, context: int = 4096, name: str = "m", load: str = "auto"
) -> CarriedModel:
    """A model of these variants that wants 4,096 tokens."""
    carried = variants or (variant(),)
    return CarriedModel(
        name, context, "MIT", "llama", 10**6, carried, (("q", "a"),), load=load)


def manifest(*models: CarriedModel, users: int = 2, **changes: object) -> Manifest:
    """A manifest that carries these models' files and one engine."""
    paths = sorted({path for m in models for v in m.variants for path in v.files})
    entries = tuple(Entry(path, "weights", 7, Digest.of(str(path).encode())) for path in paths)
    whole = Manifest(
        name="demo", version="1.0.0", created=0, users=users,
        requirements=Requirements("x86_64", (2, 17), ("avx2", "fma"), 249),
        entries=entries, engines=(PACK,), models=models, images=(), rehearsed_on="",
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def memory_need(
    variant: CarriedVariant, *, context: int, slots: int, kv_type: str = "f16"
) -> MemoryNeed:
    return llama_need(LlamaShape(variant), context=context, slots=slots, kv_type=kv_type)


def need_of(context: int = 4096, slots: int = 1, kv_type: str = "f16") -> int:
    return memory_need(variant(), context=context, slots=slots, kv_type=kv_type).total


def available_for(need: int) -> int:
    """Free memory of which 90 percent are exactly this need."""
    return -(-need * 100 // 90)


# -------------------------------------------------------------------------------- memory formulas


def test_the_cache_is_what_llama_cpp_logged() -> None:
    """research: serving, 3.1: 4 layers, 2 KV heads of 16, 8,192 tokens: 4.00 MiB."""
    need = memory_need(variant(kv_heads=2, key_width=16, value_width=16), context=8192, slots=1)
    assert need.of("kv cache") == 4 * MIB


def test_the_terms_add_up_and_grow_with_slots_and_context() -> None:
    one, two = (memory_need(variant(), context=4096, slots=n) for n in (1, 2))
    assert one.total == one.host == sum(term.host for term in one.terms)
    assert (one.of("weights"), one.of("process")) == (100 * MIB, PROCESS_BYTES + 190 * 1000)
    assert (two.of("kv cache"), two.of("output")) == (2 * one.of("kv cache"), 2 * one.of("output"))
    assert two.of("weights") == one.of("weights")
    assert one.of("output") == 4 * 1000


@pytest.mark.parametrize(("context", "cells"), [(1, 256), (256, 256), (257, 512), (4096, 4096)])
def test_the_cache_is_padded_to_256_cells(context: int, cells: int) -> None:
    need = memory_need(variant(), context=context, slots=1)
    assert need.of("kv cache") == 4 * 2 * 128 * 2 * cells


def test_weights_that_say_nothing_about_their_shape_never_reach_planning() -> None:
    blank = replace(variant(), shape=(("layers", 4),))
    with pytest.raises(FormatError, match="lacks its shape"):
        manifest(model(blank))


# ------------------------------------------------------------------------------------- the ladder


def chosen(host: HostBuilder, *models: CarriedModel, users: int = 2) -> Selection:
    return select_all(manifest(*(models or (model(),)), users=users), host.report())[0]


def rungs(selection: Selection) -> list[tuple[str, int, int]]:
    """(type of the cache, slots, context) of every candidate, in order."""
    return [(c.serving.kv_type, c.slots, c.context) for c in selection.candidates]


def test_a_roomy_host_gets_every_slot_and_the_whole_context() -> None:
    selection = chosen(HostBuilder(), users=3)
    assert (selection.chosen.slots, selection.chosen.context) == (3, 4096)
    assert selection.chosen == selection.candidates[0]
    assert selection.chosen.reason.startswith("fits: ")


def test_every_way_is_in_the_result_and_exactly_one_is_chosen() -> None:
    selection = chosen(HostBuilder(), model(variant(context=16384), context=16384), users=3)
    assert rungs(selection) == [
        ("f16", 3, 16384), ("q8_0", 3, 16384), ("q8_0", 2, 16384), ("q8_0", 1, 16384),
        ("q8_0", 1, 8192), ("q8_0", 1, 4096)]
    assert [c.chosen for c in selection.candidates] == [True] + [False] * 5
    assert all(c.need is not None and c.reason for c in selection.candidates)


def test_never_more_slots_than_the_cap() -> None:
    assert chosen(HostBuilder(), users=10_000).chosen.slots == MAX_SLOTS


def test_eight_bits_in_the_cache_come_before_fewer_slots() -> None:
    selection = chosen(
        HostBuilder(available=available_for(need_of(slots=2, kv_type="q8_0"))), users=2)
    assert (selection.chosen.serving.kv_type, selection.chosen.slots) == ("q8_0", 2)
    assert selection.candidates[0].reason.startswith("does not fit: ")


def test_rows_that_are_no_whole_blocks_stay_at_sixteen_bits() -> None:
    odd = variant(key_width=40, value_width=40)
    selection = chosen(HostBuilder(), model(odd), users=2)
    assert {c.serving.kv_type for c in selection.candidates} == {"f16"}


def test_slots_are_given_up_before_context() -> None:
    need = need_of(slots=2, kv_type="q8_0")
    selection = chosen(HostBuilder(available=available_for(need)), users=4)
    assert (selection.chosen.slots, selection.chosen.context) == (2, 4096)
    assert [(c.slots, c.chosen) for c in selection.candidates] == [
        (4, False), (4, False), (3, False), (2, True), (1, False)]


def test_one_byte_too_little_is_too_little() -> None:
    enough = HostBuilder(available=available_for(need_of(slots=2, kv_type="q8_0")))
    assert chosen(enough).chosen.slots == 2
    less = replace(enough, available=(enough.available or 0) - 2)
    assert chosen(less).chosen.slots == 1


@pytest.mark.parametrize(
    ("wanted", "contexts"),
    [(1000, [1000]), (300, [300]), (8192, [8192, 4096]), (9000, [9000, 4352]),
     (33000, [33000, 16384, 8192, 4096])],
)
def test_context_is_halved_in_steps_of_256_down_to_a_floor(
    wanted: int, contexts: list[int]
) -> None:
    selection = chosen(HostBuilder(), model(variant(), context=wanted), users=1)
    assert list(dict.fromkeys(c.context for c in selection.candidates)) == contexts


def test_never_more_context_than_the_weights_were_trained_for() -> None:
    assert chosen(HostBuilder(), model(variant(context=2048))).chosen.context == 2048
    assert chosen(HostBuilder(), model(variant(context=0))).chosen.context == 4096


def test_the_largest_variant_that_fits_is_chosen_whatever_the_order() -> None:
    large, small = variant(900 * MIB), variant(100 * MIB, quantization="Q4_0")
    for order in ((large, small), (small, large)):
        assert chosen(HostBuilder(), model(*order)).variant == large
        tight = HostBuilder(available=available_for(need_of(slots=2)))
        selection = chosen(tight, model(*order))
        assert selection.variant == small
        assert selection.candidates[0].quantization == "Q8_0"


def test_less_context_of_the_better_variant_comes_before_the_smaller_variant() -> None:
    large = variant(400 * MIB)
    small = variant(100 * MIB, quantization="Q4_0")
    enough = memory_need(large, context=8192, slots=1, kv_type="q8_0").total
    selection = chosen(
        HostBuilder(available=available_for(enough)), model(small, large, context=1 << 17), users=1)
    assert (selection.variant, selection.chosen.context) == (large, 8192)


def test_weights_that_no_engine_of_the_set_reads_are_passed_over() -> None:
    other = replace(variant(900 * MIB), format="safetensors", shape=())
    selection = chosen(HostBuilder(), model(other, variant()))
    assert selection.variant.format == "gguf"
    assert selection.candidates[-1].reason == "llama.cpp reads GGUF only"
    with pytest.raises(IncompatibleHostError) as caught:
        chosen(HostBuilder(), model(other))
    assert "llama.cpp reads GGUF only" in str(caught.value.found)


def test_a_way_that_did_not_start_is_passed_over_once_and_said() -> None:
    whole, host = manifest(model()), HostBuilder().report()
    first = select_all(whole, host)[0].chosen
    failed = (("m", first.key(), "the engine ended"),)
    second = select_all(whole, host, failed=failed)[0]
    assert (first.serving.kv_type, second.chosen.serving.kv_type) == ("f16", "q8_0")
    assert second.candidates[0].reason == "did not start: the engine ended"
    everything = tuple(("m", c.key(), "no") for c in second.candidates)
    with pytest.raises(InsufficientError):
        select_all(whole, host, failed=everything)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [(Wishes(context=512), ("f16", 2, 512)), (Wishes(kv_type="q8_0"), ("q8_0", 2, 4096)),
     (Wishes(users=5), ("f16", 5, 4096)), (Wishes(slots=1), ("f16", 1, 4096))],
)
def test_what_is_asked_for_is_taken_when_it_fits(
    wishes: Wishes, expected: tuple[str, int, int]
) -> None:
    chosen_way = select_all(manifest(model()), HostBuilder().report(), wishes)[0].chosen
    assert (chosen_way.serving.kv_type, chosen_way.slots, chosen_way.context) == expected


def test_an_impossible_wish_is_refused_unless_overcommitting() -> None:
    host = HostBuilder(available=available_for(need_of())).report()
    wishes = Wishes(slots=8, kv_type="f16")
    with pytest.raises(InsufficientError, match=r"as asked for \(slots 8, kv type f16\)"):
        select_all(manifest(model()), host, wishes)
    forced = select_all(manifest(model()), host, replace(wishes, insecure_overcommit=True))[0]
    assert forced.chosen.slots == 8
    assert forced.chosen.reason.startswith("taken although it does not fit")
    with pytest.raises(IncompatibleHostError):
        select_all(manifest(model()), host, Wishes(engine="vllm", insecure_overcommit=True))


def test_models_share_the_memory_in_their_order() -> None:
    two = (model(name="first"), model(name="second"))
    needs = need_of(slots=2) + need_of(slots=1, kv_type="q8_0")
    host = HostBuilder(available=available_for(needs))
    selections = select_all(manifest(*two), host.report())
    assert [(s.model.name, s.chosen.slots) for s in selections] == [("first", 2), ("second", 1)]
    small = HostBuilder(available=available_for(need_of(slots=2)))
    both = tuple(replace(one, load="always") for one in two)
    with pytest.raises(InsufficientError, match="second"):
        select_all(manifest(*both), small.report())


def test_models_that_do_not_fit_together_are_loaded_on_demand() -> None:
    small = HostBuilder(available=available_for(need_of(slots=2)))
    two = (model(name="first"), model(name="second"))
    shared = select_all(manifest(*two), small.report())
    assert [s.chosen.slots for s in shared] == [2, 2]
    assert all(s.shared_room >= s.host_claim > 0 for s in shared)
    with pytest.raises(InsufficientError, match="second"):  # nobody to share with
        select_all(manifest(replace(two[0], load="always"), two[1]), small.report())


def test_a_model_that_stays_takes_its_part_before_those_on_demand() -> None:
    needs = need_of(slots=2) + need_of(slots=2)
    models = (model(name="shy", load="demand"), model(name="stays"), model(name="third",
              load="demand"))
    first, stays, third = select_all(
        manifest(*models), HostBuilder(available=available_for(needs)).report())
    assert stays.shared_room == 0
    assert first.shared_room == third.shared_room
    assert first.host_claim + stays.host_claim <= needs < (
        first.host_claim + stays.host_claim + third.host_claim)


def every_order_matters() -> str:
    """A decision over several variants and packs, and a refusal with several reasons, as text."""
    variants = tuple(variant(size * MIB, quantization=name) for size, name in (
        (100, "Q8_0"), (100, "F16"), (60, "Q4_K_M"), (60, "Q5_K_M")))
    packs = tuple(replace(PACK, provider=name) for name in ("wheel", "built", "other"))
    host = HostBuilder(available=available_for(need_of()))
    decision = select_all(manifest(model(*variants), users=4, engines=packs), host.report())
    flags = tuple(f"flag{n}" for n in range(8))
    needy = manifest(model(), requirements=Requirements("x86_64", (2, 17), flags, 249))
    with pytest.raises(IncompatibleHostError) as refused:
        check_compatible(needy, host.report())
    return f"{decision} {refused.value.message} {refused.value.found} {refused.value.needed}"


def test_the_same_facts_give_the_same_decision_in_any_process() -> None:
    """Nothing hangs on the order of a set, which differs from process to process."""
    code = "from tests.unit.test_planner import *; print(every_order_matters(), {*'abcdef'})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], text=True,
            env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE,
        )
        for seed in "1234"
    ]
    said = [process.communicate()[0].rpartition("{") for process in processes]
    assert len({order for *_, order in said}) > 1, "all processes had one order of sets"
    assert len({decision for decision, *_ in said}) == 1
    assert said[0][0].count("Selection(") == 1


# ------------------------------------------------------------------------------------ memory limits


def test_too_little_memory_says_what_the_smallest_choice_needs() -> None:
    with pytest.raises(InsufficientError) as caught:
        chosen(HostBuilder(available=100 * MIB))
    smallest = -(-need_of(kv_type="q8_0") // MIB)
    assert caught.value.message == "not enough memory for m"
    assert caught.value.needed == f"{smallest} MiB for the smallest choice"
    assert caught.value.found == "90 MiB that may be used"
    assert caught.value.exit_code == ExitCode.INSUFFICIENT


def test_what_is_needed_and_found_never_read_the_same() -> None:
    need = need_of(kv_type="q8_0")
    assert need % MIB
    with pytest.raises(InsufficientError) as caught:
        chosen(HostBuilder(available=available_for(need) - 2))
    assert int(str(caught.value.found).split()[0]) < int(str(caught.value.needed).split()[0])


@pytest.mark.parametrize(
    ("limit", "used", "slots"),
    [(None, None, 2), (64 * GIB, 0, 2), (available_for(need_of()), 0, 1),
     (available_for(need_of()) + GIB, GIB, 1), (available_for(need_of()), None, 1)],
)
def test_a_control_groups_limit_counts_less_what_it_already_holds(
    limit: int | None, used: int | None, slots: int
) -> None:
    assert chosen(HostBuilder(limit=limit, limit_used=used)).chosen.slots == slots


def test_a_control_group_that_is_full_leaves_nothing() -> None:
    with pytest.raises(InsufficientError) as caught:
        chosen(HostBuilder(limit=GIB, limit_used=2 * GIB))
    assert caught.value.found == "0 MiB that may be used"


def test_a_limit_above_the_free_memory_does_not_help() -> None:
    with pytest.raises(InsufficientError):
        chosen(HostBuilder(available=1 * MIB, limit=64 * GIB, limit_used=0))


def test_a_host_that_hides_its_memory_is_refused() -> None:
    with pytest.raises(IncompatibleHostError, match="how much memory"):
        chosen(HostBuilder(available=None))


@pytest.mark.parametrize(
    ("usable", "cores", "quota", "threads"),
    [(8, 4, None, 4), (2, 4, None, 2), (8, None, None, 8), (8, 4, 150, 1), (8, 4, 300, 3),
     (8, 4, 50, 1), (8, 4, 1600, 4), (None, None, None, 1)],
)
def test_threads_are_physical_cores_within_what_may_be_used(
    usable: int | None, cores: int | None, quota: int | None, threads: int
) -> None:
    host = HostBuilder(threads=usable, cores=cores, quota=quota)
    assert serving_threads(host.report()) == threads


# ---------------------------------------------------------------------------------- compatibility


def test_a_host_as_required_is_compatible() -> None:
    check_compatible(manifest(), HostBuilder().report())
    check_compatible(manifest(), HostBuilder(glibc=(2, 17)).report())
    check_compatible(manifest(), HostBuilder(glibc=(3, 0)).report())


@pytest.mark.parametrize(
    ("host", "needed", "found"),
    [(HostBuilder(arch="aarch64"), "x86_64", "aarch64"),
     (HostBuilder(glibc=(2, 16)), "glibc 2.17", "glibc 2.16"),
     (HostBuilder(glibc=(1, 99)), "glibc 2.17", "glibc 1.99"),
     (HostBuilder(glibc=None), "glibc 2.17", "unknown"),
     (HostBuilder(flags=("avx", "fma")), "avx2", "a processor"),
     (HostBuilder(flags=()), "avx2, fma", "a processor"),
     (HostBuilder(flags=None), "avx2, fma", "a processor")],
)
def test_a_host_of_another_kind_is_refused_with_both_sides(
    host: HostBuilder, needed: str, found: str
) -> None:
    with pytest.raises(IncompatibleHostError) as caught:
        check_compatible(manifest(), host.report())
    assert (caught.value.needed, caught.value.found) == (needed, found)
    assert caught.value.hint
    assert caught.value.exit_code == ExitCode.INCOMPATIBLE_HOST


def test_a_set_without_an_engine_for_this_host_is_refused() -> None:
    vllm = replace(PACK, kind="vllm")
    for engines, words in (((), "no engine"), ((vllm,), "nothing in the set")):
        with pytest.raises(IncompatibleHostError, match=words):
            select_all(manifest(model(), engines=engines), HostBuilder().report())


# ------------------------------------------------------------------------------------ whole plans


STATEMENT = ReleaseStatement(
    name="demo", version="1.0.0", epoch=1, sequence=1, created=0, expires=1, min_edgekit="0",
    files=(), signers=("ann",), policy="hybrid", digest=Digest.of(b"statement"))


def plan(
    root: Path, host: HostBuilder, *, present: frozenset[Digest] = frozenset(), links: bool = True,
    pack: EnginePack = PACK, placement: str = CPU,
) -> InstallPlan:
    """A whole plan, with `pack` as its engine and the weights where `placement` says."""
    layout = HostLayout(root)
    whole = manifest(model())
    tree = Entry(RelPath("runtime/edgekit"), "runtime", 300 * MIB, Digest.of(b"r"), executable=True)
    carried = CarriedImage("engine", "r.test/engine:1", Digest.of(b"i", "sha256"), ())
    levels = tuple(Entry(RelPath(f"engine/llama/cpu/libggml-cpu-{level}.so"), "engine", 9,
                         Digest.of(level.encode())) for level in ("haswell", "x64", "zen4"))
    is_source = pack.provider == "source"
    whole = replace(whole, entries=tuple(sorted(
        (*whole.entries, tree, *(levels if is_source else ())), key=lambda e: str(e.path))),
        images=(carried,) if pack.image else ())
    selections = tuple(
        replace(s, pack=pack, chosen=replace(
            s.chosen, serving=replace(s.chosen.serving, placement=placement)))
        for s in select_all(whole, host.report()))
    return plan_install(
        manifest=whole, statement=STATEMENT, selections=selections,
        cpu_flags=("sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"),
        links=links, layout=layout, templates=read_unit_templates(), present=present,
        listen="127.0.0.1:11434", previous=None,
    )


def test_disk_needs_are_one_copy_of_what_is_missing_and_what_cannot_be_linked(
    tmp_path: Path,
) -> None:
    decided = plan(tmp_path, HostBuilder())
    assert decided.copy_bytes == 300 * MIB + 7
    assert decided.disk_needs == (
        (str(tmp_path / "var/lib/edgekit"), 300 * MIB + 7),
        (str(tmp_path / "opt/edgekit"), 300 * MIB))
    again = plan(tmp_path, HostBuilder(), present=frozenset({Digest.of(b"r")}))
    assert (again.copy_bytes, len(again.missing)) == (7, 1)


def test_a_private_install_needs_no_systemd(tmp_path: Path) -> None:
    decided = plan(tmp_path, HostBuilder(systemd=None))
    assert decided.units == ()
    assert len(plan(Path("/"), HostBuilder()).units) >= 3


def test_a_plan_is_printed_as_it_is_carried_out(tmp_path: Path) -> None:
    decided = plan(tmp_path, HostBuilder())
    table = plan_table(decided)
    assert table["schema"] == "edgekit.plan/1"
    assert table["generation"] == decided.generation
    assert len(table["steps"]) == 5
    assert table["models"][0]["chosen"]["need"]["total"] == need_of(slots=2)
    arguments = decided.appliance.engines[0].argv
    assert arguments[arguments.index("--ctx-size") + 1] == str(2 * 4096)
    assert arguments[arguments.index("--parallel") + 1] == "2"


def test_levels_of_arithmetic_are_those_of_the_processor_best_first(tmp_path: Path) -> None:
    source = replace(PACK, provider="source")
    settings = plan(tmp_path, HostBuilder(), pack=source).appliance.engines[0]
    assert [Path(path).name for path in settings.levels] == [
        "libggml-cpu-haswell.so", "libggml-cpu-x64.so"]
    assert settings.helper.endswith("/engine/llama/edgekit-ggml")
    assert plan(tmp_path, HostBuilder()).appliance.engines[0].levels == ()


def test_a_build_without_mixed_batches_is_planned_without_their_rows() -> None:
    """The engines' own figures: 27.52 and 25.51 MiB for the shape `gqa`, two contexts of 1,024."""
    known = replace(PACK, provider="source", version="0.3.36")

    def compute(pack: EnginePack) -> int:
        whole = manifest(model(variant(width=1024, ffn=4096)), engines=(pack,))
        need = select_all(whole, HostBuilder().report())[0].chosen.need
        assert need is not None
        return need.of("compute")

    assert 4 * 1024 * 512 <= compute(PACK) - compute(known) <= 2 * 4 * 1024 * 512
    assert compute(replace(known, version="0.3.99")) == compute(PACK)
