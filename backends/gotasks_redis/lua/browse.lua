-- Read records of one queue in one state, the next to leave first.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, [3] state, [4] limit, [5] id to start after, or ''
-- Returns for each: id, body.

local queue, state, limit, after = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local ids = {}
local lists = open_lists()

-- Where the element of the ready task `after` is: the number of its list among these, and its index there; or nil.
local function find(names)
  local task = try('HMGET', task_key(after), 'q', 's', 'o')
  if task.err or task[1] and (task[1] ~= queue or task[2] ~= 'ready') then
    return nil
  end
  local priority, mark = options(task[3])
  if call('SISMEMBER', gone_key(queue, priority), after .. mark) == 1 then
    return nil
  end
  for i, name in ipairs(names) do
    local index = call('LPOS', lists.key(queue, name), after .. mark, 'RANK', -1)
    if index and lists.priority(name) == priority then
      return i, index
    end
  end
  return nil
end

-- The ids in a list, from an index on towards its left end, until there are enough.
local function collect(name, last)
  local gone = gone_key(queue, lists.priority(name))
  while last >= 0 and #ids < limit do
    local first = math.max(0, last - math.min(math.max(limit - #ids, 100), 1000) + 1)
    local elements = call('LRANGE', lists.key(queue, name), first, last)
    local is_gone = call('SMISMEMBER', gone, unpack(elements))
    for i = #elements, 1, -1 do
      if is_gone[i] == 0 and #ids < limit then
        ids[#ids + 1] = string.match(elements[i], '^([%w_-]+)#%d+$') or elements[i]
      end
    end
    last = first - 1
  end
end

if limit > 0 and state == 'ready' then
  move_due(queue, now_ms(), '1000')
  local names = lists.names(queue)
  local start, last = 1, nil
  if after ~= '' then
    start, last = find(names)
    last = last and last - 1
  end
  for i = start or #names + 1, #names do
    collect(names[i], last or call('LLEN', lists.key(queue, names[i])) - 1)
    last = nil
  end
elseif limit > 0 then
  local key = state == 'scheduled' and scheduled_key(queue) or leased_key(queue)
  -- what is due is ready
  local due = state == 'scheduled' and call('ZCOUNT', key, '-inf', now_ms()) or 0
  local first = due
  if after ~= '' then
    local rank = call('ZRANK', key, after)
    first = rank and rank >= due and rank + 1
  end
  if first then
    ids = call('ZRANGE', key, first, first + limit - 1)
  end
end

local reply = {}
for _, id in ipairs(ids) do
  reply[#reply + 1] = id
  local body = try('HGET', task_key(id), 'b')
  reply[#reply + 1] = type(body) == 'string' and body or '' -- nothing where that isn't a record
end
return reply
