"""Tokens to nodes. Everything that can be refused without running a template is refused here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.core.go_template.functions import ARGUMENTS
from edgekit.core.go_template.lexer import Token, lex, malformed
from edgekit.core.go_template.nodes import (
    Action,
    Choice,
    Command,
    Field,
    Function,
    Jump,
    Literal,
    Loop,
    Nested,
    Node,
    Operand,
    Pipe,
    Text,
    Variable,
)

MAX_DEPTH = 24
MAX_VARIABLES = 64
"""At one place: each is looked for among all of them."""
"""Of blocks and parentheses in each other."""
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_WORDS = {"true": True, "false": False, "nil": None}
_REFUSED = ("define", "template", "block")
_SURROGATES = range(0xD800, 0xE000)


def parse(source: str, first_line: int = 1) -> tuple[Node, ...]:
    """A template's text, whose first line has this number. Raises FormatError with the line."""
    parser = _Parser(lex(source, first_line), first_line)
    nodes, ended = parser.items()
    if ended:
        raise malformed(f"{ended} without a beginning", parser.line)
    return nodes


class _Parser:
    """One pass over the tokens; `line` is where it is."""

    def __init__(self, tokens: list[Token], line: int) -> None:
        self.line = line
        self._tokens = tokens
        self._at = 0
        self._variables = ["$"]
        self._loops = 0
        self._depth = 0

    def items(self) -> tuple[tuple[Node, ...], str]:
        """Nodes up to an `end` or `else`, which is left behind, or to the end of the text."""
        nodes: list[Node] = []
        while self._at < len(self._tokens):
            token = self._next()
            if token.kind == "text":
                nodes.append(Text(token.text))
                continue
            self._spaces()
            if word := self._word("end", "else"):
                return tuple(nodes), word
            nodes.append(self._action())
        return tuple(nodes), ""

    def _action(self) -> Node:
        if word := self._word("if", "with", "range"):
            with self._deeper():
                return self._loop() if word == "range" else self._choice(rebinds=word == "with")
        if word := self._word("break", "continue"):
            if not self._loops:
                raise malformed(f"{word} outside of range", self.line)
            self._close()
            return Jump(again=word == "continue")
        if word := self._word(*_REFUSED):
            raise malformed(f"{word} is not supported", self.line, needed="one template")
        return Action(self._pipe("close"))

    def _choice(self, *, rebinds: bool) -> Choice:
        outside = len(self._variables)
        branches: list[tuple[Pipe, tuple[Node, ...]]] = []
        otherwise: tuple[Node, ...] = ()
        while True:
            pipe = self._pipe("close")
            body, ended = self._block()
            branches.append((pipe, body))
            if ended == "end":
                break
            self._spaces()
            if rebinds or not self._word("if"):
                otherwise, ended = self._otherwise()
                break
        self._ended(ended)
        del self._variables[outside:]
        return Choice(tuple(branches), otherwise, rebinds)

    def _loop(self) -> Loop:
        outside = len(self._variables)
        pipe = self._pipe("close", loops=True)
        self._loops += 1
        body, ended = self._block()
        self._loops -= 1
        del self._variables[outside:]
        otherwise: tuple[Node, ...] = ()
        if ended == "else":
            otherwise, ended = self._otherwise()
        self._ended(ended)
        return Loop(pipe, body, otherwise)

    def _block(self) -> tuple[tuple[Node, ...], str]:
        """What stands between a beginning and its `end` or `else`, with variables of its own."""
        outside = len(self._variables)
        nodes, ended = self.items()
        if not ended:
            raise malformed("a block has no end", self.line, needed="{{ end }}")
        del self._variables[outside:]
        return nodes, ended

    def _otherwise(self) -> tuple[tuple[Node, ...], str]:
        self._close()
        return self._block()

    def _ended(self, word: str) -> None:
        if word != "end":
            raise malformed("a second else", self.line, needed="{{ end }}")
        self._close()

    def _close(self) -> None:
        self._spaces()
        token = self._next()
        if token.kind != "close":
            raise malformed("unexpected words in an action", self.line, token.text, "}}")

    def _pipe(self, end: str, *, loops: bool = False) -> Pipe:
        names, assigns = self._targets(loops=loops) if end == "close" else ((), False)
        commands = [self._command(piped=False)]
        while (token := self._next()).kind == "pipe":
            commands.append(self._command(piped=True))
        if token.kind != end:
            needed = "}}" if end == "close" else ")"
            raise malformed("unexpected sign in an action", token.line, token.text, needed)
        if not assigns:
            self._variables += names
            if len(self._variables) > MAX_VARIABLES:
                raise malformed("too many variables", self.line, needed=f"at most {MAX_VARIABLES}")
        return Pipe(tuple(commands), names, assigns)

    def _targets(self, *, loops: bool) -> tuple[tuple[str, ...], bool]:
        """The variables that a pipeline's value goes to, and whether they are there already."""
        start, names = self._at, []
        while True:
            self._spaces()
            if self._peek() != "variable":
                break
            names.append(self._next().text)
            self._spaces()
            if self._peek() != "comma" or not loops or len(names) == 2:
                break
            self._next()
        assigns = self._peek() == "assign"
        if not names or not (assigns or self._peek() == "declare"):
            self._at = start
            return (), False
        self._next()
        if assigns and (loops or names[0] not in self._variables):
            raise malformed("assigned before it is declared", self.line, names[0], ":=")
        return tuple(names), assigns

    def _command(self, *, piped: bool) -> Command:
        self._spaces()
        line = self.line
        operands = [self._operand()]
        while True:
            spaced = self._spaces()
            if self._peek() in ("close", "pipe", "right"):
                break
            if not spaced:
                raise malformed("no space between operands", self.line, self._next().text)
            operands.append(self._operand())
        _check_command(operands, line, piped=piped)
        return Command(line, tuple(operands))

    def _operand(self) -> Operand:
        token = self._next()
        if token.kind == "left":
            with self._deeper():
                pipe = self._pipe("right")
            return Nested(pipe, self._names())
        if token.kind == "field":
            return Field((token.text[1:], *self._names()))
        if token.kind == "variable":
            if token.text not in self._variables:
                raise malformed("undefined variable", token.line, token.text)
            return Variable(token.text, self._names())
        operand = _plain(token)
        if self._peek() == "field":
            raise malformed("what has no fields is asked for one", token.line, self._next().text)
        return operand

    def _names(self) -> tuple[str, ...]:
        names = []
        while self._peek() == "field":
            names.append(self._next().text[1:])
        return tuple(names)

    def _word(self, *words: str) -> str:
        """The next word, if it is one of these."""
        if self._peek() == "word" and self._tokens[self._at].text in words:
            return self._next().text
        return ""

    def _spaces(self) -> bool:
        start = self._at
        while self._peek() == "space":
            self._next()
        return self._at > start

    def _peek(self) -> str:
        return self._tokens[self._at].kind if self._at < len(self._tokens) else ""

    def _next(self) -> Token:
        # what the lexer gave has a `close` behind every `open`
        token = self._tokens[self._at]
        self._at += 1
        self.line = token.line
        return token

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise malformed("nested too deeply", self.line, needed=f"at most {MAX_DEPTH} levels")
        yield
        self._depth -= 1


def _plain(token: Token) -> Operand:
    """An operand that is one token."""
    if token.kind == "dot":
        return Field()
    if token.kind == "number":
        if not _NUMBER.fullmatch(token.text):
            raise malformed("unknown number", token.line, token.text, "a decimal integer")
        return Literal(int(token.text))
    if token.kind == "raw":
        return Literal(token.text[1:-1].replace("\r", ""))
    if token.kind == "string":
        return Literal(_ESCAPE.sub(lambda escape: _escaped(escape[1], token), token.text[1:-1]))
    if token.kind == "word" and token.text in _WORDS:
        return Literal(_WORDS[token.text])
    if token.kind == "word" and token.text in ARGUMENTS:
        return Function(token.text)
    if token.kind == "word":
        raise malformed("unknown function", token.line, token.text, ", ".join(ARGUMENTS))
    raise malformed("unexpected sign in an action", token.line, token.text)


def _escaped(code: str, token: Token) -> str:
    if len(code) > 1 and (number := int(code[1:], 16)) not in _SURROGATES:
        return chr(number)
    if code not in _ESCAPES:
        raise malformed("unknown escape in a text", token.line, f"\\{code}", r'\n \r \t \" \\ \u')
    return _ESCAPES[code]


def _check_command(operands: list[Operand], line: int, *, piped: bool) -> None:
    first = operands[0]
    if any(isinstance(operand, Function) for operand in operands[1:]):
        for operand in operands[1:]:
            if isinstance(operand, Function) and ARGUMENTS[operand.name][0] > 0:
                raise malformed("a function without its arguments", line, operand.name, "( )")
    if isinstance(first, Function):
        low, high = ARGUMENTS[first.name]
        if not low <= len(operands) - 1 + piped <= high:
            raise malformed("wrong number of arguments", line, first.name)
        if first.name == "printf" and not _is_text(operands[1:2]):
            raise malformed("printf without its pattern", line, needed="a text in quotes")
    elif piped or len(operands) > 1:
        raise malformed("arguments for what is no function", line)
    elif first == Literal(None):
        raise malformed("nil is no command", line)


def _is_text(operands: list[Operand]) -> bool:
    """Whether there is one, and it is a text as it is written: a client's must not be a pattern."""
    return any(isinstance(one, Literal) and isinstance(one.value, str) for one in operands)
