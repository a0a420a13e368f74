package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"testing"
)

func TestVariablesAreReadAsBashPrintsThem(t *testing.T) {
	for line, want := range map[string]variable{
		`declare -x A="x y"`:                    {flags: "x", name: "A", value: "x y", hasValue: true, scalar: true},
		`declare -- A="\$a\"b\\c\` + "`d" + `"`: {flags: "-", name: "A", value: "$a\"b\\c`d", hasValue: true, scalar: true},
		`declare -- A=$'\t\'\n\E\001\xff'`:      {flags: "-", name: "A", value: "\t'\n\x1b\x01\xff", hasValue: true, scalar: true},
		`declare -x OLDPWD`:                     {flags: "x", name: "OLDPWD", scalar: true},
		`declare -a L=([0]="a" [1]="b")`:        {flags: "a", name: "L", hasValue: true},
	} {
		if got, ok := parseVariable(line); !ok || got != want {
			t.Errorf("%s: %+v", line, got)
		}
	}
	for _, line := range []string{"", "declare", "declare -x", "declare -x 1=2", `declare -x A="open`, "A=1", `declare -- A=$'open`, `declare -- A='`} {
		if got, ok := parseVariable(line); ok {
			t.Errorf("%q is %+v", line, got)
		}
	}
	equal(t, "records", len(records("a='1\n2'\nb=\"3\n\\\"4\"\nc=$'5\\'\n6'\nd=\\\n7")), 4)
}

func TestAccountsAreFoundInTheImagesFiles(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/bash\r\n# comment\nbroken\nme:x:1000:1000::/home/me:\nhuge:x:99999999999:1:::\nno:x:-1:5::/:\n12:x:77:77::relative:x\n"
	group := "me:x:1000:\nsudo:x:27:other,me\nbroken\nme2:x:1000:me\n"
	for user, want := range map[string]string{
		"":     "root /root /bin/bash <nil>",
		"0":    "root /root /bin/bash <nil>",
		"me":   "me /home/me /bin/sh &{1000 1000 [1000 27]}",
		"1000": "me /home/me /bin/sh &{1000 1000 [1000 27]}",
		"12":   "12 / /bin/sh &{77 77 [77]}",
		"4242": "4242 / /bin/sh &{4242 4242 [4242]}",
	} {
		found, err := lookupAccount(user, passwd, group)
		if got := fmt.Sprint(found.name, " ", found.home, " ", found.shell, " ", found.credential); err != nil || got != want {
			t.Errorf("%q: %s %v", user, got, err)
		}
	}
	for _, user := range []string{"huge", "no", "nobody", "4294967295", "+1", "broken"} {
		if found, err := lookupAccount(user, passwd, group); err == nil {
			t.Errorf("%q: %+v", user, found)
		}
	}
	if found, err := lookupAccount("root", "", ""); err != nil || found.home != "/root" {
		t.Errorf("%+v %v", found, err)
	}
}

func TestLimitsAreReadFromEitherVersionOfCgroups(t *testing.T) {
	for _, one := range []struct {
		files  map[string]string
		pids   int
		limit  uint64
		kills  int64
		memory int64
	}{
		{map[string]string{"pids.max": "512\n", "memory.max": "1048576\n", "memory.events": "low 0\noom 5\noom_kill 2\n"}, 512, 448, 2, 1 << 20},
		{map[string]string{"pids/pids.max": "100\n", "memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"}, 100, 50, 7, 0},
		{map[string]string{"pids.max": "max\n", "memory.max": "max\n"}, 0, 0, -1, 0},
		{nil, 0, 0, -1, 0},
	} {
		root := t.TempDir()
		for name, text := range one.files {
			must(os.MkdirAll(root+"/"+name[:strings.LastIndexByte("/"+name, '/')], 0o755))
			must(os.WriteFile(root+"/"+name, []byte(text), 0o644))
		}
		l := limits{root: root}
		if l.pids() != one.pids || l.processLimit() != one.limit || l.memoryKills() != one.kills || l.memoryBytes() != one.memory {
			t.Errorf("%v: %d %d %d %d", one.files, l.pids(), l.processLimit(), l.memoryKills(), l.memoryBytes())
		}
	}
	equal(t, "told by the spec", limits{root: t.TempDir(), told: "1024"}.pids(), 1024)
}

func TestALimitThatChangesHoldsForTheNextProcess(t *testing.T) {
	root := t.TempDir()
	l := limits{root: root}
	must(os.WriteFile(root+"/pids.max", []byte("1024\n"), 0o644))
	equal(t, "before", l.processLimit(), 960)
	must(os.WriteFile(root+"/pids.max", []byte("512\n"), 0o644))
	equal(t, "after", l.processLimit(), 448)
}

func TestALogGivesEveryByteOnceWhateverIsTrimmed(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for round := 0; round < 24; round++ {
		keep := round%2 == 0
		log := newProcessLog(keep, 1+random.Intn(200_000))
		var all []byte
		var kinds []byte
		position, sealed := int64(0), int64(-1)
		for step := 0; step < 60; step++ {
			piece := make([]byte, random.Intn(1+random.Intn(150_000)))
			random.Read(piece)
			kind := byte(frameStdout + random.Intn(2))
			log.append(kind, piece)
			all = append(all, piece...)
			kinds = append(kinds, bytes.Repeat([]byte{kind}, len(piece))...)
			for random.Intn(3) > 0 {
				got, ok, _ := log.read(position, 1<<60, 1+random.Intn(100_000))
				if !ok {
					break
				}
				if got.offset > position && keep && got.offset < sealed {
					t.Fatalf("a keep log lost [%d, %d)", position, got.offset)
				}
				if !bytes.Equal(got.bytes, all[got.offset:got.end()]) || bytes.Count(kinds[got.offset:got.end()], []byte{got.kind}) != len(got.bytes) {
					t.Fatalf("other bytes at %d", got.offset)
				}
				position = got.end()
				log.advance(position)
			}
			if step == 40 {
				sealed = log.seal()
			}
			held := int64(0)
			for _, one := range log.chunks {
				held += int64(len(one.bytes))
			}
			if state := log.state(); state.held != held || state.offset != int64(len(all)) {
				t.Fatalf("%+v holds %d", state, held)
			}
		}
	}
	equal(t, "logs that share the replay memory", keepingLogs, 0)
}

func TestARouteGivesItsNamesDecoded(t *testing.T) {
	names, ok := match("/processes/*/log", "/processes/a%2Fb/log")
	if !ok || names[0] != "a/b" {
		t.Errorf("%v %v", names, ok)
	}
	for _, path := range []string{"/processes//log", "/processes/a/b/log", "/processes/a", "/processes/%zz/log"} {
		if _, ok := match("/processes/*/log", path); ok {
			t.Error(path)
		}
	}
}

func FuzzVariable(f *testing.F) {
	for _, seed := range []string{`declare -x A="b\"c"`, `declare -- A=$'\x41\101\u00e9\'`, `declare -a X=([0]="1")`, `declare -x A='b'\''c'`, "declare -x A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		v, ok := parseVariable(line)
		if !ok || !v.scalar || !v.hasValue {
			return
		}
		again, ok := parseVariable(exportLine(v.name, v.value))
		if !ok || again.value != v.value || again.name != v.name {
			t.Errorf("%q: %q became %q", line, v.value, again.value)
		}
	})
}

func FuzzState(f *testing.F) {
	dump := "trap -- 'x' SIGUSR1\n\x00begin n\x00declare -x A=\"1\"\ndeclare -r SHELLOPTS=\"a:b\"\n\x00f () \n{ \n    :\n}\n\x00declare -fx f\n\x00alias a='b'\n\x000022\n\x00/tmp\n\x00/tmp\n/usr\n\x00declare -- A\n\x00end n"
	f.Add([]byte(dump), "n")
	f.Add([]byte("\x00begin n\x00\x00\x00\x00\x00\x00\x00end n"), "n")
	f.Fuzz(func(t *testing.T, dump []byte, nonce string) {
		for _, parse := range []func([]byte, string, shellState) (shellState, bool){parseBash, parsePosix} {
			state, ok := parse(dump, nonce, shellState{"cwd": "/", "v:A": "declare -x A"})
			if !ok {
				continue
			}
			if len(state.changes(state)) != 0 {
				t.Error("a state differs from itself")
			}
			restoreBash(shellState{}, state, nil, ":", nonce, "")
			restorePosix(shellState{}, state, nil, ":", nonce, "")
		}
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"))
	if own, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(own)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if stat, ok := parseStat(text); ok && stat.pid <= 0 {
			t.Errorf("%+v", stat)
		}
		markerIn(text)
	})
}

func FuzzAccount(f *testing.F) {
	f.Add("me", "root:x:0:0::/root:/bin/sh\nme:x:1:1::/:\n", "g:x:2:me\n")
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		if found, err := lookupAccount(user, passwd, group); err == nil && !strings.HasPrefix(found.home, "/") {
			t.Errorf("%+v", found)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":"x","command":{"argv":["true"]},"env":{},"defaultCwd":"/","stdin":{"base64":""},"stderr":"merge","mode":"keep"}`))
	f.Add([]byte(`{"id":"x","command":{"script":"a","session":"s"},"callEnv":{"a":null},"stdin":"pipe"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var spec processSpec
		if decodeStrictly(body, &spec) == nil {
			_ = checkSpec(&spec) // either is fine: it must not panic
		}
		var session sessionSpec
		_ = decodeStrictly(body, &session) // as above
		if loaded, err := parseSession(body); err == nil && !strings.HasPrefix(loaded.cwd, "/") {
			t.Errorf("%+v", loaded)
		}
	})
}

func BenchmarkExec(b *testing.B) {
	a := startAgent(b)
	for name, changes := range map[string][]change{
		"argv":    {argv("/bin/true")},
		"script":  {script(":")},
		"session": {inSession("default", ":")},
	} {
		b.Run(name, func(b *testing.B) {
			for i := 0; i < b.N; i++ {
				a.run(changes...)
			}
		})
	}
}
