-- Replace the bodies of held tasks; no death counts against the new ones.
-- KEYS[1] leased set   ARGV[1] prefix, then for each: id, receipt, seq, body
-- Returns the receipts that no longer hold, or whose write came too late.

also_when_full()
local lost = {}
for i = 2, #ARGV, 4 do
  local id, receipt, seq, body = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local key = task_key(id)
  local task = call('HMGET', key, 'r', 'n')
  if task[1] ~= receipt or seq < tonumber(task[2]) then
    lost[#lost + 1] = receipt
  elseif seq > tonumber(task[2]) then
    call('HSET', key, 'b', body, 'n', ARGV[i + 2], 'd', '0')
  end
end
return lost
