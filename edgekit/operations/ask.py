"""`edgekit run`: one question to an installed model through the API, with the host's own key."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.core.host_layout import HostLayout
from edgekit.operations.host_records import load_appliance, local_key, require_generation
from edgekit.system.health import stream_answer


def ask_model(layout: HostLayout, model: str, prompt: str) -> Iterator[str]:
    """The answer's pieces as they are made.

    Raises NotInstalledError, EngineError, PrivilegeError (the key is root's).
    """
    generation = require_generation(layout)
    listen = load_appliance(layout, generation).listen
    yield from stream_answer(listen, local_key(layout), model, prompt)
