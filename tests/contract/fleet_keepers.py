"""Both keepers of the fleet's pages behind one face, with a clock that the test moves.

Redis runs the very script of the product; only the line that reads its clock is replaced, so that both can be told the
same time. What the script answers and writes is decoded as the product does.
"""

import msgspec
import redis

from sidecar.control.fleet_redis import read_page
from sidecar.control.fleet_script import CLOCK, COMMAND
from sidecar.machines.fleet_store import FleetStore
from sidecar.machines.fleet_words import Answer

PAGE, PEERS, CHANNEL, TIME = "{t:s}:breaker:x", "{t:s}:peers", "{t:s}:changes", "{t:s}:clock"
FAR = 10**15
"""Milliseconds: presence that no test outlives."""


class InProcess:
    def __init__(self):
        self.now_us = 0
        self.fresh()

    def fresh(self):
        self._store = FleetStore()
        self.told = []

    def carrying(self, count):
        self._store.carrying = count

    def apply(self, command):
        answer = self._store.apply("x", command, self.now_us)
        if answer.changed:
            self.told.append(answer.record)
        return answer

    def record(self):
        page = self._store.pages.get("x")
        return None if page is None else page.record(self.now_us // 1000)


class InRedis:
    def __init__(self, server):
        self.now_us = 0
        self.client = redis.Redis(port=server.port)
        assert COMMAND.text.count(CLOCK) == 1
        text = COMMAND.text.replace(CLOCK, f"cjson.decode(redis.call('GET', '{TIME}'))")
        text = text.replace("now + 120000", f"now + {FAR}")
        self._script = self.client.register_script(text)
        self.fresh()

    def fresh(self):
        self.client.flushall()
        self.told = []
        self._ear = self.client.pubsub(ignore_subscribe_messages=True)
        self._ear.subscribe(CHANNEL)
        self._ear.get_message(timeout=1.0)

    def carrying(self, count):
        self.client.delete(PEERS)
        if count:
            self.client.zadd(PEERS, {f"r{number}": FAR for number in range(count)})

    def apply(self, command):
        seconds, rest = divmod(self.now_us, 1_000_000)
        self.client.set(TIME, f"[{seconds}, {rest}]")
        text = self._script(keys=[PAGE, PEERS], args=[CHANNEL, "x", msgspec.json.encode(command).decode()])
        return msgspec.json.decode(text, type=Answer, strict=False)

    def hints(self):
        while (message := self._ear.get_message()) is not None:
            yield message["data"]

    def record(self):
        text = self.client.get(PAGE)
        return None if text is None else read_page(text, self.now_us // 1000)
