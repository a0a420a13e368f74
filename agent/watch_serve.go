package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

// The longest time over which changes are joined (protocol/agent-live.ts).
const joinLimitMs = 10_000

// One write to the link holds so many events at most, some hundred kilobytes.
const eventsAtOnce = 1024

// postWatch tells what happens in a directory, a line each, until its reader or the directory goes.
func (a *agent) postWatch(w http.ResponseWriter, r *http.Request, _ []string) error {
	var request watchRequest
	if err := readRequest(w, r, &request); err != nil {
		return err
	}
	if request.JoinMs < 0 || request.JoinMs > joinLimitMs {
		return refuse("VALIDATION_FAILED", "Cannot watch: joinMs is 0 to %d", joinLimitMs)
	}
	stream := newWatchStream(time.Duration(request.JoinMs) * time.Millisecond)
	watch, err := a.watchOf(request, stream)
	if err != nil {
		return err
	}
	if err := a.watches.begin(r.Context(), watch); err != nil {
		return err
	}
	defer stream.abandon()
	defer watch.end()
	w.Header().Set("content-type", "application/x-ndjson")
	writeWatch(w, stream, watchLine{Ready: &watchReady{watch.path}}, r.Context().Done(), a.times.heartbeat)
	return nil
}

// watchOf makes a watch of what was asked for.
func (a *agent) watchOf(request watchRequest, sink watchSink) (*watch, error) {
	path, err := (&files{sessions: a.sessions}).place(request.Path, request.Session)
	if err != nil {
		return nil, err
	}
	filter, err := newPathFilter(request.Include, request.Exclude)
	if err != nil {
		return nil, err
	}
	return &watch{path: path, recursive: request.Recursive, filter: filter, sink: sink}, nil
}

func writeWatch(w http.ResponseWriter, stream *watchStream, first watchLine, gone <-chan struct{}, every time.Duration) {
	heartbeat := time.NewTicker(every)
	defer heartbeat.Stop()
	due := time.NewTimer(every)
	defer due.Stop()
	var batch bytes.Buffer
	lines := json.NewEncoder(&batch)
	write := func(line watchLine) { _ = lines.Encode(line) } // plain structs into memory: cannot fail
	write(first)
	for {
		now := stream.take(eventsAtOnce)
		if now.lost != nil {
			write(watchLine{Overflow: now.lost})
		}
		for _, one := range now.events {
			write(watchLine{Event: &watchEvent{watchKindNames[one.kind], one.path, one.isDirectory, one.movedFrom, one.atMs}})
		}
		if now.last != nil {
			write(*now.last)
		}
		if batch.Len() > 0 {
			if _, err := w.Write(batch.Bytes()); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			batch.Reset()
		}
		if now.last != nil {
			return
		}
		if now.more {
			continue
		}
		var held <-chan time.Time
		if !now.due.IsZero() {
			if !due.Stop() {
				select {
				case <-due.C:
				default:
				}
			}
			due.Reset(time.Until(now.due))
			held = due.C
		}
		select {
		case <-stream.wake:
		case <-held:
		case <-heartbeat.C:
			write(watchLine{Heartbeat: &struct{}{}})
		case <-gone:
			return
		}
	}
}
