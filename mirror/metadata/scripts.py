"""What Redis does in one step, in Lua; for `mirror.metadata.redis`.

What a script calls ``now`` comes from Redis, so that the clocks of replicas do not matter. Durations are milliseconds.
A Redis that is full refuses a script at its first write, if that needs memory, and never later; so no script begins
with a needless DEL.

Others may have written to Redis, too: what makes no sense there counts as nothing, and is replaced; it stops no script.
Source: https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

_SOUND = """
-- A whole number that a Lua number holds exactly, or nothing.
local function whole(text)
  return text and #text <= 15 and string.match(text, '^%d+$') and tonumber(text) or nil
end
local last = 4294967296 -- of the serials
local function counted(text)
  local number = whole(text)
  return number and number <= last and number or nil
end
-- What is of another kind than we write goes.
local function clean(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
"""

_GENERATION = """
-- The number that replicas watch: the time, in microseconds, at which a tag moved last, or one more than before. So no
-- number comes twice, not even where a failover has lost the last ones.
local function tags_move(key)
  clean(key, 'string')
  local now = redis.call('TIME')
  local number = now[1] * 1000000 + now[2]
  local known = redis.call('GET', key)
  local before = known and string.match(known, '^%d+$') and tonumber(known)
  if before and before < 9e15 then number = math.max(number, before + 1) end -- beyond, a number has no next one
  redis.call('SET', key, string.format('%.0f', number))
end
"""

_FENCE = """
-- Whether the lease, if one is needed, is still held by whoever asks.
local function holds(key, token)
  return token == '' or redis.call('GET', key) == token
end
"""

_ENTRY = """
-- Replace the entry of a tag. Fields that a later release added to the one before it go, too.
local function set(key, version, lasts, digest, media_type, size, at, serial, moving)
  if redis.call('EXISTS', key) == 1 then redis.call('DEL', key) end
  if digest == '' then
    redis.call('HSET', key, 'v', version, 'deleted_at', at, 'serial', serial)
  else
    redis.call('HSET', key, 'v', version, 'digest', digest, 'media_type', media_type, 'size', size,
      'fetched_at', at, 'serial', serial, 'moving', moving)
  end
  redis.call('PEXPIRE', key, lasts)
end
"""

PUT_TAG = f"""
-- KEYS: entry, generation, lease. ARGV: token, version, lasts, digest, media type, size, time, serial.
-- Gives the serial; nothing when the lease is lost.
{_SOUND}{_GENERATION}{_FENCE}{_ENTRY}
if not holds(KEYS[3], ARGV[1]) then return false end
clean(KEYS[1], 'hash')
local before = redis.call('HMGET', KEYS[1], 'v', 'digest', 'serial')
local version = whole(before[1])
local same = version and version <= tonumber(ARGV[2]) and before[2] == ARGV[4]
local serial = math.max(counted(before[3]) or 0, tonumber(ARGV[8]))
if before[1] and not same then serial = math.min(serial + 1, last) end
serial = string.format('%.0f', serial)
if same then
  redis.call('HSET', KEYS[1], 'media_type', ARGV[5], 'size', ARGV[6], 'fetched_at', ARGV[7], 'serial', serial,
    'moving', '0')
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  set(KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], serial, '0')
  tags_move(KEYS[2])
end
return serial
"""

DELETE_TAG = f"""
-- KEYS: entry, generation, lease. ARGV: token, version, lasts, time. Gives the serial; nothing when the lease is lost.
{_SOUND}{_GENERATION}{_FENCE}{_ENTRY}
if not holds(KEYS[3], ARGV[1]) then return false end
clean(KEYS[1], 'hash')
local serial = string.format('%.0f', math.min((counted(redis.call('HGET', KEYS[1], 'serial')) or 0) + 1, last))
set(KEYS[1], ARGV[2], ARGV[3], '', '', '', ARGV[4], serial, '0')
tags_move(KEYS[2])
return serial
"""

ANNOUNCE_MOVE = f"""
-- KEYS: entry, generation, lease. ARGV: token, version, digest. Gives nothing when the lease is lost.
{_SOUND}{_GENERATION}{_FENCE}
if not holds(KEYS[3], ARGV[1]) then return false end
clean(KEYS[1], 'hash')
local before = redis.call('HMGET', KEYS[1], 'v', 'digest')
local version = whole(before[1])
if version and version <= tonumber(ARGV[2]) and before[2] == ARGV[3] then
  redis.call('HSET', KEYS[1], 'moving', '1')
  tags_move(KEYS[2])
end
return 1
"""

MERGE_TAGS = f"""
-- KEYS: generation, entries. ARGV: version, lasts; for each entry digest, media type, size, time, serial, moving.
-- Gives the numbers of the entries that were taken over, from 1.
{_SOUND}{_GENERATION}{_ENTRY}
local taken, moved = {{}}, false
for number = 1, #KEYS - 1 do
  local key, first = KEYS[number + 1], 6 * number - 3
  local digest, at, serial, moving = ARGV[first], ARGV[first + 3], ARGV[first + 4], ARGV[first + 5]
  clean(key, 'hash')
  local before = redis.call('HMGET', key, 'v', 'digest', 'fetched_at', 'deleted_at', 'serial', 'moving')
  local unreadable = (whole(before[1]) or 0) > tonumber(ARGV[1])
  local old_serial, old_at = counted(before[5]) or -1, tonumber(before[4] or before[3]) or 0
  local later = tonumber(serial) > old_serial or (tonumber(serial) == old_serial and tonumber(at) > old_at)
  if not before[1] or (later and not unreadable) then
    local same = before[1] and (before[2] or '') == digest
    -- That it was confirmed elsewhere does not end a move that was announced here.
    if same and before[6] == '1' and tonumber(serial) == old_serial then moving = '1' end
    set(key, ARGV[1], ARGV[2], digest, ARGV[first + 1], ARGV[first + 2], at, serial, moving)
    moved = moved or not same
    table.insert(taken, number)
  end
end
if moved then tags_move(KEYS[1]) end
return taken
"""

_LINK = """
-- What stands of a link: whether it was dropped (nil where nothing stands), its serial, and whether a later release has
-- written it.
local function known(key, version)
  clean(key, 'hash')
  local before = redis.call('HMGET', key, 'v', 'serial', 'dropped_at')
  local at, serial = tonumber(before[3] or 0), counted(before[2] or '0')
  local sound = at and at >= 0 and at < 1e12 and serial and (before[1] or not before[3])
  if not sound then redis.call('DEL', key) end
  if not sound or not before[1] then return nil, 0, false end
  return before[3] and true or false, serial, (whole(before[1]) or 0) > version
end
local function learn(key, version, lasts, media_type, size, serial)
  redis.call('HSET', key, 'v', version)
  if media_type ~= '' then redis.call('HSET', key, 'media_type', media_type) end
  if size ~= '' then redis.call('HSET', key, 'size', size) end
  if serial > 0 then redis.call('HSET', key, 'serial', string.format('%.0f', serial)) end
  redis.call('PEXPIRE', key, lasts)
end
-- The size is for the release before, which knows nothing of this: to it, a link of such a size is none.
local function drop(key, version, lasts, at, serial)
  if redis.call('EXISTS', key) == 1 then redis.call('DEL', key) end
  redis.call('HSET', key, 'v', version, 'dropped_at', at, 'serial', string.format('%.0f', serial), 'size', 'dropped')
  redis.call('PEXPIRE', key, lasts)
end
"""

PUT_LINKS = f"""
-- KEYS: links. ARGV: version, lasts; for each link media type and size, empty where unknown, and serial.
{_SOUND}{_LINK}
for number = 1, #KEYS do
  local key, first = KEYS[number], 3 * number
  local serial = tonumber(ARGV[first + 2])
  local dropped, before, unreadable = known(key, tonumber(ARGV[1]))
  if dropped and not unreadable then serial = math.max(serial, math.min(before + 1, last)) end
  if dropped == false then serial = math.max(serial, before) end
  if dropped or unreadable then redis.call('DEL', key) end
  learn(key, ARGV[1], ARGV[2], ARGV[first], ARGV[first + 1], serial)
end
"""

DROP_LINK = f"""
-- KEYS: link. ARGV: version, lasts, time. Gives the serial.
{_SOUND}{_LINK}
local _, serial = known(KEYS[1], tonumber(ARGV[1]))
drop(KEYS[1], ARGV[1], ARGV[2], ARGV[3], serial)
return string.format('%.0f', serial)
"""

MERGE_LINKS = f"""
-- KEYS: links. ARGV: version, lasts; for each link media type and size, empty where unknown, serial, and the time at
-- which it was dropped, empty where it was not.
{_SOUND}{_LINK}
for number = 1, #KEYS do
  local key, first = KEYS[number], 4 * number - 1
  local serial, at = tonumber(ARGV[first + 2]), ARGV[first + 3]
  local dropped, before, unreadable = known(key, tonumber(ARGV[1]))
  local over = dropped == nil or serial > before or (serial == before and at ~= '' and not dropped)
  if over and not unreadable then
    if at ~= '' then
      drop(key, ARGV[1], ARGV[2], at, serial)
    else
      if dropped then redis.call('DEL', key) end
      learn(key, ARGV[1], ARGV[2], ARGV[first], ARGV[first + 1], serial)
    end
  elseif dropped == false and at == '' and serial == before and not unreadable then
    learn(key, ARGV[1], ARGV[2], ARGV[first], ARGV[first + 1], serial)
  end
end
"""

TAGS_MOVE = f"""
-- KEYS: generation.
{_SOUND}{_GENERATION}
tags_move(KEYS[1])
"""

SET_HASH = """
-- KEYS: a hash. ARGV: lasts; names and values by turns.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""

TOUCH = """
-- KEYS: an access. ARGV: lasts, time.
local before = tonumber(redis.call('GET', KEYS[1]))
if not before or tonumber(ARGV[2]) > before then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) end
"""

ADD_HOLDER = f"""
-- KEYS: holders. ARGV: lasts, at most, address. Those that are not of the past say nothing about when they were there.
{_SOUND}
clean(KEYS[1], 'zset')
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[1]))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""

HOLDERS = """
-- KEYS: holders. ARGV: lasts, at most. Gives the addresses, those first that said so last.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
return redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', string.format('(%.0f', now - ARGV[1]),
  'LIMIT', 0, ARGV[2])
"""
