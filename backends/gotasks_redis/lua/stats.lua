-- Count what a queue holds.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue
-- Returns ready (what is due included), scheduled, leased.

local queue = ARGV[2]
local lists = open_lists()
local due = call('ZCOUNT', scheduled_key(queue), '-inf', now_ms())
local ready = due
for _, name in ipairs(lists.names(queue)) do
  ready = ready + call('LLEN', lists.key(queue, name))
  if #name < 2 then
    ready = ready - call('SCARD', gone_key(queue, lists.priority(name)))
  end
end
return {
  math.max(ready, 0),
  call('ZCARD', scheduled_key(queue)) - due,
  call('ZCARD', leased_key(queue)),
}
