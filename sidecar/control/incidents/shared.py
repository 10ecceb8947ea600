"""One incident of one cause, however many replicas see it: agreed in Redis, when there is one.

Every replica keeps its own incident with its own story. Of those that share a fingerprint one *leads*: only it tells
people, under an id that all of them use. A hash per fingerprint under the service's tag,
`{shop:orders}:incident:DIGEST`, holds that id, the leader, whether people were told, who acknowledged or resolved, and
who is in (member -> end in milliseconds by Redis's own clock). A beat every BEAT_SECONDS renews a place. Who leaves or
dies while it leads is followed by the next who beats; it tells the opening only if nobody did. The last to leave tells
the end. What somebody says to one replica holds for all of them with their next beat.

Where Redis cannot be asked everybody leads: rather told twice than not at all.
"""

import asyncio
import hashlib

from sidecar.control.incidents.agreement import LEASE_SECONDS, Standing
from sidecar.control.redis_link import RedisGone, RedisLink, RedisRefused, Script
from sidecar.machines.incidents.incident import Incident
from sidecar.runtime.logs import Log

ASK_SECONDS = 1.0
"""Nobody is told later than this because of us."""
_TELL_AGAIN = 3600.0

ASK = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key, verb, me, mine, said = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[6]
local lease, keep = tonumber(ARGV[4]), tonumber(ARGV[5])
local known, live, count = {}, {}, 0
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  local member = string.match(all[i], '^m:(.*)$')
  if not member then
    known[all[i]] = all[i + 1]
  elseif member ~= me then
    local ends = tonumber(all[i + 1])
    if ends > now and ends <= now + lease then
      live[member] = true
      count = count + 1
    else
      redis.call('HDEL', key, all[i])
    end
  end
end
local function put(name, value)
  known[name] = value
  redis.call('HSET', key, name, value)
end
if verb == 'leave' then
  redis.call('HDEL', key, 'm:' .. me)
  if known.leader == me then put('leader', '') end
else
  if verb == 'open' or verb == 'reopen' then
    put('resolved', '')
    if count == 0 or verb == 'reopen' then
      put('acked', '')
      put('told', '')
    end
  end
  if verb == 'acked' or verb == 'resolved' or verb == 'told' then put(verb, said) end
  redis.call('HSET', key, 'm:' .. me, now + lease)
  count = count + 1
  live[me] = true
  if not known.id then put('id', mine) end
  if not live[known.leader or ''] then put('leader', me) end
end
redis.call('PEXPIRE', key, keep)
return {known.id or mine, known.leader or '', count, known.told or '', known.acked or '', known.resolved or ''}
""",
    "incident",
)

_log = Log(__name__)


class SharedCauses:
    """This sidecar among the replicas of its service; `me` is its name there, the same after a restart."""

    def __init__(self, link: RedisLink, namespace: str, service: str, me: str) -> None:
        self.me = me
        self._link = link
        self._prefix = f"{{{namespace}:{service}}}:incident:"

    async def ask(self, verb: str, incident: Incident, keep: float, said: str = "") -> Standing | None:
        """Say `open`, `reopen`, `hold`, `told`, `acked`, `resolved` or `leave`; None: Redis cannot be asked."""
        digest = hashlib.sha256(incident.fingerprint.encode()).hexdigest()[:24]
        milliseconds = (int(1000 * LEASE_SECONDS), int(1000 * max(keep, LEASE_SECONDS)))
        try:
            async with asyncio.timeout(ASK_SECONDS):
                known = incident.shared_id or incident.id  # should Redis have forgotten it
                answer = await self._link.script(
                    ASK, [self._prefix + digest], [verb, self.me, known, *milliseconds, said]
                )
        except (RedisGone, TimeoutError):
            return None
        except RedisRefused as refusal:
            _log.warning("incident_not_shared", every=_TELL_AGAIN, reason=str(refusal))
            return None
        texts = [part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in answer]
        return Standing(texts[0], texts[1], int(texts[2]), *texts[3:6])
