package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// told is a stream with a clock that is set by hand.
type toldStream struct {
	*watchStream
	t  *testing.T
	at time.Time
}

func joined(t *testing.T) *toldStream {
	s := &toldStream{newWatchStream(75 * time.Millisecond), t, time.UnixMilli(1000)}
	s.now = func() time.Time { return s.at }
	return s
}

func (s *toldStream) file(path string, kinds ...watchKind) {
	for _, kind := range kinds {
		s.tell(kind, path, false, "")
	}
}

func (s *toldStream) after(ms int64) { s.at = s.at.Add(time.Duration(ms) * time.Millisecond) }

func (s *toldStream) has(want string) {
	s.t.Helper()
	var words []string
	now := s.take(1000)
	if now.lost != nil {
		words = append(words, "overflow")
	}
	for _, one := range now.events {
		words = append(words, watchKindNames[one.kind]+" "+one.path)
	}
	if now.last != nil {
		words = append(words, "last")
	}
	if got := strings.Join(words, ", "); got != want {
		s.t.Errorf("told %q, want %q", got, want)
	}
}

func TestTheFirstChangeIsToldAtOnceAndTheRestAtTheEndOfTheWindow(t *testing.T) {
	s := joined(t)
	s.file("a", watchCreate, watchModify, watchModify, watchModify)
	s.has("create a, modify a")
	s.after(50)
	s.file("a", watchModify)
	s.has("")
	s.after(24)
	s.has("")
	s.after(1)
	s.has("modify a")
	s.after(74)
	s.file("a", watchModify)
	s.has("") // that one opened a window of its own
	s.after(1)
	s.has("modify a")
	s.after(75)
	s.has("")
	s.file("a", watchModify)
	s.has("modify a")
	equal(t, "windows", len(s.windows), 1)
	s.after(75)
	s.has("")
	equal(t, "windows", len(s.windows)+len(s.order), 0)
}

func TestJoinedChangesEndAsTheFileEnded(t *testing.T) {
	s := joined(t)
	s.file("a", watchCreate, watchDelete, watchCreate, watchDelete, watchCreate)
	s.has("create a, delete a")
	s.after(75)
	s.has("delete a, create a")
	s.file("b", watchDelete, watchCreate, watchMoveFrom, watchDelete, watchCreate, watchMoveFrom)
	s.has("delete b, create b, move_from b")
	s.after(75)
	s.has("delete b, create b, move_from b")
}

func TestPathsAreJoinedEachForItself(t *testing.T) {
	s := joined(t)
	s.file("a", watchModify)
	s.after(40)
	s.file("b", watchModify, watchModify)
	s.file("a", watchModify)
	s.has("modify a, modify b")
	s.after(35)
	s.has("modify a")
	s.after(40)
	s.has("modify b")
}

func TestWhatHappensToDirectoriesIsToldInOrder(t *testing.T) {
	s := joined(t)
	s.file("d/a", watchModify, watchModify)
	s.tell(watchMoveFrom, "d", true, "")
	s.tell(watchMoveTo, "e", true, "d")
	s.tell(watchMoveFrom, "e", true, "")
	s.tell(watchMoveTo, "d", true, "e")
	s.has("modify d/a, modify d/a, move_from d, move_to e, move_from e, move_to d")
	s.after(75)
	s.has("")
	s.file("a", watchModify, watchModify)
	s.stop("gone", nil)
	s.file("a", watchModify)
	s.has("modify a, modify a, last")
}

func TestAReaderFarBehindLosesEverythingAndIsTold(t *testing.T) {
	before := atomic.LoadInt64(&streamsBytes)
	s := joined(t)
	for i := 0; s.lost == nil; i++ {
		s.file(fmt.Sprintf("%d-%s", i, strings.Repeat("x", 100)), watchCreate, watchModify, watchModify)
		if s.bytes > streamLimitBytes || i > 1_000_000 {
			t.Fatalf("%d bytes are waiting", s.bytes)
		}
		s.after(1)
	}
	if now := s.take(10); now.lost == nil || len(now.events) > 2 {
		t.Errorf("taken: %+v", now)
	}
	s.file("after", watchCreate)
	s.has("create after")
	s.overflow()
	s.has("overflow")
	s.file("x", watchCreate)
	s.abandon()
	s.file("y", watchCreate)
	equal(t, "bytes waiting", atomic.LoadInt64(&streamsBytes), before)
}

func TestJoiningManyPathsIsBounded(t *testing.T) {
	s := joined(t)
	for i := 0; i < 3*joinedPathsLimit; i++ {
		s.file(fmt.Sprint(i), watchModify, watchModify)
		if i%100 == 0 {
			s.after(1)
		}
		if len(s.windows) > joinedPathsLimit {
			t.Fatalf("%d windows", len(s.windows))
		}
	}
	s.after(75)
	count := 0
	if s.pending < 0 || len(s.held) > 2*joinedPathsLimit+64 {
		t.Errorf("%d pending, %d held", s.pending, len(s.held))
	}
	for more := true; more; {
		now := s.take(1000)
		if now.lost != nil {
			return
		}
		count += len(now.events)
		more = now.more
	}
	equal(t, "events", count, 6*joinedPathsLimit)
}
