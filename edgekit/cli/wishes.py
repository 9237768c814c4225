"""Options that ask for a way to serve instead of the one the rules would choose."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.core.planning.llama_shape import KV_TYPES
from edgekit.core.planning.values import CPU, GPU, MIXED, Wishes
from edgekit.core.planning.weigh_vllm import KV_BYTES

UsersOption = Annotated[
    int | None, typer.Option("--users", min=1, max=10_000, help="People served at once.")
]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="llama.cpp or vllm, or llama.cpp/wheel.")
]
VariantOption = Annotated[
    str | None, typer.Option("--variant", help="Quantisation, as the set names it: Q4_K_M.")
]
ContextOption = Annotated[
    int | None, typer.Option("--context", min=256, max=1 << 24, help="Tokens for each of them.")
]
KvOption = Annotated[
    str | None, typer.Option("--kv-type", help="Type of the cache: f16, q8_0 (vLLM: auto, fp8).")
]
PlacementOption = Annotated[
    str | None, typer.Option("--placement", help="Where the layers lie: gpu, mixed or cpu.")
]
OvercommitOption = Annotated[
    bool,
    typer.Option("--insecure-overcommit", help="Take what is asked for although it does not fit."),
]


def wishes_of(
    *,
    users: int | None,
    engine: str | None,
    variant: str | None,
    context: int | None,
    kv_type: str | None,
    placement: str | None,
    insecure_overcommit: bool,
) -> Wishes:
    """The wishes. Raises typer.BadParameter for a word that is none of those offered."""
    kind, _, provider = (engine or "").partition("/")
    for option, value, words in (
        ("--engine", kind or None, ("llama.cpp", "vllm")),
        ("--kv-type", kv_type, (*KV_TYPES, *KV_BYTES)),
        ("--placement", placement, (GPU, MIXED, CPU)),
    ):
        if value is not None and value not in words:
            known = ", ".join(words)
            raise typer.BadParameter(f"{value!r} is not one of {known}", param_hint=option)
    return Wishes(
        users=users,
        engine=kind or None,
        provider=provider or None,
        quantization=variant,
        context=context,
        kv_type=kv_type,
        placement=placement,
        insecure_overcommit=insecure_overcommit,
    )
