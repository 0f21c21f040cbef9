-- Read records of one queue in one state, the next to leave first.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, [3] state, [4] limit, [5] id to start after, or ''
-- Returns for each: id, body.

local queue, state, limit, after = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local ids = {}
if limit > 0 and state == 'ready' then
  move_due(queue, now_ms(), 1000)
  local last = redis.call('LLEN', KEYS[1]) - 1
  if after ~= '' then
    last = (redis.call('LPOS', KEYS[1], after, 'RANK', -1) or 0) - 1
  end
  if last >= 0 then
    local page = redis.call('LRANGE', KEYS[1], math.max(0, last - limit + 1), last)
    for i = #page, 1, -1 do
      ids[#ids + 1] = page[i]
    end
  end
elseif limit > 0 then
  local key = state == 'scheduled' and scheduled_key(queue) or leased_key(queue)
  local first = 0
  if after ~= '' then
    first = redis.call('ZRANK', key, after)
    first = first and first + 1
  end
  if first then
    ids = redis.call('ZRANGE', key, first, first + limit - 1)
  end
end

local reply = {}
for _, id in ipairs(ids) do
  reply[#reply + 1] = id
  reply[#reply + 1] = redis.call('HGET', task_key(id), 'b') or ''
end
return reply
