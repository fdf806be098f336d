"""The server's TLS files: checked at start, followed while it runs. Made by `rpc/security.py`.

Each new handshake is given what the files say then; connections that are open go on. A pair that does not fit, as
between the replacement of a certificate and of its key, is not served: the last good one stays.
"""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from headworks_server.errors import ConfigError
from headworks_server.rpc.reloaded import Reloaded, warn_if_readable

_NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python's ssl does not name
_CERTIFICATE_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is served.

    Attributes:
        configuration: as gRPC takes it.
        expires: when the certificate does, in seconds of Unix time.
    """

    configuration: grpc.ServerCertificateConfiguration
    expires: float


class CertificateFiles(Reloaded[Certificates]):
    """The TLS files of a server.

    Arguments:
        cert: the certificate chain, PEM, the server's own first.
        key: its private key, PEM.
        client_ca: authorities, PEM; clients must show a certificate that one of them signed. None asks for none.

    Raises:
        ConfigError: a file is missing, unreadable, no PEM, expired, or the key is not the certificate's.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self.mutual = client_ca is not None
        paths = (cert, key) if client_ca is None else (cert, key, client_ca)
        super().__init__("certificates", paths, lambda: _read(cert, key, client_ca))
        self._given: Certificates | None = None
        warn_if_readable("tls_key", key)

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for a port, which follow the files."""
        self._given = self.value()
        return grpc.dynamic_ssl_server_credentials(
            self._given.configuration, self._fetch, require_client_authentication=self.mutual
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each handshake, on a thread of its own; None is "as before"."""
        now = self.value()
        if now is self._given:
            return None
        self._given = now
        return now.configuration


def _read(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    chain = _read_pem("tls_cert", cert, "CERTIFICATE")
    secret = _read_pem("tls_key", key, "PRIVATE KEY")
    expires = _check_pair(cert, key, chain)
    roots = None
    if client_ca is not None:
        roots = _read_pem("tls_client_ca", client_ca, "CERTIFICATE")
        _check_authorities(client_ca, roots)
    pairs = [(secret.encode(), chain.encode())]
    configuration = grpc.ssl_server_certificate_configuration(pairs, root_certificates=roots and roots.encode())
    return Certificates(configuration, expires)


def _read_pem(setting: str, path: Path, label: str) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: expected a readable PEM file, got {error.strerror}") from error
    if f"{label}-----" not in text:
        raise ConfigError(f"{setting}: {path}: expected PEM with a {label}, got none in it")
    return text


def _check_pair(cert: Path, key: Path, chain: str) -> float:
    """Hold a certificate and its key to what clients need; return when the certificate expires."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(cert, key, password=_no_passphrase)
    except _EncryptedKeyError as error:
        raise ConfigError(f"tls_key: {key}: expected a key without a passphrase, got an encrypted one") from error
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"tls_key: {key}: expected the key of {cert}, got another one") from error
        place = f"tls_cert: {cert}, tls_key: {key}"
        raise ConfigError(f"{place}: expected a certificate and its key, got: {error}") from error
    try:
        seen = _handshake(server, chain)
    except ssl.SSLError as error:
        fact = getattr(error, "verify_message", error)
        raise ConfigError(f"tls_cert: {cert}: expected a certificate for servers, got: {fact}") from error
    begins, expires = (ssl.cert_time_to_seconds(seen[name]) for name in ("notBefore", "notAfter"))
    if not begins <= time.time() <= expires:
        dates = f"{seen['notBefore']} to {seen['notAfter']}"
        raise ConfigError(f"tls_cert: {cert}: expected a certificate that is valid now, got one for {dates}")
    return expires


class _EncryptedKeyError(Exception):
    pass


def _no_passphrase() -> str:
    raise _EncryptedKeyError  # OpenSSL would ask for it on the terminal


def _handshake(server: ssl.SSLContext, chain: str) -> dict[str, Any]:
    """What a client sees of a certificate: the public way in which Python's ssl tells of a file's dates and use."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # the names that clients will use are not known here
    # The certificate vouches for itself: who signed it is the clients' business.
    client.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    client.load_verify_locations(cadata=chain.partition(_CERTIFICATE_END)[0] + _CERTIFICATE_END)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    for side in (asking, serving, asking):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    seen = asking.getpeercert()
    assert seen
    return seen


def _check_authorities(path: Path, roots: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=roots)
    except ssl.SSLError as error:
        raise ConfigError(f"tls_client_ca: {path}: expected certificates in PEM, got: {error}") from error
    authorities: list[Any] = context.get_ca_certs()
    if not authorities:
        raise ConfigError(f"tls_client_ca: {path}: expected certificates of authorities, got others")
    last = max((authority["notAfter"] for authority in authorities), key=ssl.cert_time_to_seconds)
    if ssl.cert_time_to_seconds(last) < time.time():
        raise ConfigError(f"tls_client_ca: {path}: expected an authority that is valid now, got one until {last}")
