-- End tasks as cancelled, wherever they are; keep their bodies for a while.
-- KEYS[1] any key of the namespace   ARGV[1] prefix, [2] ms to keep the record (0: none), then ids
-- Returns the ids that were ended.

also_when_full()
local keeps = ARGV[2] ~= '0'
local lists, unique = open_lists(), open_unique()
local ended = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local key = task_key(id)
  local task = try('HMGET', key, 'q', 's', 'o')
  local queue, state = task[1], task[2] -- nil where the key holds something that isn't a record
  if queue and (state == 'ready' or state == 'scheduled' or state == 'leased') then
    if state == 'leased' then
      call('ZREM', leased_key(queue), id)
    else
      lists.leave(queue, id, task[3], state)
    end
    unique.free(id, task[3])
    if keeps then
      call('HSET', key, 's', 'cancelled')
      call('HDEL', key, 'r', 'n', 'd')
      call('PEXPIRE', key, ARGV[2])
    else
      call('DEL', key)
    end
    ended[#ended + 1] = id
  end
end
lists.sweep_up()
return ended
