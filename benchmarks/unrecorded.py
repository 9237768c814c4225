"""A gateway that records nothing: what the audit log adds is measured against it. Never shipped."""

from __future__ import annotations

import sys

from edgekit.gateway.daemon import main
from edgekit.gateway.journal import Journal


async def _nothing(*_: object, **__: object) -> None:
    pass


if __name__ == "__main__":
    Journal.begin = Journal.end = _nothing  # type: ignore[method-assign,assignment]
    sys.exit(main())
