"""What Redis runs for the fleet: `machines/fleet/page.py` once more, in Lua, and the beat of all replicas.

Everything of one service lies under one hash tag, so that a script reaches it in a cluster, too, and services spread
over the shards: `{shop:orders}:breaker:payments` is a page, `{shop:orders}:peers` a sorted set of replica -> end of its
presence (negative: it lives, and carries no traffic), `{shop:orders}:configs` one of configuration -> end, and
`{shop:orders}:changes` the channel.

A page is one string: epoch, state, and `fleet_page.Page` as JSON with epochs as text, since Lua's numbers print 14
digits. Read and write happen in one script, the write last and only when something changed; its time to live
is set by changes of state alone. A page of another type, beyond LARGEST bytes or of a newer version is left as it is.
"""

from sidecar.control.redis_link import Script
from sidecar.machines.fleet.page import BARRED_FOR, DEFAULT_QUORUM, LONGEST_STEP, MOST_BARRED, MOST_VOTES
from sidecar.machines.fleet.store import FURTHEST
from sidecar.machines.fleet.words import VERSION

LARGEST = 262_144
KEPT_FOR = 86_400_000
"""Milliseconds that a page outlives its last change, and twice its period."""
PEERS_SHOWN = 64
"""Replicas that people are told by name; those with traffic come first."""
FOREIGN, NEWER = "FOREIGN", "NEWER"
"""How a refusal begins when a page is not ours, or not for this version."""
CLOCK = "redis.call('TIME')"
"""Stands in both scripts once; a test puts its own clock in its place."""

COMMAND = Script(
    """
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local c = cjson.decode(ARGV[3])
local kind = c.type

local size = redis.pcall('STRLEN', KEYS[1])
if type(size) == 'table' or size > $LARGEST then return redis.error_reply('FOREIGN the page is not a page') end
local p = {version = $VERSION, epoch = '0', state = 'closed'}
if size > 0 then
  local text = redis.call('GET', KEYS[1])
  local good
  good, p = pcall(cjson.decode, string.sub(text, string.find(text, '{', 1, true) or 1))
  if not good or type(p) ~= 'table' or type(p.version) ~= 'number' or not tonumber(p.epoch) then
    return redis.error_reply('FOREIGN the page is not a page')
  end
  if p.version > $VERSION then return redis.error_reply('NEWER the page is of version ' .. p.version) end
end
p.epoch = tonumber(p.epoch)
p.since, p.untl, p.period = p.since or 0, p['until'] or -1, p.period or 0
p.reopened, p.successes = p.reopened or 0, p.successes or 0
p.reason, p.detail, p.by = p.reason or '', p.detail or '', p.by or ''
p.votes, p.leases, p.barred = p.votes or {}, p.leases or {}, p.barred or {}
local before, dirty = p.epoch, false
local carrying = redis.pcall('ZCOUNT', KEYS[2], '(' .. now, now + $PRESENCE)
if type(carrying) == 'table' then carrying = $QUORUM end

local function cut(it, lasting)
  if it['until'] > now + lasting then it['until'] = now + lasting dirty = true end
  return it['until'] > now
end
local function count(list)
  local n = 0
  for _ in pairs(list) do n = n + 1 end
  return n
end
local function next_epoch(known)
  local last = math.max(p.epoch, known)
  if now_us > last then return now_us end
  return last + 1 + now_us % 99991 * 7919 % $STEP
end
local function go(state, reason, lasting, known, detail, by)
  p.epoch = next_epoch(known or 0)
  p.state, p.since, p.untl = state, now, lasting == -1 and -1 or now + lasting
  p.period = math.max(0, lasting)
  p.reason, p.detail, p.by = reason, detail or '', by or ''
  p.successes, p.votes = 0, {}
  if state ~= 'open' and state ~= 'half_open' then p.reopened, p.barred = 0, {} end
end
local function forced(state) return state == 'forced_open' or state == 'forced_closed' end

-- what is over
if p.since > now then p.since = now dirty = true end
if p.untl ~= -1 and p.untl > now + p.period then p.untl = now + p.period dirty = true end
for voter, vote in pairs(p.votes) do
  if not cut(vote, vote.lasting) then p.votes[voter] = nil dirty = true end
end
for token, lease in pairs(p.leases) do
  if not cut(lease, lease.ttl) then p.leases[token] = nil dirty = true end
end
if forced(p.state) and p.untl ~= -1 and p.untl <= now then
  go('closed', 'expired', -1, 0, 'the order of ' .. p.by .. ' ended')
end

local did, grants, wait = 'nothing', {}, 0
local function next_free()
  local first
  for _, lease in pairs(p.leases) do
    if not first or lease['until'] < first then first = lease['until'] end
  end
  return first and first - now or 0
end
local function barred(since)
  local mine = false
  for _, holder in ipairs(p.barred) do mine = mine or holder == c.i end
  if not mine or #p.barred >= math.max(carrying, c.k or 0) then return 0 end
  if next(p.leases) then return math.max($BARRED_FOR, since + $BARRED_FOR - now) end
  return math.max(0, since + $BARRED_FOR - now)
end

if kind == 'vote' then
  if c.e < p.epoch then did = 'stale'
  elseif p.state == 'closed' and c.l > 0 and (p.votes[c.i] or count(p.votes) < $MOST_VOTES) then
    p.votes[c.i] = {['until'] = now + c.l, lasting = c.l, reason = c.r or '', detail = c.d or ''}
    dirty, did = true, 'counted'
    local quorum = c.q or 0
    if quorum == 0 then quorum = math.max(1, math.min($QUORUM, math.max(carrying, c.k or 0))) end
    local voters = {}
    for voter in pairs(p.votes) do voters[#voters + 1] = voter end
    if #voters >= quorum then
      table.sort(voters)
      go('open', c.r or '', c.p, c.e, c.d, table.concat(voters, ', ', 1, math.min(8, #voters)))
      did = 'opened'
    end
  end
elseif kind == 'withdraw' then
  if p.votes[c.i] then p.votes[c.i] = nil dirty = true did = 'counted' end
elseif kind == 'ask' then
  local mine = false
  local function held(token) return p.leases[token] and tonumber(p.leases[token].epoch) == p.epoch end
  for _, token in ipairs(c.t) do mine = mine or held(token) end
  local go_on = true
  if mine then go_on = true
  elseif c.e ~= p.epoch then did = 'stale' go_on = false
  elseif p.state == 'open' then
    if p.untl > now and not c.u then did = 'early' wait = p.untl - now go_on = false
    else
      wait = barred(math.min(p.untl, now))
      if wait > 0 then did = 'barred' go_on = false
      elseif count(p.leases) >= c.p then did = 'taken' wait = next_free() go_on = false
      else
        local period = p.period
        go('half_open', 'open_period_over', -1, c.e, '', p.by)
        p.period = period
      end
    end
  elseif p.state ~= 'half_open' then go_on = false
  else
    wait = barred(p.since)
    if wait > 0 then did = 'barred' go_on = false end
  end
  if go_on then
    for _, token in ipairs(c.t) do
      if not mine and not p.leases[token] and count(p.leases) < c.p then
        p.leases[token] = {holder = c.i, ['until'] = now + c.l, ttl = c.l, epoch = string.format('%.0f', p.epoch)}
        dirty = true
      end
      if held(token) then
        grants[#grants + 1] = {t = token, e = string.format('%.0f', p.epoch), l = p.leases[token]['until'] - now}
      end
    end
    if #grants > 0 then did = 'granted' else did = 'taken' wait = next_free() end
  end
elseif kind == 'report' then
  local lease = p.leases[c.t]
  if lease then p.leases[c.t] = nil dirty = true end
  if p.state ~= 'half_open' or c.e ~= p.epoch then did = 'stale'
  elseif not c.o then
    local others = {}
    for _, holder in ipairs(p.barred) do
      if holder ~= c.i then others[#others + 1] = holder end
    end
    while #others >= $MOST_BARRED do table.remove(others, 1) end
    others[#others + 1] = c.i
    local reopened = p.reopened + 1
    go('open', c.r or '', c.p or 0, 0, c.d, p.by)
    p.reopened, p.barred, did = reopened, others, 'opened'
  elseif lease and tonumber(lease.epoch) == p.epoch then
    p.successes, dirty, did = p.successes + 1, true, 'counted'
    if p.successes >= c.n then
      go('closed', 'recovered', -1, 0, string.format('%d trial calls succeeded', p.successes))
      did = 'closed'
    end
  end
elseif kind == 'return' then
  for _, token in ipairs(c.t) do
    if p.leases[token] then p.leases[token] = nil dirty = true did = 'counted' end
  end
elseif kind == 'force' then
  if c.e < p.epoch then did = 'stale'
  else
    local order = forced(c.s)
    go(c.s, order and 'manual' or 'reset', order and (c.l or -1) or -1, c.e, c.d, c.b)
    did = 'ordered'
  end
elseif kind == 'restore' then
  local known = c.r
  local epoch, state, left = known.e or 0, known.s or 'closed', known.l or -1
  local strict = {closed = 0, half_open = 1, open = 1, forced_closed = 2, forced_open = 3}
  local mine, theirs = strict[p.state], strict[state]
  if epoch <= p.epoch or (theirs >= 2 and left == 0) then did = 'stale'
  else
    if state == 'half_open' then left = 0 end
    local ours = p.state == 'half_open' and 0 or p.untl - now
    if mine > theirs or (mine == 1 and theirs == 1 and ours >= left) then p.epoch = next_epoch(epoch)
    elseif state == 'closed' then p.epoch = epoch
    else
      local others, reopened = p.barred, math.max(p.reopened, known.n or 0)
      if state == 'half_open' then state = 'open' end
      go(state, known.r or '', left, epoch, known.d, known.b)
      p.period = math.max(known.p or 0, left, 0)
      if state == 'open' then p.barred, p.reopened = others, reopened end
    end
    did = 'restored'
  end
elseif kind == 'heal' then
  if c.e ~= p.epoch or (p.state ~= 'open' and p.state ~= 'half_open') then did = 'stale'
  else
    go('closed', 'recovered', -1, 0, c.d)
    did = 'closed'
  end
end

local epoch = string.format('%.0f', p.epoch)
local record = {e = epoch, s = p.state, l = p.untl == -1 and -1 or math.max(0, p.untl - now), p = p.period,
                n = p.reopened, r = p.reason, d = p.detail, b = p.by}
local changed = p.epoch ~= before
if changed or dirty then
  local text = epoch .. ' ' .. p.state .. ' ' .. cjson.encode({
    version = $VERSION, epoch = epoch, state = p.state, since = p.since, ['until'] = p.untl, period = p.period,
    reopened = p.reopened, successes = p.successes, reason = p.reason, detail = p.detail, by = p.by,
    votes = next(p.votes) and p.votes or nil, leases = next(p.leases) and p.leases or nil,
    barred = next(p.barred) and p.barred or nil})
  if forced(p.state) and p.untl == -1 then redis.call('SET', KEYS[1], text)
  elseif changed or size == 0 then redis.call('SET', KEYS[1], text, 'PX', $KEPT_FOR + 2 * p.period)
  else redis.call('SET', KEYS[1], text, 'KEEPTTL') end
end
if changed then redis.call('PUBLISH', ARGV[1], cjson.encode({n = ARGV[2], r = record})) end
return cjson.encode({r = record, a = did, c = changed, g = #grants > 0 and grants or nil, w = wait, k = carrying})
""".replace("$LARGEST", str(LARGEST))
    .replace("$VERSION", str(VERSION))
    .replace("$PRESENCE", str(FURTHEST))
    .replace("$BARRED_FOR", str(BARRED_FOR))
    .replace("$MOST_VOTES", str(MOST_VOTES))
    .replace("$MOST_BARRED", str(MOST_BARRED))
    .replace("$QUORUM", str(DEFAULT_QUORUM))
    .replace("$STEP", str(LONGEST_STEP))
    .replace("$KEPT_FOR", str(KEPT_FOR)),
    "fleet",
)
"""Keys: the page, the peers. Arguments: the channel, the breaker's name, the command as JSON. Answers an `Answer`
as JSON; refuses with FOREIGN or NEWER."""

SHOW = Script(
    """
local time = redis.call('TIME')
local now = math.floor((time[1] * 1000000 + time[2]) / 1000)
local peers = redis.pcall('ZREVRANGE', KEYS[1], 0, $PEERS - 1, 'WITHSCORES')
if peers.err then peers = {} end
local pages = {}
for at = 2, #KEYS do
  local size = redis.pcall('STRLEN', KEYS[at])
  if type(size) == 'table' or size > $LARGEST then pages[at - 1] = 'FOREIGN'
  else pages[at - 1] = redis.call('GET', KEYS[at]) or '' end
end
return {now, peers, pages}
""".replace("$LARGEST", str(LARGEST)).replace("$PEERS", str(PEERS_SHOWN)),
    "fleet",
)
"""Keys: the peers, a page per breaker. Answers [now in milliseconds, [replica, score, ...], [page or FOREIGN, ...]].
The score is the end of the replica's presence, negative when it carries no traffic."""

BEAT = Script(
    """
local time = redis.call('TIME')
local now = math.floor((time[1] * 1000000 + time[2]) / 1000)
local me, ttl, carries, config = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local function ask(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' then return 0 end
  return answer
end
local beaten = redis.pcall('ZADD', KEYS[1], carries == '1' and now + ttl or -(now + ttl), me)
if type(beaten) == 'table' then return beaten end
ask('ZREMRANGEBYSCORE', KEYS[1], -now, now)
ask('PEXPIRE', KEYS[1], 3600000)
ask('ZADD', KEYS[2], now + ttl, config)
ask('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
ask('PEXPIRE', KEYS[2], 3600000)
local carrying = ask('ZCOUNT', KEYS[1], '(' .. now, now + $PRESENCE)
local idle = ask('ZCOUNT', KEYS[1], -now - $PRESENCE, '(' .. -now)
local news = {}
for at = 3, #KEYS do
  local known = ARGV[at + 2]
  local size = redis.pcall('STRLEN', KEYS[at])
  if type(size) == 'table' or size > $LARGEST then news[#news + 1] = {at - 3, 'FOREIGN'}
  elseif size == 0 then
    if known ~= '0 closed' then news[#news + 1] = {at - 3, ''} end
  elseif redis.call('GETRANGE', KEYS[at], 0, #known) ~= known .. ' ' then
    news[#news + 1] = {at - 3, redis.call('GET', KEYS[at])}
  end
end
return {now, carrying, carrying + idle, ask('ZCARD', KEYS[2]), news}
""".replace("$LARGEST", str(LARGEST)).replace("$PRESENCE", str(FURTHEST)),
    "fleet_sync",
)
"""Keys: the peers, the configs, a page per breaker. Arguments: this replica, how long it is present from now on, if
it carries traffic (1 or 0), its configuration, and per breaker the epoch and state that it knows. Answers [now in
milliseconds, replicas with traffic, replicas, configurations, [[place, page, '' or FOREIGN], ...] of what differs]."""
