"""An echo server as the packages `websockets` and `autobahn` meet it: every parameter of
permessage-deflate, fragments, long messages, pings, closes.

usage: clients.py HOST PORT
"""
import asyncio
import itertools
import sys

HOST, PORT = sys.argv[1], int(sys.argv[2])
URI = f"ws://{HOST}:{PORT}/"


async def of_websockets():
    import websockets
    from websockets.asyncio.client import connect
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Deflate

    texts = ["", "a", "\u20ac\U0001f600" * 50, "the same again " * 4000, "x" * 70_000]
    blobs = [b"", bytes(range(256)) * 300, b"z" * (1 << 20)]
    bits = [None, 9, 12, 15]
    combinations = itertools.product([False, True], [False, True], bits, [None, True, 9, 12, 15])
    count = 0
    for server_none, client_none, server_bits, client_bits in combinations:
        deflate = Deflate(
            server_no_context_takeover=server_none,
            client_no_context_takeover=client_none,
            server_max_window_bits=server_bits,
            client_max_window_bits=client_bits,
        )
        async with connect(URI, extensions=[deflate], compression=None, max_size=None) as client:
            agreed = client.protocol.extensions
            assert len(agreed) == 1, agreed
            for message in [*texts, *blobs, *texts]:
                await client.send(message)
                assert await client.recv() == message
        count += 1
    print(f"websockets {websockets.__version__}: {count} sets of deflate parameters")
    async with connect(URI, compression=None, max_size=None) as client:
        await client.send(["frag", "men", "", "ted"])
        assert await client.recv() == "fragmented"
        await client.send([b"12", b"3" * 100_000])
        assert await client.recv() == b"12" + b"3" * 100_000
        long = bytes(16 << 20)
        await client.send(long)
        assert await client.recv() == long
        await asyncio.wait_for(await client.ping(b"p"), 10)
        await client.close(4321, "done")
        assert (client.close_code, client.protocol.close_rcvd.code) == (4321, 4321)
    print("websockets: fragments, 16 MiB, ping, close")


async def of_autobahn():
    import autobahn
    from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol

    done = asyncio.get_running_loop().create_future()
    messages = [("a" * size).encode() for size in (0, 1, 125, 126, 65535, 65536, 200_000)]

    class Client(WebSocketClientProtocol):
        def onOpen(self):
            self.left = list(messages)
            self.next()

        def next(self):
            if self.left:
                self.sendMessage(self.left[0], isBinary=len(self.left) % 2 == 0, fragmentSize=1000)
            else:
                self.sendClose(3000, "bye")

        def onMessage(self, payload, isBinary):
            wanted = self.left.pop(0)
            if payload != wanted:
                done.set_exception(AssertionError("another message came back"))
            self.next()

        def onClose(self, wasClean, code, reason):
            if not done.done():
                done.set_result((wasClean, code))

    factory = WebSocketClientFactory(URI)
    factory.protocol = Client
    await asyncio.get_running_loop().create_connection(factory, HOST, PORT)
    result = await asyncio.wait_for(done, 60)
    assert result == (True, 3000), result
    print(f"autobahn {autobahn.__version__}: sizes, fragments, close")


asyncio.run(of_websockets())
try:
    import autobahn  # noqa: F401
except ImportError:
    print("SKIPPED: autobahn is not installed")
else:
    asyncio.run(of_autobahn())
