"""The engine program of the vLLM `wheel` provider: vLLM's own API server on a unix socket.

Run by the pack's own Python as `python -I -B serve.py`, with vLLM's options after `--`. vLLM reads
a folder, hosts keep blobs by digest: the folder is made of links, beside the socket, in a place
that takes every cache, too, and is empty at each start. The variables that keep vLLM and its
libraries from telling anybody anything come with the command.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import sys
from pathlib import Path

CACHES = {
    "HOME": "home",
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "HF_HOME": "hub",
    "TMPDIR": "tmp",
    "VLLM_RPC_BASE_PATH": "rpc",
}
"""Variables that name folders which vLLM and its libraries write to."""


def main() -> None:
    """Lay out the weights' folder and become vLLM's server."""
    parser = argparse.ArgumentParser(prog="edgekit-vllm")
    parser.add_argument("--file", action="append", default=[], metavar="NAME=PATH", required=True,
                        help="a file of the weights' folder and where it lies")
    parser.add_argument("--adapter-file", action="append", default=[], metavar="ADAPTER/NAME=PATH",
                        help="a file of a LoRA adapter's folder and where it lies")
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument("options", nargs="*", help="vLLM's own, after --")
    options = parser.parse_args()
    os.umask(0o007)
    work = Path(options.socket).with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    for name, folder in CACHES.items():
        (work / folder).mkdir(parents=True)
        os.environ[name] = str(work / folder)
    weights, adapters = work / "weights", work / "adapters"
    weights.mkdir()
    _link(weights, options.file)
    _link(adapters, options.adapter_file)
    modules = [f"{path.name}={path}" for path in sorted(adapters.glob("*"))]
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = os.environ["TIKTOKEN_RS_CACHE_DIR"] = str(weights)
    sys.argv = ["vllm", "--model", str(weights), "--uds", options.socket, *options.options]
    if modules:
        sys.argv += ["--lora-modules", *modules]
    # `vllm serve` asks for a distribution named vllm, which the processor's is not; this does not
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)


def _link(folder: Path, items: list[str]) -> None:
    for item in items:
        name, _, place = item.partition("=")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(place)


if __name__ == "__main__":
    main()
