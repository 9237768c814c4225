"""`auditd --log DIR --socket PATH`: open the log, serve the socket, close with a `stop` record."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgekit import __version__
from edgekit.auditd.server import Server, listen
from edgekit.core.audit_record import check_event
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.system.audit_log import AuditLog, open_audit_log
from edgekit.system.notify import notify, watchdog_interval


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit writer until SIGTERM or SIGINT; returns its exit code.

    A log that is not intact, or a disk that refuses a write, ends it with the audit code of that
    fault: the manager restarts it, and until then the gateway answers 503.
    """
    parser = argparse.ArgumentParser(prog="edgekit-auditd", description="append-only audit writer")
    parser.add_argument("--log", type=Path, required=True, help="folder of the audit log")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    options = parser.parse_args(argv)
    try:
        _serve(options.log, options.socket)
    except EdgekitError as error:
        parts = [error.message, *(f"{k}: {v}" for k, v in error.details().items())]
        print("edgekit-auditd: " + "; ".join(parts), file=sys.stderr, flush=True)
        return int(error.exit_code)
    return int(ExitCode.OK)


def _serve(directory: Path, path: Path) -> None:
    log = open_audit_log(directory)
    with _closing_log(log), _stop_signals() as stopping, listen(path) as listener:
        log.append_batch(
            [
                check_event(
                    {"type": "start", "unit": "auditd", "version": __version__, "pid": os.getpid()}
                )
            ]
        )
        server = Server(
            log,
            listener,
            stopping,
            ping=lambda: notify("WATCHDOG=1"),
            ping_every=watchdog_interval(),
        )
        notify("READY=1")
        try:
            server.run()
            notify("STOPPING=1")
            log.append_batch([check_event({"type": "stop", "unit": "auditd"})])
        finally:
            server.close()
            path.unlink(missing_ok=True)


@contextmanager
def _closing_log(log: AuditLog) -> Iterator[None]:
    try:
        yield
    finally:
        log.close()


@contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable when SIGTERM or SIGINT arrives."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()


if __name__ == "__main__":
    sys.exit(main())
