package main

import (
	"path"
	"strings"
)

// An id travels in an environment and in log lines.
const idLimitBytes = 256

func checkSpec(spec *processSpec) error {
	bad := func(format string, values ...any) error {
		return refuse("VALIDATION_FAILED", "Cannot start a process: "+format, values...)
	}
	switch {
	case spec.ID == "" || len(spec.ID) > idLimitBytes || strings.IndexByte(spec.ID, 0) >= 0:
		return bad("its id must be 1 to %d bytes without NUL", idLimitBytes)
	case (len(spec.Command.Argv) > 0) == (spec.Command.Script != nil):
		return bad("the command is either argv or a script")
	case spec.Mode != "keep" && spec.Mode != "roll":
		return bad("mode %q is neither keep nor roll", spec.Mode)
	case spec.Stderr != "separate" && spec.Stderr != "merge":
		return bad("stderr %q is neither separate nor merge", spec.Stderr)
	case spec.Stdin.Kind == "":
		return bad("stdin is missing")
	case !path.IsAbs(spec.DefaultCwd):
		return bad("defaultCwd %q is no absolute path", spec.DefaultCwd)
	case spec.RingBytes < 0 || spec.TimeoutMs < 0:
		return bad("ringBytes and timeoutMs must be positive")
	case spec.Pty != nil && (spec.Mode != "roll" || spec.Stdin.Kind != "none"):
		return bad("a terminal is read in mode roll, and is an input itself")
	}
	for _, argument := range spec.Command.Argv {
		if strings.IndexByte(argument, 0) >= 0 {
			return refuse("INVALID_COMMAND", "Cannot start a process: an argument holds a NUL byte")
		}
	}
	if script := spec.Command.Script; script != nil && strings.IndexByte(*script, 0) >= 0 {
		return refuse("INVALID_COMMAND", "Cannot start a process: the script holds a NUL byte")
	}
	for name, value := range spec.Env {
		if !validEntry(name, value) {
			return bad("the variable %q cannot be in an environment", name)
		}
	}
	for name, value := range spec.CallEnv {
		if value == nil {
			value = new(string)
		}
		if !validEntry(name, *value) {
			return bad("the variable %q cannot be in an environment", name)
		}
	}
	if spec.Cwd != nil && (strings.IndexByte(*spec.Cwd, 0) >= 0 || *spec.Cwd == "") {
		return bad("cwd %q is no path", *spec.Cwd)
	}
	return nil
}

func validEntry(name, value string) bool {
	return name != "" && !strings.ContainsAny(name, "=\x00") && strings.IndexByte(value, 0) < 0
}
