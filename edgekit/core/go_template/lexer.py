"""A template's text as tokens, trimmed where it says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.errors import FormatError

_TRIMS = re.compile(r"-[ \t\r\n]")
SPACES = " \t\r\n"
"""Go's: what trim markers take away."""
_INSIDE = re.compile(
    r"""
    (?P<close>[ \t\r\n]-\}\}|\}\})
  | (?P<space>(?:[ \t\r\n](?!-\}\}))+)
  | (?P<declare>:=) | (?P<assign>=) | (?P<pipe>\|) | (?P<comma>,)
  | (?P<left>\()    | (?P<right>\))
  | (?P<string>"(?:[^"\\\n]|\\[^\n])*")
  | (?P<raw>`[^`]*`)
  | (?P<variable>\$\w*)
  | (?P<field>\.[^\W\d]\w*)
  | (?P<number>[+-]?\.?\d[\w.]*)
  | (?P<dot>\.)
  | (?P<word>[^\W\d]\w*)
    """,
    re.VERBOSE,
)
_COMMENT = re.compile(r"/\*(?:(?!\*/).)*\*/([ \t\r\n]-)?\}\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece; `kind` is `text`, `open`, or the name of a group above."""

    kind: str
    text: str
    line: int


def malformed(message: str, line: int, found: str = "", needed: str | None = None) -> FormatError:
    """The refusal of a template at this line."""
    return FormatError(
        message, where=f"line {line}", found=found[:40] or None, needed=needed
    )


def lex(source: str, first_line: int) -> list[Token]:
    """The tokens of `source`, whose first line has this number. Raises FormatError."""
    tokens: list[Token] = []
    end, line, trims = 0, first_line, False
    while True:
        start = source.find("{{", end)
        last = start < 0
        text = source[end:] if last else source[end:start]
        after = start + 2
        begins_trimmed = not last and bool(_TRIMS.match(source, after))
        shown = text.lstrip(SPACES) if trims else text
        shown = shown.rstrip(SPACES) if begins_trimmed else shown
        if shown:
            tokens.append(Token("text", shown, line))
        if last:
            return tokens
        line += text.count("\n")
        after += 2 if begins_trimmed else 0
        end, trims = _action(source, after, line, tokens)
        line += source.count("\n", start, end)


def _action(source: str, start: int, line: int, tokens: list[Token]) -> tuple[int, bool]:
    """Where the action that begins at `start` ends, and whether it trims what follows."""
    if source.startswith("/*", start):
        comment = _COMMENT.match(source, start)
        if comment is None:
            raise malformed("a comment has no end", line, needed="*/}}")
        return comment.end(), comment[1] is not None
    tokens.append(Token("open", "{{", line))
    at = start
    while found := _INSIDE.match(source, at):
        kind, text = str(found.lastgroup), found[0]
        tokens.append(Token(kind, text, line))
        at = found.end()
        line += text.count("\n")
        if kind == "close":
            return at, len(text) > 2
    if at >= len(source):
        raise malformed("an action has no end", line, needed="}}")
    raise malformed("unknown sign in an action", line, source[at : at + 10])
