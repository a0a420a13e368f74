package main

import (
	"strings"
	"testing"
)

func TestAProgramGetsWhatItsSessionHasForIt(t *testing.T) {
	a := startAgent(t)
	within := func(id string, args ...string) change {
		return func(s *processSpec) { s.Command = processCommand{Argv: args, Session: &id} }
	}
	value := "made"
	spec := sessionSpec{Env: map[string]*string{"MADE": &value}, CommandTimeoutMs: 20_000}
	if refusal := a.call("PUT", "/sessions/own", spec, &agentSession{}); refusal != nil {
		t.Fatal(refusal)
	}
	a.run(inSession("own", `mkdir -p '`+a.folder+`/deep'; cd '`+a.folder+`/deep'; export X='a "b"'; HIDDEN=1; LATER=2; export LATER`))
	equal(t, "directory", a.run(within("own", "pwd")).stdout, a.folder+"/deep\n")
	equal(t, "another's directory", a.run(argv("pwd")).stdout != a.folder+"/deep\n", true)
	print := []string{"sh", "-c", `echo "$MADE,$X,$HIDDEN,$LATER,$GIVEN"`}
	equal(t, "variables", a.run(within("own", print...), callEnv("GIVEN", "call")).stdout, "made,a \"b\",,2,call\n")
	a.run(inSession("own", "unset X; declare +x LATER; export MADE=again"))
	equal(t, "changed", a.run(within("own", print...)).stdout, "again,,,,\n")
	equal(t, "nothing is left", a.run(within("own", "sh", "-c", "cd /; export Y=1")).end.StateSaved == nil, true)
	equal(t, "still there", a.run(within("own", "pwd")).stdout, a.folder+"/deep\n")

	a.call("DELETE", "/sessions/own", nil, nil)
	spec.CommandTimeoutMs = 50
	a.call("PUT", "/sessions/own", spec, &agentSession{})
	equal(t, "limit", a.run(within("own", "sleep", "1000")).end.Reason, "timeout")
	a.call("DELETE", "/sessions/own", nil, nil)
	equal(t, "gone", a.call("POST", "/processes", makeSpec(within("own", "true")), nil).Code, "SESSION_NOT_FOUND")
}

// Each step runs in the same session; out is what it prints on both streams (merged).
type step struct {
	run   string
	out   string
	code  int
	saved string // "", "yes" (the default) or "no"
}

func TestSessionKeepsWhatALivingShellWould(t *testing.T) {
	a := startAgent(t)
	a.runCases(t, sessionCases)
}

func TestWithoutBashAPosixShellKeepsMostOfIt(t *testing.T) {
	a := prepareAgent(t)
	a.environ = []string{"ATOLL_TEST_HIDE=/usr/bin/bash"}
	a.begin()
	var session agentSession
	a.call("GET", "/sessions/default", nil, &session)
	equal(t, "functions", session.Functions, false)
	a.runCases(t, posixCases)
	equal(t, "a script", a.run(script("echo 'a b' $0; (exit 3)")).end.ExitCode, 3)
}

func (a *testAgent) runCases(t *testing.T, cases map[string][]step) {
	for name, steps := range cases {
		name, steps := name, steps
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			if refusal := a.call("PUT", "/sessions/"+id, sessionSpec{}, &agentSession{}); refusal != nil {
				t.Fatal(refusal)
			}
			for _, step := range steps {
				got := a.run(inSession(id, strings.ReplaceAll(step.run, "$T", a.folder)), merge)
				if got.end == nil {
					t.Fatalf("%q did not end: %+v", step.run, got)
				}
				want := strings.ReplaceAll(step.out, "$T", a.folder)
				if got.stdout != want || got.end.ExitCode != step.code {
					t.Errorf("%q: %d %q, want %d %q", step.run, got.end.ExitCode, got.stdout, step.code, want)
				}
				if got.end.StateSaved == nil || *got.end.StateSaved != (step.saved != "no") {
					t.Errorf("%q: stateSaved %v", step.run, got.end.StateSaved)
				}
			}
		})
	}
}

var sessionCases = map[string][]step{
	"directory":                   {{run: "mkdir -p $T/a/b; cd $T/a/b"}, {run: "pwd", out: "$T/a/b\n"}, {run: "cd .. && pwd; cd - ", out: "$T/a\n$T/a/b\n"}, {run: "echo $OLDPWD", out: "$T/a\n"}},
	"logical directory":           {{run: "mkdir -p $T/real/sub; ln -s real $T/link; cd $T/link/sub"}, {run: "pwd; pwd -P; cd ..; pwd", out: "$T/link/sub\n$T/real/sub\n$T/link\n"}},
	"odd directory":               {{run: "mkdir -p $'$T/-a \\'b\\\"\\nc'; cd $'$T/-a \\'b\\\"\\nc'"}, {run: "pwd", out: "$T/-a 'b\"\nc\n"}},
	"no oldpwd at first":          {{run: "echo ${OLDPWD-none}", out: "none\n"}, {run: "echo ${OLDPWD-none}", out: "none\n"}},
	"directory stack":             {{run: "cd /tmp; pushd /usr >/dev/null; pushd /etc > /dev/null"}, {run: "dirs -p; popd >/dev/null; pwd", out: "/etc\n/usr\n/tmp\n/usr\n"}, {run: "popd > /dev/null; pwd; dirs", out: "/tmp\n/tmp\n"}},
	"umask":                       {{run: "umask 027"}, {run: "umask", out: "0027\n"}},
	"exported variable":           {{run: "export A='x y'"}, {run: "sh -c 'echo $A'", out: "x y\n"}, {run: "unset A"}, {run: "echo ${A-gone}", out: "gone\n"}},
	"plain variable":              {{run: "A=1"}, {run: "echo $A; sh -c 'echo ${A-no}'", out: "1\nno\n"}},
	"attributes":                  {{run: "declare -i N=3; declare -l L=ABC; declare -u U=abc; declare -r R=1; declare -n REF=N; declare -x E; declare -a EMPTY"}, {run: "N=N+1; L=XY; U=xy; echo $N $L $U $R $REF; R=2", out: "4 xy XY 1 4\nbash: line 1: R: readonly variable\n", code: 1}, {run: "declare -p E EMPTY N", out: "declare -x E\ndeclare -a EMPTY\ndeclare -i N=\"4\"\n"}},
	"arrays":                      {{run: `A=(1 "two words" $'3\n'); A[9]=x; declare -A M=([k v]="a b" ["x]"]='$y')`}, {run: `printf '<%s>' "${A[@]}" "${!A[@]}" "${M[k v]}" "${M[x\]]}"`, out: "<1><two words><3\n><x><0><1><2><9><a b><$y>"}},
	"every byte":                  {{run: `V=; for ((i=1;i<256;i++)); do printf -v o '\\x%02x' $i; printf -v c "$o"; V+=$c; done; export V`}, {run: `printf %s "$V" | od -An -v -tu1 | tr -s ' \n' ' ' | md5sum`, out: everyByteSum}, {run: `V+=; printf %s "$V" | wc -c`, out: "255\n"}},
	"quotes":                      {{run: "A=\"a'b\\\"c\\\\d\\$e\\`f!g\"; B=$'\\n\\t\\e'; C='-n'; D=''; E=' '"}, {run: `printf '<%s>' "$A" "$B" "$C" "$D" "$E"`, out: "<a'b\"c\\d$e`f!g><\n\t\x1b><-n><>< >"}},
	"large value":                 {{run: `V=$(head -c 1000000 /dev/zero | tr '\0' v); export V`}, {run: "echo ${#V}; unset V", out: "1000000\n"}, {run: "echo ${#V}", out: "0\n"}},
	"unset of the sandbox's":      {{run: "unset LANG"}, {run: "echo ${LANG-gone}; env | grep -c ^LANG=", out: "gone\n0\n", code: 1}},
	"change of the sandbox's":     {{run: "PATH=$PATH:/opt/x"}, {run: "echo $PATH; env | grep ^PATH", out: "/usr/local/bin:/usr/bin:/bin:/opt/x\nPATH=/usr/local/bin:/usr/bin:/bin:/opt/x\n"}},
	"home unset":                  {{run: "unset HOME; SHELL=/x"}, {run: "echo ${HOME-gone} $SHELL", out: "gone /x\n"}},
	"ps4 and ifs":                 {{run: "unset PS4; IFS=,"}, {run: `echo "${PS4-gone}"; v=a,b; set -- $v; echo $#`, out: "gone\n2\n"}},
	"functions":                   {{run: "greet () { echo \"hi $1\"; }; a-b () { :; }; a.b () { echo dot; }; é () { echo accent; }"}, {run: "greet you; a.b; é", out: "hi you\ndot\naccent\n"}, {run: "unset -f greet; a.b", out: "dot\n"}, {run: "greet", out: "bash: line 1: greet: command not found\n", code: 127}},
	"functions with bodies":       {{run: "shopt -s extglob"}, {run: "f () { cat <<E\nx () \n{ $1\nE\n}\ng () { case $1 in @(a|b)) echo ab;; esac; }"}, {run: "f 1; g a", out: "x () \n{ 1\nab\n"}, {run: "f 2; g b", out: "x () \n{ 2\nab\n"}},
	"exported function":           {{run: "f () { echo exported; }; export -f f"}, {run: "bash -c f", out: "exported\n"}, {run: "bash -c f", out: "exported\n"}},
	"readonly function":           {{run: "f () { echo r; }; readonly -f f"}, {run: "f; f () { :; }", out: "r\nbash: line 1: f: readonly function\n", code: 1}},
	"functions named as builtins": {{run: "cd () { builtin cd \"$@\"; }; printf () { echo mine; }; exit () { builtin exit 4; }; trap () { :; }; eval () { :; }"}, {run: "printf x; A=kept", out: "mine\n"}, {run: "echo $A; exit", out: "kept\n", code: 4}},
	"alias":                       {{run: "alias ll='echo \"it'\\''s\"' 'a+b=echo plus'"}, {run: "ll; a+b", out: "it's\nplus\n"}, {run: "unalias ll; alias", out: "alias a+b='echo plus'\n"}},
	"alias does not grow":         {{run: "alias ls='ls --color=never'"}, {run: "f () { ls /dev/null; }"}, {run: ":"}, {run: "declare -f f", out: "f () \n{ \n    ls --color=never /dev/null\n}\n"}},
	"alias of our own words":      {{run: "alias builtin=false set=false shopt=false trap=false"}, {run: "\\set -o pipefail; A=1"}, {run: "echo $A; [[ -o pipefail ]] && echo on", out: "1\non\n"}},
	"options":                     {{run: "set -o pipefail -u; shopt -s nullglob"}, {run: "false | true", code: 1}, {run: "echo /nonexistent*; shopt -q nullglob && echo on", out: "\non\n"}, {run: "set +u; shopt -u nullglob"}, {run: "echo \"$nope\"; shopt -q nullglob", out: "\n", code: 1}},
	"errexit ends its command":    {{run: "set -e"}, {run: "A=1; false; echo never", code: 1}, {run: "echo $A; false; echo never", out: "1\n", code: 1}, {run: "set +e"}, {run: "false; echo on", out: "on\n"}},
	"nounset ends its command":    {{run: "set -u; A=1"}, {run: "B=2; echo $nope; echo never", out: "bash: line 1: nope: unbound variable\n", code: 127}, {run: "echo $A$B", out: "12\n"}},
	"xtrace":                      {{run: "set -x"}, {run: "echo hi", out: "++ echo hi\nhi\n"}, {run: "set +x", out: "++ set +x\n"}, {run: "echo quiet", out: "quiet\n"}},
	"posix":                       {{run: "set -o posix; A=1"}, {run: "shopt -qo posix && echo $A; set +o posix", out: "1\n"}, {run: "shopt -qo posix", code: 1}},
	"traps":                       {{run: "trap 'echo caught' USR1"}, {run: "kill -USR1 $$; :", out: "caught\n"}, {run: "trap - USR1; trap -p USR1"}, {run: "trap -p USR1"}},
	"debug and err traps":         {{run: "trap 'echo err' ERR"}, {run: "false; true", out: "err\n"}, {run: "trap - ERR; trap 'echo dbg' DEBUG"}, {run: "echo x", out: "dbg\nx\n"}},
	"exit":                        {{run: "A=1; exit 3", code: 3}, {run: "echo $A; f () { B=2; exit 5; }; f", out: "1\n", code: 5}, {run: "echo $B", out: "2\n"}},
	"locals do not leak":          {{run: "IFS=:"}, {run: "f () { local IFS=, X=1 A; A=9; G=2; exit 1; }; f", code: 1}, {run: `echo "$IFS|${X-none}|${A-none}|$G"`, out: ":|none|none|2\n"}},
	"exit trap runs at the end":   {{run: "trap 'echo bye' EXIT; A=1; echo run", out: "run\nbye\n"}, {run: "echo $A; trap -p EXIT >/dev/null", out: "1\n"}},
	"exit trap with exit":         {{run: "trap 'echo bye $?' EXIT; A=1; exit 7", out: "bye 7\n", code: 7}, {run: "echo $A", out: "1\n"}},
	"exit trap's own code":        {{run: "trap 'exit 9' EXIT; A=1", code: 9}, {run: "echo $A", out: "1\n"}},
	"expansion error":             {{run: "A=1; echo ${x:?needed}; echo never", out: "bash: line 1: x: needed\n", code: 127}, {run: "echo $A", out: "1\n"}},
	"replaced shell":              {{run: "A=1; exec true", saved: "no"}, {run: "echo ${A-former}", out: "former\n"}},
	"killed shell":                {{run: "A=1; kill -9 $$", code: 137, saved: "no"}, {run: "echo ${A-former}", out: "former\n"}},
	"terminated shell":            {{run: "A=1; kill $$; sleep 1", code: 143, saved: "no"}, {run: "echo ${A-former}", out: "former\n"}},
	"unbalanced":                  {{run: "A=1"}, {run: "echo 'open", out: "bash: eval: line 1: unexpected EOF while looking for matching `''\n", code: 2}, {run: ")", out: "bash: eval: line 1: syntax error near unexpected token `)'\nbash: eval: line 1: `)'\n", code: 2}, {run: "}; echo x", out: "bash: eval: line 1: syntax error near unexpected token `}'\nbash: eval: line 1: `}; echo x'\n", code: 2}, {run: "echo $A \\", out: "1 \\\n"}, {run: "echo $A # comment", out: "1\n"}, {run: "cat <<E\nopen", out: "bash: line 2: warning: here-document at line 1 delimited by end-of-file (wanted `E')\nopen\n"}},
	"empty commands":              {{run: ""}, {run: "# nothing"}, {run: "\n\n"}},
	"positional and zero":         {{run: "echo $0 $#; set -- a b", out: "bash 0\n"}, {run: "echo $#", out: "0\n"}},
	"return at top level":         {{run: "return 3; echo on", out: "bash: line 1: return: can only `return' from a function or sourced script\non\n"}},
	"descriptors are free":        {{run: "echo x >&3", out: "bash: line 1: 3: Bad file descriptor\n", code: 1}, {run: "exec 10>$T/ten; echo x >&10; A=1; exit"}, {run: "cat $T/ten; echo $A", out: "x\n1\n"}},
	"output for its command":      {{run: "exec >$T/out; echo x"}, {run: "echo y; cat $T/out", out: "y\nx\n"}},
	"file size limit":             {{run: "ulimit -f 0; A=1"}, {run: "echo $A; ulimit -f", out: "1\nunlimited\n"}},
	"a subshell changes nothing":  {{run: "(A=1; cd /; exit 3)", code: 3}, {run: "echo ${A-none}; pwd | grep -c workspace", out: "none\n1\n"}},
	"command text of a megabyte":  {{run: "A='" + strings.Repeat("a", 1<<20) + "'; echo ${#A}; unset A", out: "1048576\n"}},
	"odd environment names":       {{run: "env 'x.y=1' sh -c :; A=1"}, {run: "echo $A", out: "1\n"}},
	"process substitution":        {{run: "exec > >(tr a-z A-Z); echo loud", out: "LOUD\n"}},
	"background job":              {{run: "sleep 0.2 >/dev/null 2>&1 & A=1; echo now", out: "now\n"}, {run: "echo $A; jobs", out: "1\n"}},
	"deleted directory":           {{run: "mkdir $T/gone; cd $T/gone; rmdir $T/gone"}, {run: "ls; touch x 2>/dev/null || echo cannot", out: "cannot\n"}, {run: "A=1; mkdir $T/gone; touch $T/gone/again"}, {run: "ls; pwd; echo $A", out: "again\n$T/gone\n1\n"}, {run: "rm -r $T/gone; cd /"}, {run: "pwd", out: "/\n"}},
	"deleted and left":            {{run: "mkdir $T/left; cd $T/left"}, {run: "rmdir $T/left"}, {run: "cd $T"}, {run: "pwd; ls -d .atoll* /tmp/.atoll* 2>/dev/null | wc -l", out: "$T\n0\n"}},
	"broken state functions":      {{run: "builtin () { :; }; A=1", saved: "no"}, {run: "echo ${A-former}; builtin echo fine", out: "former\nfine\n"}},
	"closed state descriptor":     {{run: "exec 929>&-; A=1", saved: "no"}, {run: "echo ${A-former}", out: "former\n"}},
	"nested shell level":          {{run: "echo $SHLVL", out: "1\n"}, {run: "echo $SHLVL; sh -c 'echo $SHLVL' > /dev/null", out: "1\n"}},
	"locale":                      {{run: "export LC_ALL=C; A=é"}, {run: "echo ${#A}; unset LC_ALL", out: "2\n"}, {run: "echo ${#A}", out: "1\n"}},
}

const everyByteSum = "9fdb42e140ef2233334f8887d60c7fcd  -\n"

var posixCases = map[string][]step{
	"directory":         {{run: "mkdir -p $T/a/b; ln -s a $T/l; cd $T/l/b"}, {run: "pwd; pwd -P; cd ..; pwd", out: "$T/l/b\n$T/a/b\n$T/l\n"}},
	"variables":         {{run: "A='x y'; export B=\"it's\"; readonly R=1; C='\"$`\\'"}, {run: `echo "$A|$B|$R|$C"; env | grep ^B; env | grep -c ^A=`, out: "x y|it's|1|\"$`\\\nB=it's\n0\n", code: 1}, {run: "unset A"}, {run: "echo ${A-gone}; (R=2) 2>/dev/null || echo readonly", out: "gone\nreadonly\n"}},
	"newlines":          {{run: "A='1\n2\n'"}, {run: `echo "$A" | wc -l`, out: "3\n"}},
	"sandbox variables": {{run: "unset LANG; PATH=$PATH:/x"}, {run: "echo ${LANG-gone} $PATH", out: "gone /usr/local/bin:/usr/bin:/bin:/x\n"}},
	"umask and options": {{run: "umask 077; set -f"}, {run: "umask; echo /*", out: "0077\n/*\n"}, {run: "set +f"}, {run: "echo /et*", out: "/etc\n"}},
	"errexit":           {{run: "set -e; A=1"}, {run: "A=2; false; echo never", code: 1}, {run: "echo $A; set +e", out: "2\n"}, {run: "false; echo on", out: "on\n"}},
	"alias":             {{run: "alias ll='echo lots'"}, {run: "ll; unalias ll", out: "lots\n"}, {run: "alias"}},
	"exit":              {{run: "A=1; exit 4", code: 4}, {run: "f () { B=2; exit 5; }; f", code: 5}, {run: "echo $A$B", out: "12\n"}},
	"exec":              {{run: "A=1; exec true", saved: "no"}, {run: "echo ${A-former}", out: "former\n"}},
	"syntax error":      {{run: "A=1"}, {run: "echo 'open", out: "sh: 1: eval: Syntax error: Unterminated quoted string\n", code: 2}, {run: "echo $A", out: "1\n"}},
	"deleted directory": {{run: "mkdir $T/gone; cd $T/gone; rmdir $T/gone"}, {run: "touch x 2>/dev/null || echo cannot", out: "cannot\n"}},
	"descriptors":       {{run: "(echo x >&9) 2>/dev/null || echo closed; (echo x >&3) 2>/dev/null || echo closed", out: "closed\nclosed\n"}},
}
