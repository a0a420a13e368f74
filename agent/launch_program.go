package main

import (
	"fmt"
	"os"
	"strings"
)

// missing is a program that cannot be run: the exit code and the words a shell would have for it.
type missing struct {
	exitCode int
	text     string
}

func (m *missing) Error() string { return m.text }

func (l *launch) prepareArgv() error {
	directory := l.spec.DefaultCwd
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return cwdError(directory, err)
	}
	env := l.baseEnvironment()
	if session := l.spec.Command.Session; session != nil {
		found, err := l.agent.sessions.find(*session)
		if err != nil {
			return err
		}
		l.limitBy(found)
		directory = found.lend(env)
	}
	if l.spec.Cwd != nil {
		directory = joinPath(directory, *l.spec.Cwd)
	}
	if err := checkDirectory(directory); err != nil {
		return err
	}
	l.addCallEnvironment(env)
	l.program.dir = directory
	l.program.env = envList(env)
	l.program.argv = l.spec.Command.Argv
	l.program.path, l.unfound = findProgram(l.spec.Command.Argv[0], env["PATH"], directory)
	return nil
}

// A script without a session: its shell gets the text by descriptor 3, so that it has no length limit and stands in no
// argument list, and runs it as `bash -c` would.
const (
	bashScript = `{ IFS= read -rd '' -u 3 __sb_c; exec 3<&-; builtin eval "builtin unset -v __sb_c;$__sb_c"; }`
	shScript   = `{ . /proc/self/fd/3; exec 3<&-; eval "unset -v __sb_c;$__sb_c"; }`
)

func (l *launch) prepareScript() error {
	if err := l.prepareShell(); err != nil {
		return err
	}
	text, wrapper := append([]byte(*l.spec.Command.Script), 0), bashScript
	name := "bash"
	shell, isBash := findShell()
	if shell == "" {
		return noShell()
	}
	if !isBash {
		text, wrapper, name = []byte("__sb_c="+quoteShell(*l.spec.Command.Script)+"\n"), shScript, "sh"
	}
	l.program.path = shell
	l.program.argv = []string{name, "-c", wrapper, name}
	return l.passText(text)
}

// prepareShell is what a fresh shell shares with a program: directory and environment.
func (l *launch) prepareShell() error {
	command := l.spec.Command
	l.spec.Command = processCommand{Argv: []string{"/"}}
	defer func() { l.spec.Command = command }()
	err := l.prepareArgv()
	l.unfound = nil
	return err
}

// passText gives the child a text as descriptor 3.
func (l *launch) passText(text []byte) error {
	fd, err := memoryFile(text)
	if err != nil {
		return asShortage(fmt.Errorf("Cannot hand the script over: %w", err))
	}
	l.childEnds = append(l.childEnds, fd)
	l.program.files = append(l.program.files, fd)
	return nil
}

func noShell() error {
	return refuse("INVALID_COMMAND", "Cannot run a script: the image has neither bash nor sh. Run a program with its arguments instead")
}

// findProgram looks a name up as execvp does. `path` is the process's own.
func findProgram(name, searchPath, directory string) (string, *missing) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if searchPath == "" {
		searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	var refused string
	for _, entry := range strings.Split(searchPath, ":") {
		if entry == "" {
			entry = "."
		}
		candidate := joinPath(joinPath(directory, entry), name)
		info, err := os.Stat(candidate)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if info.Mode()&0o111 != 0 {
			return candidate, nil
		}
		refused = candidate
	}
	if refused != "" {
		return "", &missing{exitNotExecutable, refused + ": Permission denied"}
	}
	return "", &missing{exitNotFound, name + ": command not found"}
}
