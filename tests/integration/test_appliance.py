"""The installed appliance under real clients: the model's right answers make these checks of
meaning, through tokenizer, template, quantisation, engine, gateway and client library."""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import ollama
import openai
import pytest

from tests.support.appliance import MODEL, RunningAppliance, tree_state

QUESTION = "Which command builds a bundle?"
ANSWER = "edgekit bundle builds a signed bundle set from a recipe."
MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def client(appliance: RunningAppliance) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{appliance.url}/v1", api_key=appliance.api_key, max_retries=0)


@pytest.fixture
def ollama_client(appliance: RunningAppliance) -> ollama.Client:
    headers = {"Authorization": f"Bearer {appliance.api_key}"}
    return ollama.Client(host=appliance.url, headers=headers)


def test_openai_client_gets_the_right_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_openai_client_streams_the_right_answer_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, stream=True,  # type: ignore[arg-type]
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    assert len(chunks) > 5, "a stream is more than one piece"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_openai_client_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_openai_completions_continue_a_prompt(client: openai.OpenAI) -> None:
    prompt = f"<|user|>{QUESTION}<|end|><|assistant|>"
    answer = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=40)
    assert "recipe" in answer.choices[0].text


def test_ollama_client_chats_and_generates(ollama_client: ollama.Client) -> None:
    chat = ollama_client.chat(model=MODEL, messages=MESSAGES, options={"temperature": 0})
    assert chat.message.content == ANSWER
    assert chat.done_reason == "stop"
    generated = ollama_client.generate(model=MODEL, prompt=QUESTION, options={"temperature": 0})
    assert generated.response == ANSWER
    assert (generated.eval_count or 0) > 5


def test_ollama_client_streams(ollama_client: ollama.Client) -> None:
    parts = list(ollama_client.chat(model=MODEL, messages=MESSAGES, stream=True,
                                    options={"temperature": 0}))
    assert "".join(part.message.content or "" for part in parts) == ANSWER
    assert parts[-1].done is True


def test_ollama_client_lists_the_model_by_its_tag(ollama_client: ollama.Client) -> None:
    names = [model.model for model in ollama_client.list().models]
    assert names == [f"{MODEL}:latest"]


def test_pulling_a_model_is_refused_with_words(ollama_client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        ollama_client.pull("llama3")
    assert caught.value.status_code == 403


@pytest.mark.parametrize("key", ["", "wrong", "ek_00000000_" + "A" * 43])
def test_no_answer_without_a_good_key(appliance: RunningAppliance, key: str) -> None:
    stranger = openai.OpenAI(base_url=f"{appliance.url}/v1", api_key=key or "none", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model=MODEL, messages=MESSAGES)  # type: ignore[arg-type]


def test_health_and_version_are_open(appliance: RunningAppliance) -> None:
    for path in ("/healthz", "/api/version"):
        connection = http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()


def test_every_answer_has_its_two_audit_records(
    appliance: RunningAppliance, client: openai.OpenAI
) -> None:
    before = _audit(appliance)
    for _ in range(3):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)  # type: ignore[arg-type]
    after = _audit(appliance)
    assert after["requests"] - before["requests"] == 3
    assert after["responses"] - before["responses"] == 3
    assert after["orphans"] == 0


def test_audit_log_holds_no_prompt_text(
    appliance: RunningAppliance, client: openai.OpenAI
) -> None:
    canary = "purple-elephant-canary-7391"
    client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": canary}], max_tokens=8
    )
    for path in appliance.root.rglob("*"):
        if path.is_file() and path.suffix in (".jsonl", ".log", ".json"):
            assert canary.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("damage", "code"),
    [("edit", 60), ("remove", 61), ("truncate", 62)],
)
def test_audit_verify_finds_and_names_tampering(
    appliance: RunningAppliance, tmp_path: Path, damage: str, code: int
) -> None:
    log = tmp_path / "audit"
    shutil.copytree(appliance.root / "var/lib/edgekit/audit", log)
    path = next(log.glob("audit-*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "edit":
        lines[2] = lines[2].replace(b'"seq":3', b'"seq":3').replace(b'"type":"', b'"type":"x', 1)
    elif damage == "remove":
        del lines[2]
    else:
        del lines[-1]
    path.write_bytes(b"".join(lines))
    done = appliance.edgekit("audit", "verify", "--log", str(log))
    assert done.returncode == code, done.stderr
    assert "3" in done.stderr or damage == "truncate"


def test_status_says_what_serves(appliance: RunningAppliance) -> None:
    table = json.loads(appliance.edgekit("status", "--json").stdout)
    assert table["alive"] is True
    assert table["models"][0]["name"] == MODEL
    assert table["developer_root"] is True


def test_a_second_install_of_the_same_set_says_so(appliance: RunningAppliance) -> None:
    done = appliance.edgekit("install", str(appliance.demo_set.folder))
    assert (done.returncode, "already installed" in done.stdout) == (0, True)


def test_run_answers_from_the_terminal(appliance: RunningAppliance) -> None:
    assert appliance.edgekit("run", MODEL, QUESTION).stdout.strip() == ANSWER


def _audit(appliance: RunningAppliance) -> dict[str, int]:
    done = appliance.edgekit("audit", "verify", "--json")
    assert done.returncode == 0, done.stderr
    table: dict[str, int] = json.loads(done.stdout)
    return table


def test_a_chat_at_a_terminal_answers_as_it_was_set(appliance: RunningAppliance) -> None:
    main, side = os.openpty()
    command = [appliance.demo_set.program, "run", MODEL, "--root", str(appliance.root)]
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    with subprocess.Popen(
        command, stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True
    ) as chat:
        os.close(side)
        try:
            _await(main, b">>>")
            os.write(main, f"/set parameter temperature 0\r{QUESTION}\r".encode())
            _await(main, ANSWER.encode())
            os.write(main, b"/show parameters\r")
            _await(main, b"temperature 0.0")
            os.write(main, b"/bye\r")
            assert chat.wait(30) == 0
        finally:
            chat.kill()
    os.close(main)


def _await(terminal: int, wanted: bytes) -> bytes:
    """What the program writes until `wanted` is in it."""
    said = b""
    while wanted not in said:
        assert select.select([terminal], [], [], 60)[0], said
        said += os.read(terminal, 65536)
    return said


def test_a_question_may_come_through_a_pipe(appliance: RunningAppliance) -> None:
    done = subprocess.run(
        [appliance.demo_set.program, "run", MODEL, "--root", str(appliance.root)],
        input=QUESTION, capture_output=True, text=True, check=False, timeout=120,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stdout.strip()) == (0, ANSWER), done.stderr


def test_the_engine_has_its_own_process_that_dies_with_the_service(
    appliance: RunningAppliance,
) -> None:
    pids = _engine_pids(appliance.root)
    assert len(pids) >= 1
    appliance.stop()
    _engines_end(appliance.root)
    appliance.serve()


def _engine_pids(root: Path) -> list[int]:
    done = subprocess.run(["pgrep", "-f", f"{root}.*edgekit-llama"], capture_output=True,
                          text=True, check=False)
    return [int(pid) for pid in done.stdout.split() if int(pid) != os.getpid()]


def _engines_end(root: Path) -> None:
    """The kernel ends them with the process above them, a moment after it."""
    deadline = time.monotonic() + 15
    while _engine_pids(root) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _engine_pids(root) == []


def test_interrupting_serve_leaves_nothing_running(appliance: RunningAppliance) -> None:
    assert appliance.service is not None
    appliance.service.send_signal(signal.SIGINT)
    appliance.service.communicate(timeout=60)
    assert appliance.service.returncode == 130, appliance.service.returncode
    _engines_end(appliance.root)
    appliance.service = None
    appliance.serve()


def test_nothing_outside_the_root_is_named_in_the_generation(appliance: RunningAppliance) -> None:
    state = tree_state(appliance.root)
    assert any(name.startswith("opt/edgekit/generations/") for name in state)
    settings = next((appliance.root / "opt/edgekit/generations").glob("*/appliance.json"))
    table = json.loads(settings.read_text("utf-8"))
    assert all(argument.startswith(str(appliance.root))
               for argument in table["engines"][0]["argv"] if argument.startswith("/"))
