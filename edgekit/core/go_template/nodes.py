"""What a template consists of, once it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it is written; None is `nil`."""

    value: str | bool | int | None


@dataclass(frozen=True, slots=True)
class Field:
    """`.Name.Name`: of the dot; without names the dot itself."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name.Name`; the name has its dollar, `$` alone is what the template was given."""

    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """A function's name, before its arguments."""

    name: str


@dataclass(frozen=True, slots=True)
class Nested:
    """`(pipeline).Name`."""

    pipe: Pipe
    names: tuple[str, ...] = ()


Operand = Literal | Field | Variable | Function | Nested


@dataclass(frozen=True, slots=True)
class Command:
    """One operand, or a function and its arguments."""

    line: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each of which gets the value of the one before as its last argument.

    The value goes to the variables in `names`: new ones, or with `assigns` one that is there.
    """

    commands: tuple[Command, ...]
    names: tuple[str, ...] = ()
    assigns: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """Text between actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """`{{ pipeline }}`: prints its value, unless that goes to a variable."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Choice:
    """`if` with its `else if`, or `with` (`rebinds`), which makes the value the dot."""

    branches: tuple[tuple[Pipe, tuple[Node, ...]], ...]
    otherwise: tuple[Node, ...] = ()
    rebinds: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """`range`."""

    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Jump:
    """`continue` (`again`) or `break`."""

    again: bool


Node = Text | Action | Choice | Loop | Jump
