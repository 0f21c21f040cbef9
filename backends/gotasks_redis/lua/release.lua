-- Put held tasks back: to the front of their queue, to the back of another one, or to wait for a delay.
-- KEYS[1] leased set   ARGV[1] prefix, [2] queue, then for each: id, receipt, seq, body, delay in ms, target queue
-- Returns the receipts that no longer hold, or whose write came too late.

also_when_full()
local queue = ARGV[2]
local lost = {}
local now = now_ms()
local lists = open_lists()
for i = 3, #ARGV, 6 do
  local id, receipt, seq, body = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local delay, target = tonumber(ARGV[i + 4]), ARGV[i + 5]
  local key = task_key(id)
  local task = call('HMGET', key, 'r', 'n', 'o')
  if task[1] ~= receipt or seq < tonumber(task[2]) then
    lost[#lost + 1] = receipt
  else
    call('HSET', key, 'q', target, 'b', body, 's', delay > 0 and 'scheduled' or 'ready')
    call('HDEL', key, 'r', 'n', 'd')
    call('ZREM', KEYS[1], id)
    if delay > 0 then
      schedule(target, id, now + delay)
    elseif target == queue then
      lists.put_front(target, id, task[3])
    else
      lists.put_back(target, id, task[3])
    end
    wake(target)
  end
end
return lost
