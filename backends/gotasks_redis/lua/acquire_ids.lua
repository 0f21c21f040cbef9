-- Lease these tasks of one queue, due or not, unless somebody holds them.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, [3] limit, [4] lease in ms, [5] token, then ids
-- Returns for each task taken: id, body, deaths. The i-th one's receipt is the token, a dot and i.

local queue, limit, lease, token = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local leased = leased_key(queue)
local now = now_ms()
local reply = {}
local count = 0

for i = 6, #ARGV do
  local id = ARGV[i]
  local key = task_key(id)
  local task = redis.call('HMGET', key, 'q', 's', 'b', 'd')
  local state, deaths = task[2], tonumber(task[4]) or 0
  local free = task[1] == queue and count < limit
  if state == 'leased' then
    local ends = tonumber(redis.call('ZSCORE', leased, id) or 0)
    free = free and ends <= now
    deaths = deaths + 1
  elseif state ~= 'ready' and state ~= 'scheduled' then
    free = false
  end
  if free then
    if state == 'ready' then
      redis.call('LREM', KEYS[1], -1, id)
    elseif state == 'scheduled' then
      redis.call('ZREM', scheduled_key(queue), id)
    end
    count = count + 1
    redis.call('HSET', key, 's', 'leased', 'r', token .. '.' .. count, 'n', 0, 'd', deaths)
    redis.call('ZADD', leased, now + lease, id)
    reply[#reply + 1] = id
    reply[#reply + 1] = task[3] or ''
    reply[#reply + 1] = tostring(deaths)
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', wake_key(queue))
end
return reply
