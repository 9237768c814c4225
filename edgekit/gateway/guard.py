"""Who may come in: Host and Origin against DNS rebinding, then an API key with the right scope."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from edgekit.core.api_keys import ApiKey, KeyRing
from edgekit.gateway.problems import ApiError
from edgekit.gateway.surfaces.endpoints import ENDPOINTS

PUBLIC = frozenset({"/", "/healthz", "/readyz", "/api/version", "/console", "/docs"})
"""Answered to GET and HEAD without a key: clients probe them, and they say nothing."""

DESCRIBING = frozenset({"/v1/models", "/api/tags", "/api/ps", "/api/show", "/openapi.json"})
"""Paths that say what is here and ask no model; any client's key will do."""

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """The names this gateway answers to, and the keys it accepts."""

    def __init__(self, listen: str, ring: KeyRing, extra_hosts: Iterable[str] = ()) -> None:
        name, port = split_host(listen)
        self._port = port
        self._names = _LOCAL | {name} | {host.lower() for host in extra_hosts}
        self._ring = ring

    def replace_keys(self, ring: KeyRing) -> None:
        """Accept these keys from now on, and no others."""
        self._ring = ring

    def check_origin(self, headers: Mapping[str, str], server: tuple[str, int] | None) -> None:
        """Refuse a Host or Origin that is not this gateway's. Raises ApiError 403.

        A page on another site can make a browser connect here, but then Host (after DNS rebinding)
        or Origin carries that site's name. `server` is the local address of the connection: a
        client may call the gateway by the very address it connected to.
        """
        if not self._is_ours(headers.get("host", ""), server):
            raise ApiError(403, "host_not_allowed", "this Host header is not allowed")
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(_authority(origin), server):
            raise ApiError(403, "origin_not_allowed", "this Origin header is not allowed")

    def _is_ours(self, authority: str, server: tuple[str, int] | None) -> bool:
        name, port = split_host(authority)
        ports = {self._port} | ({server[1]} if server else set())
        if port is None:
            if not ports & {80, 443}:
                return False
        elif port not in ports:
            return False
        return name in self._names or (server is not None and _same_address(name, server[0]))

    def authenticate(self, headers: Mapping[str, str]) -> ApiKey:
        """The caller's key. Raises ApiError 401."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = headers.get("x-api-key", "")
        if not token:
            raise ApiError(401, "missing_api_key", "an API key is required")
        key = self._ring.find(token.strip())
        if key is None:
            raise ApiError(401, "invalid_api_key", "the API key is not valid")
        return key


def check_scope(key: ApiKey | None, path: str) -> None:
    """Refuse a key that has no scope for this path. Raises ApiError 403."""
    needed = _scopes(path)
    if key is None or not needed & set(key.scopes):
        names = " or ".join(sorted(needed))
        raise ApiError(403, "missing_scope", f"this API key lacks the scope {names}")


def _scopes(path: str) -> frozenset[str]:
    """One of these is needed."""
    if path == "/metrics":
        return frozenset({"metrics", "admin"})
    if path.startswith("/edgekit/"):
        return frozenset({"admin"})
    if path in ENDPOINTS:
        return frozenset({ENDPOINTS[path].scope})
    if path in DESCRIBING or path.startswith("/v1/models/"):
        return frozenset({"chat", "embed", "admin"})
    return frozenset({"chat"})


@functools.lru_cache(maxsize=256)
def split_host(authority: str) -> tuple[str, int | None]:
    """Lower-case name (no brackets) and port of `name[:port]`; ("", 0) for a malformed one."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        name, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", 0
        port = rest[1:]
    else:
        name, _, port = authority.partition(":")
    if not port:
        return name, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        return "", 0
    return name, int(port)


def _authority(origin: str) -> str:
    """The host part of an Origin, with the scheme's default port made explicit."""
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or parts.path or "@" in parts.netloc:
        return ""
    name, port = split_host(parts.netloc)
    bracketed = f"[{name}]" if ":" in name else name
    return f"{bracketed}:{port if port is not None else {'http': 80, 'https': 443}[parts.scheme]}"


def _same_address(name: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(address)
    except ValueError:
        return False
