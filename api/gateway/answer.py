"""What a client is sent. A stream that was asked for is kept alive by comments until its first byte.

Comments (`: …`) are no events (HTML, server-sent events), and clients pass over them; but proxies and watchdogs see
that something is coming. Their price is that a later error comes under the status 200, as an event.
"""

from __future__ import annotations

import asyncio

from litestar.types import Scope, Send

from api.gateway.exchange import Header
from api.gateway.refusals import Form, GatewayError, event_of
from api.gateway.shown import STREAM
from api.web.isolation import HEADERS as ISOLATION
from api.web.outlet import outlet_of
from api.web.request_id import HEADER as REQUEST_ID
from api.web.request_id import request_id

COMMENT = b": waiting\n\n"
_HEAD = ((b"content-type", STREAM), (b"cache-control", b"no-store"))


class Answer:
    """One answer, as it is sent."""

    def __init__(self, send: Send, form: Form, scope: Scope, comment_after: float = 0.0) -> None:
        """After so many seconds without a byte a comment is sent, and again; 0: none are."""
        self._send = send
        self.outlet = outlet_of(scope)
        """The way to its client past ASGI, where there is one."""
        self._form = form
        self._request_id = request_id(scope)
        self._comment_after = comment_after
        self._timer = asyncio.get_running_loop().call_later(comment_after, self._comment) if comment_after else None
        self._commenting: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self.headers: tuple[Header, ...] = ()
        """Of a head that comes before the engine's."""
        self.has_begun = False
        """Whether its head has been sent."""

    async def begin(self, status: int, headers: list[Header], *, is_stream: bool) -> None:
        """Send the head. Comments may follow in a stream: it consists of events, and says nothing of its length."""
        if self._timer is None and not self.has_begun:
            await self._begin(status, headers, is_stream=is_stream)
            return
        if not is_stream:
            await self._stop_commenting()
        async with self._sending:
            if not self.has_begun:
                await self._begin(status, headers, is_stream=is_stream)

    async def send_whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send an answer that is there, of which the headers say how long it is."""
        outlet = self.outlet
        if outlet is None or self.has_begun or not outlet.takes_head:
            await self.begin(status, headers, is_stream=False)
            await self.end(body)
            return
        self.close()
        self.has_begun = True
        outlet.answer(status, self._with_own(headers), body)

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        if self._timer is not None:
            await self._stop_commenting()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, last: bytes = b"") -> None:
        """Send the end."""
        await self._stop_commenting()
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def fail(self, error: GatewayError) -> None:
        """End a stream that has begun with an error."""
        await self.end(event_of(error, self._form, self._request_id))

    def close(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._commenting is not None:
            self._commenting.cancel()
            self._commenting = None

    async def _begin(self, status: int, headers: list[Header], *, is_stream: bool) -> None:
        self.has_begun = True
        if is_stream and status == 200 and self.outlet is not None and self.outlet.takes_head:
            self.outlet.begin(status, self._with_own(headers))
        else:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _with_own(self, headers: list[Header]) -> list[Header]:
        """Add what the application adds to what goes by ASGI."""
        return [*headers, (REQUEST_ID, self._request_id.encode()), *ISOLATION]

    def _comment(self) -> None:
        self._commenting = asyncio.create_task(self._go_on_commenting())

    async def _go_on_commenting(self) -> None:
        while True:
            async with self._sending:
                if not self.has_begun:
                    await self._begin(200, [*_HEAD, *self.headers], is_stream=True)
                await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})
            await asyncio.sleep(self._comment_after)

    async def _stop_commenting(self) -> None:
        """Let the comment be whole that is being sent, and send no other."""
        if self._commenting is not None:
            async with self._sending:
                self._commenting.cancel()
        self.close()
