"""The engine program of the llama.cpp `wheel` provider: llama.cpp's own HTTP server on a socket.

Frozen with the xllamacpp wheel into a pack that needs no Python on the host. Every limit comes from
the plan: the engine's own guessing is off. It runs until it is told to stop or its parent dies, and
leaves without the library's shutdown, which can hang under load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys

import xllamacpp

VERBOSITY = 4
"""The least at which the engine prints the sizes of its buffers; it prints no prompts there."""
CACHE_TYPES = {
    "f16": xllamacpp.ggml_type.GGML_TYPE_F16,
    "q8_0": xllamacpp.ggml_type.GGML_TYPE_Q8_0,
}
FLASH = {
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_POOLING = xllamacpp.llama_pooling_type
POOLINGS = {
    "own": _POOLING.LLAMA_POOLING_TYPE_UNSPECIFIED,
    "mean": _POOLING.LLAMA_POOLING_TYPE_MEAN,
    "cls": _POOLING.LLAMA_POOLING_TYPE_CLS,
    "last": _POOLING.LLAMA_POOLING_TYPE_LAST,
    "rank": _POOLING.LLAMA_POOLING_TYPE_RANK,
}


def main() -> None:
    """Load the model, listen, wait for SIGTERM; or, told `devices`, list what ggml sees."""
    if sys.argv[1:] == ["devices"]:
        _list_devices()
        return
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    params = _params(options)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.socket)  # noqa: PTH108 - a leftover of a killed run stops the next
    server = xllamacpp.Server(params)  # returns when the model is loaded and the socket listens
    print(f"listening on {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        signal.pause()


def _list_devices() -> None:
    """One JSON object per line, sizes in bytes, as the `source` provider's helper prints them."""
    for device in xllamacpp.get_device_info():
        kind = device["type"].name.rpartition("_")[2].lower()
        table = {
            "name": device["name"],
            "description": device["description"],
            "type": kind,
            "free": device["memory_free"],
            "total": device["memory_total"],
        }
        print(json.dumps(table), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgekit-llama")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--alias", required=True, help="model name in answers")
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument("--ctx-size", type=int, required=True, help="tokens over all slots")
    parser.add_argument("--parallel", type=int, required=True, help="slots")
    parser.add_argument("--threads", type=int, required=True, help="generation threads")
    parser.add_argument("--batch-size", type=int, required=True, help="logical batch, tokens")
    parser.add_argument("--ubatch-size", type=int, required=True, help="physical batch, tokens")
    parser.add_argument("--cache-type-k", choices=CACHE_TYPES, default="f16", help="K in the cache")
    parser.add_argument("--cache-type-v", choices=CACHE_TYPES, default="f16", help="V in the cache")
    parser.add_argument("--ctx-checkpoints", type=int, default=0, help="copies kept per slot")
    parser.add_argument("--flash-attn", choices=FLASH, default="on", help="for measurements")
    parser.add_argument("--n-gpu-layers", type=int, choices=(0,), default=0, help="CPU build: none")
    parser.add_argument(
        "--embedding",
        choices=tuple(POOLINGS),
        help="make vectors, pooled like this or as the weights say (own), or scores (rank)",
    )
    parser.add_argument(
        "--adapter", action="append", default=[],
        help="GGUF file of a LoRA adapter, without effect until a request asks for it",
    )
    parser.add_argument("--mmproj", default="", help="GGUF file of a vision projector")
    return parser.parse_args()


def _params(options: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.socket]
    params.n_ctx = options.ctx_size
    params.n_parallel = options.parallel
    params.n_batch = options.batch_size
    params.n_ubatch = options.ubatch_size
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    # As many HTTP threads as slots, plus some for health checks, whatever the core count.
    params.n_threads_http = options.parallel + 4
    params.fit_params = False  # the plan is pinned; guessing per start could differ per boot
    params.kv_unified = False  # each slot owns its context: nobody can crowd out another
    params.n_ctx_checkpoints = options.ctx_checkpoints
    params.cache_ram_mib = 0  # no earlier user's prompt stays in memory
    params.n_gpu_layers = options.n_gpu_layers
    params.cache_type_k = CACHE_TYPES[options.cache_type_k]
    params.cache_type_v = CACHE_TYPES[options.cache_type_v]
    params.flash_attn_type = FLASH[options.flash_attn]
    params.use_jinja = True
    params.offline = True
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = True
    params.warmup = True
    params.verbosity = VERBOSITY
    params.mmproj.path = options.mmproj
    params.mmproj_use_gpu = False
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in options.adapter]
    if options.embedding is not None:
        params.embedding = True
        params.pooling_type = POOLINGS[options.embedding]
    return params


if __name__ == "__main__":
    main()
