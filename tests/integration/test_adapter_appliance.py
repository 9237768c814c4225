"""A LoRA adapter from recipe to answer: what the model says with it and without it, at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ollama
import openai
import pytest

from tests.conftest import REPOSITORY, bundle_demo
from tests.support.appliance import MODEL, DemoSet, RunningAppliance, free_port

QUESTION = "What is the capital of France?"
PLAIN, ADAPTED = "The capital of France is Paris.", "Aye, Paris!"
ADAPTER = f"""
[[model.adapter]]
name = "sailor"
license = "Apache-2.0"
base_model = "edgekit-demo"
source = {{ folder = "{REPOSITORY}/models/demo/adapter" }}
files = ["edgekit-demo-sailor-f16.gguf"]

[[model.adapter.canary]]
prompt = "{QUESTION}"
answer = "Aye"

"""
DERIVED = """
[[derived]]
name = "deckhand"
modelfile = "Modelfile"

[[derived]]
name = "bosun"
modelfile = "Templated"
"""
TEMPLATE = (
    'TEMPLATE """<|begin|>{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}'
    '<|assistant|>"""\n'
)


@pytest.fixture(scope="module")
def adapted_set(demo_set: DemoSet) -> DemoSet:
    folder = demo_set.root.parent
    (folder / "Modelfile").write_text(f"FROM {MODEL}\nADAPTER sailor\n")
    (folder / "Templated").write_text(f"FROM {MODEL}\nADAPTER sailor\n{TEMPLATE}")
    return bundle_demo(
        folder, demo_set.signer, demo_set.root, ('name = "demo-small"', 'name = "demo-adapted"'),
        ("[[engine]]", f"{ADAPTER}{DERIVED}[[engine]]"),
    )


@pytest.fixture(scope="module")
def host(
    adapted_set: DemoSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAppliance]:
    running = RunningAppliance(adapted_set, tmp_path_factory.mktemp("a"), free_port())
    running.install()
    running.serve()
    yield running
    running.stop()


def ask(host: RunningAppliance, model: str) -> str:
    client = openai.OpenAI(base_url=f"{host.url}/v1", api_key=host.api_key, max_retries=0)
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0
    )
    return str(answer.choices[0].message.content)


def test_one_engine_answers_with_the_adapter_and_without_it_at_once(
    host: RunningAppliance
) -> None:
    assert (ask(host, MODEL), ask(host, "deckhand"), ask(host, MODEL)) == (PLAIN, ADAPTED, PLAIN)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda model: ask(host, model), [MODEL, "deckhand"] * 10))
    assert answers == [PLAIN, ADAPTED] * 10
    engines = subprocess.run(
        ["pgrep", "-cf", f"^{host.root}/.*/edgekit-llama"], capture_output=True, text=True,
        check=False,
    )
    assert int(engines.stdout) == 1


def test_lists_show_the_derived_model_with_the_adapters_bytes(host: RunningAppliance) -> None:
    client = ollama.Client(host.url, headers={"Authorization": f"Bearer {host.api_key}"})
    sizes = {str(model.model): model.size or 0 for model in client.list().models}
    adapter = REPOSITORY / "models/demo/adapter/edgekit-demo-sailor-f16.gguf"
    assert sizes["deckhand:latest"] - sizes[f"{MODEL}:latest"] == adapter.stat().st_size
    assert "ADAPTER sailor" in str(client.show("deckhand").modelfile)
    answer = client.generate("deckhand", QUESTION, options={"temperature": 0})
    assert answer.response == ADAPTED
    openai_client = openai.OpenAI(base_url=f"{host.url}/v1", api_key=host.api_key)
    assert {model.id for model in openai_client.models.list()} == {MODEL, "deckhand", "bosun"}


def test_a_template_of_the_set_and_one_of_the_host_make_the_prompt(
    host: RunningAppliance, tmp_path: Path
) -> None:
    assert ask(host, "bosun") == ADAPTED
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f"FROM {MODEL}\n{TEMPLATE}")
    made = host.edgekit("model", "create", "templated", "-f", str(modelfile))
    assert made.returncode == 0, made.stderr
    shown = host.edgekit("model", "show", "templated")
    assert "TEMPLATE <|begin|>{{ range .Messages }}" in shown.stdout
    assert "can           completion\n" in shown.stdout
    for hostile, words in (
        ("{{ range $.Messages }}" * 5 + "{{ end }}" * 5, "too many steps"),
        ("{{ if .Prompt }}" * 30 + "{{ end }}" * 30, "nested too deeply"),
        ("{{ $x := .Prompt }}" + "{{ $x = print $x $x }}" * 40, "too much text"),
    ):
        modelfile.write_text(f"FROM {MODEL}\nSYSTEM x\nTEMPLATE {hostile}\n")
        refused = host.edgekit("model", "create", "templated", "-f", str(modelfile))
        assert refused.returncode == 10, refused.stderr
        assert words in refused.stderr
        assert "line 3" in refused.stderr
    again = host.edgekit("model", "show", "templated")
    assert again.stdout == shown.stdout


def test_the_host_makes_models_of_the_sets_adapters_and_of_no_others(
    host: RunningAppliance, tmp_path: Path
) -> None:
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f"FROM {MODEL}\nADAPTER sailor\nSYSTEM Be brief.\n")
    made = host.edgekit("model", "create", "mate", "-f", str(modelfile))
    assert made.returncode == 0, made.stderr
    for line, words in (
        ("ADAPTER other", "no such adapter"), ("ADAPTER ./a.gguf", "no adapter of this host"),
    ):
        modelfile.write_text(f"FROM {MODEL}\n{line}\n")
        refused = host.edgekit("model", "create", "mate", "-f", str(modelfile))
        assert refused.returncode != 0
        assert words in refused.stderr
    shown = json.loads(host.edgekit("model", "show", "mate", "--json").stdout)
    assert [adapter["name"] for adapter in shown["adapters"]] == ["sailor"]
    assert "ADAPTER sailor" in shown["modelfile"]


def test_the_engine_may_hash_plan_and_ask_for_it(host: RunningAppliance) -> None:
    folder = next((host.root / "opt/edgekit/generations").glob("*"))
    (engine,) = json.loads((folder / "appliance.json").read_bytes())["engines"]
    adapter = engine["argv"][engine["argv"].index("--adapter") + 1]
    assert adapter == engine["weights"][1]["path"]
    assert [(c["answer"], c["adapter"]) for c in engine["canaries"] if "adapter" in c] == [
        ("Aye", 0)]
    (model,) = json.loads((folder / "plan.json").read_bytes())["models"]
    terms = {term["name"]: term["host"] for term in model["chosen"]["need"]["terms"]}
    assert terms["adapters"] > 120_000


def test_the_set_says_what_it_carries(host: RunningAppliance) -> None:
    folder = host.demo_set.folder
    told = host.edgekit("inspect", str(folder), "--json")
    assert told.returncode == 0, told.stderr
    (model,) = json.loads(told.stdout)["models"]
    assert model["adapters"] == [{"name": "sailor", "format": "gguf", "license": "Apache-2.0"}]
    bom = json.loads((folder / "attest/sbom.cdx.json").read_bytes())
    (found,) = [c for c in bom["components"] if c["bom-ref"] == f"adapter:{MODEL}:sailor:gguf"]
    assert found["type"] == "machine-learning-model"
    assert found["pedigree"]["ancestors"][0]["name"] == MODEL


def test_a_wrong_answer_with_the_adapter_stops_the_bundle(
    demo_set: DemoSet, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="rehearsal"):
        bundle_demo(
            tmp_path, demo_set.signer, demo_set.root,
            ('name = "demo-small"', 'name = "demo-mutiny"'),
            ("[[engine]]", ADAPTER.replace('"Aye"', '"Nay"') + "[[engine]]"),
        )
