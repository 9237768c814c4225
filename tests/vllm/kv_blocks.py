"""Run by the environment that edgekit installed: how many blocks vLLM makes of a cache's bytes.

    python -I -B kv_blocks.py FOLDER...

Each folder holds config.json and case.json; the weights are vLLM's own dummy ones. Prints one JSON
line per folder: its name, the number of blocks, tokens in each, tokens that it counts in all, bytes
that it made room for adapters in.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """All cases in one process: importing takes longer than any of them."""
    from vllm import LLM  # noqa: PLC0415
    from vllm.distributed import cleanup_dist_env_and_memory  # noqa: PLC0415

    for name in sys.argv[1:]:
        case = json.loads((Path(name) / "case.json").read_text("utf-8"))
        llm = LLM(
            model=name, load_format="dummy", skip_tokenizer_init=True, enforce_eager=True,
            dtype="bfloat16", max_num_batched_tokens=2048, max_model_len=case["context"],
            max_num_seqs=case["slots"], kv_cache_memory_bytes=case["bytes"], enable_lora=True,
            max_loras=case["adapters"], max_lora_rank=case["rank"],
        )
        cache = llm.llm_engine.vllm_config.cache_config
        found = [cache.num_gpu_blocks, cache.block_size, cache.kv_cache_size_tokens, _room(llm)]
        print(json.dumps([Path(name).name, *found]), flush=True)
        llm.llm_engine.engine_core.shutdown()
        del llm, cache
        gc.collect()
        cleanup_dist_env_and_memory()


def _room(llm: Any) -> int:
    """Bytes of every matrix that waits for adapters."""
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    total = 0
    for module in worker.model_runner.model.modules():
        for name in ("lora_a_stacked", "lora_b_stacked"):
            held = getattr(module, name, ())
            for matrix in held if isinstance(held, tuple) else (held,):
                total += matrix.numel() * matrix.element_size()
    return total


if __name__ == "__main__":
    main()
