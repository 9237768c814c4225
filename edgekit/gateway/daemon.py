"""`gateway --appliance FILE --keys FILE`: serve the inherited socket until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekit.core.api_keys import parse_keys
from edgekit.core.appliance import at_site, parse_appliance
from edgekit.core.site_config import SiteConfig
from edgekit.errors import EdgekitError, FormatError, HostError, PortInUseError, TrustError
from edgekit.exit_codes import ExitCode
from edgekit.gateway.app import Gateway
from edgekit.gateway.control import listen
from edgekit.gateway.guard import split_host
from edgekit.gateway.server import BACKLOG, Listener, Server
from edgekit.system.host_secret import SECRET_BYTES, ensure_secret
from edgekit.system.notify import notify, watchdog_interval
from edgekit.system.site_config import load_site_config

FIRST_INHERITED_FD = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway until SIGTERM or SIGINT; returns its exit code."""
    options = _options(argv)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        site = load_site_config(options.config) if options.config else SiteConfig()
        appliance = at_site(parse_appliance(_read(options.appliance)), site)
        ring = parse_keys(_read(options.keys or _credential("api-keys")))
        if not ring.keys and not _is_loopback(appliance.listen):
            raise TrustError(
                "no API key exists, and the API listens beyond this host",
                where=appliance.listen,
                hint="edgekit install SET",
            )
        sock = inherited_socket(os.environ) or _own_socket(appliance.listen)
        hosts = (*options.allow_host, *site.server.allowed_hosts)
        gateway = Gateway(
            appliance,
            ring,
            _hmac_key(os.environ),
            hosts,
            plan=_plan(options.appliance.with_name("plan.json")),
            disk=_state_directory(os.environ),
        )
    except EdgekitError as error:
        parts = [error.message, *(f"{k}: {v}" for k, v in error.details().items())]
        print("edgekit-gateway: " + "; ".join(parts), file=sys.stderr, flush=True)
        return int(error.exit_code)
    # uvicorn raises the signal it stopped for once more at its end: here it means a clean stop
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # what start-up made stays: collections then look at requests alone, and do not stop the loop
    gc.collect()
    gc.freeze()
    asyncio.run(_serve(gateway, sock, options.control))
    return int(ExitCode.OK)


def inherited_socket(environment: Mapping[str, str]) -> socket.socket | None:
    """The listening socket systemd passed (sd_listen_fds(3)), or None when it passed none."""
    count, pid = environment.get("LISTEN_FDS", ""), environment.get("LISTEN_PID", "")
    if not count.isdigit() or int(count) < 1 or (pid and pid != str(os.getpid())):
        return None
    return socket.socket(fileno=FIRST_INHERITED_FD)


async def _serve(gateway: Gateway, sock: socket.socket, control: Path | None) -> None:
    controlled = await listen(control, gateway.replace_keys) if control else None
    pinging = asyncio.create_task(_ping())
    try:
        await Server(gateway, [Listener(sock)]).serve()
    finally:
        pinging.cancel()
        with suppress(asyncio.CancelledError):
            await pinging
        if controlled is not None:
            controlled.close()
        gateway.close()


async def _ping() -> None:
    """Tell the watchdog that this loop still turns."""
    interval = watchdog_interval()
    while interval is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgekit-gateway", description="the appliance's API")
    parser.add_argument("--appliance", type=Path, required=True, help="appliance.json")
    parser.add_argument(
        "--keys", type=Path, help="API keys file (default: $CREDENTIALS_DIRECTORY/api-keys)"
    )
    parser.add_argument(
        "--config", type=Path, help="the site's configuration (default: every key's default)"
    )
    parser.add_argument(
        "--control", type=Path, help="socket on which root hands over new API keys (default: none)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name clients may use in the Host header; may be given again",
    )
    return parser.parse_args(argv)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError("cannot read", where=str(path), found=error.strerror) from error


def _credential(name: str) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise FormatError("no API keys file given", needed="--keys or CREDENTIALS_DIRECTORY")
    return Path(directory) / name


def _plan(path: Path) -> dict[str, Any]:
    """The plan beside the settings, for people to look at; nothing is decided by it."""
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _state_directory(environment: Mapping[str, str]) -> Path | None:
    directory = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(directory) if directory else None


def _hmac_key(environment: Mapping[str, str]) -> bytes:
    """The key of prompt digests: kept in the state directory, or of this run alone without one."""
    directory = _state_directory(environment)
    if directory:
        return ensure_secret(directory / "audit-hmac.key")
    return secrets.token_bytes(SECRET_BYTES)


def _is_loopback(listen: str) -> bool:
    name, _ = split_host(listen)
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _own_socket(listen: str) -> socket.socket:
    """A listening socket of our own, for hosts without socket activation."""
    name, port = split_host(listen)
    if port is None:
        raise FormatError("malformed listen address", found=listen, needed="address:port")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    try:
        return socket.create_server((name, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == 98:
            raise PortInUseError("the API's address is in use", where=listen) from error
        raise HostError("cannot listen", where=listen, found=error.strerror) from error


if __name__ == "__main__":
    sys.exit(main())
