-- Store new tasks of one queue.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue, then for each task: id, body, delay in ms[:options]
-- Returns for each that isn't stored, because its id or its unique key is there: its id, and the id that is there.

local queue = ARGV[2]
local there = {}
local ready = {}
local now -- asked for when something is delayed
local lists = call('EXISTS', gone_key(queue)) == 1 and open_lists()
local others = lists and {} -- elements by the names of their lists; the other lists than `ready`
local unique

for i = 3, #ARGV, 3 do
  local id, body, delay = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local key = task_key(id)
  local known = call('EXISTS', key) == 1 and id
  local text, own
  if not delay then
    delay, text, own = string.match(ARGV[i + 2], '^(%d+):(%d:?(.*))$')
    delay, own = tonumber(delay), #text > 1 and own
    lists, others, unique = lists or open_lists(), others or {}, unique or open_unique()
    known = known or own and unique.owner(own)
  end
  if known then
    there[#there + 1] = id
    there[#there + 1] = known
  else
    call('HSET', key, 'q', queue, 'b', body, 's', delay > 0 and 'scheduled' or 'ready')
    if text then
      call('HSET', key, 'o', text)
    end
    if own then
      call('SET', unique.key(own), id)
    end
    if delay > 0 then
      now = now or now_ms()
      schedule(queue, id, now + delay)
    elseif lists then
      local name, element = lists.place(queue, id, text)
      if name == '' then
        ready[#ready + 1] = element
      else
        others[name] = others[name] or {}
        table.insert(others[name], element)
      end
    else
      ready[#ready + 1] = id
    end
  end
end

for i = 1, #ready, 1000 do
  call('LPUSH', KEYS[1], unpack(ready, i, math.min(i + 999, #ready)))
end
if #ready > 0 then
  wake(queue)
end
if lists then
  lists.push(queue, others)
end
return there
