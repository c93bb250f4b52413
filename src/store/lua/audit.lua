-- audit: keep what an operator did.
--
-- KEYS	[1] PREFIX:audit
-- ARGV	[1] keep so many at most  [2...] names and values, in turn
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', unpack(ARGV, 2))
return 1
