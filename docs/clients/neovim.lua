-- nvim --clean --headless -c 'luafile neovim.lua' -c 'qa!'
local port = vim.env.PORT or '7420'
local channel = vim.fn.sockconnect('tcp', '127.0.0.1:' .. port, { rpc = true })
local function call(method, params) -- the result, or nil and the error
  local ok, answer = pcall(vim.fn.rpcrequest, channel, method, params or {})
  if not ok then
    return nil, answer:match('%l+_?%l*: .*')
  elseif answer ~= vim.NIL then
    return answer
  end
end
call('hello', { client = 'neovim', errors = 'pair' }) -- the only errors whose text Neovim shows

local agent, queue = { type = 'worker', instance = 'neovim' }, { type = 'jobs', instance = 'neovim' }
local registered = assert(call('register', { agent = agent }))
local heart, interval = vim.loop.new_timer(), 1000 * registered.heartbeat_interval
heart:start(interval, interval, vim.schedule_wrap(function()
  vim.fn.rpcnotify(channel, 'heartbeat', { agent = agent })
end))

local id = ('nvim-%d-%d'):format(vim.fn.getpid(), vim.loop.hrtime())
local message = { message_id = id, message_type = 'request', payload = { text = 'hello' } }
local sent = assert(call('send', { sender = agent, recipient = queue, message = message }))
print('delivered:', sent.delivered)
local got = assert(call('receive', { agent = queue, wait = 5, visibility_timeout = 30 }))
print('received:', got.queue_message.message.payload.text)
print('acknowledged:', (call('ack', { agent = queue, token = got.token })))
print(select(2, call('receive')))

heart:close()
call('deregister', { agent = agent })
