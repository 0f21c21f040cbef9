-- Put before the scripts that lease tasks. ARGV[2] queue, [3] limit, [4] lease in ms, [5] token of this call

local queue, limit, lease, token = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local leased = leased_key(queue)
local now = now_ms()
local ends = string.format('%.0f', now + lease)
local reply, count = {}, 0

-- Lease a task. `deaths` is a text. Into the reply: id, body, deaths[:priority[:unique key]]. The i-th one's receipt is
-- the token, a dot and i.
local function take(id, body, deaths, text)
  count = count + 1
  call('HSET', task_key(id), 's', 'leased', 'r', token .. '.' .. count, 'n', '0', 'd', deaths)
  call('ZADD', leased, ends, id)
  local told = deaths
  if text then
    local priority, _, key = options(text)
    told = told .. ':' .. priority .. (key and ':' .. key or '')
  end
  reply[#reply + 1] = id
  reply[#reply + 1] = body
  reply[#reply + 1] = told
end
