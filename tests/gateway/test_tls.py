"""The listener for the network: TLS by the host's own authority, client certificates, refusals."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from edgekit.core.host_layout import HostLayout
from edgekit.core.site_config import ServerConfig, SiteConfig, parse_site_config
from edgekit.core.site_units import site_drop_ins
from edgekit.core.tls import (
    LASTS,
    is_fresh,
    make_authority,
    make_certificate,
    read_certificate,
)
from edgekit.errors import ConfigError, EdgekitError, FormatError, HostError, NotInstalledError
from edgekit.operations.tls import ensure_tls, show_tls
from tests.gateway.conftest import make_appliance
from tests.gateway.test_daemon import gateway, listener
from tests.support.daemons import NotReadyError, running_auditd

__all__ = ["listener"]  # a fixture

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@contextmanager
def lan_gateway(
    work: Path,
    sock: socket.socket,
    *,
    keys: int = 1,
    certificate: bool = True,
    mutual: bool = False,
) -> Iterator[tuple[int, str, HostLayout]]:
    """A gateway whose only listener is the one for the network."""
    port = sock.getsockname()[1]
    config = work / "edgekit.toml"
    config.write_text(
        f'schema = 1\n[server]\nlan = "127.0.0.1:{port}"\nlan_clients = ["127.0.0.0/8"]\n'
    )
    site = parse_site_config(config.read_bytes(), file="edgekit.toml")
    layout = HostLayout(work / "root")
    ensure_tls(layout, site, make_appliance(work, port, engine_socket="x"))
    folder = work / "credentials"
    folder.mkdir(exist_ok=True)
    if certificate:
        shutil.copy(layout.tls_certificate, folder / "tls-certificate")
        shutil.copy(layout.tls / "server.key", folder / "tls-key")
    if mutual:
        shutil.copy(layout.tls_authority, folder / "tls-client-ca")
    with (
        running_auditd(work),
        gateway(
            work, f"127.0.0.1:{port}", sock=sock, keys=keys, arguments=("--config", str(config))
        ) as (_, token),
    ):
        yield port, token, layout


def trusting(layout: HostLayout) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(layout.tls_authority))


def test_client_that_trusts_the_authority_is_served(
    tmp_path: Path, listener: socket.socket
) -> None:
    with lan_gateway(tmp_path, listener) as (port, token, layout):
        url, headers = f"https://127.0.0.1:{port}/v1/models", {"x-api-key": token}
        with httpx.Client(verify=trusting(layout), headers=headers) as client:
            assert client.get(url).json()["data"][0]["id"] == "demo"
            assert client.get(url, headers={"x-api-key": "no"}).status_code == 401
            assert client.get(url, headers={"Host": "evil.example"}).status_code == 403
            good = client.get(url, headers={"Origin": f"https://127.0.0.1:{port}"})
            assert good.status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url, headers=headers)


def test_clear_text_and_old_protocols_get_nothing(tmp_path: Path, listener: socket.socket) -> None:
    with lan_gateway(tmp_path, listener) as (port, token, layout):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/v1/models", headers={"x-api-key": token})
        old = trusting(layout)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with (
            socket.create_connection(("127.0.0.1", port)) as sock,
            pytest.raises((ssl.SSLError, OSError)),
        ):
            old.wrap_socket(sock, server_hostname="127.0.0.1")
        with httpx.Client(verify=trusting(layout)) as client:
            assert client.get(f"https://127.0.0.1:{port}/healthz").status_code == 200


def test_client_certificates_are_asked_for_where_the_site_wants_them(
    tmp_path: Path, listener: socket.socket
) -> None:
    with lan_gateway(tmp_path, listener, mutual=True) as (port, token, layout):
        url, headers = f"https://127.0.0.1:{port}/v1/models", {"x-api-key": token}
        with (
            pytest.raises(httpx.TransportError),
            httpx.Client(verify=trusting(layout), headers=headers) as client,
        ):
            client.get(url)
        openssl = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=line 4",
        ]
        openssl += ["-CA", layout.tls_authority, "-CAkey", layout.tls / "ca.key", "-days", "2"]
        openssl += [
            "-addext",
            "basicConstraints=CA:FALSE",
            "-addext",
            "extendedKeyUsage=clientAuth",
        ]
        made = tmp_path / "client.pem"
        subprocess.run([*openssl, "-keyout", made, "-out", tmp_path / "cert.pem"], check=True)
        made.write_bytes(made.read_bytes() + (tmp_path / "cert.pem").read_bytes())
        context = trusting(layout)
        context.load_cert_chain(made)
        with httpx.Client(verify=context, headers=headers) as client:
            assert client.get(url).status_code == 200
            # a certificate is asked for besides the key, not instead of it
            assert client.get(url, headers={"x-api-key": "no"}).status_code == 401


@pytest.mark.parametrize(("keys", "certificate"), [(0, True), (1, False)])
def test_network_needs_keys_and_a_certificate(
    tmp_path: Path, listener: socket.socket, keys: int, certificate: bool
) -> None:
    with (
        pytest.raises(NotReadyError, match="ended with 20"),
        lan_gateway(tmp_path, listener, keys=keys, certificate=certificate),
    ):
        pass


def test_key_of_another_certificate_is_refused(tmp_path: Path, listener: socket.socket) -> None:
    (tmp_path / "credentials").mkdir()
    other = make_authority("other", NOW)
    (tmp_path / "credentials" / "tls-certificate").write_bytes(other.certificate)
    (tmp_path / "credentials" / "tls-key").write_bytes(make_authority("x", NOW).key)
    with (
        pytest.raises(NotReadyError, match="ended with 20"),
        lan_gateway(tmp_path, listener, certificate=False),
    ):
        pass


def site(**server: object) -> SiteConfig:
    return SiteConfig(server=replace(ServerConfig(), **server))


def test_a_folder_that_cannot_be_made_is_said_as_such(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path)
    layout.tls.parent.parent.mkdir(parents=True)
    layout.tls.parent.write_text("in the way")
    with pytest.raises(HostError, match="folder of certificates"):
        ensure_tls(layout, site(), make_appliance(tmp_path, 1, engine_socket="x"))


def test_authority_stays_and_the_certificate_follows_the_names(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path)
    with pytest.raises(NotInstalledError):
        show_tls(layout)
    appliance = make_appliance(tmp_path, 1, engine_socket="x")
    ensure_tls(layout, site(), appliance)
    first = show_tls(layout)
    assert "localhost" in first.names
    assert first.authority.startswith("-----BEGIN CERTIFICATE-----")
    kept = layout.tls_certificate.read_bytes()
    ensure_tls(layout, site(), appliance)
    assert layout.tls_certificate.read_bytes() == kept
    lan = site(allowed_hosts=("edge.site",), lan="10.0.0.5:11443", lan_clients=("10.0.0.0/8",))
    ensure_tls(layout, lan, appliance)
    assert layout.tls_certificate.read_bytes() != kept
    second = show_tls(layout)
    assert second.authority == first.authority
    assert {"edge.site", "10.0.0.5"} <= set(second.names)
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in layout.tls.iterdir()} == {
        "ca.key": "0o600",
        "ca.pem": "0o644",
        "server.key": "0o600",
        "server.pem": "0o644",
    }


def test_certificate_of_a_host_whose_clock_is_behind_is_valid_today(tmp_path: Path) -> None:
    future = make_appliance(tmp_path, 1, engine_socket="x")
    created = int(datetime(2050, 1, 1, tzinfo=UTC).timestamp())
    future = replace(future, models=(replace(future.models[0], created=created),))
    ensure_tls(HostLayout(tmp_path), site(), future)
    facts = read_certificate(HostLayout(tmp_path).tls_certificate.read_bytes())
    assert facts.not_after.year == 2059


def test_certificate_is_renewed_a_year_before_its_end() -> None:
    authority = make_authority("host", NOW)
    facts = read_certificate(make_certificate(authority, ["a", "10.0.0.1"], NOW).certificate)
    assert is_fresh(facts, ["10.0.0.1", "a"], NOW)
    assert not is_fresh(facts, ["a"], NOW)
    assert not is_fresh(facts, ["10.0.0.1", "a"], NOW + LASTS - timedelta(days=364))
    with pytest.raises(FormatError):
        read_certificate(b"nonsense")
    with pytest.raises(FormatError):
        make_certificate(authority, [], NOW)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('listen = "0.0.0.0:11434"', "server.listen"),
        ('lan = "0.0.0.0:11443"', "server.lan"),
        ('lan = "0.0.0.0:11443"\nlan_clients = ["10.0.0.1/8"]', "lan_clients"),
        ('lan = "0.0.0.0:11443"\nlan_clients = ["everyone"]', "lan_clients"),
        ('tls_certificate = "/etc/x.pem"', "tls_certificate"),
        ('tls_key = "relative"', "tls_key"),
        ('tls_client_ca = "/x\\nUser=root"', "tls_client_ca"),
    ],
)
def test_configuration_that_would_open_too_much_is_refused(lines: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_site_config(f"schema = 1\n[server]\n{lines}\n".encode(), file="edgekit.toml")
    assert named in str(refused.value.details()) + refused.value.message


def test_sites_own_files_must_be_there(tmp_path: Path) -> None:
    appliance = make_appliance(tmp_path, 1, engine_socket="x")
    with pytest.raises(EdgekitError, match="no such file"):
        ensure_tls(
            HostLayout(tmp_path), site(tls_certificate="/nowhere", tls_key="/nowhere"), appliance
        )


def test_drop_ins_open_one_more_address_to_named_networks(tmp_path: Path) -> None:
    own = site(lan="0.0.0.0:11443", lan_clients=("10.20.0.0/16",), tls_client_ca="/etc/pki/ca.pem")
    texts = site_drop_ins(own, Path("/etc/edgekit/tls"))
    assert texts["edgekit-gateway.socket"].splitlines()[1:] == [
        "[Socket]",
        "ListenStream=0.0.0.0:11443",
        "IPAddressAllow=10.20.0.0/16",
        "FreeBind=yes",
    ]
    assert texts["edgekit-gateway.service"].splitlines()[1:] == [
        "[Service]",
        "LoadCredential=tls-certificate:/etc/edgekit/tls/server.pem",
        "LoadCredential=tls-key:/etc/edgekit/tls/server.key",
        "LoadCredential=tls-client-ca:/etc/pki/ca.pem",
    ]
    assert site_drop_ins(site(), Path("/x")) == {}
