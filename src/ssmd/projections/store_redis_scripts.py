"""Lua run by the Redis server: each script is one atomic step of `store_redis`.

KEYS[1] is the projection's keyspace P, `{env}:projection:{name}`:

    P:roles            hash: current | previous | shadow -> generation
    P:{generation}:meta    hash: version, position, digest, rows, skipped
    P:{generation}:rows    hash: key -> value
    P:{generation}:index   sorted set of the keys, all of score 0, for scans by prefix

A generation is whole when its rows and index hold as many members as its meta says; any other is treated as absent
(a server may have evicted a part of it).
"""

from typing import Final

_PRELUDE: Final = """
local P = KEYS[1]
local roles = P .. ':roles'
local CHUNK = 2000
local function stamp(generation)
  if not generation then return false end
  local at = P .. ':' .. generation
  local meta = redis.call('HMGET', at .. ':meta', 'version', 'position', 'digest', 'rows', 'skipped')
  if not meta[1] then return false end
  local count = tonumber(meta[4])
  if redis.call('HLEN', at .. ':rows') ~= count or redis.call('ZCARD', at .. ':index') ~= count then return false end
  return {generation, meta[1], meta[2], meta[3], meta[4], meta[5]}
end
local function is_at(found, position, digest)
  return found and found[3] == position and found[4] == digest
end
local function drop(generation)
  if generation then
    local at = P .. ':' .. generation
    redis.call('UNLINK', at .. ':meta', at .. ':rows', at .. ':index')
  end
end
local function conflict(what) return redis.error_reply('SSMDCONFLICT ' .. what) end
"""

STAMPS: Final = (
    _PRELUDE
    + """
local result = {}
for _, role in ipairs({'current', 'previous', 'shadow'}) do
  local found = stamp(redis.call('HGET', roles, role))
  if found then
    result[#result + 1] = role
    for _, value in ipairs(found) do result[#result + 1] = value end
  end
end
return result
"""
)
"""-> flat (role, generation, version, position, digest, rows, skipped)..."""

BEGIN: Final = (
    _PRELUDE
    + """
drop(redis.call('HGET', roles, 'shadow'))
redis.call('HSET', roles, 'shadow', ARGV[1])
redis.call('HSET', P .. ':' .. ARGV[1] .. ':meta',
  'version', ARGV[2], 'position', '0', 'digest', ARGV[3], 'rows', '0', 'skipped', '0')
return 1
"""
)
"""ARGV: generation, version, digest of nothing."""

COMMIT: Final = (
    _PRELUDE
    + """
local generation = ARGV[1]
if redis.call('HGET', roles, 'current') ~= generation and redis.call('HGET', roles, 'shadow') ~= generation then
  return conflict('generation ' .. generation .. ' was replaced')
end
if not is_at(stamp(generation), ARGV[2], ARGV[3]) then return conflict('generation ' .. generation .. ' moved') end
local at = P .. ':' .. generation
local keys, sizes, values = cmsgpack.unpack(ARGV[7]), cmsgpack.unpack(ARGV[8]), ARGV[9]
local new, added, removed = tonumber(ARGV[10]), cmsgpack.unpack(ARGV[11]), cmsgpack.unpack(ARGV[12])
local from = 1
for i = 1, #keys, CHUNK do
  local puts = {}
  for j = i, math.min(i + CHUNK - 1, #keys) do
    puts[#puts + 1] = keys[j]
    puts[#puts + 1] = string.sub(values, from, from + sizes[j] - 1)
    from = from + sizes[j]
  end
  redis.call('HSET', at .. ':rows', unpack(puts))
end
local function index(some, count)
  for i = 1, count, CHUNK do
    local scored = {}
    for j = i, math.min(i + CHUNK - 1, count) do
      scored[#scored + 1] = '0'
      scored[#scored + 1] = some[j]
    end
    redis.call('ZADD', at .. ':index', unpack(scored))
  end
end
index(keys, new)
index(added, #added)
for i = 1, #removed, CHUNK do
  redis.call('HDEL', at .. ':rows', unpack(removed, i, math.min(i + CHUNK - 1, #removed)))
  redis.call('ZREM', at .. ':index', unpack(removed, i, math.min(i + CHUNK - 1, #removed)))
end
local rows = redis.call('HLEN', at .. ':rows')
redis.call('HSET', at .. ':meta', 'position', ARGV[4], 'digest', ARGV[5], 'rows', rows, 'skipped', ARGV[6])
return rows
"""
)
"""ARGV: generation, position, digest; new position, digest, skipped; then of the puts the keys, the sizes of the values, and
the values one behind the other; how many of the first keys are new; what other keys are; the keys removed. Lists are in
msgpack, each one argument: a client takes a microsecond for an argument, whatever its size."""

FETCH: Final = (
    _PRELUDE
    + """
if not is_at(stamp(ARGV[1]), ARGV[2], ARGV[3]) then return conflict('generation ' .. ARGV[1] .. ' moved') end
local result = {}
for i = 4, #ARGV, CHUNK do
  local values = redis.call('HMGET', P .. ':' .. ARGV[1] .. ':rows', unpack(ARGV, i, math.min(i + CHUNK - 1, #ARGV)))
  for _, value in ipairs(values) do result[#result + 1] = value end
end
return result
"""
)
"""ARGV: generation, position, digest, keys... -> values"""

_ROWS: Final = """
local function append(result, generation, keys)
  for i = 1, #keys, CHUNK do
    local last = math.min(i + CHUNK - 1, #keys)
    local values = redis.call('HMGET', P .. ':' .. generation .. ':rows', unpack(keys, i, last))
    for j = i, last do
      if values[j - i + 1] then
        result[#result + 1] = keys[j]
        result[#result + 1] = values[j - i + 1]
      end
    end
  end
end
"""

READ: Final = (
    _PRELUDE
    + _ROWS
    + """
local found = stamp(redis.call('HGET', roles, 'current'))
if not found then return {} end
local keys, count = {}, tonumber(ARGV[1])
for i = 2, 1 + count do keys[#keys + 1] = ARGV[i] end
append(found, found[1], keys)
for i = 2 + count, #ARGV do
  local index = P .. ':' .. found[1] .. ':index'
  append(found, found[1], redis.call('ZRANGEBYLEX', index, '[' .. ARGV[i], '(' .. ARGV[i] .. '\\127'))
end
return found
"""
)
"""ARGV: number of keys, keys..., prefixes... -> flat stamp, then (key, value)...; empty = no whole current generation"""

SCAN: Final = (
    _PRELUDE
    + _ROWS
    + """
if not is_at(stamp(ARGV[1]), ARGV[2], ARGV[3]) then return conflict('generation ' .. ARGV[1] .. ' moved') end
local result = {}
append(result, ARGV[1],
  redis.call('ZRANGEBYLEX', P .. ':' .. ARGV[1] .. ':index', ARGV[4], '+', 'LIMIT', 0, tonumber(ARGV[5])))
return result
"""
)
"""ARGV: generation, position, digest, lower bound in ZRANGEBYLEX form, limit -> (key, value)..."""

SWAP: Final = (
    _PRELUDE
    + """
local shadow, over = ARGV[1], ARGV[4]
if redis.call('HGET', roles, 'shadow') ~= shadow or not is_at(stamp(shadow), ARGV[2], ARGV[3]) then
  return conflict('generation ' .. shadow .. ' moved')
end
local named = redis.call('HGET', roles, 'current')
local current = stamp(named)
if over == '' then
  if current then return conflict('there is a current generation ' .. current[1]) end
  drop(named)
elseif not current or current[1] ~= over then
  return conflict('generation ' .. over .. ' is not the current one')
elseif not is_at(current, ARGV[5], ARGV[6]) and tonumber(current[3]) > tonumber(ARGV[2]) then
  return conflict('generation ' .. over .. ' is at ' .. current[3] .. ', past the ' .. ARGV[2] .. ' of ' .. shadow)
end
drop(redis.call('HGET', roles, 'previous'))
redis.call('DEL', roles)
redis.call('HSET', roles, 'current', shadow)
if over ~= '' then redis.call('HSET', roles, 'previous', over) end
return 1
"""
)
"""ARGV: shadow generation, position, digest; generation to replace ("" = none), its position, digest."""

ROLLBACK: Final = (
    _PRELUDE
    + """
local previous = redis.call('HGET', roles, 'previous')
local found = stamp(previous)
if not found then return {} end
local current = redis.call('HGET', roles, 'current')
redis.call('HSET', roles, 'current', previous)
if current then redis.call('HSET', roles, 'previous', current) else redis.call('HDEL', roles, 'previous') end
return found
"""
)
"""-> flat stamp now current; empty = nothing changed"""
