package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (a *testAgent) say(session, text string, changes ...change) string {
	a.t.Helper()
	return a.run(append([]change{inSession(session, text), merge}, changes...)...).stdout
}

func TestASessionIsThereAfterTheAgentWasKilled(t *testing.T) {
	a := startAgent(t)
	cwd := "sub"
	value := "from the start"
	a.run(argv("mkdir", "-p", a.workspace+"/sub"))
	var made agentSession
	if refusal := a.call("PUT", "/sessions/a%2Fb", sessionSpec{Cwd: &cwd, Env: map[string]*string{"A": &value, "LANG": nil, "x.y": &value}, CommandTimeoutMs: 5000}, &made); refusal != nil {
		t.Fatal(refusal)
	}
	equal(t, "cwd", made.Cwd, a.workspace+"/sub")
	equal(t, "first", a.say("a/b", "pwd; echo $A ${LANG-unset}; env | grep x.y; B=$'\\xff\\n'; f () { echo f; }; alias g=f"), made.Cwd+"\nfrom the start unset\nx.y=from the start\n")
	a.kill()
	a.begin()
	equal(t, "after", a.say("a/b", "pwd; echo $A ${LANG-unset} ${#B}; g; env | grep x.y"), made.Cwd+"\nfrom the start unset 2\nf\nx.y=from the start\n")
	var list sessionList
	a.call("GET", "/sessions", nil, &list)
	equal(t, "sessions", len(list.Sessions), 2)
	equal(t, "timeout", list.Sessions[0].CommandTimeoutMs, int64(5000))
}

func TestSessionsAreMadeChangedAndDeleted(t *testing.T) {
	a := startAgent(t)
	equal(t, "default", a.say("default", "pwd"), a.workspace+"\n")
	equal(t, "default exists", a.call("PUT", "/sessions/default", sessionSpec{}, nil).Code, "SESSION_ALREADY_EXISTS")
	missing := "/no/such"
	equal(t, "no such directory", a.call("PUT", "/sessions/x", sessionSpec{Cwd: &missing}, nil).Code, "FILE_NOT_FOUND")
	equal(t, "unknown", a.call("GET", "/sessions/x", nil, nil).Code, "SESSION_NOT_FOUND")
	equal(t, "a long id", a.call("PUT", "/sessions/"+strings.Repeat("x", 81), sessionSpec{}, nil).Code, "VALIDATION_FAILED")
	a.call("PUT", "/sessions/x", sessionSpec{}, nil)
	equal(t, "again", a.call("PUT", "/sessions/x", sessionSpec{}, nil).Code, "SESSION_ALREADY_EXISTS")
	value := "$patched `\"'"
	a.call("PATCH", "/sessions/x", sessionPatch{map[string]*string{"P": &value, "LANG": nil}}, nil)
	equal(t, "patched", a.say("x", `echo "$P"; env | grep -c LANG`), value+"\n0\n")
	// Deleted while a command runs: the command goes on, its state is dropped.
	spec := makeSpec(inSession("x", "echo up; read; A=1; echo done"), piped)
	log := a.start(spec)
	log.until(t, "up\n")
	a.call("DELETE", "/sessions/x", nil, nil)
	a.call("PUT", "/sessions/x", sessionSpec{}, nil)
	a.call("PUT", "/processes/"+spec.ID+"/stdin?end=1", strings.NewReader("\n"), nil)
	got := log.rest(t)
	equal(t, "goes on", got.stdout, "done\n")
	equal(t, "saved", *got.end.StateSaved, false)
	equal(t, "the new one is fresh", a.say("x", "echo ${A-fresh} ${P-fresh}"), "fresh fresh\n")
}

func TestTheSandboxesVariablesReachASessionUnlessItChangedThem(t *testing.T) {
	a := startAgent(t)
	with := func(env map[string]string) change {
		return func(s *processSpec) {
			for name, value := range env {
				s.Env[name] = value
			}
		}
	}
	first := with(map[string]string{"A": "a1", "B": "b1\n\t'\"$", "a.b": "dot"})
	equal(t, "first", a.say("default", `echo "$A|$B"; env | grep a.b; A=own; C=1`, first), "a1|b1\n\t'\"$\na.b=dot\n")
	second := with(map[string]string{"A": "a2", "B": "b2"})
	equal(t, "second", a.say("default", `echo "$A $B $C"; unset B; env | grep -c a.b`, second), "own b2 1\n0\n")
	equal(t, "third", a.say("default", `echo "$A ${B-unset}"`, second), "own unset\n")
}

func TestWhatACallBringsDoesNotEnterTheSession(t *testing.T) {
	a := startAgent(t)
	a.say("default", "A=session; export A; cd /usr")
	null := func(s *processSpec) { s.CallEnv = map[string]*string{"PATH": nil} }
	cwd := func(path string) change { return func(s *processSpec) { s.Cwd = &path } }
	equal(t, "call", a.say("default", "echo $A $X; pwd; B=1", callEnv("A", "call"), callEnv("X", "x"), cwd("lib")), "call x\n/usr/lib\n")
	equal(t, "after", a.say("default", "echo $A ${X-no} $B; pwd"), "session no 1\n/usr\n")
	a.say("default", "echo ${PATH-unset}", null)
	equal(t, "path", a.say("default", "echo $PATH"), "/usr/local/bin:/usr/bin:/bin\n")
	a.say("default", "A=changed; cd /etc", callEnv("A", "call"), cwd("lib"))
	equal(t, "changed", a.say("default", "echo $A; pwd"), "changed\n/etc\n")
	equal(t, "another user", a.say("default", "id -un; echo $HOME", func(s *processSpec) { s.User = "nobody" }), "nobody\n/nonexistent\n")
	equal(t, "then", a.say("default", "id -u; echo $HOME"), "0\n/root\n")
}

func TestCommandsOfOneSessionRunAtTheSameTime(t *testing.T) {
	a := startAgent(t)
	a.say("default", "mkfifo one two three")
	commands := map[string]string{
		"one":   "touch 1; A=1; D=first; cat one >/dev/null",
		"two":   "touch 2; B=1; cat two >/dev/null; cd /etc",
		"three": "touch 3; cat three >/dev/null; C=1; D=last",
	}
	ended := map[string]chan struct{}{}
	for name, text := range commands {
		done, text := make(chan struct{}), text
		ended[name] = done
		go func() { a.run(inSession("default", text)); close(done) }()
	}
	a.run(script("cd " + a.workspace + "; until [ -e 1 ] && [ -e 2 ] && [ -e 3 ]; do sleep 0.01; done")) // all have begun
	for _, name := range []string{"two", "one", "three"} {
		a.run(script("echo >" + a.workspace + "/" + name)) // waits until the command has opened it
		<-ended[name]
	}
	equal(t, "all of it", a.say("default", "echo $A$B$C $D; pwd"), "111 last\n/etc\n")
}

func TestAFullDiskLeavesTheOldStateWhole(t *testing.T) {
	a := prepareAgent(t)
	folder := filepath.Join(a.folder, "small")
	a.arguments = []string{"-sessions", folder}
	a.environ = []string{"ATOLL_TEST_TMPFS=" + folder + ":size=64k"}
	a.begin()
	a.say("default", "A=1")
	a.run(script("cat " + folder + "/default.json >" + a.folder + "/before; head -c 100000 /dev/zero >" + folder + "/filler"))
	got := a.run(inSession("default", "B=2"))
	equal(t, "the command", got.end.ExitCode, 0)
	equal(t, "in memory", a.say("default", "echo $A$B"), "12\n")
	equal(t, "on disk", a.run(script("cmp "+folder+"/default.json "+a.folder+"/before && ls -a "+folder)).stdout, ".\n..\ndefault.json\nfiller\n")
	refusal := a.call("PUT", "/sessions/other", sessionSpec{}, nil)
	equal(t, "a new session", refusal.Code, "NO_SPACE")
	a.run(argv("rm", folder+"/filler"))
	a.say("default", ":")
	text := a.run(argv("cat", folder+"/default.json")).stdout
	saved, err := parseSession([]byte(text))
	if err != nil || saved.changes["v:B"].value != `declare -- B="2"` {
		t.Errorf("%v %v", err, saved)
	}
}

func TestABrokenSessionFileIsAFreshSession(t *testing.T) {
	a := prepareAgent(t)
	folder := filepath.Join(a.folder, "sessions")
	must(os.MkdirAll(folder, 0o755))
	must(os.Chown(folder, hostUID, hostUID))
	for name, text := range map[string]string{"broken.json": "{", "other.json": `{"version":1,"id":"x","createdAtMs":1,"cwd":"Lw==","changes":[]}`, "new.json": `{"version":9}`} {
		must(os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644))
	}
	must(os.Symlink("/dev/zero", filepath.Join(folder, "zero.json")))
	a.begin()
	var list sessionList
	a.call("GET", "/sessions", nil, &list)
	equal(t, "sessions", len(list.Sessions), 1)
	equal(t, "usable", a.say("default", "echo fine"), "fine\n")
}

func TestACommandThatChangesNothingWritesNothing(t *testing.T) {
	a := startAgent(t)
	a.say("default", "echo hi; ls / >/dev/null; (A=1)", func(s *processSpec) { s.Env["B"] = "\x01\n'\"$`\\é\xff" })
	if _, err := os.Stat(filepath.Join(a.folder, "sessions", "default.json")); !os.IsNotExist(err) {
		text, _ := os.ReadFile(filepath.Join(a.folder, "sessions", "default.json"))
		saved, _ := parseSession(text)
		t.Errorf("%v: %+v", err, saved.changes)
	}
}
