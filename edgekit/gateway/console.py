"""The operator's page: one file, served as it lies, that asks this gateway alone.

The page holds no data. It asks for a key, keeps it in the browser tab, and fetches with it. Its
policy names the page's own script and style by their digests, so a browser runs nothing else in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache

from edgekit.system.resources import data_folder

_PARTS = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def load_console() -> tuple[bytes, str]:
    """The page and its content security policy. Raises HostError when this edgekit lacks it."""
    page = (data_folder("console") / "index.html").read_bytes()
    digests = {
        kind.decode(): base64.b64encode(hashlib.sha256(text).digest()).decode()
        for kind, text in _PARTS.findall(page)
    }
    return page, (
        f"default-src 'none'; script-src 'sha256-{digests['script']}'; "
        f"style-src 'sha256-{digests['style']}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
