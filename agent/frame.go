package main

import (
	"encoding/binary"
	"encoding/json"
)

// The frames of protocol/frame.ts: u8 kind, 3 x u8 zero, u32le payload length, u64le offset, payload.
const (
	frameStdout    = 1
	frameStderr    = 2
	frameStarted   = 16
	frameEnded     = 17
	frameTruncated = 18
	frameHeartbeat = 19
	frameError     = 20

	// To the agent, for a terminal.
	frameInput  = 32
	frameResize = 33

	frameHeaderBytes = 16
)

func appendFrame(to []byte, kind byte, offset int64, payload []byte) []byte {
	var header [frameHeaderBytes]byte
	header[0] = kind
	binary.LittleEndian.PutUint32(header[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(header[8:], uint64(offset))
	return append(append(to, header[:]...), payload...)
}

func appendFrameJSON(to []byte, kind byte, offset int64, value any) []byte {
	payload, err := json.Marshal(value)
	if err != nil {
		panic(err) // plain structs of ours: cannot happen
	}
	return appendFrame(to, kind, offset, payload)
}
