"""TLS files: what is refused at start and how it is said, and which pair is in force while files are replaced."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from headworks_server.errors import ConfigError
from headworks_server.rpc.certificates import CertificateFiles
from support.certificates import Authority, Pair, replace_file


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refusal(pair: Pair, client_ca: Path | None = None) -> str:
    """The text with which files are refused."""
    with pytest.raises(ConfigError) as caught:
        CertificateFiles(pair.cert, pair.key, client_ca)
    return str(caught.value)


def events(logs: list[dict[str, object]]) -> list[object]:
    return [line["event"] for line in logs]


def test_a_good_pair_is_taken(authority: Authority) -> None:
    """With the day on which it ends, for the metrics."""
    pair = authority.server(days=(-1, 2))
    files = CertificateFiles(pair.cert, pair.key, authority.path)
    ends = datetime.fromtimestamp(files.value().expires, UTC)
    assert abs(ends - datetime.now(UTC) - timedelta(days=2)) < timedelta(minutes=1)
    assert files.credentials() is not None


def test_a_missing_file_is_named(authority: Authority, tmp_path: Path) -> None:
    """Setting, file, expectation, fact."""
    pair, gone = authority.server(), tmp_path / "gone.pem"
    fact = "expected a readable PEM file, got No such file or directory"
    assert refusal(Pair(gone, pair.key)) == f"tls_cert: {gone}: {fact}"
    assert refusal(Pair(pair.cert, gone)) == f"tls_key: {gone}: {fact}"
    assert refusal(pair, gone) == f"tls_client_ca: {gone}: {fact}"
    assert (
        refusal(Pair(tmp_path, pair.key)) == f"tls_cert: {tmp_path}: expected a readable PEM file, got Is a directory"
    )


def test_files_in_each_others_place_are_named(authority: Authority) -> None:
    """The commonest slip."""
    pair = authority.server()
    assert (
        refusal(Pair(pair.key, pair.cert)) == f"tls_cert: {pair.key}: expected PEM with a CERTIFICATE, got none in it"
    )
    assert (
        refusal(Pair(pair.cert, pair.cert)) == f"tls_key: {pair.cert}: expected PEM with a PRIVATE KEY, got none in it"
    )


def test_a_broken_certificate_is_refused(authority: Authority) -> None:
    """PEM around bytes that are no certificate."""
    pair = authority.server()
    pair.cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert refusal(pair).startswith(
        f"tls_cert: {pair.cert}, tls_key: {pair.key}: expected a certificate and its key, got"
    )
    assert refusal(authority.server(), pair.cert).startswith(
        f"tls_client_ca: {pair.cert}: expected certificates in PEM"
    )


def test_the_key_of_another_certificate_is_refused(authority: Authority) -> None:
    """Both files are named."""
    mine, other = authority.server(), authority.server()
    assert (
        refusal(Pair(mine.cert, other.key)) == f"tls_key: {other.key}: expected the key of {mine.cert}, got another one"
    )


def test_a_key_with_a_passphrase_is_refused(authority: Authority) -> None:
    """Nobody is there to type it."""
    pair = authority.server()
    key = load_pem_private_key(pair.key.read_bytes(), password=None)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    assert refusal(pair) == f"tls_key: {pair.key}: expected a key without a passphrase, got an encrypted one"


@pytest.mark.parametrize("days", [(-2, -1), (1, 2)], ids=["expired", "not yet valid"])
def test_a_certificate_outside_its_dates_is_refused(authority: Authority, days: tuple[int, int]) -> None:
    """Every client would refuse it; the dates are told."""
    pair = authority.server(days=days)
    text = refusal(pair)
    assert text.startswith(f"tls_cert: {pair.cert}: expected a certificate that is valid now, got one for ")
    assert text.endswith(" GMT")


def test_a_certificate_of_a_client_is_refused(authority: Authority) -> None:
    """Its use stands in it, and clients look."""
    pair = authority.client()
    fact = "expected a certificate for servers, got: unsuitable certificate purpose"
    assert refusal(pair) == f"tls_cert: {pair.cert}: {fact}"


def test_client_ca_is_an_authority(authority: Authority) -> None:
    """A camera's certificate in its place would let nobody in."""
    pair, leaf = authority.server(), authority.client().cert
    assert refusal(pair, leaf) == f"tls_client_ca: {leaf}: expected certificates of authorities, got others"


def test_an_authority_that_has_expired_is_refused(tmp_path: Path) -> None:
    """It would let nobody in."""
    old = Authority(tmp_path, "old", days=(-9, -1))
    pair = Authority(tmp_path).server()
    assert f"tls_client_ca: {old.path}: expected an authority that is valid now, got one until" in refusal(
        pair, old.path
    )


def test_replaced_files_come_into_force(authority: Authority) -> None:
    """At the next question, without a restart; unchanged files are not read again."""
    pair = authority.server()
    files = CertificateFiles(pair.cert, pair.key)
    first = files.value()
    assert files.value() is first
    pair.replace_with(authority.server(days=(-1, 5)))
    second = files.value()
    assert second.expires > first.expires
    assert files.value() is second
    assert files.failures == 0


def test_half_a_replacement_keeps_the_old_pair(authority: Authority) -> None:
    """The new certificate is there and its key not yet: said once, counted once, and over when the key has come."""
    pair, fresh = authority.server(), authority.server(days=(-1, 5))
    files = CertificateFiles(pair.cert, pair.key)
    first = files.value()
    with capture_logs() as logs:
        replace_file(pair.cert, fresh.cert.read_bytes())
        assert [files.value() for _ in range(3)] == [first] * 3
        assert files.failures == 1
        replace_file(pair.key, fresh.key.read_bytes())
        assert files.value().expires > first.expires
    assert events(logs) == ["reload_refused", "reloaded"]
    assert f"expected the key of {pair.cert}, got another one" in str(logs[0]["detail"])


def test_files_that_vanish_keep_the_old_pair(authority: Authority) -> None:
    """A mount that is away for a moment ends no service."""
    pair = authority.server()
    files = CertificateFiles(pair.cert, pair.key)
    first, content = files.value(), pair.key.read_bytes()
    pair.key.unlink()
    assert files.value() is first
    assert files.failures == 1
    pair.key.write_bytes(content)
    assert files.value() is not first


def test_an_expired_replacement_keeps_the_old_pair(authority: Authority) -> None:
    """The rules of the start hold for every pair."""
    pair = authority.server()
    files = CertificateFiles(pair.cert, pair.key)
    first = files.value()
    pair.replace_with(authority.server(days=(-2, -1)))
    assert files.value() is first
    assert files.failures == 1


def test_a_key_that_everybody_may_read_is_told(authority: Authority) -> None:
    """A warning: on some machines nobody else is there."""
    pair = authority.server()
    with capture_logs() as logs:
        CertificateFiles(pair.cert, pair.key)
    assert logs == []
    os.chmod(pair.key, 0o644)
    with capture_logs() as logs:
        CertificateFiles(pair.cert, pair.key)
    assert [(line["event"], line["setting"], line["file"]) for line in logs] == [
        ("secret_readable_by_all", "tls_key", str(pair.key))
    ]
