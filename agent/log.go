package main

import (
	"sync"
	"sync/atomic"
)

const (
	// A writer stops when its reader is this far behind: enough to bridge a scheduling gap at a gigabyte a second.
	unsentLimitBytes = 1 << 20
	// What may be on its way between agent and far client when a connection dies: socket buffers of every hop.
	replayLimitBytes = 16 << 20
	// All processes' replay together, so that a hundred loud commands do not fill a small sandbox's memory.
	replayTotalBytes = 32 << 20
	replayFloorBytes = 1 << 20
	defaultRingBytes = 1 << 20
	// What an ended keep process's background children still print.
	lateRingBytes = 256 << 10
	chunkBytes    = 64 << 10
	// The first chunk of a log: most commands print a line.
	smallChunkBytes = 1 << 10
)

// chunk is output of one stream. Its bytes never change once written, so readers hold views of them.
type chunk struct {
	kind   byte
	offset int64
	bytes  []byte
}

func (c *chunk) end() int64 { return c.offset + int64(len(c.bytes)) }

// keepingLogs counts the logs that replay memory is shared by.
var keepingLogs int64

// processLog is what a process printed: both streams under one offset.
//
// keep: nothing is dropped that the foreground reader has not been sent, `room` tells the writer to wait, and what was
// sent stays for a while. roll: a ring; the writer never waits. Once sealed (the process has ended) later bytes are held
// in a small ring of their own, so that nothing before the seal is dropped.
type processLog struct {
	mutex     sync.Mutex
	changed   chan struct{} // closed and replaced at every change; nil while nobody waits
	chunks    []chunk
	held      int64 // bytes in chunks
	offset    int64
	sent      int64 // by the foreground reader
	keep      bool
	counted   bool // in keepingLogs
	ringBytes int64
	sealed    bool
	sealedAt  int64
}

func newProcessLog(keep bool, ringBytes int) *processLog {
	l := &processLog{keep: keep, ringBytes: int64(ringBytes)}
	if ringBytes <= 0 {
		l.ringBytes = defaultRingBytes
	}
	if keep {
		l.counted = true
		atomic.AddInt64(&keepingLogs, 1)
	}
	return l
}

// append adds output and drops what the log's mode lets go. It never waits.
func (l *processLog) append(kind byte, bytes []byte) {
	if len(bytes) == 0 {
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for len(bytes) > 0 {
		last := l.lastChunk(kind, len(bytes))
		n := copy(last.bytes[len(last.bytes):cap(last.bytes)], bytes)
		last.bytes = last.bytes[:len(last.bytes)+n]
		bytes = bytes[n:]
		l.offset += int64(n)
		l.held += int64(n)
	}
	l.trim()
	l.announce()
}

// lastChunk is one of this kind with room in it.
func (l *processLog) lastChunk(kind byte, need int) *chunk {
	size := smallChunkBytes
	if n := len(l.chunks); n > 0 {
		last := &l.chunks[n-1]
		seam := l.sealed && last.offset < l.sealedAt
		if last.kind == kind && len(last.bytes) < cap(last.bytes) && !seam {
			return last
		}
		size = cap(last.bytes) * 4
	}
	if size < need {
		size = need
	}
	if size > chunkBytes {
		size = chunkBytes
	}
	l.chunks = append(l.chunks, chunk{kind: kind, offset: l.offset, bytes: make([]byte, 0, size)})
	return &l.chunks[len(l.chunks)-1]
}

func (l *processLog) trim() {
	switch {
	case l.sealed && l.keep:
		first := len(l.chunks)
		for first > 0 && l.chunks[first-1].offset >= l.sealedAt {
			first--
		}
		last := first
		for last < len(l.chunks)-1 && l.offset-l.chunks[last].end() >= lateRingBytes {
			l.held -= int64(len(l.chunks[last].bytes))
			last++
		}
		l.chunks = append(l.chunks[:first], l.chunks[last:]...)
	case l.keep:
		l.dropBefore(l.sent - replayShare())
	default:
		drop := 0
		held := l.held
		for drop < len(l.chunks)-1 && held-int64(len(l.chunks[drop].bytes)) >= l.ringBytes {
			held -= int64(len(l.chunks[drop].bytes))
			drop++
		}
		l.dropChunks(drop)
	}
}

func replayShare() int64 {
	share := int64(replayTotalBytes) / (1 + atomic.LoadInt64(&keepingLogs))
	if share > replayLimitBytes {
		return replayLimitBytes
	}
	if share < replayFloorBytes {
		return replayFloorBytes
	}
	return share
}

func (l *processLog) dropBefore(offset int64) {
	drop := 0
	for drop < len(l.chunks) && l.chunks[drop].end() <= offset {
		drop++
	}
	l.dropChunks(drop)
}

func (l *processLog) dropChunks(count int) {
	if count == 0 {
		return
	}
	for i := 0; i < count; i++ {
		l.held -= int64(len(l.chunks[i].bytes))
		l.chunks[i] = chunk{} // the array lives on: it must not hold the bytes
	}
	l.chunks = l.chunks[count:]
}

func (l *processLog) announce() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// next is closed at the next change after the call.
func (l *processLog) next() <-chan struct{} {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.nextLocked()
}

func (l *processLog) nextLocked() <-chan struct{} {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// room is nil when the writer may go on, else closed at the next change.
func (l *processLog) room() <-chan struct{} {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if !l.keep || l.sealed || l.offset-l.sent <= unsentLimitBytes {
		return nil
	}
	return l.nextLocked()
}

// advance notes what the foreground reader has been sent.
func (l *processLog) advance(sent int64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.sent = sent
	if l.keep && !l.sealed {
		l.trim()
	}
	l.announce()
}

// roll makes a ring of a keep log: its reader is gone for good. What it had not been sent stays in the ring.
func (l *processLog) roll() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if !l.keep || l.sealed {
		return
	}
	l.keep = false
	l.uncount()
	if l.ringBytes < 2*unsentLimitBytes {
		l.ringBytes = 2 * unsentLimitBytes
	}
	l.trim()
	l.announce()
}

// seal marks the end of the process; returns the offset.
func (l *processLog) seal() int64 {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.sealed, l.sealedAt = true, l.offset
	l.uncount()
	l.announce()
	return l.offset
}

func (l *processLog) uncount() {
	if l.counted {
		l.counted = false
		atomic.AddInt64(&keepingLogs, -1)
	}
}

type logState struct {
	offset, windowStart, held int64
	keep                      bool
}

func (l *processLog) state() logState {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	start := l.offset
	if len(l.chunks) > 0 {
		start = l.chunks[0].offset
	}
	return logState{l.offset, start, l.held, l.keep}
}

// read gives the first piece of output at or after position, at most limit bytes and none at or after `until`. A piece
// that starts later than position means that the bytes between are gone. Without a piece, `more` is closed at the next
// change.
func (l *processLog) read(position, until int64, limit int) (piece chunk, ok bool, more <-chan struct{}) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for i := l.indexOf(position); i < len(l.chunks); i++ {
		c := l.chunks[i]
		if c.end() <= position {
			continue
		}
		if c.offset >= until {
			break
		}
		if c.offset < position {
			c.bytes = c.bytes[position-c.offset:]
			c.offset = position
		}
		if len(c.bytes) > limit {
			c.bytes = c.bytes[:limit]
		}
		if c.end() > until {
			c.bytes = c.bytes[:until-c.offset]
		}
		return c, true, nil
	}
	return chunk{}, false, l.nextLocked()
}

// indexOf is that of the last chunk that starts at or before position, or 0.
func (l *processLog) indexOf(position int64) int {
	low, high := 0, len(l.chunks)
	for low < high {
		middle := (low + high) / 2
		if l.chunks[middle].offset <= position {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == 0 {
		return 0
	}
	return low - 1
}
