-- Generates the requests for wrk: appends to existing streams, creates of new ones, or reads from the start.
--
-- Arguments: "append", "create" or "read"; the path of a stream without its number; the number of streams to append
-- to in turn; the first number to create; the body's size in bytes; and the maximum number of requests of a thread,
-- 0 for no limit. The last line of output has the result as JSON, after the word RESULT.

local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanoseconds; } ds_time; int clock_gettime(int clock, ds_time *time);")
local time = ffi.new("ds_time")

local function now()
   ffi.C.clock_gettime(1, time)
   return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

local threads = {}

function setup(thread)
   thread:set("number", #threads)
   threads[#threads + 1] = thread
end

local function format(method, path, body)
   wrk.headers["Content-Type"] = "application/octet-stream"
   return wrk.format(method, path, wrk.headers, body)
end

-- All requests are built before the first one is sent, so that only one has to be chosen for each.
local function appends(prefix, streams, body)
   local made, sent = {}, -1
   for index = 1, streams do
      made[index] = format("POST", prefix .. (index - 1), body)
   end
   return function()
      sent = sent + 1
      return made[sent % streams + 1]
   end
end

local function creates(prefix, first)
   local mark = "@number@"
   local before, after = format("PUT", prefix .. mark):match("^(.-)" .. mark .. "(.*)$")
   -- Each thread numbers its streams in its own range.
   local sent = first + number * 100000000 - 1
   return function()
      sent = sent + 1
      return before .. sent .. after
   end
end

-- wrk itself can only stop after a time.
local function limited(request, limit)
   local sent = 0
   return function()
      if sent == 0 then began = now() end
      sent = sent + 1
      if sent == limit then
         ended = now()
         wrk.thread:stop()
      end
      return request()
   end
end

function init(args)
   local kind, prefix = args[1], args[2]
   local streams, first, length, limit = tonumber(args[3]), tonumber(args[4]), tonumber(args[5]), tonumber(args[6])
   if kind == "read" then
      wrk.path = prefix .. "0?offset=-1"
      return
   end
   local body = string.rep("x", length)
   if kind == "append" and streams == 1 and limit == 0 then
      -- The same request is always sent, so that wrk never calls Lua.
      wrk.method, wrk.path, wrk.body = "POST", prefix .. "0", body
      wrk.headers["Content-Type"] = "application/octet-stream"
      return
   end
   request = kind == "create" and creates(prefix, first) or appends(prefix, streams, body)
   if limit > 0 then request = limited(request, limit) end
end

function done(summary, latency, _)
   local seconds = summary.duration / 1e6
   local stopped = 0
   for _, thread in ipairs(threads) do
      local began, ended = thread:get("began"), thread:get("ended")
      if began and ended then stopped = math.max(stopped, ended - began) end
   end
   if stopped > 0 then seconds = stopped end
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "max_us": %d, "bytes": %d,'
         .. ' "refused": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
      summary.requests, seconds, latency:percentile(50), latency:percentile(99), latency.max, summary.bytes,
      errors.status, errors.connect, errors.read, errors.write, errors.timeout
   ))
end
