-- Put before every other script: names of keys, the server's clock, and what most scripts do.
--
-- A function that is defined costs each call a little, used or not. So what tasks without priority and unique key never
-- need is inside functions of its own (open_lists, open_unique), which are called when something does.
--
-- All keys of a namespace share one hash tag, so a script stays in one slot of a cluster. A script gets
-- the namespace's prefix as ARGV[1] and builds the names of task keys itself: which tasks a call will
-- meet is known only inside it. KEYS[1] is there to route the call.
--
-- <p>task:<id>          hash: q queue, b body, s state, and while it is leased r receipt, n seq; d deaths; o options,
--                       if it has any (see below)
-- <p>ready:<queue>      list of elements (see lists.lua), the right end leaves next: those of priority 0
-- <p>ready:<queue>:<x>  the same for other priorities, and for the front part of a list (see lists.lua)
-- <p>lists:<queue>      set of the <x> whose lists hold something; not there as long as there is one list only
-- <p>gone:<queue>       set of elements that are in the list still, though their tasks have left out of turn: those of
--                       priority 0
-- <p>gone:<queue>:<x>   the same for other priorities
-- <p>scheduled:<queue>  sorted set of ids by due time, ms
-- <p>leased:<queue>     sorted set of ids by end of lease, ms
-- <p>unique:<key>       string: the id of the task that has this unique key
-- <p>wake:<queue>       list, at most one token: something is ready, or due earlier than was known

local call, try = redis.call, redis.pcall
local prefix = ARGV[1]

local function task_key(id) return prefix .. 'task:' .. id end
local function scheduled_key(queue) return prefix .. 'scheduled:' .. queue end
local function leased_key(queue) return prefix .. 'leased:' .. queue end
local function wake_key(queue) return prefix .. 'wake:' .. queue end

-- The server's clock, in ms. A number that is an argument of a call takes longer than a text: so what is passed often,
-- or in most calls, is made a text once.
local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A full server (maxmemory, noeviction) refuses a script's first write if it may take memory, and none after it. What
-- is under way must go on there, or a backlog that fills the server could never be worked off: so the first write of
-- these scripts is one that takes nothing.
local function also_when_full()
  call('DEL', prefix .. 'nothing')
end

local function wake(queue)
  local key = wake_key(queue)
  if call('LLEN', key) == 0 then
    call('LPUSH', key, '1')
  end
end

-- Schedule a task; a waiting worker has to know if it is now the first to be due.
local function schedule(queue, id, due)
  local key = scheduled_key(queue)
  call('ZADD', key, due, id)
  if call('ZRANGE', key, 0, 0)[1] == id then
    wake(queue)
  end
end

-- Options are <priority>[#<mark>][:<unique key>]. Most tasks have none, and neither a field nor an argument for them.
-- Returns the priority, the mark with its # or '', and the unique key or nil.
local function options(text)
  if not text then
    return 0, ''
  end
  local priority, mark, colon, key = string.match(text, '^(%d)([#%d]*)(:?)(.*)$')
  return tonumber(priority) or 0, mark or '', colon == ':' and key or nil
end
