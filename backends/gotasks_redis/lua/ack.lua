-- End held tasks; keep their final bodies for a while.
-- KEYS[1] leased set   ARGV[1] prefix, [2] ms to keep the record (0: none), then for each: id, receipt, seq, body
-- Returns the receipts that no longer hold, or whose write came too late.

also_when_full()
local keep = tonumber(ARGV[2])
local lost = {}
for i = 3, #ARGV, 4 do
  local id, receipt, seq, body = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local key = task_key(id)
  local task = redis.call('HMGET', key, 'r', 'n')
  if task[1] ~= receipt or seq < tonumber(task[2]) then
    lost[#lost + 1] = receipt
  else
    if keep > 0 then
      redis.call('HSET', key, 'b', body, 's', 'done')
      redis.call('HDEL', key, 'r', 'n', 'd')
      redis.call('PEXPIRE', key, keep)
    else
      redis.call('DEL', key)
    end
    redis.call('ZREM', KEYS[1], id)
  end
end
return lost
