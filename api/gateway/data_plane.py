"""The data plane as one object: all that passes requests on, for the API's program and for the gateway's own."""

from __future__ import annotations

from api.contract.database import Database
from api.contract.doors import Doors
from api.contract.settings import Settings
from api.gateway.admission import Limiter
from api.gateway.app import Gateway
from api.gateway.confirmation import Confirmation
from api.gateway.entrance import ServiceEntrance
from api.gateway.following import RoutingTableReader
from api.gateway.forward import Forwarder
from api.gateway.key_reader import KeyReader
from api.gateway.ledger import Ledger
from api.gateway.pool import Pool
from api.gateway.queue import Queues
from api.gateway.used_keys import UsedKeys
from api.web.belonging import Access
from api.web.change_feed import ChangeFeed
from api.web.keys import Keys


class DataPlane:
    """The gateway, what it follows in the database, and its connections to engines."""

    def __init__(self, settings: Settings, database: Database, feed: ChangeFeed, doors: Doors, keys: Keys) -> None:
        self._feed = feed
        self._pool = Pool(doors, settings.gateway.connect)
        self._ledger = Ledger(settings.state_dir / "limits")
        self.forwarder = Forwarder(self._pool, settings.gateway.in_flight)
        reader = RoutingTableReader(database, feed, Access(settings.api.access))
        reader.on_leaving = self._pool.drop
        self._confirmation = Confirmation(database, reader)
        limiter, queues = Limiter(self._ledger), Queues(settings.gateway.queue_length, settings.gateway.queue_seconds)
        self.gateway = Gateway(reader, self.forwarder, limiter, queues, settings.gateway)
        self.entrance = ServiceEntrance(
            limiter=limiter,
            queues=queues,
            forwarder=self.forwarder,
            reader=reader,
            in_flight=settings.gateway.in_flight,
        )
        self.key_reader = KeyReader(database, feed, keys)
        self._used_keys = UsedKeys(database, keys)

    async def begin(self) -> None:
        """Begin to follow the database."""
        await self.gateway.begin()
        self.key_reader.begin()
        self._confirmation.begin()
        self._used_keys.begin()

    async def until_known(self) -> None:
        """Wait until models and keys are known."""
        await self.gateway.until_known()
        await self.key_reader.known.wait()

    async def end_streams(self) -> None:
        """End all that follows the database, and the connections that nothing uses."""
        await self._feed.close()
        await self.gateway.close()
        await self.key_reader.close()
        self._pool.close()

    async def close(self) -> None:
        """End all; nothing is counted any more."""
        await self.end_streams()
        await self._confirmation.close()
        await self._used_keys.close()
        self._ledger.close()
