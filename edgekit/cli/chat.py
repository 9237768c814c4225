"""`edgekit run MODEL` at a terminal: read a line, answer it, until the person leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from typing import Any

from edgekit.cli.report import render_error
from edgekit.core.conversation import HELP, Conversation, needs_more, unquote
from edgekit.core.host_layout import HostLayout
from edgekit.errors import EdgekitError, FormatError

FIRST, MORE = ">>> ", "... "
Read = Callable[[str], str]
Stream = Callable[[dict[str, Any]], Generator[str, None, None]]


def chat_at_terminal(layout: HostLayout, model: str) -> None:
    """Chat until the person leaves. What was typed is kept in memory alone."""
    # loaded here: other commands must not pay for it
    from prompt_toolkit import PromptSession

    from edgekit.operations.ask import chat_stream
    from edgekit.operations.models import show_model

    table = show_model(layout, model)
    session: PromptSession[str] = PromptSession()
    print(f"{table['name']}, {table['context']} tokens. /? for help, /bye to leave.")
    chat(
        Conversation(model), session.prompt, chat_stream(layout),
        lambda: f"{table['name']}  {table['parameters']} {table['quantization']}, "
        f"can {', '.join(table['capabilities'])}",
    )


def chat(conversation: Conversation, read: Read, stream: Stream, about: Callable[[], str]) -> None:
    """The loop itself. `read` raises EOFError at the end and KeyboardInterrupt at Ctrl-C."""
    while True:
        try:
            text = read_text(read)
        except EOFError:
            return
        except KeyboardInterrupt:
            print("(Ctrl-D or /bye to leave)")
            continue
        if text.strip() in ("/bye", "/exit", "/quit"):
            return
        try:
            conversation = _turn(conversation, text, stream, about)
        except EdgekitError as error:
            print(render_error(error), file=sys.stderr)


def read_text(read: Read) -> str:
    """One text: a line, or several between triple quotes."""
    text = read(FIRST)
    while needs_more(text):
        text += "\n" + read(MORE)
    return text


def _turn(
    conversation: Conversation, text: str, stream: Stream, about: Callable[[], str]
) -> Conversation:
    word, _, argument = text.strip().partition(" ")
    if not word.startswith("/"):
        question = unquote(text.strip())
        return _answered(conversation, question, stream) if question else conversation
    if word == "/set":
        return conversation.set(argument)
    if word == "/clear":
        return conversation.cleared()
    if word == "/show":
        print(_shown(conversation, argument.strip(), about))
    elif word in ("/?", "/help"):
        print(HELP)
    else:
        raise FormatError("no such command", found=word, hint="/? shows what there is")
    return conversation


def _answered(conversation: Conversation, question: str, stream: Stream) -> Conversation:
    """Ask and print the answer as it comes; Ctrl-C keeps what was said until then."""
    pieces: list[str] = []
    answer = stream(conversation.request(question))
    try:
        for piece in answer:
            pieces.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" (stopped)", end="")
    finally:
        answer.close()  # the engine stops when its client leaves
        print()
    return conversation.after(question, "".join(pieces))


def _shown(conversation: Conversation, what: str, about: Callable[[], str]) -> str:
    parts: dict[str, Callable[[], str]] = {
        "model": about,
        "system": lambda: conversation.system or "no system text",
        "parameters": lambda: _parameters(conversation),
    }
    if what and what not in parts:
        raise FormatError("cannot show this", found=what[:80], needed=", ".join(parts))
    names = [what] if what else list(parts)
    return "\n".join(parts[name]() for name in names)


def _parameters(conversation: Conversation) -> str:
    lines = [f"{name} {value}" for name, value in conversation.parameters.items()]
    return "\n".join(lines) or "no parameters set: the model's own"
