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
from edgekit.auditd.writer import Writer
from edgekit.core.audit_capacity import capacity_fields
from edgekit.core.audit_chain import Pace
from edgekit.core.audit_record import own_event
from edgekit.core.site_config import AuditConfig, SiteConfig
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode
from edgekit.system.audit_log import LogSettings, make_log_folder, open_audit_log
from edgekit.system.audit_recovery import open_requests
from edgekit.system.audit_space import Space, ensure_capacity
from edgekit.system.notify import notify, watchdog_interval
from edgekit.system.site_config import load_site_config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit writer until SIGTERM or SIGINT; returns its exit code.

    A log that is not intact, or a disk that refuses a write, ends it with the audit code of that
    fault: the manager restarts it, and until then the gateway answers 503.
    """
    parser = argparse.ArgumentParser(prog="edgekit-auditd", description="append-only audit writer")
    parser.add_argument("--log", type=Path, required=True, help="folder of the audit log")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument("--config", type=Path, help="the site's configuration")
    options = parser.parse_args(argv)
    try:
        site = load_site_config(options.config) if options.config else SiteConfig()
        _serve(options.log, options.socket, site.audit)
    except EdgekitError as error:
        parts = [error.message, *(f"{k}: {v}" for k, v in error.details().items())]
        print("edgekit-auditd: " + "; ".join(parts), file=sys.stderr, flush=True)
        return int(error.exit_code)
    return int(ExitCode.OK)


def _serve(directory: Path, path: Path, config: AuditConfig) -> None:
    settings = LogSettings(pace=Pace(config.epoch_s))
    with _closing(_open_writer(directory, config, settings)) as writer:
        left = open_requests(directory)
        with _stop_signals() as stopping, listen(path) as listener:
            writer.note([own_event("start", unit="auditd", version=__version__, pid=os.getpid())])
            server = Server(
                writer,
                listener,
                stopping,
                ping=lambda: notify("WATCHDOG=1"),
                ping_every=watchdog_interval(),
                left=left,
            )
            notify("READY=1")
            try:
                server.run()
                notify("STOPPING=1")
            finally:
                server.close()
                path.unlink(missing_ok=True)
            writer.note([own_event("stop", unit="auditd")])


def _open_writer(directory: Path, config: AuditConfig, settings: LogSettings) -> Writer:
    """The writer of the log in a folder, with its room planned and its reserve taken."""
    make_log_folder(directory)
    capacity, planned = ensure_capacity(directory, config)
    writer = Writer(
        lambda: open_audit_log(directory, settings=settings), Space(directory, capacity)
    )
    if planned:
        writer.note([own_event("capacity", level="planned", **capacity_fields(capacity))])
    writer.settle()
    return writer


@contextmanager
def _closing(writer: Writer) -> Iterator[Writer]:
    try:
        yield writer
    finally:
        writer.close()


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
