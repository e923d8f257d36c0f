-- Wireshark's view of tulle's datagrams: docs/wire.md says what each byte means.
--
--   wireshark -X lua_script:deploy/wireshark/tulle.lua capture.pcapng
--   tshark    -X lua_script:deploy/wireshark/tulle.lua -r capture.pcapng -V
--
-- or copy it to the folder of personal Lua plugins (Help, About, Folders). UDP port 8285 is tulle's; another one is chosen in
-- the preferences (-o tulle.ports:8285,9000) or with "Decode As". What looks like tulle on any other port is found by a
-- heuristic that is off unless the preference tulle.heuristic is set.

local tulle = Proto("tulle", "tulle overlay")

local KINDS = {
  [0] = "packet", [1] = "segment", [2] = "bundle", [3] = "probe", [4] = "probe reply", [5] = "message",
  [6] = "traced packet", [15] = "sealed",
}
local TYPES = { [0] = "question", [1] = "answer", [2] = "notice" }
local HEADER = 12

local f = {
  version = ProtoField.uint8("tulle.version", "Version", base.DEC, nil, 0xf0),
  kind = ProtoField.uint8("tulle.kind", "Kind", base.DEC, KINDS, 0x0f),
  flags = ProtoField.uint8("tulle.flags", "Flags", base.HEX),
  partial = ProtoField.bool("tulle.flags.partial", "Inner checksum is partial", 8, nil, 0x01),
  last = ProtoField.bool("tulle.flags.last", "Last segment", 8, nil, 0x02),
  segment_size = ProtoField.uint16("tulle.segment_size", "Segment size"),
  key = ProtoField.uint32("tulle.key", "Sender's lease key", base.HEX),
  id = ProtoField.uint16("tulle.id", "Super-packet"),
  index = ProtoField.uint16("tulle.index", "Segment index"),
  packets = ProtoField.uint16("tulle.packets", "Packets in the bundle"),
  sequence = ProtoField.uint16("tulle.sequence", "Sequence number"),
  token = ProtoField.uint64("tulle.token", "Token", base.HEX),
  padding = ProtoField.bytes("tulle.padding", "Padding"),
  part = ProtoField.uint16("tulle.part", "Part of the message, from 0"),
  parts = ProtoField.uint16("tulle.parts", "Parts of the message"),
  verb = ProtoField.uint8("tulle.verb", "Verb"),
  type = ProtoField.uint8("tulle.type", "Type", base.DEC, TYPES),
  length = ProtoField.uint16("tulle.length", "Bytes of the whole body"),
  body = ProtoField.bytes("tulle.body", "Slice of the body"),
  trace = ProtoField.uint64("tulle.trace", "Number of the traced packet", base.HEX),
  packet_length = ProtoField.uint16("tulle.packet_length", "Length of the next packet"),
  headers = ProtoField.bytes("tulle.headers", "Headers of the super-packet"),
  total = ProtoField.uint32("tulle.super_packet.length", "Length of the super-packet"),
  segments = ProtoField.uint32("tulle.super_packet.segments", "Segments of the super-packet"),
  source = ProtoField.string("tulle.super_packet.src", "Source"),
  destination = ProtoField.string("tulle.super_packet.dst", "Destination"),
  tcp_sequence = ProtoField.uint32("tulle.slice.seq", "TCP sequence number of the slice"),
  slice = ProtoField.bytes("tulle.slice", "Slice of the payload"),
  slice_offset = ProtoField.uint32("tulle.slice.offset", "Where it lies in the payload"),
  slice_length = ProtoField.uint32("tulle.slice.length", "Bytes of the slice"),
}
tulle.fields = f

local e = {
  short = ProtoExpert.new("tulle.short", "The datagram is too short", expert.group.MALFORMED, expert.severity.ERROR),
  kind = ProtoExpert.new("tulle.unknown_kind", "This kind is not known", expert.group.UNDECODED, expert.severity.WARN),
  bundle = ProtoExpert.new("tulle.bad_bundle", "The packets do not fill the bundle exactly",
    expert.group.MALFORMED, expert.severity.ERROR),
  segment = ProtoExpert.new("tulle.bad_segment", "Index, last flag or slice do not follow from the super-packet's length",
    expert.group.MALFORMED, expert.severity.ERROR),
}
tulle.experts = e

tulle.prefs.ports = Pref.range("UDP ports", "8285", "The ports on which tulle is expected", 65535)
tulle.prefs.heuristic = Pref.bool("Look for tulle on other ports", false,
  "Take what is well formed as a tulle datagram for one, whatever its port")

local ip4 = Dissector.get("ip")
local ip6 = Dissector.get("ipv6")
local data = Dissector.get("data")

local function u16(buffer, at) return buffer(at, 2):uint() end

-- An IP packet that lies in the buffer from `at` on.
local function inner(buffer, at, length, pinfo, tree)
  local packet = buffer(at, length):tvb()
  local version = length > 0 and buffer(at, 1):bitfield(0, 4) or 0
  if version == 4 then ip4:call(packet, pinfo, tree)
  elseif version == 6 then ip6:call(packet, pinfo, tree)
  else data:call(packet, pinfo, tree) end
end

-- From an IP header to its L4 header, and that one's protocol; nothing when it is not here.
local function find_l4(buffer, at)
  local left = buffer:len() - at
  if left < 20 then return nil end
  local version = buffer(at, 1):bitfield(0, 4)
  if version == 4 then return buffer(at, 1):bitfield(4, 4) * 4, buffer(at + 9, 1):uint() end
  if version ~= 6 or left < 40 then return nil end
  local next_header, distance = buffer(at + 6, 1):uint(), 40
  while next_header == 0 or next_header == 43 or next_header == 60 do
    if left < distance + 8 then return nil end
    next_header, distance = buffer(at + distance, 1):uint(), distance + (buffer(at + distance + 1, 1):uint() + 1) * 8
  end
  return distance, next_header
end

-- What follows from a segment's headers; nothing when they are damaged.
local function read_segment(buffer)
  local at = HEADER
  local l4, protocol = find_l4(buffer, at)
  if l4 == nil or (protocol ~= 6 and protocol ~= 17) then return nil end
  local headers = l4 + 8
  if protocol == 6 then
    if buffer:len() < at + l4 + 20 then return nil end
    headers = l4 + buffer(at + l4 + 12, 1):bitfield(0, 4) * 4
  end
  local six = buffer(at, 1):bitfield(0, 4) == 6
  local total = six and 40 + u16(buffer, at + 4) or u16(buffer, at + 2)
  local size, index = u16(buffer, 2), u16(buffer, 10)
  if size == 0 or total <= headers or buffer:len() < at + headers then return nil end
  local payload = total - headers
  local offset = index * size
  return {
    six = six, l4 = l4, protocol = protocol, headers = headers, total = total, payload = payload, offset = offset,
    segments = math.ceil(payload / size), slice = math.min(size, payload - offset), size = size, index = index,
  }
end

-- `reported`: the length that the datagram had, where the capture cut it.
local function segment(buffer, reported, pinfo, tree)
  local s = read_segment(buffer)
  if s == nil then
    tree:add_proto_expert_info(e.segment)
    data:call(buffer(HEADER):tvb(), pinfo, tree)
    return
  end
  local last = buffer(1, 1):bitfield(6, 1) == 1
  if s.slice <= 0 or reported ~= HEADER + s.headers + s.slice or last ~= (s.index == s.segments - 1) then
    tree:add_proto_expert_info(e.segment)
  end
  local at = HEADER
  local part = tree:add(f.headers, buffer(at, s.headers))
  local source = s.six and tostring(buffer(at + 8, 16):ipv6()) or tostring(buffer(at + 12, 4):ipv4())
  local target = s.six and tostring(buffer(at + 24, 16):ipv6()) or tostring(buffer(at + 16, 4):ipv4())
  local from = source .. (s.six and " " or ":") .. u16(buffer, at + s.l4)
  local to = target .. (s.six and " " or ":") .. u16(buffer, at + s.l4 + 2)
  part:add(f.source, s.six and buffer(at + 8, 16) or buffer(at + 12, 4), from)
  part:add(f.destination, s.six and buffer(at + 24, 16) or buffer(at + 16, 4), to)
  part:add(f.total, s.six and buffer(at + 4, 2) or buffer(at + 2, 2), s.total)
  part:add(f.segments, s.segments):set_generated()
  local here = math.max(0, math.min(s.slice, buffer:len() - at - s.headers))
  if here > 0 then
    local slice = tree:add(f.slice, buffer(at + s.headers, here))
    slice:add(f.slice_offset, s.offset):set_generated()
    slice:add(f.slice_length, s.slice):set_generated()
    if s.protocol == 6 then
      local sequence = (buffer(at + s.l4 + 4, 4):uint() + s.offset) % 4294967296
      slice:add(f.tcp_sequence, sequence):set_generated()
    end
  end
  pinfo.cols.info = string.format("segment %d of %d, super-packet %d: %s > %s, %d bytes",
    s.index + 1, s.segments, u16(buffer, 8), from, to, s.slice)
end

local function bundle(buffer, reported, pinfo, tree)
  local count, at = u16(buffer, 10), HEADER
  local shown = 0
  for _ = 1, count do
    if at + 2 > buffer:len() then break end
    local length = u16(buffer, at)
    tree:add(f.packet_length, buffer(at, 2))
    at = at + 2
    if length == 0 or at + length > buffer:len() then break end
    inner(buffer, at, length, pinfo, tree)
    at = at + length
    shown = shown + 1
  end
  if buffer:len() == reported and (shown ~= count or at ~= reported) then tree:add_proto_expert_info(e.bundle) end
  pinfo.cols.info = string.format("bundle of %d packets", count)
end

local function probe(buffer, kind, pinfo, tree)
  if buffer:len() < HEADER + 8 then
    tree:add_proto_expert_info(e.short)
    return
  end
  tree:add(f.token, buffer(HEADER, 8))
  if buffer:len() > HEADER + 8 then tree:add(f.padding, buffer(HEADER + 8)) end
  pinfo.cols.info = string.format("%s %d", KINDS[kind], u16(buffer, 8))
end

local function message(buffer, pinfo, tree)
  if buffer:len() < HEADER + 12 then
    tree:add_proto_expert_info(e.short)
    return
  end
  tree:add(f.token, buffer(HEADER, 8))
  tree:add(f.verb, buffer(HEADER + 8, 1))
  tree:add(f.type, buffer(HEADER + 9, 1))
  tree:add(f.length, buffer(HEADER + 10, 2))
  if buffer:len() > HEADER + 12 then tree:add(f.body, buffer(HEADER + 12)) end
  pinfo.cols.info = string.format("message, %s: part %d of %d, %d bytes",
    TYPES[buffer(HEADER + 9, 1):uint()] or "?", u16(buffer, 8) + 1, u16(buffer, 10), u16(buffer, HEADER + 10))
end

local function dissect(buffer, pinfo, root)
  local reported = buffer:reported_len()
  if buffer:len() == 0 then return 0 end
  local version = buffer(0, 1):bitfield(0, 4)
  -- flannel's format: the datagram is an IP packet, and nothing is before it.
  if version == 4 or version == 6 then
    inner(buffer, 0, buffer:len(), pinfo, root)
    return buffer:len()
  end
  if version ~= 1 then return 0 end
  pinfo.cols.protocol = "tulle"
  local tree = root:add(tulle, buffer(0, math.min(HEADER, buffer:len())))
  if buffer:len() < HEADER then
    tree:add_proto_expert_info(e.short)
    return buffer:len()
  end
  local kind = buffer(0, 1):bitfield(4, 4)
  tree:append_text(", " .. (KINDS[kind] or "kind " .. kind))
  tree:add(f.version, buffer(0, 1))
  tree:add(f.kind, buffer(0, 1))
  local flags = tree:add(f.flags, buffer(1, 1))
  flags:add(f.partial, buffer(1, 1))
  flags:add(f.last, buffer(1, 1))
  tree:add(f.key, buffer(4, 4))
  if kind == 1 then
    tree:add(f.segment_size, buffer(2, 2))
    tree:add(f.id, buffer(8, 2))
    tree:add(f.index, buffer(10, 2))
    segment(buffer, reported, pinfo, tree)
  elseif kind == 2 then
    tree:add(f.packets, buffer(10, 2))
    bundle(buffer, reported, pinfo, tree)
  elseif kind == 3 or kind == 4 then
    tree:add(f.sequence, buffer(8, 2))
    probe(buffer, kind, pinfo, tree)
  elseif kind == 5 then
    tree:add(f.part, buffer(8, 2))
    tree:add(f.parts, buffer(10, 2))
    message(buffer, pinfo, tree)
  elseif kind == 0 or kind == 6 then
    if kind == 6 then
      -- 48 bits in three fields that a packet does not use.
      local number = UInt64(buffer(8, 4):uint(), buffer(2, 2):uint())
      tree:add(f.trace, buffer(2, 10), number)
    end
    if buffer:len() > HEADER then
      inner(buffer, HEADER, buffer:len() - HEADER, pinfo, root)
      pinfo.cols.info:prepend(KINDS[kind] .. " | ")
    else
      tree:add_proto_expert_info(e.short)
    end
  else
    tree:add_proto_expert_info(e.kind)
    pinfo.cols.info = KINDS[kind] or "unknown kind " .. kind
  end
  return buffer:len()
end

function tulle.dissector(buffer, pinfo, root) return dissect(buffer, pinfo, root) end

-- Strict, because any UDP datagram may come here: version, kind, flags, unused fields and the inner packet must all be right.
local function looks_like_tulle(buffer)
  local length = buffer:len()
  if length < HEADER + 8 or length ~= buffer:reported_len() then return false end
  local kind = buffer(0, 1):bitfield(4, 4)
  if buffer(0, 1):bitfield(0, 4) ~= 1 or kind > 6 or buffer(1, 1):uint() > 3 then return false end
  if kind ~= 1 and kind ~= 6 and u16(buffer, 2) ~= 0 then return false end
  if kind == 0 or kind == 6 then
    local version = buffer(HEADER, 1):bitfield(0, 4)
    if kind == 0 and (u16(buffer, 8) ~= 0 or u16(buffer, 10) ~= 0) then return false end
    if version == 4 then return length >= HEADER + 20 and u16(buffer, HEADER + 2) <= length - HEADER end
    return version == 6 and length >= HEADER + 40 and 40 + u16(buffer, HEADER + 4) <= length - HEADER
  elseif kind == 1 then
    local s = read_segment(buffer)
    return s ~= nil and s.slice > 0 and length == HEADER + s.headers + s.slice
  elseif kind == 2 then
    local at = HEADER
    for _ = 1, u16(buffer, 10) do
      if at + 2 > length then return false end
      at = at + 2 + u16(buffer, at)
    end
    return u16(buffer, 10) > 0 and at == length
  elseif kind == 3 or kind == 4 then
    return u16(buffer, 10) == 0 and (kind == 3 or length == HEADER + 8)
  end
  return buffer(HEADER + 9, 1):uint() <= 2 and u16(buffer, 8) < u16(buffer, 10) and u16(buffer, 10) <= 8
end

local function heuristic(buffer, pinfo, root)
  if not tulle.prefs.heuristic or not looks_like_tulle(buffer) then return false end
  dissect(buffer, pinfo, root)
  pinfo.conversation = tulle
  return true
end

local table = DissectorTable.get("udp.port")
local registered = "8285"
table:add(registered, tulle)
tulle:register_heuristic("udp", heuristic)

function tulle.prefs_changed()
  if tulle.prefs.ports == registered then return end
  table:remove(registered, tulle)
  registered = tulle.prefs.ports
  table:add(registered, tulle)
end
