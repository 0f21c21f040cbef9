-- Remove tasks that are ready or scheduled, looking at up to a number of them.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, [3] how many at the most
-- Returns how many were removed, and how many were looked at.

local queue, most = ARGV[2], tonumber(ARGV[3])
local lists, unique = open_lists(), open_unique()
local removed, seen = 0, 0

local function remove(id, text)
  unique.free(id, text)
  call('DEL', task_key(id))
  removed = removed + 1
end

local names = lists.names(queue)
for _, name in ipairs(names) do
  local elements = seen < most and call('RPOP', lists.key(queue, name), most - seen) or {}
  seen = seen + #elements
  for _, element in ipairs(elements) do
    local what, id, task = lists.look(queue, lists.priority(name), element)
    if what == 'task' then
      remove(id, task[3])
    elseif what == 'stranger' then
      remove(element)
    end -- else what was left behind, or a second mention of a task that is held, done or elsewhere
  end
end
if seen < most then
  local key = scheduled_key(queue)
  for _, id in ipairs(call('ZRANGE', key, 0, most - seen - 1)) do
    call('ZREM', key, id)
    seen = seen + 1
    local task = try('HMGET', task_key(id), 'q', 's', 'o')
    if task.err or not task[1] or task[1] == queue and (task[2] == 'ready' or task[2] == 'scheduled') then
      remove(id, task[3])
    end
  end
end
lists.tidy(queue, names)
return { removed, seen }
