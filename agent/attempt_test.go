package main

import (
	"testing"
)

func attempt(id, name string) change {
	return func(s *processSpec) { s.ID, s.Attempt = id, name }
}

func TestAnEndedProcessGivesItsIDToAnotherAttempt(t *testing.T) {
	a := startAgent(t)
	id := newID()
	equal(t, "the first", a.run(roll, argv("echo", "one"), attempt(id, "a")).stdout, "one\n")
	equal(t, "the same again", a.run(roll, argv("echo", "two"), attempt(id, "a")).stdout, "one\n")
	equal(t, "without an attempt", a.run(roll, argv("echo", "two"), attempt(id, "")).stdout, "one\n")
	equal(t, "another", a.run(roll, argv("echo", "two"), attempt(id, "b")).stdout, "two\n")
	log, _ := a.open("/processes?after=4", makeSpec(roll, argv("echo", "three"), attempt(id, "c")))
	equal(t, "who has read of it means that one", log.rest(t).started.ID, id)
	equal(t, "still the second", a.run(roll, argv("echo", "three"), attempt(id, "b")).stdout, "two\n")
	equal(t, "forget", a.call("DELETE", "/processes/"+id, nil, nil) == nil, true)
	_, refusal := a.open("/processes", makeSpec(roll, argv("echo", "three"), attempt(id, "b")))
	equal(t, "a forgotten attempt", refusal.Code, "PROCESS_NOT_FOUND")
	equal(t, "another after it", a.run(roll, argv("echo", "three"), attempt(id, "c")).stdout, "three\n")
}

func TestARunningProcessKeepsItsIDFromAnotherAttempt(t *testing.T) {
	a := startAgent(t)
	id := newID()
	log := a.start(makeSpec(roll, script("echo up; sleep 1000"), attempt(id, "a")))
	log.until(t, "up\n")
	_, refusal := a.open("/processes", makeSpec(roll, argv("true"), attempt(id, "b")))
	equal(t, "another attempt", refusal.Code, "RESOURCE_BUSY")
	again := a.start(makeSpec(roll, argv("true"), attempt(id, "a")))
	again.until(t, "up\n")
	a.call("POST", "/processes/"+id+"/signal", signalRequest{Signal: "SIGKILL"}, nil)
	equal(t, "the first reader still reads", log.rest(t).end.Signal, "SIGKILL")
	equal(t, "and the second", again.rest(t).end.Signal, "SIGKILL")
}

func TestABackgroundProcessLeavesItsSessionAsItWas(t *testing.T) {
	a := startAgent(t)
	a.call("PUT", "/sessions/s", map[string]any{"cwd": "/", "commandTimeoutMs": 50}, nil)
	got := a.run(roll, inSession("s", "cd /tmp; sleep 0.2; pwd"))
	equal(t, "it is not held to the session's limit", got.stdout, "/tmp\n")
	equal(t, "saved", *got.end.StateSaved, false)
	equal(t, "the session", a.run(inSession("s", "pwd")).stdout, "/\n")
}
