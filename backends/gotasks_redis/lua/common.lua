-- Put before every other script: names of keys, the server's clock, and the two things that several scripts do.
--
-- All keys of a namespace share one hash tag, so a script stays in one slot of a cluster. A script gets
-- the namespace's prefix as ARGV[1] and builds the names of task keys itself: which tasks a call will
-- meet is known only inside it. KEYS[1] is there to route the call.
--
-- <p>task:<id>          hash: q queue, b body, s state, and while it is leased r receipt, n seq; d deaths
-- <p>ready:<queue>      list of ids, the right end leaves next
-- <p>scheduled:<queue>  sorted set of ids by due time, ms
-- <p>leased:<queue>     sorted set of ids by end of lease, ms
-- <p>wake:<queue>       list, at most one token: something is ready, or due earlier than was known

local prefix = ARGV[1]

local function task_key(id) return prefix .. 'task:' .. id end
local function ready_key(queue) return prefix .. 'ready:' .. queue end
local function scheduled_key(queue) return prefix .. 'scheduled:' .. queue end
local function leased_key(queue) return prefix .. 'leased:' .. queue end
local function wake_key(queue) return prefix .. 'wake:' .. queue end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A full server (maxmemory, noeviction) refuses a script's first write if it may take memory, and none after it. What
-- is under way must go on there, or a backlog that fills the server could never be worked off: so the first write of
-- these scripts is one that takes nothing.
local function also_when_full()
  redis.call('DEL', prefix .. 'nothing')
end

local function wake(queue)
  local key = wake_key(queue)
  if redis.call('LLEN', key) == 0 then
    redis.call('LPUSH', key, '1')
  end
end

-- Schedule a task; a waiting worker has to know if it is now the first to be due.
local function schedule(queue, id, due)
  local key = scheduled_key(queue)
  redis.call('ZADD', key, due, id)
  if redis.call('ZRANGE', key, 0, 0)[1] == id then
    wake(queue)
  end
end

-- What is due goes to the back of the ready list, the earliest first, at most `most` of it.
local function move_due(queue, now, most)
  local key = scheduled_key(queue)
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    redis.call('ZREM', key, id)
    redis.pcall('HSET', task_key(id), 's', 'ready') -- a key of another type is dealt with when it is acquired
    redis.call('LPUSH', ready_key(queue), id)
  end
end
