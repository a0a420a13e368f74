package main

import "testing"

func TestAnEndThatComesWhileTheReaderLooksIsToldAtOnce(t *testing.T) {
	p := &process{log: newProcessLog(false, 0), done: make(chan struct{})}
	f := follower{process: p, wait: true}
	if end, _ := f.endNow(); end != nil {
		t.Fatal("it has not ended yet")
	}
	p.log.seal()
	more := f.collect(1) // nothing is there, and after the end nothing comes
	p.end = &processEnd{}
	close(p.done)
	if !f.sleep(more, nil, nil) {
		t.Error("the reader is thought to be gone")
	}
}
