"""What was used of each key's day, kept in the gateway's state folder across restarts.

Written once a minute and at the end, so a gateway that is killed forgets a minute of use at most.
A file that cannot be read or written costs the memory of the quotas, not the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from edgekit.core.api_keys import MAX_KEYS
from edgekit.core.fields import Fields
from edgekit.core.strict_json import MAX_INTEGER, encode_canonical, parse_strict
from edgekit.errors import EdgekitError
from edgekit.gateway.limits import DayUse, Limits
from edgekit.gateway.logs import note
from edgekit.system.files import durable_write, read_bounded

NAME = "quotas.json"
SCHEMA = "edgekit.quotas/1"
MAX_BYTES = 1 << 20
EVERY_S = 60.0


def load_quotas(folder: Path | None) -> dict[str, DayUse]:
    """What was kept; nothing without a folder, a file, or one that can be read."""
    if folder is None or not (folder / NAME).exists():
        return {}
    try:
        table = parse_strict(
            read_bounded(folder / NAME, MAX_BYTES, "quotas"), max_bytes=MAX_BYTES, what="quotas"
        )
        fields = Fields(table)
        fields.text("schema", choices=(SCHEMA,))
        uses = {}
        for item in fields.items("keys", max_items=MAX_KEYS):
            uses[item.text("key")] = DayUse(
                item.integer("tokens", low=0, high=MAX_INTEGER),
                item.integer("at_s", low=0, high=MAX_INTEGER),
            )
            item.finish()
        fields.finish()
    except EdgekitError as error:
        note("quotas forgotten", reason=error.message)
        return {}
    return uses


def save_quotas(folder: Path, uses: Mapping[str, DayUse]) -> None:
    """Keep them; says so in the log when the disk refuses."""
    keys = [
        {"key": key, "tokens": use.tokens, "at_s": use.at_s} for key, use in sorted(uses.items())
    ]
    try:
        durable_write(folder / NAME, encode_canonical({"schema": SCHEMA, "keys": keys}))
    except EdgekitError as error:
        note("quotas not kept", reason=error.message)


async def keep_quotas(folder: Path, limits: Limits) -> None:
    """Save them whenever a minute has changed something, until cancelled."""
    saved = limits.day_uses()
    while True:
        await asyncio.sleep(EVERY_S)
        uses = limits.day_uses()
        if {key: use.tokens for key, use in uses.items()} != {
            key: use.tokens for key, use in saved.items()
        }:
            await asyncio.to_thread(save_quotas, folder, uses)
            saved = uses
