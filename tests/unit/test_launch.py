"""How each provider's engine is started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.core.engine_pack import EnginePack
from edgekit.core.launch import Start, plan_launch
from edgekit.core.names import RelPath
from edgekit.core.planning.values import DeviceShare, Serving
from edgekit.errors import IncompatibleHostError

WHEEL = EnginePack("llama.cpp", "wheel", "1.0", RelPath("engines/e"), RelPath("engines/e/run"))
SOURCE = replace(WHEEL, provider="source")
SERVING = Serving(slots=3, context=1024, threads=2, batch=512, kv_type="q8_0")
START = Start("/opt/run", "m", (("m.gguf", "/blobs/1"), ("m-2.gguf", "/blobs/2")), "/run/e.sock",
              SERVING)


def options(argv: tuple[str, ...]) -> dict[str, str]:
    """Options with what follows each of them."""
    return {word: argv[i + 1] if i + 1 < len(argv) else "" for i, word in enumerate(argv)
            if word.startswith("--")}


@pytest.mark.parametrize("pack", [WHEEL, SOURCE])
def test_every_number_of_the_plan_is_passed(pack: EnginePack) -> None:
    argv = plan_launch(pack, START).argv
    found = options(argv)
    assert argv[0] == "/opt/run"
    assert found["--model"] == "/blobs/1"
    assert found["--alias"] == "m"
    wanted = {"--ctx-size": "3072", "--parallel": "3", "--threads": "2", "--ubatch-size": "512",
              "--cache-type-k": "q8_0", "--cache-type-v": "q8_0", "--n-gpu-layers": "0"}
    assert found.items() >= wanted.items()
    assert "/run/e.sock" in argv


@pytest.mark.parametrize("pack", [WHEEL, SOURCE])
def test_devices_are_named(pack: EnginePack) -> None:
    shares = (DeviceShare("CUDA0", "GPU-1", 20, 1), DeviceShare("CUDA1", "GPU-2", 13, 1))
    serving = replace(SERVING, devices=shares, tensor_split=(20, 13), gpu_layers=33,
                      host_experts=4)
    found = options(plan_launch(pack, replace(START, serving=serving)).argv)
    assert found["--device"] == "CUDA0,CUDA1"
    assert found["--tensor-split"] == "20,13"
    assert found["--n-gpu-layers"] == "33"
    assert found["--n-cpu-moe"] == "4"


def test_the_servers_own_guessing_and_doors_are_shut() -> None:
    argv = plan_launch(SOURCE, START).argv
    found = options(argv)
    assert (found["--fit"], found["--cache-ram"], found["--flash-attn"]) == ("off", "0", "on")
    assert {"--offline", "--no-ui", "--no-slots", "--no-kv-unified"} <= set(argv)
    assert not {"--tools", "--agent", "--props", "--rpc", "--media-path"} & set(argv)


@pytest.mark.parametrize(("pooling", "wanted"), [
    ("", []), ("own", ["--embedding"]), ("mean", ["--embedding", "--pooling", "mean"]),
])
def test_the_server_pools_as_asked_or_as_the_weights_say(pooling: str, wanted: list[str]) -> None:
    argv = list(plan_launch(SOURCE, replace(START, pooling=pooling)).argv)
    assert argv[len(argv) - len(wanted):] == wanted
    assert ("--embedding" in argv) == bool(pooling)


def test_a_provider_that_this_edgekit_does_not_know_is_named() -> None:
    with pytest.raises(IncompatibleHostError) as caught:
        plan_launch(replace(WHEEL, provider="balloon"), START)
    assert "balloon" in str(caught.value.found)
