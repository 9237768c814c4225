"""Our interpreter says what Go's text/template and Ollama's package said (`answers.json`)."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from edgekit.core.go_template.parser import parse
from edgekit.core.go_template.runner import run
from edgekit.core.go_template.values import Budget, Setting, Value
from edgekit.core.ollama_template import parse_template
from edgekit.errors import FormatError
from tests.templates.cases import questions
from tests.templates.record import ANSWERS

DAY = date(2026, 1, 1)
ALL = list(zip(questions(), json.loads(ANSWERS.read_text(encoding="utf-8")), strict=True))


def value(data: Any) -> Value:
    if isinstance(data, list):
        return tuple(map(value, data))
    if isinstance(data, dict):
        return {key: value(inner) for key, inner in data.items()}
    kept: Value = data
    return kept


def answer(question: dict[str, Any]) -> str:
    text = question["template"]
    if "data" in question:
        return run(parse(text), value(question["data"]), Setting(Budget(10_000, 100_000)))
    template = parse_template(text)
    if "suffix" in question:
        return template.between(question["prompt"], question["suffix"], DAY)
    said = [(message["role"], message["content"]) for message in question["messages"]]
    return template.prompt(said, DAY, think_is_set=question["think_set"])


@pytest.mark.parametrize(("question", "known"), ALL)
def test_the_answer_is_known(question: dict[str, Any], known: dict[str, str]) -> None:
    if "text" in known:
        assert answer(question) == known["text"]
    else:
        with pytest.raises(FormatError):
            answer(question)


def test_there_are_answers_of_every_sort() -> None:
    kinds = [("text" in known, "data" in question) for question, known in ALL]
    assert {kind: kinds.count(kind) > 10 for kind in set(kinds)} == {
        (True, True): True, (False, True): True, (True, False): True,
    }
