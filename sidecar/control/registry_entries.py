"""The registry as it stands in Redis: keys, entries, and the script of one beat.

A service is two keys under the namespace's hash tag, so that one script reaches all of a namespace, in a cluster too:
`{shop}:registry:payments:alive`, a sorted set of instance -> end of its lease in milliseconds by Redis's own clock, and
`{shop}:registry:payments:instances`, a hash of instance -> JSON.

What stands there is not trusted. The script reads at most so many instances, skips values beyond 1 KiB unread, and
survives keys of a foreign type; what comes back is decoded strictly, and what makes no sense is counted and left out.
"""

import json

import msgspec

from sidecar.config.address import parse_address
from sidecar.control.redis_link import Script
from sidecar.machines.instances import Instance, Lease, State

MOST_INSTANCES = 512
"""Instances of one service that an answer may name."""

BEAT = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local instance, ttl, details, most = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local faults = {}
local function ask(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    faults[#faults + 1] = answer.err
    return nil
  end
  return answer
end
local first = 1
if instance ~= '' then
  local alive, instances = KEYS[1], KEYS[2]
  first = 3
  if ask('ZADD', alive, now + ttl, instance) and ask('HSET', instances, instance, details) then
    local over = ask('ZRANGEBYSCORE', alive, '-inf', now, 'LIMIT', 0, 100)
    for _, gone in ipairs(over or {}) do
      redis.pcall('ZREM', alive, gone)
      redis.pcall('HDEL', instances, gone)
    end
    redis.pcall('PEXPIRE', alive, 1200000)
    redis.pcall('PEXPIRE', instances, 1200000)
  end
end
local services = {}
for at = first, #KEYS, 2 do
  local found = {}
  local alive = ask('ZRANGEBYSCORE', KEYS[at], '(' .. now, now + 1200000, 'WITHSCORES', 'LIMIT', 0, most)
  for place = 1, #(alive or {}), 2 do
    local name, ends = alive[place], tonumber(alive[place + 1])
    local size = ask('HSTRLEN', KEYS[at + 1], name)
    if not size then alive = nil break end
    local value = ''
    if #name <= 256 and size > 0 and size <= 1024 then value = redis.call('HGET', KEYS[at + 1], name) end
    found[#found + 1] = {string.sub(name, 1, 256), math.floor(ends - now), value}
  end
  services[#services + 1] = alive and found or false
end
local told = {}
for place = 1, math.min(#faults, 3) do told[place] = string.sub(faults[place], 1, 200) end
return {services, told}
""",
    "registry",
)
"""Keys: our own pair (when we register), then a pair per service asked for. Arguments: instance ('' registers nothing),
ttl in milliseconds, its entry, and how many instances to name. Answers [per service [[instance, milliseconds left,
entry], ...] or nil when its keys are not ours, [what Redis complained of]]."""


class Entry(msgspec.Struct, frozen=True):
    """What an instance writes about itself."""

    address: str
    state: State


def keys_of(namespace: str, service: str) -> list[str]:
    """The service's pair of keys."""
    start = f"{{{namespace}}}:registry:{service}"
    return [f"{start}:alive", f"{start}:instances"]


def entry_of(address: str, state: State) -> str:
    """What is written about an instance."""
    return json.dumps({"address": address, "state": state.value})


def read_leases(entries: list[tuple[bytes, int, bytes]]) -> tuple[list[Lease], int]:
    """The entries that make sense, and how many do not."""
    leases, garbage = [], 0
    for name, milliseconds, value in entries:
        try:
            entry = msgspec.json.decode(value, type=Entry)
            address = parse_address(entry.address)
            if address.is_unix:
                raise ValueError("nobody reaches another host's socket")
            instance = Instance(name.decode(), str(address), entry.state)
        except ValueError:  # msgspec's and Unicode's errors are among them
            garbage += 1
        else:
            leases.append(Lease(instance, milliseconds / 1000))
    return leases, garbage
