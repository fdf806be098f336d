"""Certificates for tests: an authority of one's own, and what it signs for servers and clients.

Used by the security and the fault tests. Its surface:

    authority = Authority(folder)              # a new root, written to authority.path (PEM); Authority(folder, "other")
    server = authority.server()                # for localhost, 127.0.0.1 and ::1: server.cert, server.key are PEM files
    client = authority.client("dock-3")        # for mutual TLS; its common name is the principal in the server's log
    authority.server(days=(-2, -1))            # valid from two days ago until yesterday: expired
    server.replace_with(authority.server())    # as rotation does: both files replaced by rename

    Server(..., tls_cert=server.cert, tls_key=server.key, tls_client_ca=authority.path)
    RawCamera(server.target, open_request(), credentials=client_credentials(authority))
    client_credentials(authority, client=client, token="...")    # mutual TLS; a bearer token with every call
    served_certificate(port)                   # the PEM that a new handshake is shown now
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS = ("localhost", "127.0.0.1", "::1")
_USAGE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path

    def replace_with(self, other: Pair) -> None:
        """Put the files of another pair in the place of these, each at once: a reader sees the old or the new one."""
        for mine, theirs in ((self.cert, other.cert), (self.key, other.key)):
            replace_file(mine, theirs.read_bytes())


class Authority:
    """A certificate authority that lives in a folder.

    Arguments:
        folder: where its files go.
        name: its common name, and the first part of the names of its files.
        days: from when until when it holds, counted from now.

    Attributes:
        path: its certificate, a PEM file.
    """

    def __init__(self, folder: Path, name: str = "authority", *, days: tuple[float, float] = (-9, 30)) -> None:
        self._folder = folder
        self._name = name
        self._numbers = itertools.count(1)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, issuer=name, key=self._key, days=days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def server(self, name: str = "server", *, days: tuple[float, float] = (-1, 1)) -> Pair:
        """A new server certificate for this machine's own names.

        Arguments:
            name: its common name.
            days: from when until when it holds, counted from now.
        """
        return self._issue("server", name, days)

    def client(self, name: str = "camera", *, days: tuple[float, float] = (-1, 1)) -> Pair:
        """A new client certificate with that common name."""
        return self._issue("client", name, days)

    def _issue(self, role: str, name: str, days: tuple[float, float]) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, issuer=self._name, key=key, days=days)
        builder = builder.add_extension(x509.ExtendedKeyUsage([_USAGE[role]]), critical=False)
        if role == "server":
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(host) for host in HOSTS]), False)
        stem = f"{self._name}-{role}-{next(self._numbers)}"
        pair = Pair(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        pair.cert.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


def client_credentials(
    authority: Authority, *, client: Pair | None = None, token: str | None = None
) -> grpc.ChannelCredentials:
    """Credentials of a client that trusts that authority only."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=authority.path.read_bytes(),
        private_key=client.key.read_bytes() if client else None,
        certificate_chain=client.cert.read_bytes() if client else None,
    )
    if token is None:
        return credentials
    return grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))


def served_certificate(port: int) -> str:
    """The certificate, PEM, that a server on this machine shows in a handshake now."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=20)


def replace_file(path: Path, content: bytes) -> None:
    """Put a new file in the place of an old one, at once, with the old one's permissions."""
    fresh = path.with_suffix(".fresh")
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    os.chmod(fresh, path.stat().st_mode & 0o777)
    fresh.replace(path)


def _builder(
    name: str, *, issuer: str, key: ec.EllipticCurvePrivateKey, days: tuple[float, float]
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
