package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

func (l *live) changed(since string, changes ...func(*changesRequest)) changesAnswer {
	l.t.Helper()
	request := changesRequest{Path: l.folder, Recursive: true}
	if since != "" {
		request.Since = &since
	}
	for _, change := range changes {
		change(&request)
	}
	var answer changesAnswer
	if refusal := l.ask("POST", "/changes", request, &answer); refusal != nil {
		l.t.Fatal(refusal)
	}
	return answer
}

func TestWhoWasAwayIsToldWhetherSomethingChanged(t *testing.T) {
	l := startLive(t)
	l.mkdir("sub")
	first := l.changed("")
	equal(t, "status", first.Status, "unchanged")
	equal(t, "a quiet tree", l.changed(first.Version), first)
	for i := 0; i < 50; i++ {
		// What happened before the question is in the answer.
		l.write("sub/file", fmt.Sprint(i))
		second := l.changed(first.Version)
		equal(t, "status", second.Status, "changed")
		equal(t, "an old version", l.changed(first.Version), second)
		first = l.changed(second.Version)
		equal(t, "status", first.Status, "unchanged")
	}
	shallow := func(r *changesRequest) { r.Recursive = false }
	filtered := func(r *changesRequest) { r.Exclude = []string{"*.log"} }
	one, two := l.changed("", shallow), l.changed("", filtered)
	l.write("sub/x.log", "")
	equal(t, "shallow", l.changed(one.Version, shallow).Status, "unchanged")
	equal(t, "filtered", l.changed(two.Version, filtered).Status, "unchanged")
	equal(t, "all", l.changed(first.Version).Status, "changed")
	equal(t, "another question", l.changed(one.Version).Status, "resync")
}

func TestAVersionThatMeansNothingHereIsResync(t *testing.T) {
	l := startLive(t)
	first := l.changed("")
	for _, since := range []string{"x", "0-0-0-0", strings.Repeat("9", 10_000), "another" + first.Version} {
		got := l.changed(since)
		equal(t, "status", got.Status, "resync")
		equal(t, "version", got.Version, first.Version)
	}
	l.agent.watches.mutex.Lock()
	for w := range l.agent.watches.all {
		w.rebuild() // as after a loss
	}
	l.agent.watches.mutex.Unlock()
	equal(t, "after a loss", l.changed(first.Version).Status, "resync")
}

func TestADirectoryMadeAgainIsAnother(t *testing.T) {
	l := startLive(t)
	l.mkdir("d")
	below := func(r *changesRequest) { r.Path = l.path("d") }
	first := l.changed("", below)
	l.must(os.RemoveAll(l.path("d")))
	refusal := l.ask("POST", "/changes", changesRequest{Path: l.path("d"), Recursive: true}, nil)
	if refusal == nil || refusal.Code != "FILE_NOT_FOUND" {
		t.Errorf("refused: %+v", refusal)
	}
	l.watchesDirectories(0)
	l.mkdir("d")
	equal(t, "status", l.changed(first.Version, below).Status, "resync")
}

func TestOnlySomeQuestionsAreKeptInMind(t *testing.T) {
	l := startLive(t)
	ask := func(i int, since string) changesAnswer {
		return l.changed(since, func(r *changesRequest) { r.Exclude = []string{fmt.Sprint(i)} })
	}
	first, second := ask(1, ""), ask(2, "")
	for i := 3; i <= retainedLimit; i++ {
		ask(i, "")
	}
	equal(t, "kept", ask(1, first.Version).Status, "unchanged")
	ask(retainedLimit+1, "")
	equal(t, "asked lately", ask(1, first.Version).Status, "unchanged")
	equal(t, "asked the longest ago", ask(2, second.Version).Status, "resync")
	until(t, "the forgotten ones are ended", func() bool {
		l.agent.watches.mutex.Lock()
		defer l.agent.watches.mutex.Unlock()
		return len(l.agent.watches.all) == retainedLimit
	})
}

func TestManyWhoAskTheSameAtOnceShareOneWatch(t *testing.T) {
	l := startLive(t)
	var all sync.WaitGroup
	versions := make([]string, 20)
	for i := range versions {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			versions[i] = l.changed("").Version
		}(i)
	}
	all.Wait()
	for _, one := range versions {
		equal(t, "version", one, versions[0])
	}
}
