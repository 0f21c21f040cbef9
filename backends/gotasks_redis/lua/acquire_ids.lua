-- Lease these tasks of one queue, due or not, unless somebody holds them.
-- KEYS[1] ready list   ARGV[1] prefix, see lease.lua, and from [6] on ids
-- Returns what take() says of each task.

also_when_full()
local lists = open_lists()
for i = 6, #ARGV do
  local id = ARGV[i]
  local task = try('HMGET', task_key(id), 'q', 's', 'b', 'd', 'o') -- empty where that isn't a record
  local state, deaths = task[2], tonumber(task[4]) or 0
  local free = task[1] == queue and count < limit
  if state == 'leased' then
    local ends = tonumber(call('ZSCORE', leased, id) or 0)
    free = free and ends <= now
    deaths = deaths + 1
  elseif state ~= 'ready' and state ~= 'scheduled' then
    free = false
  end
  if free then
    lists.leave(queue, id, task[5], state)
    take(id, task[3] or '', tostring(deaths), task[5])
  end
end
lists.sweep_up()
return reply
