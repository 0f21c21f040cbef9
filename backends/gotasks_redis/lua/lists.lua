-- Put before the scripts that read or change what is ready.
--
-- A list for each priority in use takes a third of the memory of a sorted set, gives a thousand tasks in one call,
-- and what has no priority lies where it always did. What it can't do is to give up an element in its middle without
-- being searched from one end. So a task that leaves out of turn (cancelled, or acquired by its id) leaves its element
-- behind, and `gone` says so: that costs the same however long the list is. Who comes to such an element throws it
-- away. If there are more of them in a list than others, `sweep` goes through it, a part in each call.
--
-- The element is the task's id; <id>#<mark> for a task that comes back while an older element of its own is left
-- behind, so that no two are the same and each has its own place.

local function gone_key(queue, priority)
  return prefix .. 'gone:' .. queue .. ((priority or 0) == 0 and '' or ':' .. priority)
end
local function lists_key(queue) return prefix .. 'lists:' .. queue end

local function open_lists()
  -- A list by its name: '' for priority 0, '1' to '9', and '0f' to '9f' for the front part of one that is being swept.
  local function list_key(queue, name)
    return prefix .. 'ready:' .. queue .. (name == '' and '' or ':' .. name)
  end

  local function list_name(priority) return priority == 0 and '' or tostring(priority) end
  local function priority_of(name) return tonumber(string.sub(name, 1, 1)) or 0 end

  -- The names of the lists that hold something, and '', in the order in which they are emptied.
  local function names_of(queue)
    local names = call('SMEMBERS', lists_key(queue))
    names[#names + 1] = ''
    if #names > 1 then
      table.sort(names, function(a, b) return a > b end)
    end
    return names
  end

  -- After elements have left: forget the lists that are empty, up to the first that isn't. Is there one?
  local function tidy(queue, names)
    for _, name in ipairs(names) do
      if call('EXISTS', list_key(queue, name)) == 1 then
        return true
      elseif #name == 2 then
        call('SREM', lists_key(queue), name)
      elseif #name == 1 then
        call('SREM', lists_key(queue), name)
        call('DEL', gone_key(queue, name))
      end
    end
    call('DEL', wake_key(queue), gone_key(queue))
    return false
  end

  -- Give a task that becomes ready its element. Returns the name of its list, and the element.
  local function place(queue, id, text)
    local priority, mark, key = options(text)
    local gone = gone_key(queue, priority)
    if call('SISMEMBER', gone, id .. mark) == 1 then
      local number = now_ms()
      while call('SISMEMBER', gone, id .. '#' .. number) == 1 do
        number = number + 1
      end
      mark = '#' .. number
      try('HSET', task_key(id), 'o', priority .. mark .. (key and ':' .. key or ''))
    end
    local name = list_name(priority)
    if name ~= '' then
      call('SADD', lists_key(queue), name)
    end
    return name, id .. mark
  end

  -- New elements, by the names of their lists.
  local function push(queue, elements)
    for name, those in pairs(elements) do
      for i = 1, #those, 1000 do
        call('LPUSH', list_key(queue, name), unpack(those, i, math.min(i + 999, #those)))
      end
      wake(queue)
    end
  end

  local function put_back(queue, id, text)
    local name, element = place(queue, id, text)
    call('LPUSH', list_key(queue, name), element)
  end

  local function put_front(queue, id, text)
    local name, element = place(queue, id, text)
    if call('RPUSHX', list_key(queue, priority_of(name) .. 'f'), element) == 0 then
      call('RPUSH', list_key(queue, name), element)
    end
  end

  -- What is this element, which was taken from a list of this priority? Returns 'task', 'gone' (left behind, and
  -- forgotten now), 'again' (a second mention of a task that is elsewhere) or 'stranger'; its id; and its record:
  -- queue, state, options, and the further fields that are named here; nil if its key holds something else.
  -- A task's place isn't compared: somebody who knows no priorities may have put it into another list.
  local function look(queue, priority, element, ...)
    local id = element
    if string.find(element, '#', 1, true) then
      id = string.match(element, '^([%w_-]+)#%d+$') or element
    end
    local task = try('HMGET', task_key(id), 'q', 's', 'o', ...)
    if task.err then
      return 'stranger', id, nil
    end
    if call('SREM', gone_key(queue, priority), element) == 1 then
      return 'gone', id, task
    elseif task[1] == queue and task[2] == 'ready' then
      return 'task', id, task
    end
    return task[1] and id == element and 'again' or 'stranger', id, task
  end

  -- Go through a list and throw away what was left behind, if that is the most of it; look at `most` elements. The list
  -- is swept from its front: what stays goes over to its front part, which is emptied first, so the order is right at
  -- any time. When all of it has gone over, that part is the list.
  local function sweep(queue, priority, most)
    local gone, name = gone_key(queue, priority), list_name(priority)
    local list, front = list_key(queue, name), list_key(queue, priority .. 'f')
    local under_way, length = call('LLEN', front), call('LLEN', list)
    if under_way == 0 and length > 0 and 2 * call('SCARD', gone) <= length then
      return
    end
    while most > 0 do
      local part = call('RPOP', list, math.min(most, 1000))
      if not part then
        break
      end
      most = most - #part
      local left, kept = {}, {}
      for i, is_gone in ipairs(call('SMISMEMBER', gone, unpack(part))) do
        local to = is_gone == 1 and left or kept
        to[#to + 1] = part[i]
      end
      if #left > 0 then
        call('SREM', gone, unpack(left))
      end
      if #kept > 0 then
        call('LPUSH', front, unpack(kept))
        call('SADD', lists_key(queue), priority .. 'f')
      end
    end
    if call('EXISTS', list) == 0 and call('EXISTS', front) == 1 then
      call('RENAME', front, list)
      call('SREM', lists_key(queue), priority .. 'f')
    end
  end

  local left = {} -- by queue and priority: how many

  -- A task leaves out of turn; if it is ready, its element stays. After the last one: sweep_up().
  local function leave(queue, id, text, state)
    local priority, mark = options(text)
    left[queue] = left[queue] or {}
    if state == 'ready' then
      call('SADD', gone_key(queue, priority), id .. mark)
      left[queue][priority] = (left[queue][priority] or 0) + 1
    elseif state == 'scheduled' then
      call('ZREM', scheduled_key(queue), id)
    end
  end

  local function sweep_up()
    for queue, counts in pairs(left) do
      for priority, count in pairs(counts) do
        sweep(queue, priority, 1000 + 4 * count)
      end
      if not tidy(queue, names_of(queue)) and call('EXISTS', scheduled_key(queue)) == 1 then
        wake(queue) -- a worker may have missed that something is due earlier than it knew
      end
    end
  end

  return {
    key = list_key,
    priority = priority_of,
    names = names_of,
    tidy = tidy,
    place = place,
    push = push,
    put_back = put_back,
    put_front = put_front,
    look = look,
    leave = leave,
    sweep_up = sweep_up,
  }
end
