-- Store new tasks of one queue.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, then for each task: id, body, delay in ms
-- Returns the ids that are there already; nothing was changed for these.

local queue = ARGV[2]
local there = {}
local ready = {}
local now = now_ms()

for i = 3, #ARGV, 3 do
  local id, body, delay = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local key = task_key(id)
  if redis.call('EXISTS', key) == 1 then
    there[#there + 1] = id
  elseif delay > 0 then
    redis.call('HSET', key, 'q', queue, 'b', body, 's', 'scheduled')
    schedule(queue, id, now + delay)
  else
    redis.call('HSET', key, 'q', queue, 'b', body, 's', 'ready')
    ready[#ready + 1] = id
  end
end

for i = 1, #ready, 1000 do
  redis.call('LPUSH', KEYS[1], unpack(ready, i, math.min(i + 999, #ready)))
end
if #ready > 0 then
  wake(queue)
end
return there
