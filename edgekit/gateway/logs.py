"""The gateway's own log: one JSON object a line on standard error, never a prompt or an answer.

Texts of exceptions stay out: they may quote what a client sent. Who asked what is in the audit log;
a line for each request is written where the site wants it (`server.log_requests`).
"""

from __future__ import annotations

import json
import logging
import sys
import time

from edgekit.gateway.journal import Caller
from edgekit.gateway.outcome import Outcome

log = logging.getLogger("edgekit.gateway")


class JsonLines(logging.Formatter):
    """`t` (UTC, ms), `level`, `event`, and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        table = {
            "t": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(table, separators=(",", ":"), default=str)


def start_log() -> None:
    """Everything that is logged goes to standard error as such lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)


def note(event: str, **fields: object) -> None:
    """Something an operator may want to know."""
    log.info(event, extra={"fields": fields})


def note_request(caller: Caller, endpoint: str, model: str, outcome: Outcome) -> None:
    """A generation has ended."""
    first = outcome.first_token_ns
    note(
        "request",
        id=caller.request_id,
        key=caller.key.id if caller.key else "",
        endpoint=endpoint,
        model=model,
        status=outcome.status,
        tokens_in=outcome.tokens_in,
        tokens_out=outcome.tokens_out,
        ttft_ms=None if first is None else (first - outcome.started_ns) // 1_000_000,
        ms=(time.monotonic_ns() - outcome.started_ns) // 1_000_000,
    )


def note_failure(caller: Caller, error: BaseException) -> None:
    """A bug: the type and place of an exception, never its text, which may quote a prompt."""
    fields = {"id": caller.request_id, "type": type(error).__name__, "place": _place(error)}
    log.error("request failed", extra={"fields": fields})


def _place(error: BaseException) -> str:
    trace, place = error.__traceback__, "unknown place"
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
