"""A chat in a terminal as a value: settings, what was said, what a typed line means. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from edgekit.core.model_parameters import Value, add_parameter
from edgekit.errors import FormatError

QUOTES = '"""'
"""Begins and ends a text of several lines, as in Ollama's terminal."""
HELP = f"""\
/set system TEXT            what the model is told before everything else
/set parameter NAME VALUE   temperature, top_p, seed, num_predict, stop and others
/show [system|parameters|model]
/clear                      forget what was said
/bye                        leave (or Ctrl-D)
{QUOTES}                         begins and ends a text of several lines
Ctrl-C                      stop an answer, or drop a line"""


@dataclass(frozen=True, slots=True)
class Conversation:
    """With whom, under which settings, and what was said so far (question and answer in turn)."""

    model: str
    system: str = ""
    parameters: dict[str, Value | tuple[str, ...]] = field(default_factory=dict)
    turns: tuple[tuple[str, str], ...] = ()

    def request(self, question: str) -> dict[str, Any]:
        """The body of `/api/chat` that asks this next."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for asked, answered in self.turns:
            messages += [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answered},
            ]
        messages.append({"role": "user", "content": question})
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.parameters.items()
        }
        return {"model": self.model, "messages": messages, "options": options, "stream": True}

    def after(self, question: str, answer: str) -> Conversation:
        """The same, one turn on."""
        return replace(self, turns=(*self.turns, (question, answer)))

    def set(self, argument: str) -> Conversation:
        """What `/set ARGUMENT` makes of it. Raises FormatError."""
        what, _, rest = argument.strip().partition(" ")
        rest = unquote(rest.strip())
        if what == "system":
            return replace(self, system=rest)
        name, _, text = rest.partition(" ")
        if what == "parameter" and name and text:
            parameters = add_parameter(self.parameters, name, unquote(text.strip()))
            return replace(self, parameters=parameters)
        raise FormatError("cannot set this", found=argument[:80], needed="system or parameter")

    def cleared(self) -> Conversation:
        """The same settings, and nothing said."""
        return replace(self, turns=())


def needs_more(text: str) -> bool:
    """Whether a text of several lines was begun and has not ended."""
    return text.count(QUOTES) % 2 == 1


def unquote(text: str) -> str:
    """A text without the quotes around it: three, one, or none."""
    for quotes in (QUOTES, '"'):
        if len(text) >= 2 * len(quotes) and text.startswith(quotes) and text.endswith(quotes):
            return text[len(quotes) : -len(quotes)].strip("\n")
    return text
