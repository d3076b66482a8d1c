"""An HTTP proxy before an S3 server that spoils a share of the calls: 503, time-outs, resets in mid-body, slow reads.

It passes on what it gets as it is, the header Host too, which S3's signatures cover.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KINDS = ("503", "time-out", "reset", "slow")

HOLD = 15.0
"""Seconds that a call is left without an answer, and then cut."""

SLOW = 2.0
"""Seconds that the body of a slow answer takes."""

REFUSALS = {
    kind: f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    for kind, code in (("503", "SlowDown"), ("403", "ExpiredToken"))
}
"""403 is for who asks for it by ``kinds``."""


class Proxy(ThreadingHTTPServer):
    """Before a server; ``done`` counts what was done to the calls, ``fine`` where nothing was.

    Attributes:
        share: of calls that are spoiled, 0 to 1; may be changed at any time.
        kinds: of them, each as often.
        script: what is done to the next calls, whatever the share.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: str, share: float, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.target, self.share, self.kinds = urlsplit(target).netloc, share, kinds
        self.done: Counter[str] = Counter()
        self.script: list[str] = []
        self._random, self._lock = random.Random(seed), threading.Lock()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def lot(self) -> str:
        """What happens to the next call."""
        with self._lock:
            spoiled = self._random.random() < self.share
            kind = self.script.pop(0) if self.script else self._random.choice(self.kinds) if spoiled else "fine"
            self.done[kind] += 1
        return kind

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no news."""


class _Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.lot()
        if kind in REFUSALS:
            self._answer(int(kind), [("Content-Type", "application/xml")], REFUSALS[kind])
            return
        if kind == "time-out":
            time.sleep(HOLD)
            self._reset()
            return
        to = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            to.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                to.putheader(name, value)
            to.endheaders(body)
            got = to.getresponse()
            data, headers = got.read(), got.getheaders()
        finally:
            to.close()
        if kind == "reset" and self.command != "HEAD":  # a write has been done; only its answer is lost
            self._head(got.status, headers, len(data))
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._reset()
            return
        self._answer(got.status, headers, data, SLOW if kind == "slow" else 0.0)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names are http.server's

    def _head(self, status: int, headers: list[tuple[str, str]], size: int) -> None:
        self.send_response_only(status)
        given = next((value for name, value in headers if name.lower() == "content-length"), str(size))
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", given if self.command == "HEAD" else str(size))
        self.end_headers()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, seconds: float = 0.0) -> None:
        self._head(status, headers, len(data))
        data = b"" if self.command == "HEAD" else data
        step = max(1, len(data) // 10) if seconds else max(1, len(data))
        for start in range(0, len(data), step):
            time.sleep(seconds / 10)
            self.wfile.write(data[start : start + step])
            self.wfile.flush()

    def _reset(self) -> None:
        """Cut the connection as a machine that dies does."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextmanager
def faulty(target: str, share: float, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> Iterator[Proxy]:
    """A proxy on a free local port until the block ends."""
    proxy = Proxy(target, share, kinds, seed)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
