package main

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// One write to the link: as large as a read from a pipe, so that a loud stream costs one system call a piece.
const batchBytes = 64 << 10

// A sleeping reader's batch is no larger than this.
const idleBatchBytes = 4 << 10

// follower writes a log as frames to one reader.
type follower struct {
	process  *process
	writer   http.ResponseWriter
	position int64
	batch    []byte
	// foreground readers hold the process back (mode keep) and end with it.
	foreground *reader
	// wait: go on until the process's end; else to what is there now.
	wait bool
}

// run writes `started`, the output from the position on, and `ended`. Whether it told the end.
func (f *follower) run(gone <-chan struct{}, every time.Duration) bool {
	p := f.process
	f.writer.Header().Set("content-type", "application/x-atoll-frames")
	f.batch = appendFrameJSON(f.batch, frameStarted, f.position, processStarted{p.id, p.pid, p.startedAt.UnixMilli()})
	heartbeat := time.NewTicker(every)
	defer heartbeat.Stop()
	for {
		end, until := f.endNow()
		more := f.collect(until)
		caughtUp := more != nil
		if caughtUp && end != nil {
			if f.foreground != nil && f.position < until {
				f.skipTo(until)
			}
			f.batch = appendFrameJSON(f.batch, frameEnded, f.position, end)
			return f.flush()
		}
		if len(f.batch) > 0 && !f.flush() {
			return false
		}
		if !caughtUp {
			continue
		}
		if !f.wait {
			return false
		}
		if !f.sleep(more, gone, heartbeat.C) {
			return false
		}
	}
}

// endNow gives the process's end, if there is one, and where this reader's output ends.
func (f *follower) endNow() (*processEnd, int64) {
	f.process.mutex.Lock()
	defer f.process.mutex.Unlock()
	if f.process.end != nil && f.foreground != nil {
		return f.process.end, f.process.endOffset
	}
	return f.process.end, math.MaxInt64
}

// collect fills the batch. A channel says that nothing more is there yet.
func (f *follower) collect(until int64) <-chan struct{} {
	for len(f.batch) < batchBytes {
		piece, ok, more := f.process.log.read(f.position, until, batchBytes)
		if !ok {
			return more
		}
		if piece.offset > f.position {
			f.skipTo(piece.offset)
		}
		f.batch = appendFrame(f.batch, piece.kind, piece.offset, piece.bytes)
		f.position = piece.end()
	}
	return nil
}

func (f *follower) skipTo(offset int64) {
	f.batch = appendFrameJSON(f.batch, frameTruncated, offset, truncated{f.position, offset})
	f.position = offset
}

// flush sends the batch; false when the reader is gone or another has its place.
func (f *follower) flush() bool {
	_, err := f.writer.Write(f.batch)
	f.batch = f.batch[:0]
	if err != nil {
		return false
	}
	f.writer.(http.Flusher).Flush()
	return f.process.sent(f.foreground, f.position)
}

// sleep waits for something to send; false when the reader is gone.
func (f *follower) sleep(more, gone <-chan struct{}, heartbeat <-chan time.Time) bool {
	if cap(f.batch) > idleBatchBytes {
		f.batch = nil // a thousand terminals may sleep at once, each after a screen full
	}
	var replaced <-chan struct{}
	if f.foreground != nil {
		replaced = f.foreground.replaced
	}
	select {
	case <-more:
	case <-f.process.done: // also when that was since this reader looked
	case <-heartbeat:
		f.batch = appendFrame(f.batch, frameHeartbeat, f.position, nil)
		return f.flush()
	case <-replaced:
		f.batch = appendFrameJSON(f.batch, frameError, f.position,
			refuse("OPERATION_INTERRUPTED", "Cannot go on reading process %q: another reader took its place", f.process.id))
		f.flush()
		return false
	case <-gone:
		return false
	}
	return true
}

// sent notes how far the foreground reader is; false when it no longer is the one. Others count for nothing.
func (p *process) sent(by *reader, position int64) bool {
	if by == nil {
		return true
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.reader != by {
		return false
	}
	p.log.advance(position)
	return true
}

// position reads ?after=; 0 when absent.
func position(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("after")
	if text == "" {
		return 0, nil
	}
	after, err := strconv.ParseInt(text, 10, 64)
	if err != nil || after < 0 {
		return 0, refuse("VALIDATION_FAILED", "Cannot read from %q: an offset is a number of bytes", text)
	}
	return after, nil
}

func beyond(p *process, after int64) error {
	if offset := p.log.state().offset; after > offset {
		return refuse("VALIDATION_FAILED", "Cannot read from %d: the log ends at %d", after, offset)
	}
	return nil
}
