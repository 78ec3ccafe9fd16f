"""An imitation of vLLM's server that costs little: `python -m bench.gateway_engine TLS_FILE` prints its port.

It speaks on the sockets themselves, without a framework: a chunk is one system call. What is streamed has a chunk
each `BEAT`, every stream from its own beginning on; where the other side does not take them, that stream waits.
TLS_FILE holds the credentials of a door in JSON, or is `-`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import sys
import time
from collections import deque
from pathlib import Path

BEAT = 0.02
CHUNKS = 256
"""Of a stream, 20 ms after one another, the first at once. In the published trace of a chat service (Mooncake, FAST'25,
12,031 conversations) an answer has 343 tokens in the mean, and 350 in the median.
"""
MODELS = b'{"object":"list","data":[{"id":"dummy","object":"model","owned_by":"vllm","max_model_len":8192}]}'
ANSWER = (
    b'{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion","created":1790000000,'
    b'"model":"dummy","choices":[{"index":0,"message":{"role":"assistant","content":"It is as you say.",'
    b'"tool_calls":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":21,"total_tokens":27,'
    b'"completion_tokens":6}}'
)
_EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1790000000,'
    b'"model":"dummy","choices":[{"index":0,"delta":{"content":" %b"},"logprobs":null,"finish_reason":%b}]}\n\n'
)
_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: %b\r\n%b\r\n\r\n"
STREAM_HEAD = _HEAD % (b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked")


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


FIRST = STREAM_HEAD + _framed(_EVENT % (b"word", b"null"))
NEXT = tuple(_framed(_EVENT % (word, b"null")) for word in (b"word", b"next"))
"""In turn: LiteLLM ends an answer that says a hundred times the same."""
LAST = _framed(_EVENT % (b"word", b'"stop"')) + _framed(b"data: [DONE]\n\n") + _framed(b"")


def _whole(body: bytes) -> bytes:
    return _HEAD % (b"application/json", b"content-length: %d" % len(body)) + body


class EngineConnection:
    """One connection, and the stream on it, if one is under way."""

    def __init__(self, own: socket.socket) -> None:
        self.own = own
        self._asked = b""
        self._rest = b""
        self.left = 0
        """Chunks of the stream that are still to come."""

    def read(self) -> bool:
        """Take what has come; whether it is open."""
        try:
            while received := self.own.recv(65536):
                self._asked += received
                if not isinstance(self.own, ssl.SSLSocket):
                    break
            else:
                return False
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            return False
        return True

    def request(self) -> bytes:
        """Return the next request that is whole, or nothing."""
        head, blank, rest = self._asked.partition(b"\r\n\r\n")
        if not blank:
            return b""
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(rest) < length:
            return b""
        self._asked = rest[length:]
        return head + blank + rest[:length]

    @property
    def is_over(self) -> bool:
        """Whether all of the answer has gone."""
        return self.left <= 0 and not self._rest

    def send(self, data: bytes) -> bool:
        """Send, unless something is left of what was sent before: then only that. Whether it is open."""
        if not self._rest:
            self._rest = data
            self.left -= 1
        try:
            self._rest = self._rest[self.own.send(self._rest) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except OSError:
            return False
        return True


class ImitatedEngine:
    """All connections, and whose chunk is due when."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        self._listening = listening
        self._context = context
        self._poll = select.epoll()
        self._poll.register(listening, select.EPOLLIN)
        self._connections: dict[int, EngineConnection] = {}
        self._due: deque[tuple[float, EngineConnection]] = deque()

    def run(self) -> None:
        """Serve until the parent is gone."""
        parent = os.getppid()
        while os.getppid() == parent:
            for descriptor, _ in self._poll.poll(self._pause()):
                if descriptor == self._listening.fileno():
                    self._accept()
                else:
                    self._serve(self._connections[descriptor])
            self._stream()

    def _pause(self) -> float:
        return max(0.0, self._due[0][0] - time.monotonic()) + 0.001 if self._due else 1.0

    def _accept(self) -> None:
        own, _ = self._listening.accept()
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.setblocking(False)
        if self._context is not None:  # hands are shaken when it is first read
            own = self._context.wrap_socket(own, server_side=True, do_handshake_on_connect=False)
        self._connections[own.fileno()] = EngineConnection(own)
        self._poll.register(own, select.EPOLLIN)

    def _serve(self, connection: EngineConnection) -> None:
        if not connection.read():
            self._close(connection)
            return
        while request := connection.request():
            if b'"stream": true' in request or b'"stream":true' in request:
                connection.left = CHUNKS
                self._due.append((time.monotonic() + BEAT, connection))
                is_open = connection.send(FIRST)
            else:
                is_open = connection.send(_whole(ANSWER if request.startswith(b"POST") else MODELS))
            if not is_open:
                self._close(connection)
                return

    def _stream(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, connection = self._due.popleft()
            if connection.own.fileno() < 0:
                continue
            if not connection.send(LAST if connection.left == 1 else NEXT[connection.left % 2]):
                self._close(connection)
            elif not connection.is_over:
                self._due.append((max(due, now - BEAT) + BEAT, connection))

    def _close(self, connection: EngineConnection) -> None:
        del self._connections[connection.own.fileno()]
        connection.own.close()


def _context(file: str) -> ssl.SSLContext | None:
    if file == "-":
        return None
    from api.contract.job.tls import Credentials, server_context  # noqa: PLC0415

    told = json.loads(Path(file).read_text())
    return server_context(Credentials(told["certificate"], told["key"]), told["authority"])


def main(file: str) -> None:
    """Serve."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listening.getsockname()[1], flush=True)
    ImitatedEngine(listening, _context(file)).run()


if __name__ == "__main__":
    main(sys.argv[1])
