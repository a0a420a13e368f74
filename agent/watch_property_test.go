package main

import (
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
)

// mirror is what a reader knows who starts with an empty directory and believes every event.
type mirror map[string]bool

func (m mirror) below(path string) []string {
	var found []string
	for one := range m {
		if one == path || strings.HasPrefix(one, path+"/") {
			found = append(found, one)
		}
	}
	return found
}

func (m mirror) remove(path string) {
	for _, one := range m.below(path) {
		delete(m, one)
	}
}

// follow applies the events up to the end mark.
// strict: nothing is told to come that is there already. Joined changes tell only the last of several creations and
// removals of a file; and where several rename at once a directory may be seen before it is told that it is another.
func (m mirror) follow(t *testing.T, w *watching, end string, strict bool) (lost bool) {
	var departed []string
	for {
		line := w.next()
		if line.Overflow != nil {
			lost = true
			continue
		}
		if line.Event == nil {
			t.Fatalf("told %+v", line)
		}
		path := strings.TrimPrefix(line.Event.Path, w.path+"/")
		switch line.Event.EventType {
		case "create":
			if m[path] && !lost && strict {
				t.Errorf("%q was told to be created twice", path)
			}
			m[path] = true
		case "delete":
			m.remove(path)
		case "move_from":
			departed = m.below(path)
			m.remove(path)
		case "move_to":
			m.remove(path)
			m[path] = true
			if from := strings.TrimPrefix(line.Event.MovedFrom, w.path+"/"); from != "" {
				for _, one := range departed {
					m[path+strings.TrimPrefix(one, from)] = true
				}
			}
		}
		if path == end {
			return lost
		}
	}
}

func treeOf(t *testing.T, root string) mirror {
	t.Helper()
	found := mirror{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if path != root {
			found[strings.TrimPrefix(path, root+"/")] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (m mirror) difference(other mirror) []string {
	var only []string
	for one := range m {
		if !other[one] {
			only = append(only, one)
		}
	}
	sort.Strings(only)
	return only
}

// disturb does random things in a tree, and in a directory beside it, until it has done so many.
func disturb(random *rand.Rand, root, beside string, count int) {
	names := []string{"a", "b", "c", "d", "ü"}
	place := func(base string) string {
		path := base
		for depth := random.Intn(4); depth >= 0; depth-- {
			path = filepath.Join(path, names[random.Intn(len(names))])
		}
		return path
	}
	// Most of it fails, as what it needs is not there or somebody else was quicker: that is the point.
	for i := 0; i < count; i++ {
		switch random.Intn(10) {
		case 0, 1, 2:
			_ = os.MkdirAll(place(root), 0o755)
		case 3, 4:
			_ = os.WriteFile(place(root), []byte("x"), 0o644)
		case 5:
			_ = os.RemoveAll(place(root))
		case 6, 7:
			_ = os.Rename(place(root), place(root))
		case 8:
			_ = os.Rename(place(root), place(beside))
		case 9:
			_ = os.Rename(place(beside), place(root))
		}
	}
}

func TestWhoFollowsAWatchKnowsTheTree(t *testing.T) {
	rounds, count := 8, 400
	if testing.Short() {
		rounds = 3
	}
	for seed := 0; seed < rounds; seed++ {
		for _, joinMs := range []int64{0, 5} {
			workers := 1 + seed%4
			t.Run(fmt.Sprintf("seed %d, %d at once, join %d ms", seed, workers, joinMs), func(t *testing.T) {
				l := startLive(t)
				l.mkdir("watched")
				l.mkdir("beside")
				w := l.watch(func(r *watchRequest) { r.Path, r.JoinMs = l.path("watched"), joinMs })
				var all sync.WaitGroup
				for worker := 0; worker < workers; worker++ {
					all.Add(1)
					go func(seed int64) {
						defer all.Done()
						disturb(rand.New(rand.NewSource(seed)), w.path, l.path("beside"), count)
					}(int64(seed*100 + worker))
				}
				known := mirror{}
				finished := make(chan bool)
				go func() {
					all.Wait()
					l.agent.watches.settle(l.context())
					l.mkdir("watched/end")
					close(finished)
				}()
				lost := known.follow(t, w, "end", joinMs == 0 && workers == 1)
				<-finished
				real := treeOf(t, w.path)
				if lost {
					t.Log("events were lost, and that was told")
					return
				}
				if missed, gone := real.difference(known), known.difference(real); len(missed)+len(gone) > 0 {
					t.Errorf("not told: %q\ntold but not there: %q", missed, gone)
				}
				// Every directory that is there is watched.
				for path := range real {
					if info, err := os.Lstat(filepath.Join(w.path, path)); err == nil && info.IsDir() {
						l.mkdir("watched/" + path + "/probe")
						w.until("create " + path + "/probe/")
					}
				}
			})
		}
	}
}
