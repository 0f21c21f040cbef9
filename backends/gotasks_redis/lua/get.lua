-- Read the records of tasks.
-- KEYS[1] any key of the namespace   ARGV[1] prefix, then ids
-- Returns for each that is known: id, queue, state, body.

local now = now_ms()
local reply = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local task = try('HMGET', task_key(id), 'q', 's', 'b') -- empty where that isn't a record
  local queue, state = task[1], task[2]
  if queue and state then
    if state == 'scheduled' and tonumber(call('ZSCORE', scheduled_key(queue), id) or now) <= now then
      state = 'ready'
    end
    for _, value in ipairs({ id, queue, state, task[3] or '' }) do
      reply[#reply + 1] = value
    end
  end
end
return reply
