"""`forward --log DIR --config FILE`: read the audit log as it grows, send each record on.

It reads the log as any reader does, so nothing that happens here can hold up the audit writer or an
answer: a receiver that is slow or gone makes the forwarder wait, and the log is the queue. Every
record is sent at least once and in order; after a restart the last ones may be sent again (`seq`
tells). Dropped is only what retention removed before it was sent, and what the receiver refuses for
its size: both are counted and said. Where it is, and the count, stand in `forward.json` in the
state directory (`core.forward_state`).
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.core.audit_chain import LogLine, parse_line
from edgekit.core.forward_state import (
    MAX_STATE_BYTES,
    ForwardState,
    encode_forward_state,
    parse_forward_state,
)
from edgekit.core.siem import Origin, Record, render_cef, render_journal, render_syslog
from edgekit.core.site_config import AuditConfig
from edgekit.errors import AuditMissingError, AuditUnavailableError, EdgekitError, FormatError
from edgekit.exit_codes import ExitCode
from edgekit.system.audit_files import first_record, log_segments, read_head
from edgekit.system.audit_follow import Follower, Place
from edgekit.system.datagrams import DatagramSender
from edgekit.system.files import durable_write, read_bounded
from edgekit.system.notify import notify, watchdog_interval
from edgekit.system.site_config import load_site_config

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
IDLE_S = 0.2
FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 2.0
SAVE_S = 1.0
STATE_NAME = "forward.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Forward until SIGTERM or SIGINT; returns its exit code. Ends at once when switched off."""
    parser = argparse.ArgumentParser(prog="edgekit-forward", description="audit record forwarder")
    parser.add_argument("--log", type=Path, required=True, help="folder of the audit log")
    parser.add_argument("--config", type=Path, required=True, help="the site's configuration")
    options = parser.parse_args(argv)
    try:
        audit = load_site_config(options.config).audit
        if audit.forward == "none":
            notify("READY=1", "STATUS=switched off (audit.forward)")
            return int(ExitCode.OK)
        state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        if not state:
            raise FormatError("no place to keep the position", needed="STATE_DIRECTORY")
        Forwarder(options.log, audit, Path(state) / STATE_NAME).run()
    except EdgekitError as error:
        parts = [error.message, *(f"{k}: {v}" for k, v in error.details().items())]
        print("edgekit-forward: " + "; ".join(parts), file=sys.stderr, flush=True)
        return int(error.exit_code)
    return int(ExitCode.OK)


class Forwarder:
    """One log on its way to one receiver."""

    def __init__(self, log_dir: Path, audit: AuditConfig, state: Path) -> None:
        self._log_dir = log_dir
        self._audit = audit
        self._path = state
        self._origin = Origin(socket.gethostname(), read_head(log_dir).log_id)
        self._state = self._saved = self._load()
        self._breathed_at = 0.0
        self._said = ""
        journal = audit.forward == "journald"
        self._target = JOURNAL_SOCKET if journal else Path(audit.syslog_socket)
        self._sender = DatagramSender(self._target)
        self._ping_s = watchdog_interval()
        self._stopping, self._waker = socket.socketpair()

    def run(self) -> None:
        """Forward until told to stop. Raises AuditError when the log is not what it should be."""
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        follower = Follower(self._log_dir, self._start())
        notify("READY=1", f"STATUS=forwarding to {self._target}")
        stopped = False
        try:
            while not stopped:
                lines = follower.read()
                stopped = self._forward(lines) if lines else self._idle()
        finally:
            self._save()
            follower.close()
            self._sender.close()
            signal.set_wakeup_fd(-1)

    def _start(self) -> Place | None:
        """Where to go on: the oldest segment when the one where we were is gone (retention)."""
        segments = log_segments(self._log_dir)
        if self._state.segment in {path.name for path in segments}:
            return Place(self._state.segment, self._state.offset)
        oldest = first_record(segments[0]) if segments else 1
        if oldest <= self._state.seq:
            raise AuditMissingError(
                "the segment that was being forwarded is gone", where=self._state.segment
            )
        return None

    def _forward(self, lines: Sequence[LogLine]) -> bool:
        """Send these lines, however long it takes; True when told to stop meanwhile."""
        for line in lines:
            record = parse_line(line, 0)
            if missed := record["seq"] - self._state.seq - 1:
                self._drop(missed, f"removed from the log before record {record['seq']}")
            if self._send(record["seq"], self._render(record, line)):
                return True
            place = Place.after(line)
            self._state = replace(
                self._state, segment=place.segment, offset=place.offset, seq=record["seq"]
            )
            self._breathe()
        return False

    def _send(self, seq: int, data: bytes) -> bool:
        """Send one record, however long it takes; True when told to stop before it was sent."""
        wait = FIRST_WAIT_S
        try:
            while not self._sender.send(data):
                self._say("waiting for the receiver")
                if self._wait(wait, self._sender.waitable):
                    return True
                wait = min(wait * 2, LONGEST_WAIT_S)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise AuditUnavailableError(
                    "the receiver cannot be used", where=str(self._target), found=error.strerror
                ) from error
            self._drop(1, f"record {seq} is too large for {self._target}")
        return False

    def _drop(self, count: int, why: str) -> None:
        self._state = replace(self._state, dropped=self._state.dropped + count)
        print(
            f"edgekit-forward: dropped {count} records, {self._state.dropped} in all: {why}",
            file=sys.stderr,
            flush=True,
        )

    def _idle(self) -> bool:
        self._say("all records are forwarded")
        self._breathe()
        return self._wait(IDLE_S)

    def _wait(self, seconds: float, receiver: socket.socket | None = None) -> bool:
        """Sleep, but wake up when the receiver has room, or to stop; True when told to stop."""
        self._breathe()
        writable = [] if receiver is None else [receiver]
        return bool(select.select([self._stopping], writable, [], seconds)[0])

    def _breathe(self) -> None:
        """What is due every second: remember the place, tell the watchdog."""
        now = time.monotonic()
        if now - self._breathed_at >= SAVE_S:
            self._save()
            self._breathed_at = now
            if self._ping_s is not None:
                notify("WATCHDOG=1")

    def _say(self, what: str) -> None:
        """Tell systemd, when it is news."""
        if what != self._said:
            notify(f"STATUS={what}; {self._state.dropped} dropped so far")
            self._said = what

    def _render(self, record: Record, line: LogLine) -> bytes:
        text = line.data.decode("ascii")
        if self._audit.forward == "journald":
            return render_journal(record, self._origin, text)
        if self._audit.forward_format == "cef":
            text = render_cef(record, self._origin)
        return render_syslog(record, self._origin, text)

    def _load(self) -> ForwardState:
        """Where an earlier run of this log got to. Raises FormatError for a damaged file."""
        fresh = ForwardState(self._origin.log_id)
        if not self._path.exists():
            return fresh
        kept = parse_forward_state(read_bounded(self._path, MAX_STATE_BYTES, STATE_NAME))
        return kept if kept.log_id == fresh.log_id else fresh

    def _save(self) -> None:
        if self._state != self._saved:
            durable_write(self._path, encode_forward_state(self._state))
            self._saved = self._state


if __name__ == "__main__":
    sys.exit(main())
