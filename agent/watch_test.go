package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAWatchTellsWhatHappens(t *testing.T) {
	l := startLive(t)
	l.write("old.txt", "old")
	w := l.watch()
	equal(t, "path", w.path, l.folder)
	l.write("new.txt", "x")
	w.tells("create new.txt", "modify new.txt")
	l.must(os.Chmod(l.path("old.txt"), 0o600))
	w.tells("attrib old.txt")
	l.rename("old.txt", "older.txt")
	w.tells("move_from old.txt", "move_to older.txt")
	l.must(os.Remove(l.path("older.txt")))
	w.tells("delete older.txt")
	l.must(os.Symlink("nowhere", l.path("link")))
	w.tells("create link")
	l.must(os.Chmod(l.folder, 0o700))
	w.tells("attrib /")
}

func TestAWatchWithoutRecursionTellsOneDirectory(t *testing.T) {
	l := startLive(t)
	l.mkdir("deep")
	w := l.watch(func(r *watchRequest) { r.Recursive = false })
	l.watchesDirectories(1 + strings.Count(l.folder, "/"))
	l.write("deep/hidden", "x")
	l.mkdir("deeper")
	l.write("deeper/hidden", "x")
	l.rename("deeper", "moved")
	l.write("end", "")
	w.tells("create deeper/", "move_from deeper/", "move_to moved/", "create end")
}

func TestDirectoriesThatComeAreWatchedWithWhatIsInThem(t *testing.T) {
	l := startLive(t)
	w := l.watch()
	for round := 0; round < 50; round++ {
		top := fmt.Sprintf("r%d", round)
		l.mkdir(top + "/a/b/c")
		l.write(top+"/a/b/c/file", "x")
		l.write(top+"/end", "")
		missing := map[string]bool{"/": true, "/a/": true, "/a/b/": true, "/a/b/c/": true, "/a/b/c/file": true, "/end": true}
		for len(missing) > 0 {
			got := w.event()
			name, is := cutPrefix(got, "create "+top)
			if is && !missing[name] || !is && !strings.HasPrefix(got, "modify ") {
				t.Fatalf("round %d told %q, missing %v", round, got, missing)
			}
			delete(missing, name)
		}
		l.write(top+"/a/b/c/later", "")
		w.until("create " + top + "/a/b/c/later")
	}
}

func cutPrefix(text, prefix string) (string, bool) {
	return strings.TrimPrefix(text, prefix), strings.HasPrefix(text, prefix)
}

func TestPathsAreRightAfterATreeIsRenamed(t *testing.T) {
	l := startLive(t)
	l.mkdir("one/two/three")
	l.mkdir("other")
	w := l.watch()
	l.rename("one", "other/uno")
	w.tells("move_from one/", "move_to other/uno/")
	l.write("other/uno/two/three/file", "")
	w.tells("create other/uno/two/three/file")
	l.rename("other/uno/two", "dos")
	w.tells("move_from other/uno/two/", "move_to dos/")
	l.must(os.Remove(l.path("dos/three/file")))
	w.tells("delete dos/three/file")
	l.mkdir("dos/three/four")
	w.tells("create dos/three/four/")
	l.write("dos/three/four/file", "")
	w.tells("create dos/three/four/file")
}

func TestADirectoryThatComesFromElsewhereIsToldWithItsContent(t *testing.T) {
	l := startLive(t)
	l.mkdir("watched")
	l.mkdir("outside/tree/sub")
	l.write("outside/tree/sub/file", "")
	w := l.watch(func(r *watchRequest) { r.Path = l.path("watched") })
	l.rename("outside/tree", "watched/tree")
	w.tells("move_to tree/", "create tree/sub/", "create tree/sub/file")
	l.rename("watched/tree", "outside/tree")
	w.tells("move_from tree/")
	l.write("outside/tree/sub/unseen", "")
	l.write("watched/end", "")
	w.tells("create end")
}

func TestOneDirectoryMayBeWatchedByMany(t *testing.T) {
	l := startLive(t)
	l.mkdir("a/b")
	l.must(os.Symlink("a", l.path("link")))
	all, sub := l.watch(), l.watch(func(r *watchRequest) { r.Path = l.path("a/b") })
	byLink := l.watch(func(r *watchRequest) { r.Path = l.path("link") })
	if instances, _ := inotifyDirectories(t); instances != 1 {
		t.Errorf("%d instances", instances)
	}
	l.write("a/b/file", "")
	all.tells("create a/b/file")
	sub.tells("create file")
	byLink.tells("create b/file")
	sub.close()
	until(t, "the watch has ended", func() bool {
		l.agent.watches.mutex.Lock()
		defer l.agent.watches.mutex.Unlock()
		return len(l.agent.watches.all) == 2
	})
	l.rename("a/b", "b")
	all.tells("move_from a/b/", "move_to b/")
	byLink.tells("move_from b/")
	l.write("b/again", "")
	all.tells("create b/again")
	l.rename("b", "a/b")
	all.tells("move_from b/", "move_to a/b/")
	byLink.tells("move_to b/")
	byLink.tellsAll("create b/again", "create b/file")
}

func TestAWatchIsStoppedWhenItsDirectoryGoes(t *testing.T) {
	for name, go_ := range map[string]func(l *live){
		"deleted":               func(l *live) { l.must(os.RemoveAll(l.path("up/root"))) },
		"moved":                 func(l *live) { l.rename("up/root", "elsewhere") },
		"moved with its parent": func(l *live) { l.rename("up", "elsewhere") },
		"deleted while open": func(l *live) {
			open, err := os.Open(l.path("up/root"))
			l.must(err)
			l.t.Cleanup(func() { open.Close() })
			l.must(os.RemoveAll(l.path("up/root")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLive(t)
			l.mkdir("up/root/sub")
			w := l.watch(func(r *watchRequest) { r.Path = l.path("up/root") })
			go_(l)
			for {
				line := w.next()
				if line.Stopped != nil {
					break
				}
				if line.Event == nil || line.Event.EventType != "delete" {
					t.Fatalf("told %+v", line)
				}
			}
			if _, err := w.lines.ReadByte(); err == nil {
				t.Error("something follows the end")
			}
			l.watchesDirectories(0)
		})
	}
}

func TestWhatIsExcludedIsNotEvenWatched(t *testing.T) {
	l := startLive(t)
	l.mkdir("node_modules/a/b/c")
	l.mkdir("src/dist/deep")
	w := l.watch(func(r *watchRequest) { r.Exclude = []string{"node_modules", "src/dist", "*.log"} })
	l.watchesDirectories(2 + strings.Count(l.folder, "/"))
	l.write("node_modules/a/file", "")
	l.write("src/dist/deep/file", "")
	l.write("src/x.log", "")
	l.mkdir("deep")
	w.tells("create deep/")
	l.mkdir("deep/node_modules/x")
	l.write("deep/end", "")
	w.tells("create deep/end")
	l.rename("node_modules/a", "a")
	w.tells("move_to a/")
	w.tellsAll("create a/b/", "create a/file", "create a/b/c/")
	l.rename("a", "node_modules/a")
	w.tells("move_from a/")
	l.write("node_modules/a/again", "")
	l.write("end", "")
	w.tells("create end")
}

func TestOnlyWhatIsIncludedIsTold(t *testing.T) {
	l := startLive(t)
	w := l.watch(func(r *watchRequest) { r.Include = []string{"*.{ts,tsx}", "conf/**"} })
	l.mkdir("src/conf")
	l.write("src/a.txt", "x")
	l.write("src/conf/a", "x")
	l.write("src/a.tsx", "")
	w.tells("create src/a.tsx")
	l.mkdir("conf/x")
	w.tells("create conf/x/")
	l.rename("src", "lib")
	w.tells("move_from src/", "move_to lib/")
	l.write("lib/b.ts", "")
	w.tells("create lib/b.ts")
}

func TestTheAgentsOwnFilesAreNeverTold(t *testing.T) {
	l := startLive(t)
	w := l.watch()
	l.write(unfinishedPrefix+"1", "x")
	l.rename(unfinishedPrefix+"1", "whole")
	w.tells("move_to whole")
	l.mkdir(unfinishedPrefix + "tree/sub")
	l.write(unfinishedPrefix+"tree/sub/file", "x")
	l.rename(unfinishedPrefix+"tree", "tree")
	w.tells("move_to tree/", "create tree/sub/", "create tree/sub/file")
	l.rename("tree", unfinishedPrefix+"tree")
	w.tells("move_from tree/")
	l.write(unfinishedPrefix+"tree/sub/more", "x")
	l.write("end", "")
	w.tells("create end")
}

func TestAnyNameIsTold(t *testing.T) {
	l := startLive(t)
	w := l.watch()
	names := []string{"ünïcödé", "日本語 😀", "new\nline", `quote"back\slash`, "<&>", " ", strings.Repeat("x", 255), "-", "a*?[b]"}
	for _, name := range names {
		l.mkdir(name)
		w.tells("create " + name + "/")
		l.write(name+"/"+name, "")
		w.tells("create " + name + "/" + name)
	}
	l.write("bad\xff\xfename", "")
	w.tells("create bad\ufffd\ufffdname")
}

func TestAWatchThatCannotBeIsRefused(t *testing.T) {
	l := startLive(t)
	l.write("file", "")
	for _, one := range []struct {
		request watchRequest
		code    string
	}{
		{watchRequest{Path: l.path("missing")}, "FILE_NOT_FOUND"},
		{watchRequest{Path: l.path("file")}, "NOT_DIRECTORY"},
		{watchRequest{Path: l.path("file/")}, "NOT_DIRECTORY"},
		{watchRequest{Path: ""}, "VALIDATION_FAILED"},
		{watchRequest{Path: "x\x00y"}, "VALIDATION_FAILED"},
		{watchRequest{Path: l.folder, JoinMs: -1}, "VALIDATION_FAILED"},
		{watchRequest{Path: l.folder, JoinMs: 10_001}, "VALIDATION_FAILED"},
		{watchRequest{Path: l.folder, Include: []string{"[a"}}, "VALIDATION_FAILED"},
		{watchRequest{Path: l.folder, Exclude: []string{""}}, "VALIDATION_FAILED"},
		{watchRequest{Path: l.folder, Exclude: []string{strings.Repeat("{a,b}", 20)}}, "VALIDATION_FAILED"},
		{watchRequest{Path: ".", Session: "nobody"}, "SESSION_NOT_FOUND"},
	} {
		_, refusal := l.tryWatch(one.request)
		if refusal == nil || refusal.Code != one.code || !strings.HasPrefix(refusal.Message, "Cannot ") {
			t.Errorf("%+v: %+v", one.request, refusal)
		}
	}
	l.watchesDirectories(0)
	w := l.watch(func(r *watchRequest) { r.Path = "." })
	equal(t, "a relative path is the session's", w.path, l.folder)
}

func TestEndingTheLastWatchClosesTheInotifyHandle(t *testing.T) {
	l := startLive(t)
	for i := 0; i < 100; i++ {
		l.mkdir(fmt.Sprintf("d%d/sub", i))
	}
	before, _ := inotifyDirectories(t)
	equal(t, "instances", before, 0)
	first, second := l.watch(), l.watch(func(r *watchRequest) { r.Path = l.path("d1") })
	l.watchesDirectories(201 + strings.Count(l.folder, "/"))
	first.close()
	l.watchesDirectories(3 + strings.Count(l.folder, "/"))
	second.close()
	until(t, "no instance is open", func() bool {
		instances, _ := inotifyDirectories(t)
		return instances == 0
	})
	third := l.watch()
	l.write("again", "")
	third.tells("create again")
}

func TestAReaderThatDoesNotReadIsToldThatItLostSomething(t *testing.T) {
	l := startLive(t)
	w := l.watch()
	name := strings.Repeat("x", 200)
	for i := 0; i < 25_000; i++ {
		file, err := os.Create(l.path(fmt.Sprintf("%s%d", name, i)))
		l.must(err)
		file.Close()
		l.must(os.Remove(file.Name()))
	}
	for w.next().Overflow == nil {
	}
	l.write("end", "")
	w.until("create end")
	w.close()
}

func TestWhenTheKernelLosesEventsItIsToldAndDirectoriesAreWatchedAgain(t *testing.T) {
	l := startLive(t)
	l.mkdir("gone/sub")
	l.mkdir("old/sub")
	w := l.watch()
	text := readSmall("/proc/sys/fs/inotify/max_queued_events")
	limit := 0
	fmt.Sscan(text, &limit)
	if limit == 0 || limit > 100_000 {
		t.Skipf("the kernel's queue holds %s", text)
	}
	l.agent.watches.mutex.Lock() // nobody reads the queue
	for i := 0; i < limit/2+600; i++ {
		file, err := os.Create(l.path(fmt.Sprintf("f%d", i%1000)))
		l.must(err)
		file.Close()
		l.must(os.Remove(file.Name()))
	}
	l.mkdir("new/deep")
	l.must(os.RemoveAll(l.path("gone")))
	l.rename("old", "moved")
	l.agent.watches.mutex.Unlock()
	for w.next().Overflow == nil {
	}
	l.write("new/deep/file", "")
	w.until("create new/deep/file")
	l.write("moved/sub/file", "")
	w.until("create moved/sub/file")
	l.watchesDirectories(5 + strings.Count(l.folder, "/"))
}

func TestALoudDirectoryIsToldWithoutALoss(t *testing.T) {
	l := startLive(t)
	w := l.watch(func(r *watchRequest) { r.JoinMs = 75 })
	const directories, files = 300, 33
	go func() {
		for i := 0; i < directories; i++ {
			name := fmt.Sprintf("node_modules/p%d/lib", i)
			_ = os.MkdirAll(l.path(name), 0o755) // what is missing is seen below
			for j := 0; j < files; j++ {
				_ = os.WriteFile(l.path(fmt.Sprintf("%s/f%d.js", name, j)), []byte("module.exports = 1\n"), 0o644)
			}
		}
		_ = os.WriteFile(l.path("end"), nil, 0o644)
	}()
	seen := map[string]int{}
	for {
		line := w.next()
		if line.Event == nil {
			t.Fatalf("told %+v", line)
		}
		if line.Event.EventType == "create" {
			seen[line.Event.Path]++
		}
		if strings.HasSuffix(line.Event.Path, "/end") {
			break
		}
	}
	missing := 0
	_ = filepath.Walk(l.folder, func(path string, _ os.FileInfo, _ error) error {
		if path != l.folder && seen[path] != 1 {
			missing++
		}
		return nil
	})
	equal(t, "paths not told once", missing, 0)
}

func TestAQuietWatchBeats(t *testing.T) {
	l := startLive(t)
	w := l.watch()
	line, err := w.lines.ReadString('\n')
	l.must(err)
	equal(t, "heartbeat", line, "{\"heartbeat\":{}}\n")
}

func TestWatchesHaveALimitThatIsTold(t *testing.T) {
	a := startAgent(t)
	got := a.run(script(`mkdir -p /tmp/few/a/b /tmp/few/c; echo 8 > /proc/sys/user/max_inotify_watches && cat /proc/sys/user/max_inotify_watches`))
	if got.stdout != "8\n" {
		t.Skipf("the limit cannot be set here: %+v", got)
	}
	l := &live{t: t, client: a.client, folder: "/tmp/few"}
	defer a.run(script(`rm -rf /tmp/few`))
	w := l.watch()
	for i := 0; ; i++ {
		a.run(argv("mkdir", fmt.Sprintf("/tmp/few/d%d", i)))
		line := w.next()
		if line.Error != nil {
			equal(t, "code", line.Error.Code, "LIMIT_REACHED")
			break
		}
		if line.Event == nil || i > 20 {
			t.Fatalf("told %+v", line)
		}
	}
	if _, refusal := l.tryWatch(watchRequest{Path: "/tmp/few", Recursive: true}); refusal == nil || refusal.Code != "LIMIT_REACHED" {
		t.Errorf("refused: %+v", refusal)
	}
	few := l.watch(func(r *watchRequest) { r.Recursive = false })
	a.run(argv("touch", "/tmp/few/file"))
	few.tells("create file")
}

func BenchmarkWatchLatency(b *testing.B) {
	l := startLive(b)
	w := l.watch()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		l.mkdir(fmt.Sprintf("d%d", i))
		w.next()
	}
}
