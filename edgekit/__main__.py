"""One program, several parts: the command line, and the daemons that systemd starts.

`edgekit daemon NAME ...` is what units call; people call everything else. Nothing is imported
before it is known to be needed, so that `edgekit --help` stays fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping


def main() -> int:
    """Run the part that the first arguments name; returns the process's exit code."""
    restore_library_path(os.environ)
    arguments = sys.argv[1:]
    if arguments[:1] == ["daemon"] and len(arguments) > 1:
        return _run_daemon(arguments[1], arguments[2:])
    return _run_command(arguments)


def restore_library_path(environment: MutableMapping[str, str]) -> None:
    """Take out the folder of this frozen program's own libraries; elsewhere nothing changes.

    PyInstaller's loader puts it into LD_LIBRARY_PATH and keeps what was there, if anything, as
    LD_LIBRARY_PATH_ORIG. This process has its libraries by now. The host's programs (systemctl,
    podman) must load the host's: with a newer system they fail on ours.
    """
    if not getattr(sys, "frozen", False):
        return
    environment.pop("LD_LIBRARY_PATH", None)
    if kept := environment.pop("LD_LIBRARY_PATH_ORIG", None):
        environment["LD_LIBRARY_PATH"] = kept


def _run_command(arguments: list[str]) -> int:
    try:
        from edgekit.cli.main import main as command_line
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        from edgekit.cli.verify_alone import main as verify_alone

        return verify_alone(arguments)
    return command_line(arguments)


def _run_daemon(name: str, arguments: list[str]) -> int:
    if name == "gateway":
        from edgekit.gateway import main as gateway

        return gateway(arguments)
    if name == "auditd":
        from edgekit.auditd import main as auditd

        return auditd(arguments)
    if name == "forward":
        from edgekit.forwarder import main as forwarder

        return forwarder(arguments)
    if name == "engine":
        from edgekit.supervisor import main as supervisor

        return supervisor(arguments)
    if name == "boot-check":
        return _boot_check(arguments)
    if name == "sandbox-probe":
        from edgekit.system.sandbox_probe import main as sandbox_probe

        return sandbox_probe()
    print(f"edgekit: no daemon named {name}", file=sys.stderr)
    return 2


def _boot_check(arguments: list[str]) -> int:
    if arguments not in ([], ["--labels-only"]):
        print("usage: edgekit daemon boot-check [--labels-only]", file=sys.stderr)
        return 2
    from edgekit.core.host_layout import HostLayout
    from edgekit.errors import EdgekitError
    from edgekit.operations.boot_check import check_after_boot, give_labels
    from edgekit.system.services import SystemdServices

    try:
        layout = HostLayout(HostLayout.HOST)
        if arguments:
            given = give_labels(layout, SystemdServices(layout))
            print(f"edgekit-boot-check: {given} programs and units were labelled", flush=True)
            return 0
        report = check_after_boot(layout, SystemdServices(layout))
    except EdgekitError as error:
        print(f"edgekit-boot-check: {error.message}", error.details(), file=sys.stderr, flush=True)
        return int(error.exit_code)
    if report is not None:
        print(f"edgekit-boot-check: {report.verdict} {report.reason}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
