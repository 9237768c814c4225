"""`supervisor --appliance FILE --engine NAME`: verify, start, ask, then watch one engine.

S1 every weights file hashes to what was signed
S2 the engine starts, with exactly the environment of the plan and the best level of arithmetic
   that a child computed right with
S3 it says it is healthy, in time
S4 it answers every canary prompt rightly
S5 its weights lie on the device that was planned; a memory report that differs is a warning.
   Only now is it READY
S6 it goes on answering or computing, or the watchdog is no longer fed
S7 on SIGTERM the whole process group ends, by force after 10 seconds

An engine that is loaded on demand has a lease socket (`supervisor.lease`): READY says that it can
be asked for, S1 to S5 happen when it is, and S7 when the lease ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from edgekit.core.appliance import Appliance, EngineSettings, at_site, parse_appliance
from edgekit.core.site_config import SiteConfig
from edgekit.errors import EdgekitError, EngineError, FormatError
from edgekit.exit_codes import ExitCode
from edgekit.supervisor.canary import (
    check_answer,
    check_ranking,
    check_vectors,
    wait_healthy,
)
from edgekit.supervisor.containers import computed_s, hand_over
from edgekit.supervisor.lease import Lease, LeaseEndedError, Lender, pinging
from edgekit.supervisor.levels import level_environment
from edgekit.supervisor.pulse import Pulse
from edgekit.supervisor.tap import Tap, check_report
from edgekit.supervisor.weights import verify_weights
from edgekit.system.notify import notify, watchdog_interval
from edgekit.system.process import Child, spawn
from edgekit.system.site_config import load_site_config

GRACE_S = 10.0
POLL_S = 0.25
_TOGETHER = {"embedding": check_vectors, "rerank": check_ranking}
"""Checks of all canaries at once, by task."""
DEFAULT_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


class _StoppedError(Exception):
    """SIGTERM or SIGINT arrived."""


def main(argv: Sequence[str] | None = None) -> int:
    """Supervise one engine until told to stop (0) or until it fails; returns the exit code."""
    parser = argparse.ArgumentParser(prog="edgekit-supervisor", description="starts one engine")
    parser.add_argument("--appliance", type=Path, required=True, help="appliance.json")
    parser.add_argument("--engine", required=True, help="name of the engine in it")
    parser.add_argument(
        "--config", type=Path, help="the site's configuration (default: every key's default)"
    )
    options = parser.parse_args(argv)
    try:
        _on_stop_signals(_raise_stopped)
        site = load_site_config(options.config) if options.config else SiteConfig()
        appliance = _appliance(options.appliance, site)
        settings = _settings(appliance, options.engine, options.appliance)
        if settings.owner:
            hand_over(Path(settings.socket).parent, settings.owner, Path(appliance.audit_socket))
        _supervise(settings)
    except _StoppedError:
        return int(ExitCode.OK)
    except EdgekitError as error:
        parts = [error.message, *(f"{k}: {v}" for k, v in error.details().items())]
        print("edgekit-supervisor: " + "; ".join(parts), file=sys.stderr, flush=True)
        return int(error.exit_code)
    return int(ExitCode.OK)


def _on_stop_signals(action: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, action)


def _raise_stopped(_number: int, _frame: object) -> None:
    """Interrupt whatever is under way (a load may take many minutes), once."""
    _on_stop_signals(signal.SIG_IGN)
    raise _StoppedError


def _appliance(path: Path, site: SiteConfig) -> Appliance:
    try:
        return at_site(parse_appliance(path.read_bytes()), site)
    except OSError as error:
        raise FormatError("cannot read", where=str(path), found=error.strerror) from error


def _settings(appliance: Appliance, name: str, path: Path) -> EngineSettings:
    try:
        return appliance.engine(name)
    except (KeyError, StopIteration) as error:
        raise FormatError("no such engine", where=str(path), found=name) from error


def _supervise(settings: EngineSettings) -> None:
    """Run the engine for good, or whenever somebody asks for it."""
    if not settings.lease:
        _run(settings)
        return
    interval = watchdog_interval()
    with Lender(settings.lease) as lender:
        notify("READY=1", "STATUS=waits to be asked for")
        while True:
            lease = lender.next(interval)
            with lease, suppress(LeaseEndedError):
                _run(settings, lease)
            notify("STATUS=waits to be asked for")


def _run(settings: EngineSettings, lease: Lease | None = None) -> None:
    """S1 to S7; with a lease until it ends."""
    try:
        _run_engine(settings, lease)
    except EdgekitError as error:
        if lease is not None:
            lease.refuse(error)
        raise


def _run_engine(settings: EngineSettings, lease: Lease | None) -> None:
    notify("STATUS=verifying weights")
    with pinging(lease, settings.start_timeout_s):
        verify_weights(settings.weights)  # S1
    deadline = time.monotonic() + settings.start_timeout_s
    with suppress(FileNotFoundError):
        # a socket left by a killed engine would keep the new one from listening
        os.unlink(settings.socket)  # noqa: PTH108
    notify("STATUS=starting the engine")
    tap = Tap()
    environment = {
        **DEFAULT_ENVIRONMENT, **dict(settings.environment), **level_environment(settings)
    }
    child = spawn(settings.argv, env=environment, output=tap.write)  # S2
    tap.start()
    try:
        with pinging(lease, settings.start_timeout_s):
            _make_ready(settings, child, tap, deadline, lease)
        for warning in check_report(settings, tap.buffers()):  # S5
            print(f"edgekit-supervisor: WARNING: {warning}", file=sys.stderr, flush=True)
        notify("READY=1", "STATUS=answers canary prompts")
        if lease is not None:
            lease.grant()
        _watch(settings, child, lease)
    finally:
        _on_stop_signals(signal.SIG_IGN)  # nothing may interrupt the end of the group
        if lease is None:
            notify("STOPPING=1")
        child.stop(GRACE_S)  # S7
        if lease is not None:
            _on_stop_signals(_raise_stopped)


def _make_ready(
    settings: EngineSettings, child: Child, tap: Tap, deadline: float, lease: Lease | None
) -> None:
    """S3 and S4."""

    def still_wanted() -> None:
        _check_running(child)
        if lease is not None:
            lease.check()

    wait_healthy(settings.socket, deadline=deadline, still_running=still_wanted)
    tap.hide_texts()  # from here on it may be asked by anyone
    notify("STATUS=asking canary prompts")
    if settings.task in _TOGETHER and settings.canaries:
        check = _TOGETHER[settings.task]
        check(settings.socket, settings.canaries, timeout_s=settings.start_timeout_s)
        return
    for canary in settings.canaries:
        remaining = max(1.0, deadline - time.monotonic())
        check_answer(settings.socket, canary, timeout_s=remaining, kind=settings.kind)


def _watch(settings: EngineSettings, child: Child, lease: Lease | None) -> NoReturn:
    """S6, until a signal, the end of the lease or the engine's."""
    interval = watchdog_interval()
    pulse = Pulse(settings, computed_s(child.processor_s) if settings.owner else child.processor_s)
    next_ping = time.monotonic()
    while True:
        if interval is not None and time.monotonic() >= next_ping:
            if pulse.beats():
                notify("WATCHDOG=1")
            next_ping = time.monotonic() + interval
        if lease is None:
            time.sleep(POLL_S)
        else:
            lease.wait(POLL_S)
        _check_running(child)


def _check_running(child: Child) -> None:
    status = child.status()
    if status is not None:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise EngineError("the engine ended", found=how)


if __name__ == "__main__":
    sys.exit(main())
