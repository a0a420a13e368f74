package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
)

// addCallEnvironment adds what this call gives, and the marker.
func (l *launch) addCallEnvironment(env map[string]string) {
	for name, value := range l.spec.CallEnv {
		if value == nil {
			delete(env, name)
		} else {
			env[name] = *value
		}
	}
	env[processMarker] = l.spec.ID
}

// baseEnvironment is what the sandbox and the user give.
func (l *launch) baseEnvironment() map[string]string {
	env := map[string]string{
		"HOME": l.account.home, "USER": l.account.name, "LOGNAME": l.account.name, "SHELL": l.account.shell,
	}
	if l.spec.Pty != nil {
		env["TERM"] = defaultTerm
	}
	for name, value := range l.spec.Env {
		env[name] = value
	}
	return env
}

func envList(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}

func joinPath(base, name string) string {
	if path.IsAbs(name) {
		return name
	}
	return strings.TrimSuffix(base, "/") + "/" + name
}

func checkDirectory(directory string) error {
	info, err := os.Stat(directory)
	if err != nil {
		return cwdError(directory, err)
	}
	if !info.IsDir() {
		return cwdError(directory, syscall.ENOTDIR)
	}
	return nil
}

func cwdError(directory string, err error) error {
	var errno syscall.Errno
	errors.As(err, &errno)
	code, why := errnoCodes[errno], err.Error()
	switch errno {
	case syscall.ENOENT:
		why = "there is no such directory. Make it first"
	case syscall.ENOTDIR:
		why = "it is not a directory"
	case syscall.EACCES:
		why = "permission denied"
	}
	if code == "" {
		code = "INTERNAL_ERROR"
	}
	return &agentError{Code: code, Message: fmt.Sprintf("Cannot run in %q: %s", directory, why), Details: map[string]any{"path": directory}}
}
