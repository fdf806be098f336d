"""The SDK's way to its servers: TLS with files that are replaced while it runs, tokens, and `infer`."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest

import headworks
from headworks.transport import is_loopback
from headworks.v1 import frame_pb2 as pb
from support.certificates import Authority, Pair
from support.fake_server import Events, FakeServer, FakeStream, answer_every_frame, answer_two_then_break
from support.waiting import JPEG, send_one_by_one, wait_for

SECRET = "a.b-c"  # noqa: S105 - of nobody


def server_credentials(pair: Pair, *, clients: Authority | None = None) -> grpc.ServerCredentials:
    """TLS, mutual where an authority for clients is given."""
    return grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.cert.read_bytes())],
        root_certificates=clients.path.read_bytes() if clients else None,
        require_client_auth=clients is not None,
    )


def authorization(stream: FakeStream) -> str | None:
    """The header that a call came with."""
    return dict(stream.context.invocation_metadata()).get("authorization")


def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    """Nothing but the ca is needed; without it the server is not trusted."""
    authority = Authority(tmp_path)
    with FakeServer(answer_every_frame, credentials=server_credentials(authority.server())) as server:
        tls = headworks.TlsOptions(ca=authority.path)
        with headworks.Client(server.target, tls=tls) as client, client.stream(on_result=lambda _: None) as stream:
            stream.send(JPEG)
        assert stream.account.results == 1
        other = headworks.TlsOptions(ca=Authority(tmp_path, "other").path)
        with (
            headworks.Client(server.target, tls=other) as client,
            pytest.raises(headworks.ConnectionFailedError),
            client.stream(),
        ):
            pass


def test_server_name_is_checked_and_may_be_given(tmp_path: Path) -> None:
    """For a server that is reached by another name than its certificate's."""
    authority = Authority(tmp_path)
    with FakeServer(answer_every_frame, credentials=server_credentials(authority.server())) as server:
        for name, fits in (("localhost", True), ("elsewhere.example", False)):
            tls = headworks.TlsOptions(ca=authority.path, server_name=name)
            with headworks.Client(server.target, tls=tls) as client:
                stream = client.stream(on_result=lambda _: None)
                if fits:
                    with stream:
                        stream.send(JPEG)
                else:
                    with pytest.raises(headworks.ConnectionFailedError):
                        stream.__enter__()


def test_mutual_tls_reads_its_files_again_at_each_reconnect(tmp_path: Path) -> None:
    """The client's certificate is replaced while the camera runs: the next connection shows the new one."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.client("old")
    names: list[bytes] = []

    def note_name(stream: FakeStream) -> None:
        names.extend(stream.context.auth_context()["x509_common_name"])

    def first(stream: FakeStream) -> Events:
        note_name(stream)
        yield from answer_two_then_break(stream)

    def second(stream: FakeStream) -> Events:
        note_name(stream)
        yield from answer_every_frame(stream)

    credentials = server_credentials(authority.server(), clients=authority)
    tls = headworks.TlsOptions(ca=authority.path, cert=pair.cert, key=pair.key)
    with FakeServer(first, credentials=credentials) as server, headworks.Client(server.target, tls=tls) as client:
        stream = client.stream(on_result=lambda _: None).__enter__()
        send_one_by_one(stream, 2)
        pair.replace_with(authority.client("new"))
        server.die()
        with FakeServer(second, credentials=credentials, port=server.port):
            wait_for(lambda: len(stream.account.connections) == 2)
            stream.close()
        assert names == [b"old", b"new"]
    foreign = other.client("foreign")
    tls = headworks.TlsOptions(ca=authority.path, cert=foreign.cert, key=foreign.key)
    with (
        FakeServer(second, credentials=credentials) as server,
        headworks.Client(server.target, tls=tls) as client,
        pytest.raises(headworks.HeadworksError),
        client.stream(),
    ):
        pass


def test_token_travels_with_each_call_and_its_file_is_read_again(tmp_path: Path) -> None:
    """As `authorization: Bearer`; the end of the line does not belong to it."""
    file = tmp_path / "token"
    file.write_text("first\n")
    with (
        FakeServer(answer_two_then_break, answer_every_frame) as server,
        headworks.Client(server.target, token=file) as client,
        client.stream(on_result=lambda _: None) as stream,
    ):
        file.write_text("second\n")
        send_one_by_one(stream, 4)
        wait_for(lambda: len(server.streams) == 2)
    assert [authorization(served) for served in server.streams] == ["Bearer first", "Bearer second"]


def test_token_may_be_given_itself() -> None:
    """A string is the token, not a path."""
    with (
        FakeServer(answer_every_frame) as server,
        headworks.Client(server.target, token=SECRET) as client,
        client.stream(on_result=lambda _: None) as stream,
    ):
        stream.send(JPEG)
    assert authorization(server.streams[0]) == f"Bearer {SECRET}"


def test_file_that_is_gone_for_a_moment_is_tried_again(tmp_path: Path) -> None:
    """Rotation may take a file away before it brings the new one."""
    file = tmp_path / "token"
    file.write_text("first")
    events: list[headworks.ConnectionEvent] = []
    with (
        FakeServer(answer_two_then_break, answer_every_frame) as server,
        headworks.Client(server.target, token=file) as client,
        client.stream(on_result=lambda _: None, on_lost=lambda _: None, on_connection=events.append) as stream,
    ):
        file.unlink()
        send_one_by_one(stream, 4)
        wait_for(lambda: any(isinstance(event, headworks.ReconnectFailed) for event in events))
        file.write_text("second")
        wait_for(lambda: len(server.streams) == 2)
    failed = next(event for event in events if isinstance(event, headworks.ReconnectFailed))
    assert f"token file {file}: No such file or directory" in str(failed)


@pytest.mark.parametrize("what", ["ca", "cert", "key"])
def test_missing_file_is_named(tmp_path: Path, what: str) -> None:
    """When the client is made, not when the first frame is sent."""
    pair = Authority(tmp_path).client()
    files = {"ca": tmp_path / "authority.pem", "cert": pair.cert, "key": pair.key} | {what: tmp_path / "absent.pem"}
    with pytest.raises(headworks.CredentialsError, match=rf"TLS {what} .*absent\.pem: No such file"):
        headworks.Client(tls=headworks.TlsOptions(**files))


def test_certificate_without_key_makes_no_sense() -> None:
    """Nor the other way round."""
    with pytest.raises(ValueError, match="both cert and key"):
        headworks.TlsOptions(cert="client.pem")


@pytest.mark.parametrize("token", ["", "two words", "umlaut-ü"])
def test_token_that_is_none(token: str, tmp_path: Path) -> None:
    """It could not be sent as it is."""
    with pytest.raises(headworks.CredentialsError, match="token: expected one word of printable ASCII"):
        headworks.Client(token=token)
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(headworks.CredentialsError, match=r"token file .*: expected one word"):
        headworks.Client(token=file)


def test_token_does_not_cross_a_network_in_plain_text(tmp_path: Path) -> None:
    """Unless somebody says that this is wanted."""
    with pytest.raises(ValueError, match=r"token for 10\.0\.0\.5:50051: it would cross the network in plain text"):
        headworks.Client(["127.0.0.1:50051", "10.0.0.5:50051"], token=SECRET)
    headworks.Client("10.0.0.5:50051", token=SECRET, insecure=True).close()
    tls = headworks.TlsOptions(ca=Authority(tmp_path).path)
    headworks.Client("10.0.0.5:50051", token=SECRET, tls=tls).close()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.8.8:1", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv6:[::1]:50051", True),
        ("dns:///localhost:50051", True),
        ("unix:/run/headworks", True),
        ("10.0.0.5:50051", False),
        ("localhost.example:50051", False),
        ("dns:///cameras.example:50051", False),
        ("[2001:db8::1]:50051", False),
    ],
)
def test_loopback_addresses(target: str, expected: bool) -> None:
    """Where a token may be sent in plain text."""
    assert is_loopback(target) is expected


def test_no_target_is_an_error() -> None:
    """An empty list has nobody to go to."""
    with pytest.raises(ValueError, match="at least one target"):
        headworks.Client([])


class TestInfer:
    """One picture, one answer."""

    def test_result(self) -> None:
        """What was asked for arrives; there are no labels without an Opened."""
        asked: list[pb.InferFrameRequest] = []

        def answer(request: pb.InferFrameRequest, _: grpc.ServicerContext) -> pb.InferFrameResponse:
            asked.append(request)
            classes = pb.Classifications(classifications=[pb.Classification(class_id=3, score=0.5)])
            return pb.InferFrameResponse(result=pb.Result(frame_id=1, outputs=[pb.Output(classifications=classes)]))

        with FakeServer(answer_every_frame, infer=answer) as server, headworks.Client(server.target) as client:
            result = client.infer(
                np.zeros((4, 6, 3), np.uint8), encoding="rgb24", model="teams", form="classifications", top_k=2
            )
        assert result.classifications == (headworks.Classification(3, "3", 0.5),)
        assert 0 < result.age_s < 20
        (request,) = asked
        assert (request.model.name, request.frame.encoding, request.frame.width) == ("teams", pb.ENCODING_RGB24, 6)
        assert (request.result.form, request.result.top_k) == (pb.ResultOptions.FORM_CLASSIFICATIONS, 2)
        assert request.frame.HasField("capture_time")

    def test_refusal(self) -> None:
        """With the server's own words."""

        def refuse(_: pb.InferFrameRequest, context: grpc.ServicerContext) -> pb.InferFrameResponse:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no JPEG")
            return pb.InferFrameResponse()

        with (
            FakeServer(answer_every_frame, infer=refuse) as server,
            headworks.Client(server.target) as client,
            pytest.raises(headworks.InferFailedError, match="gave no result: INVALID_ARGUMENT: no JPEG") as caught,
        ):
            client.infer(JPEG)
        assert caught.value.code == "INVALID_ARGUMENT"

    def test_too_late(self) -> None:
        """Waiting is bounded."""

        def dawdle(_: pb.InferFrameRequest, __: grpc.ServicerContext) -> pb.InferFrameResponse:
            server.hold.wait()
            return pb.InferFrameResponse()

        with (
            FakeServer(answer_every_frame, infer=dawdle) as server,
            headworks.Client(server.target) as client,
            pytest.raises(headworks.InferFailedError, match="DEADLINE_EXCEEDED"),
        ):
            client.infer(JPEG, timeout=0.05)

    def test_next_server_is_asked_where_one_is_gone(self) -> None:
        """And if none is there, the error says so."""
        with FakeServer(answer_every_frame, infer=lambda *_: pb.InferFrameResponse()) as server:
            with headworks.Client(["127.0.0.1:1", server.target]) as client:
                assert client.infer(JPEG).outputs == ()
            with headworks.Client("127.0.0.1:1") as client, pytest.raises(headworks.ConnectionFailedError):
                client.infer(JPEG)
