"""A TCP proxy that does what networks do: delays, throttles, freezes, corrupts, half-closes and cuts.

Used by the fault tests and the soak: a camera connects to `proxy.target` instead of the server. Faults are set while
it runs, for each direction apart: `up` is from the camera to the server, `down` the way back. Threads of its own carry
the bytes: per connection and direction one reads and one writes, so that a delay costs no bandwidth.
"""

from __future__ import annotations

import queue
import random
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType

CHUNK = 16 * 1024
CHUNKS = 64  # on the way in one direction of one connection; a sender then waits, as with a full window


class Direction:
    """What happens to bytes on their way in one direction; any of it may be changed at any time.

    Attributes:
        delay_s: from the arrival of bytes to their departure.
        bytes_s: bytes a second at most, over each connection; 0 for no limit.
        corrupt_every: of so many bytes one is changed, at a random place; 0 for none.
        spoilt: bytes that were changed so far.
    """

    def __init__(self, seed: int) -> None:
        self.delay_s = 0.0
        self.bytes_s = 0
        self.corrupt_every = 0
        self.spoilt = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._random = random.Random(seed)

    def freeze(self) -> None:
        """Pass nothing from now on, and tell nobody."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass what has gathered, and all that follows."""
        self._flowing.set()

    def wait_flowing(self) -> None:
        """Wait for the end of a freeze."""
        self._flowing.wait()

    def spoil(self, data: bytes) -> bytes:
        """The bytes as they arrive at the other end."""
        every = self.corrupt_every
        if not every:
            return data
        spoilt = bytearray(data)
        for index in range(len(spoilt)):
            if self._random.randrange(every) == 0:
                spoilt[index] ^= 1 << self._random.randrange(8)
                self.spoilt += 1
        return bytes(spoilt)


class _Connection:
    """A camera's socket and the server's, with the four threads between them."""

    def __init__(self, camera: socket.socket, server: socket.socket, up: Direction, down: Direction) -> None:
        self._camera, self._server = camera, server
        self._ends = threading.Lock()
        self._open_ends = 2
        for source, sink, direction in ((camera, server, up), (server, camera, down)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            chunks: queue.Queue[tuple[float, bytes]] = queue.Queue(CHUNKS)
            for target, *arguments in ((self._take, source, chunks), (self._give, sink, chunks, direction)):
                threading.Thread(target=target, args=arguments, name="proxy", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether bytes may still go either way."""
        return self._open_ends > 0

    def half_close(self, *, towards_server: bool) -> None:
        """Send the end of one direction, as if its sender had closed it; the other direction goes on."""
        with suppress(OSError):
            (self._server if towards_server else self._camera).shutdown(socket.SHUT_WR)

    def cut(self, *, reset: bool) -> None:
        """End both connections at once: by a reset, as if a machine went away, or by an orderly end."""
        for end in (self._camera, self._server):
            with suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    end.shutdown(socket.SHUT_RDWR)
            # Closing does not wake a thread that reads from it; shutting down does.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RD)
            end.close()

    def _take(self, source: socket.socket, chunks: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"more"
        while data:
            try:
                data = source.recv(CHUNK)
            except OSError:
                data = b""
            chunks.put((time.monotonic(), data))

    def _give(self, sink: socket.socket, chunks: queue.Queue[tuple[float, bytes]], direction: Direction) -> None:
        whole = True
        while True:
            arrived_s, data = chunks.get()
            if not data:
                break
            time.sleep(max(0.0, arrived_s + direction.delay_s - time.monotonic()))
            direction.wait_flowing()
            try:
                if whole:
                    sink.sendall(direction.spoil(data))
            except OSError:
                whole = False  # keep taking, so that the reader comes to its end
            if direction.bytes_s:
                time.sleep(len(data) / direction.bytes_s)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._ends:
            self._open_ends -= 1
            last = self._open_ends == 0
        if last:
            self._camera.close()
            self._server.close()


class Proxy:
    """A proxy before one server; use it in a `with`.

    Arguments:
        server: "host:port"; `server` may be set anew, for connections that are made afterwards.
        seed: of what is random.

    Attributes:
        target: where cameras connect.
        up: towards the server.
        down: towards the camera.
    """

    def __init__(self, server: str, *, seed: int = 1) -> None:
        self.server = server
        self.up, self.down = Direction(seed), Direction(seed + 1)
        self._connections: list[_Connection] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="proxy-accept", daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.thaw()
        self.cut()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        with self._lock:
            self._connections = [connection for connection in self._connections if connection.alive]
            return len(self._connections)

    def freeze(self) -> None:
        """Pass nothing in either direction, though every connection stays open."""
        self.up.freeze()
        self.down.freeze()

    def thaw(self) -> None:
        """End a freeze."""
        self.up.thaw()
        self.down.thaw()

    def cut(self, *, reset: bool = True) -> None:
        """End every connection; new ones are taken."""
        for connection in self._taken():
            connection.cut(reset=reset)

    def half_close(self, *, towards_server: bool) -> None:
        """End one direction of every connection."""
        for connection in self._taken():
            connection.half_close(towards_server=towards_server)

    def _taken(self) -> list[_Connection]:
        with self._lock:
            return list(self._connections)

    def _accept(self) -> None:
        while True:
            try:
                camera, _ = self._listener.accept()
            except OSError:
                return
            host, port = self.server.rsplit(":", 1)
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:  # nobody there: the camera hears the same
                camera.close()
                continue
            with self._lock:
                self._connections.append(_Connection(camera, server, self.up, self.down))
