package main

import "strings"

// shellState is what a shell has, key by key. The values are what the shell itself printed, to be given back to it:
//
//	v:NAME  a variable's line of `declare -p`       f:NAME  a function's text, x:NAME its attributes (letters of x r t)
//	a:NAME  an alias's line without its "alias "    t:NAME  a trap's line
//	o:NAME  an option of set that is on             s:NAME  an option of shopt that is on
//	e:NAME  the value of an environment entry whose name is no shell name
//	umask   cwd     dirs (the stack without its top, a line each)
type shellState map[string]string

// stateChange is one key's new value, or its removal.
type stateChange struct {
	value string
	gone  bool
}

// changes gives what is different in `after`.
func (before shellState) changes(after shellState) map[string]stateChange {
	changes := map[string]stateChange{}
	for key, value := range after {
		if old, had := before[key]; !had || !sameValue(key, old, value) {
			changes[key] = stateChange{value: value}
		}
	}
	for key := range before {
		if _, has := after[key]; !has {
			changes[key] = stateChange{gone: true}
		}
	}
	return changes
}

func (s shellState) apply(changes map[string]stateChange) {
	for key, change := range changes {
		if change.gone {
			delete(s, key)
		} else {
			s[key] = change.value
		}
	}
}

func (s shellState) clone() shellState {
	copied := make(shellState, len(s))
	for key, value := range s {
		copied[key] = value
	}
	return copied
}

// sameValue compares by meaning: the shell has several ways to quote one value, which it chooses by locale.
func sameValue(key, one, other string) bool {
	if one == other {
		return true
	}
	if !strings.HasPrefix(key, "v:") {
		return false
	}
	a, okA := parseVariable(one)
	b, okB := parseVariable(other)
	return okA && okB && a.scalar && b.scalar && a.flags == b.flags && a.hasValue == b.hasValue && a.value == b.value
}

// Not kept: what bash makes by itself or does not let be set, and what belongs to one command.
var skippedVariables = wordSet(`BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND
	BASH_EXECUTION_STRING BASH_LINENO BASH_MONOSECONDS BASH_SOURCE BASH_SUBSHELL BASH_TRAPSIG BASH_VERSINFO BASH_VERSION
	COMP_WORDBREAKS DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD LINENO PIPESTATUS PPID PWD RANDOM
	SECONDS SHELLOPTS SRANDOM UID _ ATOLL_PROCESS`)

var skippedOptions = wordSet("noexec onecmd restricted privileged restricted_shell login_shell")

func wordSet(words string) map[string]bool {
	set := map[string]bool{}
	for _, word := range strings.Fields(words) {
		set[word] = true
	}
	return set
}

func skipVariable(name string) bool {
	return skippedVariables[name] || strings.HasPrefix(name, "__sb_")
}
