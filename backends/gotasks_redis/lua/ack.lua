-- End held tasks; keep their final bodies for a while.
-- KEYS[1] leased set   ARGV[1] prefix, [2] ms to keep the record (0: none), then for each: id, receipt, seq, body
-- Returns the receipts that no longer hold, or whose write came too late.

also_when_full()
local keeps = ARGV[2] ~= '0'
local lost = {}
for i = 3, #ARGV, 4 do
  local id, receipt, seq, body = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local key = task_key(id)
  local task = call('HMGET', key, 'r', 'n', 'o')
  if task[1] ~= receipt or seq < tonumber(task[2]) then
    lost[#lost + 1] = receipt
  else
    if task[3] then
      open_unique().free(id, task[3])
    end
    if keeps then
      call('HSET', key, 'b', body, 's', 'done')
      call('HDEL', key, 'r', 'n', 'd')
      call('PEXPIRE', key, ARGV[2])
    else
      call('DEL', key)
    end
    call('ZREM', KEYS[1], id)
  end
end
return lost
