-- Count what a queue holds.
-- KEYS[1] ready list   ARGV[1] prefix, [2] queue
-- Returns ready (what is due included), scheduled, leased.

local queue = ARGV[2]
local due = redis.call('ZCOUNT', scheduled_key(queue), '-inf', now_ms())
return {
  redis.call('LLEN', KEYS[1]) + due,
  redis.call('ZCARD', scheduled_key(queue)) - due,
  redis.call('ZCARD', leased_key(queue)),
}
