-- Take in what the Go library has put into its list of this queue, the oldest first: each document becomes a task with
-- its own id. What isn't such a document, or has an id that is known, becomes one as it is, with a new id. The document
-- belongs to this queue from now on, also where somebody moved it here from Go's fatal queue.
-- KEYS[1] Go's list   ARGV[1] prefix, [2] queue, [3] how many at the most, [4] a text for ids that nobody else has
-- Returns how many are left there.

also_when_full()
local queue = ARGV[2]
local documents = call('RPOP', KEYS[1], ARGV[3]) or {}
local lists = documents[1] and open_lists()
local elements = {}
for i, document in ipairs(documents) do
  -- As Go writes it: its fields in their order, no spaces, and no quotation mark in these but an escaped one in the
  -- queue's name.
  local before, id, between, origin, rest = string.match(
    document, '^({"task_id":")([%w_-]+)(","created_at":"[^"]*","updated_at":"[^"]*","queue_name":")(.-)(","job_name":".*)$'
  )
  local is_one = id and #id <= 64 and not string.find(string.gsub(origin, '\\.', ''), '["\\]')
  if not is_one or call('EXISTS', task_key(id)) == 1 then
    id = 'foreign-' .. ARGV[4] .. '-' .. i
  elseif origin ~= queue then
    document = before .. id .. between .. queue .. rest
  end
  call('HSET', task_key(id), 'q', queue, 'b', document, 's', 'ready')
  local _
  _, elements[i] = lists.place(queue, id)
end
if lists then
  lists.push(queue, { [''] = elements })
end
return call('LLEN', KEYS[1])
