"""`edgekit run`: questions to an installed model through the API, with the host's own key."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from edgekit.core.host_layout import HostLayout
from edgekit.operations.host_records import load_appliance, local_key, require_generation
from edgekit.system.health import stream_answer, stream_chat


def ask_model(layout: HostLayout, model: str, prompt: str) -> Iterator[str]:
    """The answer's pieces as they are made.

    Raises NotInstalledError, EngineError, PrivilegeError (the key is root's).
    """
    generation = require_generation(layout)
    listen = load_appliance(layout, generation).listen
    yield from stream_answer(listen, local_key(layout), model, prompt)


def chat_stream(layout: HostLayout) -> Callable[[dict[str, Any]], Generator[str, None, None]]:
    """How a chat asks: a body of `/api/chat` to the answer's pieces. Raises as `ask_model`."""
    listen = load_appliance(layout, require_generation(layout)).listen
    key = local_key(layout)
    return lambda request: stream_chat(listen, key, request)
