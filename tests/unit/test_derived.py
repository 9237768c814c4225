"""Models made on a host by a Modelfile: where they may come from, and what they add to requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.appliance import (
    Appliance,
    CanaryCheck,
    ServedAdapter,
    encode_appliance,
    parse_appliance,
)
from edgekit.core.derived import DerivedModel, encode_derived, parse_derived, with_derived
from edgekit.errors import FormatError
from edgekit.gateway.body import Body
from edgekit.gateway.defaults import with_defaults
from edgekit.gateway.job import Job
from edgekit.gateway.surfaces import ollama_requests, openai_requests
from edgekit.system import derived_models
from edgekit.system.derived_models import load_made_here, save_made_here
from tests.gateway.conftest import make_appliance

TEXT = """\
FROM demo
SYSTEM Be brief.
PARAMETER temperature 0.5
PARAMETER num_predict 9
PARAMETER stop END
MESSAGE user Hi
MESSAGE assistant Ho
"""


@pytest.fixture
def appliance(tmp_path: Path) -> Appliance:
    plain = make_appliance(tmp_path, 1, engine_socket=str(tmp_path / "e"))
    whole, problems = with_derived(plain, [DerivedModel("mine", TEXT, 7)])
    assert problems == ()
    return whole


def asked(appliance: Appliance, model: str = "mine", **fields: Any) -> Job:
    fields = {"messages": [{"role": "user", "content": "Why?"}], **fields}
    body = Body({"model": model, **fields})
    return with_defaults(openai_requests.parse_chat(body, appliance))


def test_its_words_come_before_the_questions_and_its_settings_where_none_are_given(
    appliance: Appliance
) -> None:
    body = asked(appliance).body
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "Hi", "Ho", "Why?"]
    assert (body["temperature"], body["stop"], body["max_tokens"]) == (0.5, ["END"], 9)
    assert asked(appliance, "demo").body["messages"] == [{"role": "user", "content": "Why?"}]


def test_what_a_request_says_goes_before_it(appliance: Appliance) -> None:
    messages = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Why?"}]
    body = asked(
        appliance, messages=messages, temperature=1, stop=["X"], max_tokens=20
    ).body
    assert [m["content"] for m in body["messages"]] == ["Be long.", "Hi", "Ho", "Why?"]
    assert (body["temperature"], body["stop"], body["max_tokens"]) == (1, ["X"], 20)


def test_ollamas_calls_have_it_too_and_a_raw_prompt_has_its_settings_alone(
    appliance: Appliance
) -> None:
    job = ollama_requests.parse_generate(Body({"model": "mine", "prompt": "Why?"}), appliance)
    assert isinstance(job, Job)
    assert len(with_defaults(job).body["messages"]) == 4
    assert with_defaults(job).body["max_tokens"] == 9
    raw = {"model": "mine", "prompt": "Why?", "raw": True, "options": {"num_predict": 12}}
    job = ollama_requests.parse_generate(Body(raw), appliance)
    assert isinstance(job, Job)
    assert with_defaults(job).body["prompt"] == "Why?"
    assert with_defaults(job).body["max_tokens"] == 12


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mine", "FROM other", "not in this release"),
        ("demo", "FROM demo", "has a model of this name"),
    ],
)
def test_what_cannot_serve_in_this_release_is_left_out_with_its_reason(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    plain = make_appliance(tmp_path, 1, engine_socket=str(tmp_path / "e"))
    good = DerivedModel("good", "FROM demo", 7)
    whole, problems = with_derived(plain, [DerivedModel(name, text, 7), good])
    assert [model.name for model in whole.models] == ["demo", "good"]
    assert words in problems[0]


def with_adapters(appliance: Appliance) -> Appliance:
    adapters = tuple(
        ServedAdapter(name, f"sha384:{number * 48}", 5, f"Licence-{name}")
        for name, number in (("first", "aa"), ("sailor", "bb"))
    )
    models = tuple(replace(model, adapters=adapters) for model in appliance.models)
    canaries = (CanaryCheck("demo", "Hi", "Ho"), CanaryCheck("demo", "Hi", "Aye", adapter=1))
    engines = tuple(replace(engine, canaries=canaries) for engine in appliance.engines)
    return replace(appliance, models=models, engines=engines)


def test_one_with_an_adapter_is_asked_with_its_number_and_counts_as_larger(
    tmp_path: Path
) -> None:
    plain = with_adapters(make_appliance(tmp_path, 1, engine_socket=str(tmp_path / "e")))
    assert parse_appliance(encode_appliance(plain)) == plain
    whole, problems = with_derived(plain, [DerivedModel("mine", "FROM demo\nADAPTER sailor", 7)])
    assert problems == ()
    assert asked(whole).body["lora"] == [{"id": 1, "scale": 1.0}]
    assert "lora" not in asked(whole, "demo").body
    base, mine = whole.models
    assert mine.size == base.size + 5
    assert mine.license.splitlines() == [base.license, "Licence-sailor"]
    text = Body({"model": "mine", "prompt": "Why?", "raw": True})
    job = ollama_requests.parse_generate(text, whole)
    assert isinstance(job, Job)
    assert with_defaults(job).body["lora"] == [{"id": 1, "scale": 1.0}]
    _, problems = with_derived(plain, [DerivedModel("mine", "FROM demo\nADAPTER other", 7)])
    assert "no such adapter" in problems[0]
    twice = DerivedModel("mine", "FROM demo\nADAPTER sailor\nADAPTER first", 7)
    assert with_derived(plain, [twice])[1] == ()
    models = tuple(replace(model, format="safetensors") for model in plain.models)
    assert "one adapter" in with_derived(replace(plain, models=models), [twice])[1][0]


def test_one_is_not_made_from_another_and_none_reaches_the_settings(appliance: Appliance) -> None:
    whole, problems = with_derived(appliance, [DerivedModel("third", "FROM mine", 7)])
    assert len(problems) == 1
    assert parse_appliance(encode_appliance(whole)).models == tuple(
        replace(model, defaults=None) for model in whole.models
    )


def test_the_file_of_a_host_round_trips_and_is_strict() -> None:
    models = (DerivedModel("a", TEXT, 7), DerivedModel("b", "FROM demo", 8))
    data = encode_derived(models)
    assert parse_derived(data) == models
    for old, new in ((b'"b"', b'"a"'), (b'"created": 7', b'"x": 7')):
        assert old in data
        with pytest.raises(FormatError):
            parse_derived(data.replace(old, new))


def test_a_modelfile_of_a_newer_release_ends_its_model_alone(tmp_path: Path) -> None:
    data = encode_derived([DerivedModel("a", "FROM demo\nWARP 9", 7), DerivedModel("b", TEXT, 7)])
    plain = make_appliance(tmp_path, 1, engine_socket=str(tmp_path / "e"))
    whole, problems = with_derived(plain, parse_derived(data))
    assert [model.name for model in whole.models] == ["demo", "b"]
    assert problems == ("model a: unknown instruction (WARP)",)


def test_a_template_is_for_models_that_chat_on_llama_cpp(tmp_path: Path) -> None:
    able = ("completion", "tools", "vision")
    plain = make_appliance(tmp_path, 1, engine_socket=str(tmp_path / "e"), capabilities=able)
    made = DerivedModel("mine", "FROM demo\nTEMPLATE {{ .Prompt }}", 7)
    whole, problems = with_derived(plain, [made])
    assert problems == ()
    assert whole.models[1].capabilities == ("completion",)
    (base,) = plain.models
    for other in (replace(base, format="safetensors"), replace(base, capabilities=("embedding",))):
        _, problems = with_derived(replace(plain, models=(other,)), [made])
        assert "TEMPLATE is for models that chat" in problems[0]


PLAIN = DerivedModel("plain", TEXT, 7)
TEMPLATED = DerivedModel("templated", "FROM demo\nTEMPLATE {{ .Prompt }}\n", 8)
FUTURE = DerivedModel("future", "FROM demo\nWARP 9\n", 9)


def test_what_older_releases_cannot_read_lies_in_a_file_they_do_not_know(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    save_made_here(path, [TEMPLATED, FUTURE, PLAIN])
    assert parse_derived(path.read_bytes()) == (PLAIN,)
    assert load_made_here(path) == (PLAIN, TEMPLATED, FUTURE)
    save_made_here(path, [FUTURE])
    assert parse_derived(path.read_bytes()) == ()
    assert load_made_here(path) == (FUTURE,)


def test_without_such_models_there_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    assert load_made_here(path) == ()
    save_made_here(path, [PLAIN])
    assert [found.name for found in tmp_path.iterdir()] == ["models.json"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PLAIN, DerivedModel("plain", TEMPLATED.modelfile, 8)),
        (DerivedModel("plain", TEMPLATED.modelfile, 6), PLAIN),
    ],
)
def test_a_model_that_changes_its_file_is_the_old_or_the_new_one_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: DerivedModel, after: DerivedModel
) -> None:
    path = tmp_path / "models.json"
    save_made_here(path, [before])
    written: list[Path] = []

    def once(place: Path, data: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(place)
        place.write_bytes(data)

    monkeypatch.setattr(derived_models, "durable_write", once)
    with pytest.raises(KeyboardInterrupt):
        save_made_here(path, [after])
    assert load_made_here(path) == (after,)
