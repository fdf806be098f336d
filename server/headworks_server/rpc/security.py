"""What guards the server: TLS, client certificates, tokens, as the settings say. Read by `app` before anything else.

`config` has refused by then what must not be (its opening paragraph has the table); what is allowed and still
dangerous is written into the log here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from headworks_server.config import METRICS_OFF, Settings, is_loopback
from headworks_server.rpc.auth import TokenFile, TokenInterceptor
from headworks_server.rpc.certificates import CertificateFiles

log = structlog.get_logger("headworks.security")


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """The guards of a server; without any it speaks plain text with everybody.

    Attributes:
        certificates: for TLS.
        interceptor: asks for tokens.
        tokens: those it knows.
    """

    certificates: CertificateFiles | None = None
    interceptor: TokenInterceptor | None = None
    tokens: TokenFile | None = None

    @property
    def name(self) -> str:
        """What there is, for people: "plain text", "mutual TLS and tokens"."""
        tls = "plain text"
        if self.certificates is not None:
            tls = "mutual TLS" if self.certificates.mutual else "TLS"
        return f"{tls} and tokens" if self.tokens is not None else tls

    def reload_failures(self) -> Mapping[str, int]:
        """How often files were replaced by wrong ones, by what they are."""
        return {files.kind: files.failures for files in (self.certificates, self.tokens) if files is not None}

    def calls_refused(self) -> int:
        """Calls that were not let in for want of a token."""
        return self.interceptor.refused if self.interceptor is not None else 0

    def certificate_expiry(self) -> float | None:
        """When the certificate in force expires, in seconds of Unix time; None without TLS."""
        return self.certificates.value().expires if self.certificates is not None else None


def read_security(settings: Settings) -> Security:
    """Read and check the files that the settings name.

    Raises:
        ConfigError: names the setting, the file, what was expected and what was found.
    """
    certificates = interceptor = tokens = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        certificates = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    if settings.tokens_file is not None:
        tokens = TokenFile(settings.tokens_file)
        interceptor = TokenInterceptor(tokens)
    security = Security(certificates=certificates, interceptor=interceptor, tokens=tokens)
    known = tokens is not None or settings.tls_client_ca is not None
    if not is_loopback(settings.host) and (certificates is None or not known):
        log.warning("exposed", host=settings.host, security=security.name, danger="anybody there may stream")
    if settings.metrics_port != METRICS_OFF and not is_loopback(settings.metrics_host):
        log.warning("metrics_exposed", host=settings.metrics_host, danger="anybody there may read /metrics")
    return security
