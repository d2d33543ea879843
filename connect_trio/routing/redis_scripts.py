"""The registry's Lua scripts: each reads and writes in one step, so that no two servers act on the same reading.

A place has up to three keys: the lease; `:mark`, the route of who held it last and has not withdrawn; `:former`, those
who held it before and have not withdrawn either. See `Registry` for what they are for.
"""

from __future__ import annotations

from typing import Final

from connect_trio.routing.registry import MAX_FORMER, MAX_SLOTS, STANDING_BY

# A value that is not a lease of ours counts as no lease: it is replaced rather than left in the way. Epochs are
# compared as the decimal digits that they are written in, since Lua's numbers are exact up to 53 bits only.
_PLACES = """
local function older(one, other)
  if #one ~= #other then return #one < #other end
  return one < other
end
local function parse(text)
  if type(text) ~= 'string' then return nil end
  local ok, lease = pcall(cjson.decode, text)
  local epoch = string.match(text, '"epoch":(%d+)')
  if not ok or type(lease) ~= 'table' or not epoch then return nil end
  local since = string.match(text, '"since":([%d.]+)') or '0'
  return {connector = lease.connector, instance = lease.instance, epoch = epoch, since = since}
end
local function parse_former(text)
  local entries = {}
  for epoch, connector, since in string.gmatch(text, '(%d+):(%x+):([%d.]+)') do
    entries[#entries + 1] = {epoch = epoch, connector = connector, since = since}
  end
  return entries
end
local function look(key)
  local texts = redis.call('MGET', key, key .. ':mark', key .. ':former')
  local lease = parse(texts[1])
  local mark = texts[2] == texts[1] and lease or parse(texts[2])
  return {key = key, lease = lease, mark = mark, former = parse_former(texts[3] or '')}
end
local function is(route, connector, epoch)
  return route and route.connector == connector and route.epoch == epoch
end
local function newer_may_be_back(place, epoch, but)
  local function newer(known) return known and known.connector ~= but and older(epoch, known.epoch) end
  if newer(place.mark) then return true end
  for _, known in ipairs(place.former) do
    if newer(known) then return true end
  end
  return false
end
"""

# A Redis user who may not publish must still be able to keep routes: then proxies find out by asking.
_TELL = """
local function tell(channel, sessions)
  if #sessions > 0 then redis.pcall('PUBLISH', channel, table.concat(sessions, ',')) end
end
"""

# The lease goes first: where there is no memory left, nothing is written. KEEPTTL: it is not younger for being shorter.
_HOLD = f"""
local function write_former(place, entries, ...)
  table.sort(entries, function(one, other) return older(other.epoch, one.epoch) end)
  local words = {{}}
  for i = 1, math.min(#entries, {MAX_FORMER}) do
    words[i] = entries[i].epoch .. ':' .. entries[i].connector .. ':' .. entries[i].since
  end
  if #words == 0 then redis.call('DEL', place.key .. ':former')
  else redis.pcall('SET', place.key .. ':former', table.concat(words, ','), ...) end
end
local function hold(place, connector, route, ttl, remember)
  redis.call('SET', place.key, route, 'PX', ttl)
  redis.call('SET', place.key .. ':mark', route, 'PX', remember)
  local last = place.lease or place.mark
  local displaced = last and string.match(tostring(last.connector), '^%x+$') and last.connector ~= connector
  if #place.former == 0 and not displaced then return end
  local entries = {{}}
  for _, known in ipairs(place.former) do
    if known.connector ~= connector then entries[#entries + 1] = known end
  end
  if displaced then
    entries[#entries + 1] = last
    write_former(place, entries, 'PX', remember)
  else
    write_former(place, entries, 'KEEPTTL')
  end
end
"""

# KEYS: places. ARGV: channel, ttl and time to remember in ms, then session, connector, epoch, route for each. For
# each 1: published.
PUBLISH: Final = (
    _PLACES
    + _TELL
    + _HOLD
    + f"""
local function another_serves(key, route)
  local own = parse(route)
  for slot = 0, {MAX_SLOTS - 1} do
    local lease = parse(redis.pcall('GET', string.sub(key, 1, -2) .. slot))
    if lease and lease.instance ~= own.instance and older(own.epoch, lease.epoch) then return true end
  end
  return false
end
-- Whether its connector has said of a newer tunnel since: calls may arrive in another order.
local function late(place, connector, epoch, route)
  local since
  local function later(known)
    if not known or known.connector ~= connector or not older(epoch, known.epoch) then return false end
    since = since or parse(route).since
    return tonumber(known.since) > tonumber(since)
  end
  if later(place.lease) or later(place.mark) then return true end
  for _, known in ipairs(place.former) do
    if later(known) then return true end
  end
  return false
end
local published, changed = {{}}, {{}}
for i, key in ipairs(KEYS) do
  local session, connector, epoch, route = unpack(ARGV, 4 * i, 4 * i + 3)
  local place = look(key)
  local lease = place.lease
  local ok, passed = false, false
  if lease and (older(lease.epoch, epoch) or is(lease, connector, epoch)) then
    ok = true
  elseif not (lease and lease.connector ~= connector) and not late(place, connector, epoch, route) then
    passed = newer_may_be_back(place, epoch, connector)
    if older(epoch, '{STANDING_BY}') then ok = not another_serves(key, route) else ok = not passed end
  end
  published[i] = ok and 1 or 0
  if ok then
    if passed then place.lease, place.mark, place.former = nil, nil, {{}} end
    hold(place, connector, route, ARGV[2], ARGV[3])
    if passed then redis.call('DEL', key .. ':former') end
    changed[#changed + 1] = session
  end
end
tell(ARGV[1], changed)
return published
"""
)

# The same words. For each 1: renewed. Most are as they were, and to extend these takes no memory: a Redis whose memory
# is full keeps the routes that it has.
RENEW: Final = (
    _PLACES
    + _TELL
    + _HOLD
    + """
local renewed, changed = {}, {}
for i, key in ipairs(KEYS) do
  local session, connector, epoch, route = unpack(ARGV, 4 * i, 4 * i + 3)
  renewed[i] = 1
  if redis.pcall('GET', key) == route then
    redis.call('PEXPIRE', key, ARGV[2])
    redis.call('PEXPIRE', key .. ':mark', ARGV[3])
  else
    local place = look(key)
    local lease = place.lease
    local ours = is(lease, connector, epoch)
    local ok
    if lease then ok = ours or older(lease.epoch, epoch) else ok = not newer_may_be_back(place, epoch) end
    if ok then
      hold(place, connector, route, ARGV[2], ARGV[3])
      if not ours then changed[#changed + 1] = session end
    else
      renewed[i] = 0
    end
  end
end
tell(ARGV[1], changed)
return renewed
"""
)

# KEYS: place. ARGV: channel, session, connector, epoch. 1: removed.
WITHDRAW: Final = (
    _PLACES
    + _TELL
    + _HOLD
    + """
local connector, epoch = ARGV[3], ARGV[4]
local place = look(KEYS[1])
local held = is(place.lease, connector, epoch)
if is(place.mark, connector, epoch) then redis.call('DEL', KEYS[1] .. ':mark') end
if held then
  redis.call('DEL', KEYS[1])
  tell(ARGV[1], {ARGV[2]})
end
local entries = {}
for _, known in ipairs(place.former) do
  if not is(known, connector, epoch) then entries[#entries + 1] = known end
end
if #entries < #place.former then write_former(place, entries, 'KEEPTTL') end
return held and 1 or 0
"""
)
