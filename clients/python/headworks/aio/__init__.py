"""The same client for asyncio: `Client`, `FrameStream`, the same options, outcomes, errors and account.

async with headworks.aio.Client("127.0.0.1:50051") as client, client.stream(on_result=show) as stream:
    async for jpeg in camera:
        await stream.send(jpeg)

All event loops of a process share one completion queue of gRPC, so use it in one loop only.
"""

from headworks.aio.client import Client
from headworks.aio.stream import FrameStream

__all__ = ["Client", "FrameStream"]
