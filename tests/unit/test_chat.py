"""The chat in a terminal: what typed lines do, what is asked, and what a person reads."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from edgekit.cli.chat import chat
from edgekit.core.conversation import Conversation
from edgekit.core.model_parameters import PARAMETERS, parse_parameter
from edgekit.errors import EngineError, FormatError


class Person:
    """Types lines, one per prompt; an exception among them is raised. Then leaves by Ctrl-D."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self.lines = list(lines)
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, str):
            return line
        raise line


class Model:
    """Answers every question with its number, in two pieces; keeps what it was asked."""

    def __init__(self, *, breaks: BaseException | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.left = 0
        self._breaks = breaks

    def __call__(self, request: dict[str, Any]) -> Generator[str, None, None]:
        self.asked.append(request)
        try:
            yield "answer "
            if self._breaks is not None:
                raise self._breaks
            yield str(len(self.asked))
        finally:
            self.left += 1


def talk(*lines: str | type[BaseException], model: Model | None = None) -> tuple[Model, Person]:
    model, person = model or Model(), Person(*lines)
    chat(Conversation("m"), person, model, lambda: "about m")
    return model, person


def test_what_was_said_is_sent_along(capsys: pytest.CaptureFixture[str]) -> None:
    model, person = talk("one", "", "two")
    assert [len(request["messages"]) for request in model.asked] == [1, 3]
    assert model.asked[1]["messages"][1] == {"role": "assistant", "content": "answer 1"}
    assert capsys.readouterr().out == "answer 1\nanswer 2\n"
    assert person.prompts == [">>> "] * 4


def test_several_lines_between_triple_quotes_are_one_question() -> None:
    model, person = talk('"""first', "  second", 'third"""')
    assert model.asked[0]["messages"][0]["content"] == "first\n  second\nthird"
    assert person.prompts == [">>> ", "... ", "... ", ">>> "]


def test_settings_change_what_is_asked_and_clear_forgets_only_what_was_said() -> None:
    model, _ = talk(
        "one", '/set system "be brief"', "/set parameter temperature 0.5",
        "/set parameter stop <end>", '/set parameter stop "two words"', "/clear", "two",
    )
    last = model.asked[-1]
    assert [message["content"] for message in last["messages"]] == ["be brief", "two"]
    assert last["options"] == {"temperature": 0.5, "stop": ["<end>", "two words"]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/set parameter temperature hot", "a number from 0 to 2"),
        ("/set parameter top_k 0.5", "a whole number"),
        ("/set parameter warmth 1", "temperature"),
        ("/set parameter seed", "system or parameter"),
        ("/set nothing", "system or parameter"),
        ("/show secrets", "system"),
        ("/unknown", "/? shows"),
    ],
)
def test_a_wrong_command_is_explained_and_the_chat_goes_on(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = talk(line, "hello")
    assert words in capsys.readouterr().err
    assert len(model.asked) == 1


def test_show_and_help_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    talk("/set system kind", "/set parameter seed 7", "/show", "/show system", "/?")
    assert capsys.readouterr().out.splitlines()[:4] == ["about m", "kind", "seed 7", "kind"]


def test_ctrl_c_stops_the_answer_and_its_client(capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = talk("one", "two", model=Model(breaks=KeyboardInterrupt()))
    assert model.left == 2
    assert model.asked[1]["messages"][1]["content"] == "answer "
    assert capsys.readouterr().out == "answer  (stopped)\n" * 2


def test_ctrl_c_at_the_prompt_says_how_to_leave(capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = talk(KeyboardInterrupt, "/bye", "never")
    assert "/bye" in capsys.readouterr().out
    assert not model.asked


def test_an_answer_that_breaks_off_is_not_part_of_the_chat(
    capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = talk("one", "two", model=Model(breaks=EngineError("the answer broke off")))
    assert "broke off" in capsys.readouterr().err
    assert len(model.asked[1]["messages"]) == 1


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "", "1e999", "x"])
def test_no_parameter_takes_what_is_no_number(name: str, text: str) -> None:
    with pytest.raises(FormatError):
        parse_parameter(name, text)
