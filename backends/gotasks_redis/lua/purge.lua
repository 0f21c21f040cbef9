-- Remove up to a number of tasks that are ready or scheduled.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, [3] how many at the most
-- Returns how many were removed.

local queue, most = ARGV[2], tonumber(ARGV[3])
local ids = redis.call('RPOP', KEYS[1], most) or {}
if #ids < most then
  local key = scheduled_key(queue)
  for _, id in ipairs(redis.call('ZRANGE', key, 0, most - #ids - 1)) do
    redis.call('ZREM', key, id)
    ids[#ids + 1] = id
  end
end
local removed = 0
for _, id in ipairs(ids) do
  local task = redis.pcall('HMGET', task_key(id), 'q', 's')
  -- not a second mention of a task that is held, done or elsewhere
  if task.err or not task[1] or (task[1] == queue and (task[2] == 'ready' or task[2] == 'scheduled')) then
    redis.call('DEL', task_key(id))
    removed = removed + 1
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', wake_key(queue))
end
return removed
