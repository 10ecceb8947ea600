"""Both keepers of a fleet behind one face, with a clock that the test moves.

Redis runs the very scripts of the product, asked by the product's own port; only the line that reads Redis's clock is
replaced, so that both can be told the same time.
"""

import asyncio

import redis

from sidecar.control.fleet_redis import FleetPort
from sidecar.control.fleet_script import CLOCK
from sidecar.machines.breaker_states import BreakerState
from sidecar.machines.fleet.deeds import Send, Sync
from sidecar.machines.fleet.store import FleetStore

TIME = "the test's clock"


class Keeper:
    """What both have in common."""

    def __init__(self):
        self.now_us = 0
        self.present = 0
        self.told = []

    def carrying(self, count):
        """So many replicas with traffic show themselves from now on, before each command."""
        self.present = count

    def apply(self, command):
        for number in range(self.present):
            self.sync(f"r{number}")
        answer = self.run(Send("x", command, 0.0))
        if answer.changed:
            self.told.append(answer.record)
        return answer

    def record(self):
        """As a replica reads it that knows nothing."""
        return self.sync("reader", idle=True, x=(-1, BreakerState.CLOSED)).records["x"]

    def sync(self, me, *, idle=False, config="c1", **known):
        return self.beat(me, Sync(known, not idle, config, 0.0))


class InProcess(Keeper):
    def fresh(self):
        self._store = FleetStore()
        self.told = []

    def run(self, send):
        return self._store.run(send, self.now_us)

    def beat(self, me, sync):
        return self._store.sync(me, sync, self.now_us)


class InRedis(Keeper):
    def __init__(self, server):
        super().__init__()
        self.client = redis.Redis(port=server.port)
        self._loop = asyncio.new_event_loop()
        self._scripts = {}

    def fresh(self):
        self.client.flushall()
        self._told_us = None
        self.told = []
        self._ear = self.client.pubsub(ignore_subscribe_messages=True)
        self._ear.subscribe(FleetPort(self, "t", "s", "me").channel)
        self._ear.get_message(timeout=1.0)

    def close(self):
        self._loop.close()
        self.client.close()

    def run(self, send):
        return self._loop.run_until_complete(FleetPort(self, "t", "s", "me").run(send))

    def beat(self, me, sync):
        return self._loop.run_until_complete(FleetPort(self, "t", "s", me).sync(sync))

    async def script(self, script, keys, arguments):
        """Instead of the link's."""
        run = self._scripts.get(script.sha)
        if run is None:
            assert script.text.count(CLOCK) == 1
            text = script.text.replace(CLOCK, f"cjson.decode(redis.call('GET', \"{TIME}\"))")
            run = self._scripts[script.sha] = self.client.register_script(text)
        if self._told_us != self.now_us:
            self._told_us = self.now_us
            seconds, rest = divmod(self.now_us, 1_000_000)
            self.client.set(TIME, f"[{seconds}, {rest}]")
        return run(keys=keys, args=arguments)

    def hints(self):
        while (message := self._ear.get_message()) is not None:
            yield message["data"]
