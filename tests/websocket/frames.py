"""Every malformed frame, every close code and every split of UTF-8, against an echo server.

Plain sockets and the standard library: what a well-behaved client refuses to send is sent here.
usage: frames.py HOST PORT
"""
import base64
import os
import socket
import struct
import sys

HOST, PORT = sys.argv[1], int(sys.argv[2])
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode, payload=b"", fin=True, rsv=0, mask=b"\x01\x02\x03\x04", length=None):
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask is not None else 0
    size = len(payload)
    if length is not None:
        head += bytes([bit | length[0]]) + length[1]
    elif size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Client:
    def __init__(self, extensions=None):
        self.socket = socket.create_connection((HOST, PORT), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET / HTTP/1.1\r\nHost: {HOST}:{PORT}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        )
        if extensions:
            head += f"Sec-WebSocket-Extensions: {extensions}\r\n"
        self.socket.sendall(head.encode() + b"\r\n")
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        return data

    def take(self, count):
        while len(self.rest) < count:
            self.rest += self.more()
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def receive(self):
        first, second = self.take(2)
        assert second < 128, "a server does not mask"
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", self.take(2))
        elif second == 127:
            (size,) = struct.unpack("!Q", self.take(8))
        return first, self.take(size)

    def expect(self, opcode, payload):
        got = self.receive()
        assert got == (0x80 | opcode, payload), f"got {got}"

    def expect_close(self, code):
        """A close frame with this code, then the end of the connection."""
        first, payload = self.receive()
        assert first == 0x88, f"got {first:#x} {payload!r}"
        found = struct.unpack("!H", payload[:2])[0] if payload else None
        assert found == code, f"closed with {found}, not {code}"
        self.expect_end()

    def expect_end(self):
        try:
            extra = self.more()
            raise AssertionError(f"got {extra!r} after the close")
        except (EOFError, ConnectionResetError):
            self.socket.close()

    def finish(self):
        self.send(frame(CLOSE, b"\x03\xe8"))
        self.expect_close(1000)


def fails(code, *parts, extensions=None):
    client = Client(extensions)
    client.send(*parts)
    client.expect_close(code)


def close_codes():
    for code in [*range(0, 1020), 1100, 1999, 2000, 2999, *range(3000, 5001, 250), 4999, 5000, 65535]:
        valid = code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999
        fails(code if valid else 1002, frame(CLOSE, struct.pack("!H", code) + b"why"))
    fails(None, frame(CLOSE))
    fails(1002, frame(CLOSE, b"\x03"))
    fails(1000, frame(CLOSE, b"\x03\xe8" + b"r" * 123))
    fails(1002, frame(CLOSE, b"\x03\xe8" + b"r" * 124))
    client = Client()
    client.send(frame(CLOSE, b"\x03\xe8\xff"))
    first, payload = client.receive()
    assert first == 0x88 and payload[:2] in (b"\x03\xef", b"\x03\xea"), payload


def malformed():
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]:
        fails(1002, frame(opcode, b"x"))
    for rsv in range(1, 8):
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG]:
            fails(1002, frame(opcode, b"", rsv=rsv))
    for opcode in [CLOSE, PING, PONG]:
        fails(1002, frame(opcode, b"", fin=False))
        fails(1002, frame(opcode, b"x" * 126))
    for opcode in [TEXT, BINARY, PING]:
        fails(1002, frame(opcode, b"hello", mask=None))
    fails(1002, frame(TEXT, b"x" * 125, length=(126, b"\0\x7d")))
    fails(1002, frame(TEXT, b"x" * 10, length=(127, struct.pack("!Q", 10))))
    fails(1002, frame(TEXT, b"", length=(127, struct.pack("!Q", 1 << 63))))
    fails(1009, frame(TEXT, b"", length=(127, struct.pack("!Q", 1 << 40))))
    fails(1002, frame(0, b"x"))
    fails(1002, frame(0, b"x", fin=False))
    fails(1002, frame(TEXT, b"x", fin=False), frame(TEXT, b"y"))
    fails(1002, frame(TEXT, b"x", fin=False), frame(BINARY, b"y", fin=False))


def early():
    """Fail fast: the head alone, or the first wrong byte, is enough."""
    for start in [b"\x83", b"\x91", b"\x09"]:
        fails(1002, start + b"\x80")
    for text in [b"\xff", b"abc\xc0", b"\xe2\x28", b"\xed\xa0", b"\xf4\x90", b"\xf8"]:
        # One frame that has much more to come.
        fails(1007, frame(TEXT, b"", length=(126, b"\x10\x00")), bytes(
            byte ^ (1, 2, 3, 4)[i % 4] for i, byte in enumerate(text)))
        # A fragment.
        fails(1007, frame(TEXT, text, fin=False))


def utf8():
    text = "k\u00f6\u20ac\U0001f600\ud7ff\ue000\U0010ffff".encode("utf-8", "surrogatepass")
    client = Client()
    for cut in range(len(text) + 1):
        client.send(frame(TEXT, text[:cut], fin=False), frame(PING, b"p"), frame(0, text[cut:]))
        client.expect(PONG, b"p")
        client.expect(TEXT, text)
    client.send(*[frame(TEXT if i == 0 else 0, text[i:i + 1], fin=False) for i in range(len(text))], frame(0))
    client.expect(TEXT, text)
    # The same in one frame, cut on the wire at every byte.
    whole = frame(TEXT, text)
    for cut in range(1, len(whole)):
        client.send(whole[:cut])
        client.send(whole[cut:])
        client.expect(TEXT, text)
    client.finish()
    for cut in range(1, 4):
        last = "\U0001f600".encode()[:cut]
        fails(1007, frame(TEXT, b"end " + last))
        fails(1007, frame(TEXT, b"end " + last, fin=False), frame(0, b""))
    for bad in [b"\x80", b"\xbf", b"\xc1\xbf", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xed\xbf\xbf"]:
        fails(1007, frame(TEXT, bad))
    client = Client()
    client.send(frame(BINARY, b"\xff\xfe\x80"))
    client.expect(BINARY, b"\xff\xfe\x80")
    client.finish()


def shapes():
    client = Client()
    for size in [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20]:
        client.send(frame(BINARY, b"b" * size))
        client.expect(BINARY, b"b" * size)
        client.send(frame(TEXT, b"t" * size))
        client.expect(TEXT, b"t" * size)
    for payload in [b"", b"p" * 125]:
        client.send(frame(PING, payload))
        client.expect(PONG, payload)
    client.send(frame(PONG, b"nobody asked"))
    count = 2000
    client.send(*[frame(BINARY if i == 0 else 0, b"f", fin=i == count - 1) for i in range(count)])
    client.expect(BINARY, b"f" * count)
    client.send(frame(TEXT, b"before"), frame(CLOSE, b"\x03\xe8"), frame(TEXT, b"after"))
    client.expect(TEXT, b"before")
    client.expect_close(1000)


def deflate_frames():
    offer = "permessage-deflate"
    hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00"
    client = Client(offer)
    client.send(frame(TEXT, hello, rsv=4))
    client.expect(TEXT, b"Hello")
    client.send(frame(TEXT, hello[:3], rsv=4, fin=False), frame(PING), frame(0, hello[3:]))
    client.expect(PONG, b"")
    client.expect(TEXT, b"Hello")
    client.finish()
    fails(1002, frame(TEXT, hello[:3], rsv=4, fin=False), frame(0, hello[3:], rsv=4), extensions=offer)
    fails(1002, frame(PING, hello, rsv=4), extensions=offer)
    fails(1007, frame(TEXT, b"\xff\xff\xff\xff", rsv=4), extensions=offer)


def handshakes():
    def status(head):
        with socket.create_connection((HOST, PORT), timeout=20) as client:
            client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
            return client.recv(4096)

    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
    rest = "Host: a\nUpgrade: websocket\nConnection: Upgrade\n"
    answer = status(f"GET / HTTP/1.1\n{rest}{key}Sec-WebSocket-Version: 8\n")
    assert answer.startswith(b"HTTP/1.1 426 ") and b"Sec-WebSocket-Version: 13" in answer, answer
    assert status("GET / HTTP/1.1\nHost: a\n").startswith(b"HTTP/1.1 426 ")
    version = "Sec-WebSocket-Version: 13\n"
    assert status(f"GET / HTTP/1.1\n{rest}{version}").startswith(b"HTTP/1.1 400 ")
    assert status(f"POST / HTTP/1.1\n{rest}{key}{version}").startswith(b"HTTP/1.1 405 ")
    assert status(f"GET /other HTTP/1.1\n{rest}{key}{version}").startswith(b"HTTP/1.1 404 ")
    good = status(f"GET / HTTP/1.1\n{rest.replace('Upgrade', 'keep-alive, UPGRADE', 2)}{key}{version}")
    good = status(f"GET / HTTP/1.1\nHost: a\nupgrade: WebSocket\nconnection: keep-alive, UPGRADE\n{key}{version}")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in good, good


for test in [handshakes, close_codes, malformed, early, utf8, shapes, deflate_frames]:
    test()
    print(f"{test.__name__}: ok", flush=True)
