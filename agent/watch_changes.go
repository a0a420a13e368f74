package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// So many different questions about changes are answered from memory; each holds a watch. The one that was asked the
// longest ago is forgotten.
const retainedLimit = 32

type changesRequest struct {
	Path      string   `json:"path"`
	Session   string   `json:"session,omitempty"`
	Recursive bool     `json:"recursive"`
	Include   []string `json:"include,omitempty"`
	Exclude   []string `json:"exclude,omitempty"`
	Since     *string  `json:"since,omitempty"`
}

type changesAnswer struct {
	Status  string `json:"status"`
	Version string `json:"version"`
}

// changes are the watches that are kept for those who ask later what happened, by what they asked.
type changes struct {
	watches *watches
	// start is of this agent alone: versions of another mean nothing here.
	start string

	mutex    sync.Mutex
	retained map[string]*changeCount
	order    []*changeCount // asked the longest ago first
	last     int64
}

func newChanges(watches *watches) *changes {
	return &changes{watches: watches, start: newNonce()[:12], retained: map[string]*changeCount{}}
}

// changeCount counts what a retained watch tells.
type changeCount struct {
	key   string
	id    int64
	watch *watch
	// begun is closed when the watch is set, or failed is.
	begun  chan struct{}
	failed error

	mutex sync.Mutex
	count int64
	epoch int64 // how often events were lost
	gone  bool
}

func (c *changeCount) tell(watchKind, string, bool, string) {
	c.mutex.Lock()
	c.count++
	c.mutex.Unlock()
}

func (c *changeCount) overflow() {
	c.mutex.Lock()
	c.epoch++
	c.mutex.Unlock()
}

func (c *changeCount) stop(string, error) {
	c.mutex.Lock()
	c.gone = true
	c.mutex.Unlock()
}

// postChanges tells whether anything happened in a directory since the version that was told before. Who has none yet
// gets "unchanged" with the first.
func (a *agent) postChanges(w http.ResponseWriter, r *http.Request, _ []string) error {
	var request changesRequest
	if err := readRequest(w, r, &request); err != nil {
		return err
	}
	answer, err := a.changes.ask(r.Context(), a, request)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func (c *changes) ask(ctx context.Context, a *agent, request changesRequest) (changesAnswer, error) {
	for {
		one, err := c.find(ctx, a, request)
		if err != nil {
			return changesAnswer{}, err
		}
		c.watches.settle(ctx)
		if answer, ok := one.answer(c.start, request.Since); ok {
			return answer, ctx.Err()
		}
		// Its directory is gone, and what has its name now is another.
	}
}

func (c *changeCount) answer(start string, since *string) (changesAnswer, bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	generation := fmt.Sprintf("%s-%d-%d-", start, c.id, c.epoch)
	answer := changesAnswer{"unchanged", fmt.Sprintf("%s%d", generation, c.count)}
	switch {
	case since == nil || *since == answer.Version:
	case strings.HasPrefix(*since, generation):
		answer.Status = "changed"
	default:
		answer.Status = "resync"
	}
	return answer, !c.gone
}

// find gives the watch that is kept for this question, or begins it. Those who ask the same at once share one.
func (c *changes) find(ctx context.Context, a *agent, request changesRequest) (*changeCount, error) {
	one := &changeCount{begun: make(chan struct{})}
	watch, err := a.watchOf(watchRequest{
		Path: request.Path, Session: request.Session, Recursive: request.Recursive,
		Include: request.Include, Exclude: request.Exclude,
	}, one)
	if err != nil {
		return nil, err
	}
	one.watch = watch
	one.key = fmt.Sprintf("%q %v %q %q", watch.path, request.Recursive, request.Include, request.Exclude)
	c.mutex.Lock()
	if known := c.retained[one.key]; known != nil && !known.isGone() {
		c.order = append(withoutCount(c.order, known), known)
		c.mutex.Unlock()
		select {
		case <-known.begun:
			return known, known.failed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c.last++
	one.id = c.last
	c.order = append(withoutCount(c.order, c.retained[one.key]), one)
	c.retained[one.key] = one
	var oldest *changeCount
	if len(c.order) > retainedLimit {
		oldest = c.order[0]
		c.order = c.order[1:]
		delete(c.retained, oldest.key)
	}
	c.mutex.Unlock()
	if oldest != nil {
		<-oldest.begun
		oldest.watch.end()
	}
	// Not with the caller's context: others may wait for the same.
	one.failed = c.watches.begin(context.Background(), watch)
	if one.failed != nil {
		c.forget(one)
	}
	close(one.begun)
	return one, one.failed
}

func (c *changeCount) isGone() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.gone
}

func (c *changes) forget(one *changeCount) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.retained[one.key] == one {
		delete(c.retained, one.key)
	}
	c.order = withoutCount(c.order, one)
}

func withoutCount(list []*changeCount, gone *changeCount) []*changeCount {
	for i, one := range list {
		if one == gone {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}
