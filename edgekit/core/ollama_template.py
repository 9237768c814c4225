"""A Modelfile's TEMPLATE: how the messages of a conversation become one prompt, as in Ollama. Pure.

A template that names `.Messages` gets them all at once. Any other is run once for each turn with
`.System`, `.Prompt` and `.Response`, and for the last turn only up to `.Response`: there the model
goes on. Between a text and its suffix it is run once with `.Prompt` and `.Suffix`.

What a template may cost grows with the conversation, never faster. Sources of the semantics:
Ollama's docs/template.mdx and template/template.go as of fb307609, Go's text/template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from edgekit.core.go_template.nodes import (
    Action,
    Choice,
    Command,
    Field,
    Loop,
    Nested,
    Node,
    Operand,
    Pipe,
    Variable,
)
from edgekit.core.go_template.parser import parse
from edgekit.core.go_template.runner import run
from edgekit.core.go_template.values import Budget, Record, Setting, ShownList, Value

Message = tuple[str, str]
"""A role (`system`, `user` or `assistant`) and a text."""

BASE_STEPS, STEPS_PER_MESSAGE = 20_000, 300
BASE_CHARACTERS, TIMES_ITS_TEXT = 4 << 20, 8
_RESPONSE = Action(Pipe((Command(0, (Field(("Response",)),)),)))
_DAY = date(2024, 2, 29)


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read and tried: made by `parse_template` alone."""

    text: str
    nodes: tuple[Node, ...] = field(compare=False, repr=False)
    last: tuple[Node, ...] = field(compare=False, repr=False)
    """The same up to `.Response`."""
    names: frozenset[str] = field(compare=False, repr=False)
    """Fields and variables that it names, in small letters."""

    @property
    def inserts(self) -> bool:
        """Whether it puts a text and its suffix together."""
        return "suffix" in self.names

    def prompt(
        self, messages: Sequence[Message], today: date, *, think_is_set: bool = False
    ) -> str:
        """The prompt of a conversation. Raises FormatError, where it costs too much for one.

        `think_is_set` says that the request spoke of thinking (it can only have said no).
        """
        collated = _collate(messages)
        always: dict[str, Value] = {
            "Think": False, "ThinkLevel": "", "IsThinkSet": think_is_set, "Response": "",
        }
        setting = _setting(messages, today)
        if "messages" not in self.names:
            return "".join(
                run(self.nodes if more else self.last, always | turn, setting)
                for turn, more in _turns(collated)
            )
        system = "\n\n".join(text for role, text in messages if role == "system")
        listed = tuple(_message(role, text) for role, text in collated)
        data: dict[str, Value] = {"System": system, "Messages": listed, "Tools": ShownList()}
        return run(self.nodes, always | data, setting)

    def between(self, before: str, after: str, today: date) -> str:
        """The prompt for the text between two others. Raises FormatError."""
        data: dict[str, Value] = {
            "Prompt": before, "Suffix": after, "Response": "",
            "Think": False, "ThinkLevel": "", "IsThinkSet": False,
        }
        return run(self.nodes, data, _setting([("user", before), ("user", after)], today))


def parse_template(text: str, first_line: int = 1) -> Template:
    """A template that does what it says for conversations of every kind and length.

    `first_line` is the number of its first line, for messages. Raises FormatError.
    """
    nodes = parse(text, first_line)
    names = frozenset(name.lower() for name in _names(nodes))
    if not names & {"messages", "response"}:
        nodes = (*nodes, _RESPONSE)
    run(nodes, _everything(), replace(_setting([], _DAY), anything=True))
    template = Template(text, nodes, tuple(_Cut().nodes(nodes)), names)
    for messages in _trials():
        template.prompt(messages, _DAY)
    if template.inserts:
        template.between("before", "after", _DAY)
    return template


def _setting(messages: Sequence[Message], today: date) -> Setting:
    size = sum(len(text) for _, text in messages)
    budget = Budget(
        BASE_STEPS + STEPS_PER_MESSAGE * len(messages), BASE_CHARACTERS + TIMES_ITS_TEXT * size
    )
    return Setting(budget, today.isoformat(), (today - timedelta(days=1)).isoformat())


def _collate(messages: Iterable[Message]) -> list[Message]:
    """Those of one role that follow each other are one."""
    collated: list[tuple[str, list[str]]] = []
    for role, text in messages:
        if collated and collated[-1][0] == role:
            collated[-1][1].append(text)
        else:
            collated.append((role, [text]))
    return [(role, "\n\n".join(texts)) for role, texts in collated]


def _turns(messages: Iterable[Message]) -> Iterator[tuple[dict[str, Value], bool]]:
    """What a template of turns gets for each, and whether another follows."""
    turn = {"System": "", "Prompt": "", "Response": ""}
    for role, text in messages:
        begins = {"system": turn["Prompt"] or turn["Response"], "user": turn["Response"]}
        if begins.get(role):
            yield {**turn}, True
            turn = dict.fromkeys(turn, "")
        turn[{"system": "System", "user": "Prompt"}.get(role, "Response")] = text
    yield {**turn}, False


def _message(role: str, text: str) -> Record:
    return Record("a message", {
        "Role": role, "Content": text, "Thinking": "", "Images": (), "ToolCalls": (),
        "ToolName": "", "ToolCallID": "",
    })


def _trials() -> Iterator[Sequence[Message]]:
    """Conversations that a template has to stand."""
    for roles in (
        "u", "su", "s", "a", "uu", "uau", "suau", "sua", "usu", "ssuu", "aua", "ua" * 50,
        "s" + "ua" * 50 + "u",
    ):
        names = {"s": "system", "u": "user", "a": "assistant"}
        yield [(names[role], f"text {number}") for number, role in enumerate(roles)]


def _everything() -> Record:
    """Data with every field that Ollama knows, and something in each."""
    described = Record("a property", {
        "AnyOf": ("x",), "Type": "string", "Items": "x", "Description": "x", "Enum": ("x",),
        "Properties": {"x": "x"}, "Required": ("x",),
    }, shown=True)
    parameters = Record("parameters", {
        "Type": "object", "Defs": "x", "Items": "x", "Required": ("x",),
        "Properties": {"x": described},
    }, shown=True)
    function = Record("a function", {
        "Name": "x", "Description": "x", "Parameters": parameters,
    }, shown=True)
    tool = Record("a tool", {"Type": "function", "Items": "x", "Function": function}, shown=True)
    arguments = Record("arguments", {"x": "x"}, shown=True)
    called = Record("a called function", {"Index": 1, "Name": "x", "Arguments": arguments})
    call = Record("a call", {"ID": "x", "Function": called})
    message = replace(_message("user", "x"), fields={
        **_message("user", "x").fields, "Thinking": "x", "Images": ("x",), "ToolCalls": (call,),
        "ToolName": "x", "ToolCallID": "x",
    })
    return Record("a template", {
        "System": "x", "Prompt": "x", "Response": "x", "Suffix": "x", "Messages": (message,),
        "Tools": ShownList((tool,)), "Think": True, "ThinkLevel": "high", "IsThinkSet": True,
    })


def _names(nodes: Iterable[Node]) -> Iterator[str]:
    """Every field and variable that is named."""
    for node in nodes:
        if isinstance(node, Action):
            yield from _names_of(node.pipe)
        elif isinstance(node, Choice):
            for pipe, body in node.branches:
                yield from _names_of(pipe)
                yield from _names(body)
            yield from _names(node.otherwise)
        elif isinstance(node, Loop):
            yield from _names_of(node.pipe)
            yield from _names((*node.body, *node.otherwise))


def _names_of(pipe: Pipe) -> Iterator[str]:
    for command in pipe.commands:
        for operand in command.operands:
            if isinstance(operand, Field | Variable | Nested):
                yield from operand.names
            if isinstance(operand, Nested):
                yield from _names_of(operand.pipe)


class _Cut:
    """Takes away what stands behind the first `.Response`, in the order it is written."""

    def __init__(self) -> None:
        self._done = False

    def nodes(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """What is left of these."""
        for node in nodes:
            if self._done:
                return
            kept = self._node(node)
            if kept is not None:
                yield kept

    def _node(self, node: Node) -> Node | None:
        if isinstance(node, Action):
            pipe = self._pipe(node.pipe)
            return replace(node, pipe=pipe) if pipe else None
        if isinstance(node, Choice):
            branches = [(pipe, tuple(self.nodes(body))) for pipe, body in node.branches]
            return replace(
                node, branches=tuple(branches), otherwise=tuple(self.nodes(node.otherwise))
            )
        if isinstance(node, Loop):
            body = tuple(self.nodes(node.body))
            return replace(node, body=body, otherwise=tuple(self.nodes(node.otherwise)))
        return node

    def _pipe(self, pipe: Pipe) -> Pipe | None:
        commands = []
        for command in pipe.commands:
            operands = [kept for operand in command.operands if (kept := self._operand(operand))]
            if not operands:
                return None
            commands.append(replace(command, operands=tuple(operands)))
        return replace(pipe, commands=tuple(commands))

    def _operand(self, operand: Operand) -> Operand | None:
        if self._done:
            return None
        if isinstance(operand, Field) and "Response" in operand.names:
            self._done = True
        if isinstance(operand, Nested):
            pipe = self._pipe(operand.pipe)
            return replace(operand, pipe=pipe) if pipe else None
        return operand
