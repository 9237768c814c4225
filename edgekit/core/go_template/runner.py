"""Runs a template on values, within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.core.go_template.functions import call, field_of
from edgekit.core.go_template.lexer import malformed
from edgekit.core.go_template.nodes import (
    Action,
    Choice,
    Command,
    Field,
    Function,
    Jump,
    Literal,
    Loop,
    Node,
    Operand,
    Pipe,
    Text,
    Variable,
)
from edgekit.core.go_template.values import (
    MisuseError,
    Setting,
    Value,
    is_true,
    shown,
)


class _AgainError(Exception):
    """`continue`."""


class _DoneError(Exception):
    """`break`."""


def run(nodes: Sequence[Node], data: Value, setting: Setting) -> str:
    """The text that a template makes of these values. Raises FormatError with the line."""
    runner = _Runner(data, setting)
    try:
        return runner.text(nodes)
    except MisuseError as error:
        raise malformed(str(error), runner.line) from error


class _Runner:
    """One run. With `anything` set it goes through every branch once, whatever the values are."""

    def __init__(self, data: Value, setting: Setting) -> None:
        self.line = 0
        self._data = data
        self._setting = setting
        self._budget = setting.budget
        self._all = setting.anything
        self._variables: list[tuple[str, Value]] = [("$", data)]
        self._pieces: list[str] = []

    def text(self, nodes: Sequence[Node]) -> str:
        self._walk(nodes, self._data)
        return "".join(self._pieces)

    def _walk(self, nodes: Sequence[Node], dot: Value) -> None:
        for node in nodes:
            self._budget.step()
            if isinstance(node, Text):
                self._pieces.append(self._budget.text(node.text))
            elif isinstance(node, Action):
                self._act(node.pipe, dot)
            elif isinstance(node, Choice):
                self._choose(node, dot)
            elif isinstance(node, Loop):
                self._repeat(node, dot)
            elif not self._all:
                raise _jump(node)

    def _inside(self, nodes: Sequence[Node], dot: Value, *variables: tuple[str, Value]) -> None:
        """Walk a block: its variables end with it."""
        outside = len(self._variables)
        self._variables += variables
        try:
            self._walk(nodes, dot)
        finally:
            del self._variables[outside:]

    def _act(self, pipe: Pipe, dot: Value) -> None:
        value = self._value(pipe, dot)
        if not pipe.names:
            self._pieces.append(self._budget.text(shown(value, self._budget)))
        elif pipe.assigns:
            self._assign(pipe.names[0], value)
        else:
            self._variables.append((pipe.names[0], value))

    def _assign(self, name: str, value: Value) -> None:
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return

    def _choose(self, node: Choice, dot: Value) -> None:
        outside = len(self._variables)
        taken = False
        for pipe, body in node.branches:
            value = self._value(pipe, dot)
            if pipe.names and pipe.assigns:
                self._assign(pipe.names[0], value)
            elif pipe.names:
                self._variables.append((pipe.names[0], value))
            if is_true(value) or self._all:
                self._inside(body, value if node.rebinds else dot)
                taken = not self._all
            if taken:
                break
        if not taken:
            self._inside(node.otherwise, dot)
        del self._variables[outside:]

    def _repeat(self, node: Loop, dot: Value) -> None:
        items = self._items(self._value(node.pipe, dot))
        names = node.pipe.names
        for index, element in items:
            self._budget.step()
            values = (element,) if len(names) == 1 else (index, element)
            try:
                self._inside(node.body, element, *zip(names, values, strict=False))
            except _AgainError:
                continue
            except _DoneError:
                break
        if not items or self._all:
            self._inside(node.otherwise, dot)

    def _items(self, value: Value) -> list[tuple[Value, Value]]:
        if value is None:
            return []
        if isinstance(value, Mapping):
            keys = sorted(value, key=lambda key: key.encode("utf-8", "replace"))
            return [(key, value[key]) for key in keys]
        if isinstance(value, tuple):
            return list(enumerate(value))
        raise MisuseError("range is over a list or a map")

    def _value(self, pipe: Pipe, dot: Value) -> Value:
        value: Value = None
        for number, command in enumerate(pipe.commands):
            value = self._command(command, dot, (value,) if number else ())
        return value

    def _command(self, command: Command, dot: Value, piped: tuple[Value, ...]) -> Value:
        self.line = command.line
        self._budget.step()
        first = command.operands[0]
        if isinstance(first, Function):
            return self._call(first.name, command.operands[1:], dot, piped)
        return self._operand(first, dot)

    def _call(
        self, name: str, operands: Sequence[Operand], dot: Value, piped: tuple[Value, ...]
    ) -> Value:
        if name in ("and", "or"):
            return self._first(operands, dot, piped, wanted=name == "or")
        arguments = [*(self._operand(operand, dot) for operand in operands), *piped]
        return call(name, arguments, self._setting)

    def _first(
        self, operands: Sequence[Operand], dot: Value, piped: tuple[Value, ...], *, wanted: bool
    ) -> Value:
        """The first value that decides it, or else the last; those behind it are not computed."""
        value: Value = None
        for operand in operands:
            value = self._operand(operand, dot)
            if is_true(value) == wanted and not self._all:
                return value
        return piped[0] if piped else value

    def _operand(self, operand: Operand, dot: Value) -> Value:
        self._budget.step()
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Function):
            return call(operand.name, (), self._setting)
        if isinstance(operand, Field):
            value = dot
        elif isinstance(operand, Variable):
            value = next(v for name, v in reversed(self._variables) if name == operand.name)
        else:
            value = self._value(operand.pipe, dot)
        for name in operand.names:
            value = field_of(value, name)
        return value


def _jump(node: Jump) -> Exception:
    return _AgainError() if node.again else _DoneError()
