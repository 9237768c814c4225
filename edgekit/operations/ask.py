"""`edgekit run`: one question to an installed model through the API, with the host's own key."""

from __future__ import annotations

from edgekit.core.host_layout import HostLayout
from edgekit.errors import NotInstalledError
from edgekit.operations.install import load_appliance
from edgekit.system.files import read_bounded
from edgekit.system.generations import current_generation
from edgekit.system.health import ask

MAX_KEY_BYTES = 1000


def ask_model(layout: HostLayout, model: str, prompt: str) -> str:
    """The answer's text. Raises NotInstalledError, EngineError, PrivilegeError (key is root's)."""
    generation = current_generation(layout)
    if generation is None:
        raise NotInstalledError(
            "no release is installed here", where=str(layout.root), hint="edgekit install SET"
        )
    key = read_bounded(layout.local_key, MAX_KEY_BYTES, "local key").decode("ascii").strip()
    return ask(load_appliance(layout, generation).listen, key, model, prompt)
