"""Starting and stopping the appliance: under systemd, or in the foreground below a private root.

Both keep one promise: `start` returns when the engine has given a right answer (its unit says READY
only then) or raises, and `stop` leaves no process behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekit.core.appliance import Appliance
from edgekit.core.host_layout import HostLayout
from edgekit.core.site_units import DROP_IN, SOCKET_UNIT
from edgekit.errors import EngineError, EngineNotReadyError, HostError, PortInUseError
from edgekit.system.files import durable_write, fsync_directory, translate_os_error
from edgekit.system.process import Child, run, spawn
from edgekit.system.site_config import load_site_config

TARGET = "edgekit.target"
AUDIT_WRITER = "edgekit-auditd.service"
GATEWAY = "edgekit-gateway.service"
FORWARDER = "edgekit-forward.service"
BOOT_CHECK = "edgekit-boot-check.service"
AT_BOOT = (TARGET, BOOT_CHECK)
"""Units that the host's own multi-user.target starts."""
OUR_VOICES = tuple(
    f"edgekit-{name}: " for name in ("supervisor", "gateway", "auditd", "forward")
)
"""How our daemons begin what they say; other lines are the engine's and systemd's."""
_STARTING = re.compile(r"^Starting ", re.MULTILINE)
_FAILED = re.compile(r": Failed with result '([a-z-]+)'\.")
_OUT_OF_MEMORY = "killed by the OOM killer", "oom_memcg="
"""How systemd says it, where it hears of it in time, and how the kernel does, of a unit's group."""
TIMER_STAMP = "var/lib/systemd/timers/stamp-edgekit-scrub.timer"
"""When the scrub ran last, as systemd remembers it."""
WANTS = "multi-user.target.wants"
JOURNAL_LINES = 15
FAILURE_LINES = 500
"""The kernel's among them: one process out of memory is some hundred."""
COMPLAINT_LINES = 200
"""An engine says much while it ends, after our daemon has said why it must."""
SYSTEMCTL_TIMEOUT_S = 1500
STOP_GRACE_S = 10.0


class Services(Protocol):
    """How an installed generation is run."""

    def start(self, appliance: Appliance) -> None:
        """Run this generation; ready when it returns. Raises EngineError, HostError."""

    def stop(self) -> None:
        """Stop whatever runs."""


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit: ActiveState, SubState, Result, restarts since its start,
    and the exit status of its main process (0 while it runs)."""

    active: str
    sub: str
    result: str
    restarts: int
    exit_status: int

    @property
    def given_up(self) -> bool:
        """Whether systemd started it again and again, and then no more (StartLimitBurst)."""
        return self.active == "failed" and self.restarts > 0


class SystemdServices:
    """The host's own systemd."""

    def __init__(self, layout: HostLayout) -> None:
        self._layout = layout

    def link_units(self, names: tuple[str, ...]) -> None:
        """Link units into systemd's folder through `current`, so they switch with it.

        Removes links to units the new generation does not have. Raises HostError.
        """
        folder = self._layout.units
        wants = folder / WANTS
        try:
            wants.mkdir(parents=True, exist_ok=True)
            self._unlink_all_but(names)
            for name in names:
                _ensure_link(folder / name, self._layout.current / "units" / name)
            for name in AT_BOOT:
                if name in names:
                    _ensure_link(wants / name, folder / name)
            fsync_directory(wants)
            fsync_directory(folder)
        except OSError as error:
            raise translate_os_error(error, "linking units") from error

    def write_drop_ins(self, texts: dict[str, str]) -> None:
        """Write the site's drop-ins by unit, and remove those that are no longer among them.

        The operator's own drop-ins beside them stay. Raises HostError.
        """
        try:
            for unit, text in texts.items():
                folder = self._layout.units / f"{unit}.d"
                folder.mkdir(parents=True, exist_ok=True, mode=0o755)
                durable_write(folder / DROP_IN, text.encode())
            for path in self._layout.units.glob(f"edgekit*.d/{DROP_IN}"):
                if path.parent.name.removesuffix(".d") not in texts:
                    path.unlink()
                    with contextlib.suppress(OSError):
                        path.parent.rmdir()  # not when the operator's own lie there
        except OSError as error:
            raise translate_os_error(error, "writing drop-ins") from error

    def restart_front(self) -> None:
        """Restart audit writer, listener and gateway, with what their units say now."""
        self.reload()
        run(
            ["systemctl", "stop", GATEWAY, SOCKET_UNIT],
            timeout_s=SYSTEMCTL_TIMEOUT_S,
            check=False,
        )
        for unit in (AUDIT_WRITER, SOCKET_UNIT, GATEWAY):
            self._restart(unit)
        self._restart_forwarder()

    def restart_gateway(self) -> None:
        """Restart the gateway alone; systemd holds the listener meanwhile. Raises HostError."""
        self._restart(GATEWAY)

    def unlink_units(self) -> None:
        """Remove every link and drop-in this class made."""
        self.write_drop_ins({})
        try:
            self._unlink_all_but(())
            (self._layout.root / TIMER_STAMP).unlink(missing_ok=True)
            fsync_directory(self._layout.units)
        except OSError as error:
            raise translate_os_error(error, "unlinking units") from error
        self.reload()

    def _unlink_all_but(self, names: tuple[str, ...]) -> None:
        folder = self._layout.units
        for path in (*folder.glob("edgekit*"), *(folder / WANTS).glob("edgekit*")):
            if path.is_symlink() and path.name not in names:
                path.unlink()

    def reload(self) -> None:
        """Let systemd read all units again, labels included. Raises HostError."""
        _systemctl("daemon-reload")

    def start(self, appliance: Appliance) -> None:
        """Reload, then start the target's units; engines are ready when this returns."""
        self.reload()
        engines = [engine_unit(engine.name) for engine in appliance.engines]
        for unit in (AUDIT_WRITER, *engines, SOCKET_UNIT, GATEWAY):
            self._restart(unit)
        self._restart_forwarder()
        # Started last and not restarted: a restart would take its running parts along.
        _systemctl("start", TARGET)

    def stop(self) -> None:
        """Stop all of the appliance's units and forget their failures.

        The check after boot is left alone: it may be what stops them.
        """
        listed = run(
            ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "edgekit*"],
            timeout_s=60,
            check=False,
        )
        names = {line.split()[0] for line in listed.text.splitlines() if line.strip()}
        units = sorted((names | {TARGET, SOCKET_UNIT}) - {BOOT_CHECK})
        run(["systemctl", "stop", *units], timeout_s=SYSTEMCTL_TIMEOUT_S, check=False)
        run(["systemctl", "reset-failed", *units], timeout_s=60, check=False)

    def _restart(self, unit: str) -> None:
        done = run(["systemctl", "restart", unit], timeout_s=SYSTEMCTL_TIMEOUT_S, check=False)
        if done.returncode != 0:
            kind = EngineError if "engine" in unit else HostError
            said = done.stderr.decode("utf-8", errors="replace").strip()
            found = self.last_words(unit) or said or "no output"
            raise kind(f"{unit} did not start", found=found, hint=f"journalctl -u {unit}")

    def _restart_forwarder(self) -> None:
        """Restart what sends records on. Serving does not depend on it: `status` tells when it
        failed."""
        run(["systemctl", "restart", FORWARDER], timeout_s=SYSTEMCTL_TIMEOUT_S, check=False)

    def inspect(self, units: list[str]) -> dict[str, UnitState]:
        """Each unit's state; one that waits for its next start is `activating`."""
        found = {}
        properties = "ActiveState,SubState,Result,NRestarts,ExecMainStatus"
        for unit in units:
            done = run(
                ["systemctl", "show", f"--property={properties}", unit],
                timeout_s=60,
                check=False,
            )
            values = dict(line.partition("=")[::2] for line in done.text.splitlines())
            found[unit] = UnitState(
                values.get("ActiveState") or "unknown",
                values.get("SubState", ""),
                values.get("Result", ""),
                int(values.get("NRestarts") or 0),
                int(values.get("ExecMainStatus") or 0),
            )
        return found

    def last_words(self, unit: str, lines: int = JOURNAL_LINES) -> str:
        """The end of a unit's journal."""
        log = run(
            ["journalctl", "--no-pager", "-o", "cat", "-n", str(lines), "-u", unit],
            timeout_s=60,
            check=False,
        )
        return log.text.strip()

    def last_failure(self, unit: str) -> str:
        """The Result of a unit's last failure since the boot, as systemd noted it; "" for none.

        The property says `success` again as soon as the unit is started anew, and `signal` where
        systemd heard of a process's death before it heard what killed it. What it heard during
        an earlier start explains nothing.
        """
        log = run(
            ["journalctl", "--no-pager", "--boot", "-o", "cat", "-n", str(FAILURE_LINES),
             f"UNIT={unit}", "SYSLOG_IDENTIFIER=systemd", "+", "_TRANSPORT=kernel"],
            timeout_s=60,
            check=False,
        )  # fmt: skip
        told = [line for line in log.text.splitlines() if unit in line or _STARTING.match(line)]
        for start in reversed(_STARTING.split("\n".join(told))):
            if results := list(_FAILED.finditer(start)):
                result = results[-1][1]
                of_memory = any(words in start for words in _OUT_OF_MEMORY)
                return "oom-kill" if result == "signal" and of_memory else result
        return ""

    def complaint(self, unit: str) -> str:
        """The last thing that our own daemon in a unit said, else the unit's last line."""
        lines = self.last_words(unit, COMPLAINT_LINES).splitlines()
        ours = [line for line in lines if line.startswith(OUR_VOICES)]
        return (ours or lines or ["no output"])[-1]


def appliance_units(appliance: Appliance) -> list[str]:
    """The services that must run for this appliance to answer."""
    return [AUDIT_WRITER, GATEWAY, *(engine_unit(engine.name) for engine in appliance.engines)]


def engine_unit(name: str) -> str:
    """The unit of one engine."""
    return f"edgekit-engine@{name}.service"


def _ensure_link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _systemctl(*arguments: str) -> None:
    run(["systemctl", *arguments], timeout_s=SYSTEMCTL_TIMEOUT_S)


class ForegroundServices:
    """The same daemons as child processes, for a private root on a machine without our units."""

    def __init__(self, layout: HostLayout) -> None:
        self._layout = layout
        self._children: dict[str, Child] = {}

    def start(self, appliance: Appliance) -> None:
        """Start audit writer, engines and gateway in this order, waiting for each."""
        runtime = self._layout.generation(appliance.generation) / "runtime/edgekit"
        settings = self._layout.generation(appliance.generation) / "appliance.json"
        common = ["--appliance", str(settings), "--config", str(self._layout.site_config)]
        listener = bind_listener(appliance.listen)
        try:
            self._run_daemon(
                "auditd",
                [
                    str(runtime),
                    "daemon",
                    "auditd",
                    "--log",
                    str(self._layout.audit),
                    "--socket",
                    appliance.audit_socket,
                    "--config",
                    str(self._layout.site_config),
                ],
                timeout_s=30,
            )
            for engine in appliance.engines:
                self._run_daemon(
                    f"engine {engine.name}",
                    [
                        str(runtime),
                        "daemon",
                        "engine",
                        *common,
                        "--engine",
                        engine.name,
                    ],
                    timeout_s=engine.start_timeout_s,
                )
            if load_site_config(self._layout.site_config).audit.forward != "none":
                self._run_daemon(
                    "forward",
                    [
                        str(runtime),
                        "daemon",
                        "forward",
                        "--log",
                        str(self._layout.audit),
                        "--config",
                        str(self._layout.site_config),
                    ],
                    timeout_s=30,
                )
            self._run_daemon(
                "gateway",
                [
                    str(runtime),
                    "daemon",
                    "gateway",
                    *common,
                    "--keys",
                    str(self._layout.api_keys),
                    "--control",
                    str(self._layout.gateway_control()),
                ],
                timeout_s=60,
                listener=listener,
            )
        except BaseException:
            self.stop()
            raise
        finally:
            listener.close()

    def wait(self) -> None:
        """Return when any daemon ends. Raises EngineError naming it."""
        while True:
            for name, child in self._children.items():
                status = child.status()
                if status is not None:
                    raise EngineError(f"{name} ended", found=f"status {status}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop all daemons, newest first."""
        for name in reversed(list(self._children)):
            self._children.pop(name).stop(STOP_GRACE_S)

    def _run_daemon(
        self,
        name: str,
        argv: list[str],
        *,
        timeout_s: float,
        listener: socket.socket | None = None,
    ) -> None:
        """Start a daemon and wait for its READY on a socket of its own."""
        path = self._layout.run / f"notify-{len(self._children)}.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            try:
                notify.bind(str(path))
            except OSError as error:
                raise HostError(
                    "the private root's path is too long for a socket",
                    where=str(path),
                    needed="a path below 90 bytes",
                ) from error
            environment = {
                "PATH": os.defpath,
                "HOME": str(self._layout.run),
                "NOTIFY_SOCKET": str(path),
                "STATE_DIRECTORY": str(self._layout.state),
            }
            self._log(name).unlink(missing_ok=True)  # one log per start
            child = spawn(
                argv,
                env=environment,
                listen_descriptor=listener.fileno() if listener else None,
                log=self._log(name),
            )
            self._children[name] = child
            _wait_ready(name, child, notify, timeout_s, self._log(name))

    def _log(self, name: str) -> Path:
        return self._layout.run / f"{name.replace(' ', '-')}.log"


def _wait_ready(
    name: str, child: Child, notify: socket.socket, timeout_s: float, log: Path
) -> None:
    deadline = time.monotonic() + timeout_s
    notify.settimeout(0.1)
    while time.monotonic() < deadline:
        try:
            if b"READY=1" in notify.recv(4096).split(b"\n"):
                return
        except TimeoutError:
            status = child.status()
            if status is not None:
                raise EngineError(f"{name} did not start", found=_last_lines(log, status)) from None
    raise EngineNotReadyError(f"{name} was not ready in time", needed=f"{timeout_s:.0f} s")


def _last_lines(log: Path, status: int) -> str:
    """The end of a daemon's log and how it ended."""
    lines = log.read_bytes()[-4000:].decode(errors="replace").splitlines()[-JOURNAL_LINES:]
    return "\n".join([f"status {status}", *lines])


def bind_listener(listen: str) -> socket.socket:
    """A listening TCP socket on `address:port`. Raises PortInUseError or HostError."""
    address, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.strip("[]"), int(port)))
    except OSError as error:
        listener.close()
        raise PortInUseError(
            "another program already listens on the API's address",
            found=listen,
            needed="a free address",
            hint="ss -ltnp, or install with --listen ADDRESS:PORT",
        ) from error
    listener.listen(1024)
    return listener


def check_port_free(listen: str) -> None:
    """Refuse an address that is taken. Raises PortInUseError; holds nothing afterwards."""
    bind_listener(listen).close()
