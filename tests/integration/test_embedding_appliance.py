"""A set with models that chat (two), embed and rank, bundled, installed and asked for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from edgekit.core.vectors import cosine
from tests.conftest import bundle_demo
from tests.support.appliance import MODEL, DemoSet, RunningAppliance, free_port, run_installer
from tests.support.ranking_model import BEST, write_ranking_model

EMBEDDER = "demo-embed"
RANKER = "demo-rank"
SECOND = "demo-second"
VARIANT = """\
[[model.variant]]
format = "gguf"
quantization = "Q8_0"
source = { folder = "../models/demo/gguf" }
files = ["edgekit-demo-q8_0.gguf"]
"""
RECIPE = f"""\
[[model]]
name = "{EMBEDDER}"
context = 512
license = "Apache-2.0"
task = "embedding"
pooling = "mean"

{VARIANT}
[[model.canary]]
prompt = "Which command builds a bundle?"
answer = "the command that builds a bundle"

[[model.canary]]
prompt = "What is the capital of France?"
answer = "the capital of France"

"""

CHAT_RECIPE = f"""\
[[model]]
name = "{SECOND}"
context = 512
license = "Apache-2.0"

{VARIANT}
[[model.canary]]
prompt = "What is the capital of France?"
answer = "Paris"

"""


MODELFILE = f"""\
FROM {MODEL}
SYSTEM You know edgekit.
PARAMETER temperature 0
PARAMETER num_predict 3
PARAMETER num_ctx 4096
MESSAGE user Which command installs a bundle?
MESSAGE assistant edgekit install installs it.
"""


DERIVED = """\
[[derived]]
name = "short"
modelfile = "Short"

"""


def ranker(folder: Path, *, head: bool = True) -> str:
    """The recipe's lines of a model that ranks; its weights are written into the folder."""
    path = write_ranking_model(folder, head=head)
    lines = [
        "[[model]]", f'name = "{RANKER}"', "context = 512", 'license = "Apache-2.0"',
        'task = "rerank"', "[[model.variant]]", 'format = "gguf"', 'quantization = "F32"',
        f'source = {{ folder = "{folder}" }}', f'files = ["{path.name}"]',
    ]
    for query, document in BEST.items():
        lines += ["[[model.canary]]", f'prompt = "{query}"', f'answer = "{document}"']
    return "\n".join([*lines, "", ""])


@pytest.fixture(scope="module")
def several_models(demo_set: DemoSet, tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    weights = str(Path(__file__).parents[2] / "models/demo")
    (demo_set.root.parent / "Short").write_text(MODELFILE.replace("num_predict 3", "num_predict 2"))
    models = (RECIPE + CHAT_RECIPE).replace("../models/demo", weights)
    models += ranker(tmp_path_factory.mktemp("rank"))
    return bundle_demo(
        demo_set.root.parent, demo_set.signer, demo_set.root,
        ('name = "demo-small"', 'name = "demo-two"'),
        ("[[engine]]", f"{models}{DERIVED}[[engine]]"),
    )


@pytest.fixture(scope="module")
def both(
    several_models: DemoSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAppliance]:
    running = RunningAppliance(several_models, tmp_path_factory.mktemp("e"), free_port())
    running.install()
    running.serve()
    yield running
    running.stop()


def test_all_models_serve_from_one_set(both: RunningAppliance) -> None:
    client = openai.OpenAI(base_url=f"{both.url}/v1", api_key=both.api_key, max_retries=0)
    names = {model.id for model in client.models.list()}
    assert names == {MODEL, EMBEDDER, SECOND, RANKER, "short"}
    texts = ["Which command builds a bundle?", "Which command builds a set?", "a river in France"]
    rows = client.embeddings.create(model=EMBEDDER, input=texts).data
    near, far = (cosine(rows[0].embedding, row.embedding) for row in rows[1:])
    assert near > far
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": texts[0]}], temperature=0
    )
    assert "edgekit bundle" in str(answer.choices[0].message.content)


def test_documents_are_ranked(both: RunningAppliance) -> None:
    headers = {"Authorization": f"Bearer {both.api_key}"}
    for query, document in BEST.items():
        body = {"model": RANKER, "query": query, "documents": [*BEST.values()], "top_n": 1}
        answer = httpx.post(f"{both.url}/v1/rerank", json=body, headers=headers, timeout=20)
        (best,) = answer.json()["results"]
        assert best["document"]["text"] == document


def test_models_are_listed_and_shown_with_their_plan(both: RunningAppliance) -> None:
    listed = json.loads(both.edgekit("model", "list", "--json").stdout)
    assert [model["name"] for model in listed["models"]] == [
        MODEL, EMBEDDER, SECOND, RANKER, "short"
    ]
    assert all(model["memory_bytes"] > 2 << 20 for model in listed["models"])
    shown = json.loads(both.edgekit("model", "show", f"{SECOND}:latest", "--json").stdout)
    assert (shown["context"], shown["known_questions"], shown["placement"]) == (512, 1, "cpu")
    assert "demo-second" in both.edgekit("model", "show", SECOND).stdout
    wrong = both.edgekit("model", "show", "llama3")
    assert wrong.returncode == 44
    assert "edgekit model list" in wrong.stderr


def test_ps_says_which_models_are_in_memory_with_their_planned_sizes(
    both: RunningAppliance
) -> None:
    running = json.loads(both.edgekit("model", "ps", "--json").stdout)["models"]
    listed = json.loads(both.edgekit("model", "list", "--json").stdout)["models"]
    assert {m["name"].removesuffix(":latest"): m["size"] for m in running} == {
        m["name"]: m["memory_bytes"] for m in listed if not m["made_from"]
    }
    words = both.edgekit("model", "ps").stdout
    assert words.count("processor") == 4
    assert words.count("stays") == 4


def test_a_model_made_here_answers_as_its_modelfile_says(
    both: RunningAppliance, tmp_path: Path
) -> None:
    (tmp_path / "Modelfile").write_text(MODELFILE, "utf-8")
    made = both.edgekit("model", "create", "helper", "-f", str(tmp_path / "Modelfile"))
    assert made.returncode == 0, made.stderr
    assert "num_ctx has no effect" in made.stderr
    both.stop()
    both.serve()
    client = openai.OpenAI(base_url=f"{both.url}/v1", api_key=both.api_key, max_retries=0)
    assert "helper" in {model.id for model in client.models.list()}
    question: Any = [{"role": "user", "content": "Which command builds a bundle?"}]
    plain = client.chat.completions.create(model=MODEL, messages=question, temperature=0)
    short = client.chat.completions.create(model="helper", messages=question)
    carried = client.chat.completions.create(model="short", messages=question)
    assert carried.usage
    assert carried.usage.completion_tokens == 2
    longer = client.chat.completions.create(model="helper", messages=question, max_tokens=6)
    texts = [str(answer.choices[0].message.content) for answer in (plain, short, longer)]
    assert short.choices[0].finish_reason == "length"
    assert texts[2].startswith(texts[1])
    tokens = [answer.usage.completion_tokens for answer in (short, longer) if answer.usage]
    assert tokens == [3, 6]
    asked = [answer.usage.prompt_tokens for answer in (plain, short) if answer.usage]
    assert asked[1] > asked[0] + 5  # its system text and messages are there
    headers = {"Authorization": f"Bearer {both.api_key}"}
    shown = ollama.Client(both.url, headers=headers).show("helper")
    assert "SYSTEM You know edgekit." in str(shown.modelfile)
    listed = json.loads(both.edgekit("model", "list", "--json").stdout)["models"]
    assert listed[-1]["made_from"] == MODEL
    segments = sorted((both.root / "var/lib/edgekit/audit").glob("audit-*.jsonl"))
    events = [line for path in segments for line in path.read_text().splitlines()
              if '"type":"model_create"' in line]
    assert len(events) == 1
    assert json.loads(events[0])["modelfile"] == listed[-1]["digest"]
    assert both.edgekit("model", "rm", "helper").returncode == 0
    assert both.edgekit("model", "rm", MODEL).returncode == 44


def test_the_weights_they_share_are_carried_once(several_models: DemoSet) -> None:
    table = json.loads((several_models.folder / "manifest.json").read_bytes())
    weights = [entry["digest"] for entry in table["entries"] if entry["role"] == "weights"]
    assert len(weights) == 4
    assert len(set(weights)) == 2  # all but the one that ranks share theirs
    assert [model["capabilities"] for model in table["models"]] == [
        ["completion"], ["embedding"], ["completion"], ["rerank"]
    ]


def test_weights_without_a_head_do_not_rank(demo_set: DemoSet, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no head that ranks"):
        bundle_demo(
            demo_set.root.parent, demo_set.signer, demo_set.root,
            ('name = "demo-small"', 'name = "demo-headless"'),
            ("[[engine]]", f"{ranker(tmp_path, head=False)}[[engine]]"),
        )


def test_vectors_that_are_not_neighbours_fail_the_installation(
    demo_set: DemoSet, tmp_path: Path
) -> None:
    weights = str(Path(__file__).parents[2] / "models/demo")
    swapped = (
        RECIPE.replace("../models/demo", weights)
        .replace("the command that builds a bundle", "SWAP")
        .replace("the capital of France", "the command that builds a bundle")
        .replace("SWAP", "the capital of France")
    )
    wrong = bundle_demo(
        demo_set.root.parent, demo_set.signer, demo_set.root,
        ('name = "demo-small"', 'name = "demo-wrong"'), ("[[engine]]", f"{swapped}[[engine]]"),
    )
    done = run_installer(
        wrong, "install", str(wrong.folder), "--root", str(tmp_path / "r"), "--listen",
        f"127.0.0.1:{free_port()}", "--fingerprint", wrong.fingerprint,
        "--insecure-developer-root",
    )
    assert done.returncode != 0
    assert not (tmp_path / "r/opt/edgekit/current").is_symlink()
