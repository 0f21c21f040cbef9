-- Put before the scripts that take or free unique keys.
--
-- The key's string names a task, and only that task's record says that it's true: it is alive and has this key. So a
-- string whose task is gone, because somebody took its record away, says nothing; the next task with this key has it.

local function open_unique()
  local function unique_key(key) return prefix .. 'unique:' .. key end

  -- The id of the living task that has this unique key, or nil.
  local function owner(key)
    local id = try('GET', unique_key(key))
    if type(id) ~= 'string' then
      return nil
    end
    local task = try('HMGET', task_key(id), 'o', 's')
    if task.err or task[2] ~= 'ready' and task[2] ~= 'leased' and task[2] ~= 'scheduled' then
      return nil
    end
    local _, _, its = options(task[1])
    return its == key and id or nil
  end

  -- A task with these options ends: its unique key is free, unless another has it.
  local function free(id, text)
    local _, _, key = options(text)
    if key and try('GET', unique_key(key)) == id then
      call('DEL', unique_key(key))
    end
  end

  return { key = unique_key, owner = owner, free = free }
end
