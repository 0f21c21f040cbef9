-- Make leases last from now.
-- KEYS[1] leased set   ARGV[1] prefix, [2] lease in ms, then for each: id, receipt
-- Returns the receipts that no longer hold.

also_when_full()
local ends = string.format('%.0f', now_ms() + tonumber(ARGV[2]))
local lost = {}
for i = 3, #ARGV, 2 do
  local id, receipt = ARGV[i], ARGV[i + 1]
  if call('HGET', task_key(id), 'r') == receipt then
    call('ZADD', KEYS[1], ends, id)
  else
    lost[#lost + 1] = receipt
  end
end
return lost
