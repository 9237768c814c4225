"""`edgekit run`: questions to an installed model through the API, with the host's own key."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from edgekit.core.conversation import Conversation
from edgekit.core.host_layout import HostLayout
from edgekit.operations.host_records import load_appliance, local_key, require_generation
from edgekit.system.health import stream_chat


def ask_model(layout: HostLayout, model: str, prompt: str) -> Iterator[str]:
    """The pieces of the likeliest answer as they are made; its length is the model's matter.

    Raises NotInstalledError, EngineError, PrivilegeError (the key is root's).
    """
    generation = require_generation(layout)
    listen = load_appliance(layout, generation).listen
    question = Conversation(model, parameters={"temperature": 0.0}).request(prompt)
    yield from stream_chat(listen, local_key(layout), question)


def chat_stream(layout: HostLayout) -> Callable[[dict[str, Any]], Generator[str, None, None]]:
    """How a chat asks: a body of `/api/chat` to the answer's pieces. Raises as `ask_model`."""
    listen = load_appliance(layout, require_generation(layout)).listen
    key = local_key(layout)
    return lambda request: stream_chat(listen, key, request)
