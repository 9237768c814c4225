"""Judging a chat template without running it.

A chat template is a Jinja program that somebody else wrote and the engine runs. jinja2 parses it
here, with nothing compiled and nothing rendered; core/template_scan.py then judges the tree.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from edgekit.core.template_scan import template_problem
from edgekit.errors import RefusedContentError

MAX_TEMPLATE_BYTES = 256 << 10
MAX_TEMPLATES = 32
_THINKING_NAMES = frozenset({"enable_thinking", "thinking", "reasoning_effort"})
_THINKING_MARKS = ("<think>", "reasoning_content", "<|channel|>analysis")


def check_chat_template(text: str, where: str) -> None:
    """Refuse a template that does more than format messages.

    `where` names it in messages. Raises RefusedContentError: too large, not Jinja, or the first
    thing found that is not on the lists above.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_TEMPLATE_BYTES:
        raise _refused(where, f"it has {size} bytes (at most {MAX_TEMPLATE_BYTES})")
    try:
        problem = template_problem(_parsed(text))
    except TemplateError as error:
        raise _refused(where, f"it is not a Jinja template ({str(error)[:100]})") from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise _refused(where, f"it cannot be parsed ({type(error).__name__})") from error
    if problem is not None:
        raise _refused(where, problem)


def template_capabilities(text: str) -> tuple[str, ...]:
    """What a template can format beside messages: `tools`, `thinking`, both or neither.

    Read from the variables it uses, as Ollama does. The text has passed `check_chat_template`.
    """
    names = {node.name for node in _parsed(text).find_all(nodes.Name)}
    thinks = _THINKING_NAMES & names or any(mark in text for mark in _THINKING_MARKS)
    found = [("tools", "tools" in names), ("thinking", bool(thinks))]
    return tuple(name for name, there in found if there)


def json_chat_templates(document: Any) -> Iterator[tuple[str, str]]:
    """The templates of a tokenizer_config.json or chat_template.json: (name, text).

    `chat_template` may be a text, a list of named ones, or a table of them. Raises ValueError for
    any other form, and for more than MAX_TEMPLATES.
    """
    value = document.get("chat_template") if isinstance(document, dict) else None
    if value is None:
        return
    if isinstance(value, str):
        named: list[tuple[Any, Any]] = [("default", value)]
    elif isinstance(value, dict):
        named = list(value.items())
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        named = [(item.get("name"), item.get("template")) for item in value]
    else:
        raise ValueError("chat_template is neither text nor named texts")
    if len(named) > MAX_TEMPLATES:
        raise ValueError(f"{len(named)} chat templates (at most {MAX_TEMPLATES})")
    for name, text in named:
        if not (isinstance(name, str) and isinstance(text, str)):
            raise ValueError("chat_template is neither text nor named texts")  # noqa: TRY004
        yield name[:60], text


class _Generation(Extension):
    """`{% generation %}`, by which transformers marks what a model itself has written."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 asks for a set here

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _parsed(text: str) -> nodes.Template:
    environment = Environment(  # noqa: S701 - nothing is rendered
        extensions=["jinja2.ext.loopcontrols", _Generation], cache_size=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes such as '\d', which jinja2 accepts
        return environment.parse(text)


def _refused(where: str, reason: str) -> RefusedContentError:
    return RefusedContentError(
        f"the chat template of {where} is refused: {reason}",
        where=where,
        found=reason,
        needed="a template that only formats messages",
    )
