-- Count what the Go library has put into its list of a queue.
-- KEYS[1] Go's list   ARGV[1] prefix

return call('LLEN', KEYS[1])
