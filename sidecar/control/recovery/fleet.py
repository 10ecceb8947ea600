"""The others' leave to restart: at most a quarter of a service's replicas at once, and at least one, agreed in Redis.

Two sorted sets under the service's hash tag: `{shop:orders}:recovery:replicas`, every sidecar with a rule that
restarts, and `{shop:orders}:recovery:tokens`, those that restart now; both member -> end in milliseconds by Redis's own
clock. A beat every ten seconds renews this sidecar's place in the first, and in the second while it restarts. So
whoever dies with a token gives it back within half a minute, and what an emptied Redis forgot is there again with the
next beat.

Where Redis cannot be asked there is no leave: then only dead processes are started again, for which nobody asks. An end
further away than a whole lease means that Redis's clock was set back, and does not count.
"""

import asyncio
import random
from typing import Any

from sidecar.base.backoff import spread
from sidecar.control.redis_link import RedisGone, RedisLink, RedisRefused, Script
from sidecar.runtime.logs import Log

SHARE = 0.25
"""Of a service's replicas, at once."""
LEASE_SECONDS = 30.0
BEAT_SECONDS = 10.0
_JITTER = 0.2
_TELL_AGAIN = 3600.0

ASK = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local replicas, tokens = KEYS[1], KEYS[2]
local me, lease, share, verb = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
for _, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  redis.call('ZREMRANGEBYSCORE', key, '(' .. (now + lease), '+inf')
end
if verb == 'leave' then
  redis.call('ZREM', replicas, me)
else
  redis.call('ZADD', replicas, now + lease, me)
end
local count = redis.call('ZCARD', replicas)
local allowed = math.max(1, math.floor(count * share))
local held = redis.call('ZSCORE', tokens, me)
if verb == 'hold' or (verb == 'take' and (held or redis.call('ZCARD', tokens) < allowed)) then
  redis.call('ZADD', tokens, now + lease, me)
  held = true
elseif verb ~= 'take' then
  redis.call('ZREM', tokens, me)
  held = false
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 2 * lease) end
return {held and 1 or 0, count, redis.call('ZCARD', tokens), allowed}
""",
    "tokens",
)

_log = Log(__name__)


class FleetTokens:
    """This sidecar among the replicas of its service; `me` is its name there, the same after a restart."""

    def __init__(self, link: RedisLink, namespace: str, service: str, me: str) -> None:
        self._link = link
        self._keys = [f"{{{namespace}:{service}}}:recovery:{what}" for what in ("replicas", "tokens")]
        self._me = me
        self._turn = asyncio.Lock()  # what is asked depends on what was answered before
        self._holders = 0  # rules of ours that restart now; all under one token
        self._seen: tuple[int, int, int] | None = None  # replicas, tokens out, tokens allowed

    async def run(self) -> None:
        """Beat until cancelled."""
        await self._link.tried.wait()
        while True:
            try:
                async with self._turn:
                    await self._ask("hold" if self._holders else "beat")
            except RedisGone:
                self._seen = None
            except RedisRefused as refusal:
                self._seen = None
                _log.warning("recovery_token_refused", every=_TELL_AGAIN, reason=str(refusal))
            await asyncio.sleep(spread(BEAT_SECONDS, _JITTER, random.random))

    async def take(self) -> str:
        async with self._turn:
            try:
                granted = self._holders > 0 or await self._ask("take")
            except (RedisGone, RedisRefused) as error:
                return f"Redis cannot be asked, so only dead processes are restarted: {error}"
            if granted:
                self._holders += 1
                return ""
        assert self._seen is not None, "it answered"
        replicas, out, _ = self._seen
        return f"{out} of {replicas} replicas restart already"

    async def give_back(self) -> None:
        async with self._turn:
            self._holders -= 1
            if not self._holders:
                await self._quietly("beat")

    async def leave(self) -> None:
        """This sidecar goes, or has no such rule any more."""
        async with self._turn:
            self._holders = 0
            await self._quietly("leave")

    def view(self) -> dict[str, int] | None:
        """For people: {replicas, restarting, allowed}; None: Redis does not say."""
        return None if self._seen is None else dict(zip(("replicas", "restarting", "allowed"), self._seen, strict=True))

    async def _quietly(self, verb: str) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._ask(verb)
        except (RedisGone, RedisRefused, TimeoutError):
            pass  # the lease runs out

    async def _ask(self, verb: str) -> bool:
        arguments: list[Any] = [self._me, int(1000 * LEASE_SECONDS), str(SHARE), verb]
        held, *seen = await self._link.script(ASK, self._keys, arguments)
        replicas, out, allowed = (int(one) for one in seen)
        self._seen = replicas, out, allowed
        return bool(held)
