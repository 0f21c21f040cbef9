-- Put before the scripts for which what is due is ready.

-- What is due goes to the back of its list, the earliest first, at most `most` of it.
local function move_due(queue, now, most)
  local key = scheduled_key(queue)
  local due = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', '0', most)
  local lists = due[1] and open_lists()
  for _, id in ipairs(due) do
    call('ZREM', key, id)
    -- a key of another type is dealt with when it is acquired
    local text = try('HGET', task_key(id), 'o')
    try('HSET', task_key(id), 's', 'ready')
    lists.put_back(queue, id, type(text) == 'string' and text)
  end
end
