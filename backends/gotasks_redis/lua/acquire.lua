-- Lease tasks of one queue, the higher priority first; within one those that a lease left behind, then ready ones.
-- KEYS[1] ready list   ARGV[1] prefix, and see lease.lua
-- Returns the ms until something becomes eligible by time alone (-1: nothing will, -2: call again, there is more to
-- look at), then what take() says of each task.

-- So many elements are looked at in one call, and among so many leases that are over the highest priority goes first:
-- other clients of the server aren't kept waiting, whatever lies there.
local MOST_ELEMENTS, MOST_OVER = 2000, '1000'

local function open_others(lists)
  -- An element without a record: an id whose record was evicted, or something that gotasks didn't write. Give it a
  -- record, so that a worker sees it and puts it where a person sees it.
  local function adopt(element, deaths, taken)
    local id, body = element, ''
    if taken or #element > 64 or not string.find(element, '^[%w_-]+$') then
      id, body = 'foreign-' .. string.gsub(token, '%.', '-') .. '-' .. count, element
    end
    call('HSET', task_key(id), 'q', queue, 'b', body)
    take(id, body, deaths)
  end

  -- An element that isn't simply the id of a task without options.
  local function take_element(priority, element)
    local what, id, task = lists.look(queue, priority, element, 'b')
    if what == 'task' then
      take(id, task[4] or '', '0', task[3])
    elseif what == 'stranger' then
      adopt(element, '0', not task)
    end -- else nothing is lost with it
  end

  -- Raising here would lose what was taken before: so what isn't a record is put aside.
  local function take_over(id)
    local task = try('HMGET', task_key(id), 'b', 'd', 'o')
    if task.err then
      call('ZREM', leased, id)
      adopt(id, '1', true)
    else
      call('HSET', task_key(id), 'q', queue)
      take(id, task[1] or '', tostring((tonumber(task[2]) or 0) + 1), task[3])
    end
  end

  -- Put the ids of tasks whose leases are over in order: the higher priority first, then the earlier end. Returns their
  -- priorities by id.
  local function by_priority(ids)
    local places, priorities = {}, {}
    for i, id in ipairs(ids) do
      local text = try('HGET', task_key(id), 'o')
      places[id], priorities[id] = i, options(type(text) == 'string' and text)
    end
    table.sort(ids, function(a, b)
      if priorities[a] ~= priorities[b] then
        return priorities[a] > priorities[b]
      end
      return places[a] < places[b]
    end)
    return priorities
  end

  return { take_element = take_element, take_over = take_over, by_priority = by_priority }
end

also_when_full()
local now_text = string.format('%.0f', now)
move_due(queue, now_text, limit > 100 and ARGV[3] or '100')

local over = call('ZRANGEBYSCORE', leased, '-inf', now_text, 'LIMIT', '0', MOST_OVER)
local names = call('SMEMBERS', lists_key(queue))
local lists, others, priorities -- opened when something needs them
if over[1] or names[1] then
  lists = open_lists()
  others = open_others(lists)
  priorities = others.by_priority(over)
  names = lists.names(queue)
else
  names[1] = ''
end

reply[1] = -1
local next_over, seen = 1, 0
for _, name in ipairs(names) do
  local priority, list = 0, KEYS[1]
  if lists then
    priority, list = lists.priority(name), lists.key(queue, name)
    while count < limit and over[next_over] and priorities[over[next_over]] >= priority do
      others.take_over(over[next_over])
      next_over = next_over + 1
    end
  end
  local most, elements = 0, {}
  while #elements == most and count < limit and seen < MOST_ELEMENTS do
    most = limit - count
    elements = call('RPOP', list, most) or {}
    seen = seen + #elements
    for _, element in ipairs(elements) do
      local task = try('HMGET', task_key(element), 'q', 's', 'o', 'b')
      if task[1] == queue and task[2] == 'ready' and not task[3] and priority == 0 then
        take(element, task[4] or '', '0')
      else
        lists = lists or open_lists()
        others = others or open_others(lists)
        others.take_element(priority, element)
      end
    end
  end
end

local more
if lists then
  more = lists.tidy(queue, names)
else
  more = call('EXISTS', KEYS[1]) == 1
  if not more then
    call('DEL', wake_key(queue))
  end
end
if more then
  wake(queue) -- for another worker: this one has what it can hold
end

if count == 0 and more then
  reply[1] = -2
elseif count == 0 then
  for _, key in ipairs({ scheduled_key(queue), leased }) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then
      local left = math.max(tonumber(first[2]) - now, 1)
      if reply[1] < 0 or left < reply[1] then
        reply[1] = left
      end
    end
  end
end
return reply
