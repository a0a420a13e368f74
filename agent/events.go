package main

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// A reader this many events behind is cut off; it comes back and lists the processes.
const eventBacklog = 1024

type events struct {
	mutex   sync.Mutex
	readers map[chan agentEvent]struct{}
}

func newEvents() *events { return &events{readers: map[chan agentEvent]struct{}{}} }

// publish never waits.
func (e *events) publish(event agentEvent) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	for reader := range e.readers {
		select {
		case reader <- event:
		default:
			delete(e.readers, reader)
			close(reader)
		}
	}
}

func (e *events) subscribe() (<-chan agentEvent, func()) {
	reader := make(chan agentEvent, eventBacklog)
	e.mutex.Lock()
	e.readers[reader] = struct{}{}
	e.mutex.Unlock()
	return reader, func() {
		e.mutex.Lock()
		delete(e.readers, reader)
		e.mutex.Unlock()
	}
}

// A daemon follows the events of a thousand idle sandboxes, and looks at their processes itself: rarer than on a log.
const eventsBeat = 8

func (a *agent) getEvents(w http.ResponseWriter, r *http.Request, _ []string) error {
	reader, leave := a.events.subscribe()
	defer leave()
	heartbeat := time.NewTicker(eventsBeat * a.times.heartbeat)
	defer heartbeat.Stop()
	w.Header().Set("content-type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	event, open := agentEvent{Type: "heartbeat", At: time.Now().UnixMilli()}, true
	for open {
		if lines.Encode(event) != nil {
			return nil
		}
		w.(http.Flusher).Flush()
		select {
		case event, open = <-reader:
		case <-heartbeat.C:
			event = agentEvent{Type: "heartbeat", At: time.Now().UnixMilli()}
		case <-r.Context().Done():
			return nil
		}
	}
	return nil
}
