"""Two models that do not fit beside each other, installed and asked for real: loaded when asked."""

from __future__ import annotations

import functools
import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ollama
import openai
import pytest

from tests.conftest import bundle_demo
from tests.integration.test_embedding_appliance import CHAT_RECIPE, SECOND
from tests.support.appliance import MODEL, DemoSet, RunningAppliance, free_port

QUESTION, ANSWER = "What is the capital of France?", "Paris"
ON_DEMAND = 'license = "Apache-2.0"\nload = "demand"'


@functools.cache
def bundle_turns(demo_set: DemoSet) -> DemoSet:
    """A set with two models that are loaded on demand; made once for all who ask."""
    weights = str(Path(__file__).parents[2] / "models/demo")
    second = CHAT_RECIPE.replace("../models/demo", weights)
    second = second.replace('license = "Apache-2.0"', ON_DEMAND)
    return bundle_demo(
        demo_set.root.parent, demo_set.signer, demo_set.root,
        ('name = "demo-small"', 'name = "demo-turns"'), ('license = "Apache-2.0"', ON_DEMAND),
        ("[[engine]]", f"{second}[[engine]]"),
    )


@pytest.fixture(scope="module")
def host(
    demo_set: DemoSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAppliance]:
    running = RunningAppliance(bundle_turns(demo_set), tmp_path_factory.mktemp("d"), free_port())
    running.install()
    _let_one_fit(running.root)
    running.serve()
    yield running
    running.stop()


def _let_one_fit(root: Path) -> None:
    """This machine has room for both: give them what the larger one takes."""
    settings = next((root / "opt/edgekit/generations").glob("*/appliance.json"))
    table = json.loads(settings.read_bytes())
    assert all(engine["lease"] for engine in table["engines"])
    table["shared_room"] = max(engine["claims"]["host"] for engine in table["engines"])
    settings.chmod(0o644)
    settings.write_text(json.dumps(table))


def ask(host: RunningAppliance, model: str) -> str:
    client = openai.OpenAI(base_url=f"{host.url}/v1", api_key=host.api_key, max_retries=0)
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0
    )
    return str(answer.choices[0].message.content)


def loaded(host: RunningAppliance) -> list[str]:
    table = json.loads(host.edgekit("model", "ps", "--json").stdout)
    return [model["name"].removesuffix(":latest") for model in table["models"]]


def engines(host: RunningAppliance) -> int:
    done = subprocess.run(
        ["pgrep", "-cf", f"^{host.root}/.*/edgekit-llama"], capture_output=True, text=True,
        check=False,
    )
    return int(done.stdout)


def test_the_model_that_is_asked_is_the_one_in_memory(host: RunningAppliance) -> None:
    for model in (MODEL, SECOND, MODEL):
        assert ANSWER in ask(host, model)
        assert loaded(host) == [model]
        assert engines(host) == 1
    listed = json.loads(host.edgekit("model", "list", "--json").stdout)["models"]
    assert [model["on_demand"] for model in listed] == [True, True]
    plan = host.edgekit("plan", str(host.demo_set.folder)).stdout
    assert plan.count("loaded on demand") == 2


def test_keep_alive_says_when_it_leaves_and_the_host_is_ready_without_it(
    host: RunningAppliance
) -> None:
    client = ollama.Client(host.url, headers={"Authorization": f"Bearer {host.api_key}"})
    client.generate(SECOND, keep_alive="1h")  # only loads it
    assert loaded(host) == [SECOND]
    assert " s from now" in host.edgekit("model", "ps").stdout
    assert client.generate(SECOND, keep_alive=0).done_reason == "unload"
    assert (loaded(host), engines(host)) == ([], 0)
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=30)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()
    assert ANSWER in client.generate(MODEL, QUESTION, keep_alive=0, options={"temperature": 0})[
        "response"
    ]
    deadline = time.monotonic() + 30
    while engines(host) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert loaded(host) == []


def test_clients_of_both_at_once_are_all_answered_and_one_engine_runs(
    host: RunningAppliance
) -> None:
    done, most = threading.Event(), [0]

    def look() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], engines(host))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda model: ask(host, model), [MODEL, SECOND] * 4))
    finally:
        done.set()
        watcher.join()
    assert all(ANSWER in answer for answer in answers)
    assert most == [1]
