-- What all scripts share: the time, the names of the keys, and how a job is kept.
--
-- Redis runs a script alone and to its end, which is what makes each verb one atomic step. It does not undo the first
-- half of a script that fails, though. So every script reads and decides first, and writes then.
--
-- KEYS[1] is the prefix "{namespace}:". All other keys are made from it here, since which lanes exist is known only
-- inside the step. They are not declared, but they all carry the same hash tag, so they are in the slot of KEYS[1]:
-- that is what a cluster demands, and it is checked by the server. ARGV[1] is the driver's time_offset in microseconds.
--
-- Times are microseconds since 1970. A double holds them exactly up to the year 2255. A later one, which only a user
-- can name, comes and goes as decimal text, and its place in a lane is rounded up: at worst such a job is late by 64
-- microseconds. A number that is passed to `call` is written with 17 digits: exact, and slower than text.
--
-- The server runs all of a script anew for each call, and to make its functions and tables costs it more than to store
-- a job. So this file makes none, and enqueue takes no more than this; turn takes ways.lua as well, and the other verbs
-- jobs.lua.

local call, concat, byte, char, sub = redis.call, table.concat, string.byte, string.char, string.sub
local floor, format, min = math.floor, string.format, math.min
local pack, unpacked = cmsgpack.pack, cmsgpack.unpack
local bytes_of, fields_of = struct.pack, struct.unpack

local PREFIX = KEYS[1]
local ROWS, DATA, IDS = PREFIX .. 'rows', PREFIX .. 'data', PREFIX .. 'ids'
local QUEUES, PAUSED, JOBS = PREFIX .. 'queues', PREFIX .. 'paused', PREFIX .. 'jobs'
local LANE, LANES, BELL = PREFIX .. 'lane:', PREFIX .. 'lanes:', PREFIX .. 'bell:'
local TAKE, LOOK = 'take', 'look'  -- members of BELL, which wake a waiter: a job is due; a job may be due, at some time

local CHUNK = 1000  -- arguments of one command, and elements of one unpack(): Lua's stack ends at a few thousand
local EXACT = 9007199254740992  -- 2^53

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2] + ARGV[1]

-- A job is kept in two parts. The blob never changes and scripts only hand it through: MessagePack values in the order
-- of packing.Blob. The row is what scripts read and change. Every field of it has a fixed place, so that a claim and a
-- settlement copy most of it and unpack none (to unpack MessagePack and pack it again took half of their time):
--
--     1      state
--     2-6    claim_seq, as MessagePack ...                    \xce and 4 bytes
--     7-9    attempts                                         \xcd and 2 bytes
--     10-24  available_at                                     \xc7\x0c\xff, nanoseconds in 4 bytes, seconds in 8
--                                                             ... so these three go into a reply in one piece
--     25-30  crashes, returns, reclaims                       2 bytes each
--     31-32  max_retries                                      2 bytes
--     33-36  size: bytes of the payload                       4 bytes
--     37     priority                                         1 byte, signed
--     38-45  created_at                                       8 bytes
--     46     how many bytes follow: the queue's name
--     then, if the job was ever claimed or has ended:
--            how many bytes follow: reserved_by
--            reserved_at, processed_at (0: none)              8 bytes each
--            what few jobs have, in one array, or nothing     MessagePack, see jobs.lua

local PENDING, PROCESSING, COMPLETED, FAILING, CANCELLED, MOVING = 'p', 'r', 'c', 'f', 'x', 'm'
local QUEUE_AT = 47
local TIMESTAMP = '\199\12\255'
local NO_TIME, NO_TROUBLE = '\0\0\0\0\0\0\0\0', '\0\0\0\0\0\0'
