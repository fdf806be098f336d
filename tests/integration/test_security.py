"""Who may stream: TLS, client certificates and tokens on real servers, files replaced while they run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headworks.v1 import frame_pb2 as pb
from support.certificates import Authority, Pair, client_credentials, replace_file, served_certificate
from support.raw_camera import STREAM_FRAMES, RawCamera, open_request
from support.server import PATIENCE_S, Server, refusal_to_start

EVERYWHERE = "0.0.0.0"  # noqa: S104
FRAME = b"the null backend looks at no picture"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """Signs servers and cameras."""
    return Authority(folder)


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    """An authority that nobody trusts."""
    return Authority(folder, "stranger")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    """A server's files, to be replaced by the test."""
    return authority.server()


@pytest.fixture
def tls(pair: Pair) -> Iterator[Server]:
    """TLS only, its files are `pair`."""
    with Server(backend="null", tls_cert=pair.cert, tls_key=pair.key) as server:
        yield server


@pytest.fixture(scope="module")
def steady(authority: Authority) -> Iterator[Server]:
    """TLS only, its files stay."""
    pair = authority.server()
    with Server(backend="null", tls_cert=pair.cert, tls_key=pair.key) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(authority: Authority) -> Iterator[Server]:
    """TLS with client certificates."""
    pair = authority.server()
    with Server(backend="null", tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.path) as server:
        yield server


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A tokens file with one camera in it."""
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text("north:abc-1\n")
    return path


@pytest.fixture
def guarded(pair: Pair, tokens: Path) -> Iterator[Server]:
    """TLS and tokens."""
    with Server(backend="null", tls_cert=pair.cert, tls_key=pair.key, tokens_file=tokens) as server:
        yield server


def stream_once(server: Server, credentials: grpc.ChannelCredentials) -> int:
    """Stream one frame to its result and end well; return the stream's number."""
    with RawCamera(server.target, open_request(), credentials=credentials) as camera:
        assert camera.ask_result(FRAME).frame_id == 1
        stream_id: int = camera.opened.stream_id
        camera.close()
    return stream_id


def refused(server: Server, credentials: grpc.ChannelCredentials | None) -> tuple[grpc.StatusCode, str]:
    """The status with which a camera's call ends that is not let in."""
    opened = server.count("stream_open")
    with RawCamera(server.target, open_request(), credentials=credentials) as camera:
        status = camera.status()
        assert camera.events == []
    assert server.count("stream_open") == opened
    return status


# TLS.


def test_a_stream_over_tls(steady: Server, authority: Authority) -> None:
    """As without; the log says how the server is guarded."""
    stream_once(steady, client_credentials(authority))
    assert steady.wait_line(lambda line: line.get("event") == "listening")["security"] == "TLS"
    assert steady.metrics()["headworks_certificate_expiry_timestamp_seconds"] > 0


def test_a_camera_that_trusts_another_authority_sends_nothing(steady: Server, stranger: Authority) -> None:
    """The client refuses the server."""
    code, detail = refused(steady, client_credentials(stranger))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in detail


def test_plain_text_is_refused_where_there_is_tls(steady: Server) -> None:
    """Nothing of a frame is read, and the log stays free of other forms."""
    assert refused(steady, None)[0] is grpc.StatusCode.UNAVAILABLE


def test_a_replaced_certificate_is_shown_to_new_cameras(tls: Server, pair: Pair, authority: Authority) -> None:
    """The stream that is open goes on; the next one sees the new certificate."""
    with RawCamera(tls.target, open_request(), credentials=client_credentials(authority)) as camera:
        camera.ask_result(FRAME)
        old = served_certificate(tls.port)
        pair.replace_with(authority.server())
        fresh = served_certificate(tls.port)
        assert fresh != old
        assert fresh.split() == pair.cert.read_text().split()
        stream_once(tls, client_credentials(authority))
        camera.ask_result(FRAME)
        camera.close()
    assert tls.count("reloaded") == 1


def test_an_authority_may_change_while_the_server_runs(
    tls: Server, pair: Pair, authority: Authority, stranger: Authority
) -> None:
    """A certificate from elsewhere comes into force as any other."""
    pair.replace_with(stranger.server())
    stream_once(tls, client_credentials(stranger))
    assert refused(tls, client_credentials(authority))[0] is grpc.StatusCode.UNAVAILABLE


def test_a_broken_replacement_is_told_and_not_served(tls: Server, pair: Pair, authority: Authority) -> None:
    """One line, however many cameras come; the old pair serves on."""
    replace_file(pair.key, b"not a key")
    for _ in range(3):
        stream_once(tls, client_credentials(authority))
    line = tls.wait_line(lambda line: line.get("event") == "reload_refused")
    assert str(pair.key) in line["detail"]
    assert tls.count("reload_refused") == 1
    assert tls.metrics()['headworks_reload_failures_total{kind="certificates"}'] == 1


# Client certificates.


def test_a_camera_with_a_certificate_is_let_in_by_its_name(mutual: Server, authority: Authority) -> None:
    """The common name is the principal of its log lines."""
    client = authority.client("dock-3")
    stream_id = stream_once(mutual, client_credentials(authority, client=client))
    assert mutual.wait_closed(stream_id)["principal"] == "dock-3"
    mutual.wait_line(lambda line: line.get("event") == "stream_open" and line["principal"] == "dock-3")
    assert mutual.wait_line(lambda line: line.get("event") == "listening")["security"] == "mutual TLS"


def test_a_camera_without_a_certificate_is_refused(mutual: Server, authority: Authority) -> None:
    """In the handshake, before any call."""
    assert refused(mutual, client_credentials(authority))[0] is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_of_another_authority_is_refused(
    mutual: Server, authority: Authority, stranger: Authority
) -> None:
    """Whoever signed it says nothing here."""
    credentials = client_credentials(authority, client=stranger.client())
    assert refused(mutual, credentials)[0] is grpc.StatusCode.UNAVAILABLE


def test_an_expired_certificate_is_refused(mutual: Server, authority: Authority) -> None:
    """How a camera is shut out in the end."""
    credentials = client_credentials(authority, client=authority.client(days=(-2, -1)))
    assert refused(mutual, credentials)[0] is grpc.StatusCode.UNAVAILABLE


def test_the_clients_authority_may_be_replaced(
    pair: Pair, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """New cameras are measured by the new one, in the same server."""
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority.path.read_bytes())
    old = client_credentials(authority, client=authority.client())
    new = client_credentials(authority, client=stranger.client())
    with Server(backend="null", tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=trusted) as server:
        stream_once(server, old)
        replace_file(trusted, stranger.path.read_bytes())
        stream_once(server, new)
        assert refused(server, old)[0] is grpc.StatusCode.UNAVAILABLE


# Tokens.


def test_a_camera_with_a_token_is_let_in_by_its_name(guarded: Server, authority: Authority) -> None:
    """The token's name is the principal of its log lines; the token is in none of them."""
    stream_id = stream_once(guarded, client_credentials(authority, token="abc-1"))  # noqa: S106
    assert guarded.wait_closed(stream_id)["principal"] == "north"
    assert guarded.wait_line(lambda line: line.get("event") == "listening")["security"] == "TLS and tokens"
    assert "abc-1" not in str(guarded.lines)


@pytest.mark.parametrize(("token", "fact"), [(None, "got none"), ("abc-2", "got another one")])
def test_a_camera_without_a_known_token_is_refused(
    guarded: Server, authority: Authority, token: str | None, fact: str
) -> None:
    """UNAUTHENTICATED with a reason; the log has a line, the metrics a number, neither the token."""
    code, detail = refused(guarded, client_credentials(authority, token=token))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert detail.endswith(fact)
    line = guarded.wait_line(lambda line: line.get("event") == "call_refused")
    assert (line["method"], line["detail"]) == (STREAM_FRAMES, detail)
    assert "abc" not in str(guarded.lines)
    assert guarded.metrics()["headworks_calls_refused_total"] == 1


def test_a_unary_call_is_refused_alike(guarded: Server, authority: Authority) -> None:
    """Before its method is looked for, and before its message is read."""
    with grpc.secure_channel(guarded.target, client_credentials(authority)) as channel:
        call = channel.unary_unary("/headworks.v1.FrameService/InferFrame")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_replaced_tokens_hold_for_new_streams(guarded: Server, tokens: Path, authority: Authority) -> None:
    """The stream that is open goes on, its token withdrawn or not."""
    old, new = (client_credentials(authority, token=token) for token in ("abc-1", "abc-2"))
    with RawCamera(guarded.target, open_request(), credentials=old) as camera:
        camera.ask_result(FRAME)
        replace_file(tokens, b"# north has moved\nsouth:abc-2\n")
        assert refused(guarded, old)[0] is grpc.StatusCode.UNAUTHENTICATED
        stream_id = stream_once(guarded, new)
        assert guarded.wait_closed(stream_id)["principal"] == "south"
        camera.ask_result(FRAME)
        camera.close()


def test_health_needs_no_token_and_reflection_does(guarded: Server, authority: Authority) -> None:
    """Balancers have none; what the server offers is told to those only who may use it."""
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.secure_channel(guarded.target, client_credentials(authority)) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(reflection.ServerReflectionInfo(iter([ask]), timeout=PATIENCE_S))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer abc-1"),)
        (answer,) = reflection.ServerReflectionInfo(iter([ask]), timeout=PATIENCE_S, metadata=metadata)
    assert answer.list_services_response.service


def test_tokens_without_tls_guard_a_server_of_this_machine(tokens: Path) -> None:
    """On loopback nobody listens on the way."""
    opening = pb.StreamFramesRequest(open=open_request()).SerializeToString()
    ending = pb.StreamFramesRequest(end=pb.End()).SerializeToString()
    with Server(backend="null", tokens_file=tokens) as server:
        assert refused(server, None)[0] is grpc.StatusCode.UNAUTHENTICATED
        with grpc.insecure_channel(server.target) as channel:
            call = channel.stream_stream(STREAM_FRAMES)(
                iter([opening, ending]), timeout=PATIENCE_S, metadata=(("authorization", "Bearer abc-1"),)
            )
            events = [event for raw in call for event in pb.StreamFramesResponse.FromString(raw).events]
    assert [event.WhichOneof("event") for event in events] == ["opened", "closed"]


# What is refused at start, and what only warned of.


def test_a_host_that_others_reach_needs_tls(tokens: Path) -> None:
    """One sentence, exit status 2; tokens in plain text are no guard there."""
    said = refusal_to_start(None, "--host", EVERYWHERE, backend="null")
    expected = "expected a loopback address, TLS (tls_cert and tls_key), or insecure = true"
    assert said == f"headworks serve: --host: host: {expected}, got '{EVERYWHERE}'"
    said = refusal_to_start(None, "--host", EVERYWHERE, backend="null", tokens_file=tokens)
    assert f"{expected}, since tokens in plain text are read by everybody on the way" in said


def test_a_wrong_certificate_stops_the_start(pair: Pair, authority: Authority) -> None:
    """Before any model is read; file, expectation, fact."""
    other = authority.server()
    said = refusal_to_start(None, backend="null", tls_cert=pair.cert, tls_key=other.key)
    assert said == f"headworks serve: tls_key: {other.key}: expected the key of {pair.cert}, got another one"


def test_a_server_that_others_reach_over_tls(pair: Pair, tokens: Path, authority: Authority) -> None:
    """With tokens there is nothing to warn of; /metrics stays on this machine."""
    files = {"tls_cert": pair.cert, "tls_key": pair.key}
    with Server(backend="null", host=EVERYWHERE, **files, tokens_file=tokens) as server:
        stream_once(server, client_credentials(authority, token="abc-1"))  # noqa: S106
        assert (server.count("exposed"), server.count("metrics_exposed")) == (0, 0)
        places = [place.laddr for place in psutil.Process(server.pid).net_connections()]
        assert {place.ip for place in places if place.port == server.metrics_port} == {"127.0.0.1"}
    with Server(backend="null", host=EVERYWHERE, **files) as server:
        assert server.count("exposed") == 1


def test_insecure_is_warned_of() -> None:
    """It starts, and the log says what that means."""
    with Server(backend="null", host=EVERYWHERE, insecure=True, metrics_host=EVERYWHERE) as server:
        assert (server.count("exposed"), server.count("metrics_exposed")) == (1, 1)


def test_compressed_messages_are_refused(steady: Server, authority: Authority) -> None:
    """A few bytes of gzip would unpack to the largest message; pictures are compressed already."""
    credentials = client_credentials(authority)
    with grpc.secure_channel(steady.target, credentials, compression=grpc.Compression.Gzip) as channel:
        opening = pb.StreamFramesRequest(open=open_request(stream_name="x" * 9999)).SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(STREAM_FRAMES)(iter([opening]), timeout=PATIENCE_S))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "gzip" in caught.value.details()
