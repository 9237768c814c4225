"""`edgekit run`: one question to an installed model through the API, with the host's own key."""

from __future__ import annotations

from edgekit.core.host_layout import HostLayout
from edgekit.operations.host_records import load_appliance, local_key, require_generation
from edgekit.system.health import ask

MAX_KEY_BYTES = 1000


def ask_model(layout: HostLayout, model: str, prompt: str) -> str:
    """The answer's text. Raises NotInstalledError, EngineError, PrivilegeError (key is root's)."""
    generation = require_generation(layout)
    key = local_key(layout)
    return ask(load_appliance(layout, generation).listen, key, model, prompt)
