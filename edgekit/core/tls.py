"""The host's own certificate authority and certificate. Pure: keys and times in, PEM out.

Elliptic curve P-384 with SHA-384 throughout. The certificate lasts ten years: a host that nobody
visits must not stop serving, and clients that want less bring the site's own certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgekit.errors import FormatError

LASTS = timedelta(days=3650)
RENEW_BEFORE = timedelta(days=365)
SLACK = timedelta(days=1)
"""How far the clocks of host and clients may differ."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key and its certificate, both PEM."""

    key: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says: names and addresses it is for, SHA-256 fingerprint, last day."""

    names: tuple[str, ...]
    fingerprint: str
    not_after: datetime


def make_authority(host: str, now: datetime) -> Identity:
    """A certificate authority that signs for this host alone to use."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name(f"edgekit on {host}")
    builder = (
        _builder(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return Identity(_private_pem(key), _pem(builder.sign(key, hashes.SHA384())))


def make_certificate(authority: Identity, names: Iterable[str], now: datetime) -> Identity:
    """A server certificate for these names and addresses. Raises FormatError."""
    kept = tuple(dict.fromkeys(names))
    signer = serialization.load_pem_private_key(authority.key, None)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    if not kept or not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise FormatError("no name for the certificate, or a damaged authority")
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        _builder(issuer.subject, _name(kept[0]), key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in kept]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    return Identity(_private_pem(key), _pem(builder.sign(signer, hashes.SHA384())))


def read_certificate(pem: bytes) -> CertificateFacts:
    """What a PEM certificate says. Raises FormatError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [str(name.value) for name in names]
    except x509.ExtensionNotFound:
        found = []
    except ValueError as error:
        raise FormatError("not a PEM certificate", found=str(error)) from error
    digest = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return CertificateFacts(tuple(found), digest, certificate.not_valid_after_utc)


def is_fresh(facts: CertificateFacts, names: Iterable[str], now: datetime) -> bool:
    """Whether it is for exactly these names and lasts for another year."""
    return set(facts.names) == set(names) and facts.not_after - now > RENEW_BEFORE


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - SLACK)
        .not_valid_after(now.astimezone(UTC) + LASTS)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
