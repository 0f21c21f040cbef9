-- Lease tasks of one queue: first those that a lease left behind, then ready ones.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, [3] limit, [4] lease in ms, [5] token of this call
-- Returns the ms until something becomes eligible by time alone (-1: nothing will), then for each task:
-- id, body, deaths. The i-th one's receipt is the token, a dot and i.

local queue, limit, lease, token = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local leased = leased_key(queue)
local now = now_ms()
local reply = { -1 }
local count = 0

local function take(id, body, deaths)
  count = count + 1
  redis.call('HSET', task_key(id), 's', 'leased', 'r', token .. '.' .. count, 'n', 0, 'd', deaths)
  redis.call('ZADD', leased, now + lease, id)
  reply[#reply + 1] = id
  reply[#reply + 1] = body
  reply[#reply + 1] = tostring(deaths)
end

-- Read a record. nil: its key holds something that isn't one, and raising here would lose what was taken before.
local function read(id, ...)
  local task = redis.pcall('HMGET', task_key(id), ...)
  return not task.err and task or nil
end

-- An element without a record: an id whose record was evicted, or something that gotasks didn't write. Give it a
-- record, so that a worker sees it and puts it where a person sees it.
local function adopt(element, deaths, taken)
  local id, body = element, ''
  if taken or #element > 64 or not string.find(element, '^[%w_-]+$') then
    id, body = 'foreign-' .. string.gsub(token, '%.', '-') .. '-' .. count, element
  end
  redis.call('HSET', task_key(id), 'q', queue, 'b', body)
  take(id, body, deaths)
end

also_when_full()
move_due(queue, now, math.max(limit, 100))

for _, id in ipairs(redis.call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', 0, limit)) do
  local task = read(id, 'b', 'd')
  if task then
    redis.call('HSET', task_key(id), 'q', queue)
    take(id, task[1] or '', (tonumber(task[2]) or 0) + 1)
  else
    redis.call('ZREM', leased, id)
    adopt(id, 1, true)
  end
end

if count < limit then
  for _, element in ipairs(redis.call('RPOP', KEYS[1], limit - count) or {}) do
    local task = read(element, 'b', 'q', 's')
    if not task or not task[2] then
      adopt(element, 0, not task)
    elseif task[2] == queue and task[3] == 'ready' then
      take(element, task[1] or '', 0)
    end -- else a second mention of a task that is elsewhere: nothing is lost with it
  end
end

if redis.call('LLEN', KEYS[1]) > 0 then
  wake(queue) -- for another worker: this one has what it can hold
else
  redis.call('DEL', wake_key(queue))
end

if count == 0 then
  for _, key in ipairs({ scheduled_key(queue), leased }) do
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then
      local left = math.max(tonumber(first[2]) - now, 1)
      if reply[1] < 0 or left < reply[1] then
        reply[1] = left
      end
    end
  end
end
return reply
