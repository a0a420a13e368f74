package main

import (
	"regexp"
	"sort"
	"strings"
)

// The wrapper of exec.md A.2: one compound command, parsed whole before the session's aliases exist. It takes the
// restore script from descriptor 3, runs the command by eval, and saves the state to descriptor 4 (929 by then: high
// enough that no user's descriptor is meant).
const bashWrapper = `{ IFS= read -rd '' -u 3 __sb_i; exec 929>&4 3<&- 4>&-; builtin eval "$__sb_i" 2>/dev/null; builtin eval "$__sb_c"; ` + bashSave + ` >/dev/null 2>&1; }`

const bashSave = `{ __sb_r=$?; builtin trap -p >&929; __sb_s && :; }`

// bashSaver prints the state, once, whether the shell ends by itself, by exit or by an error. Why each piece is there is
// told in exec.md A.2; NONCE keeps a child of another user from forging a state.
const bashSaver = `__sb_s () {
[[ ${__sb_d-} ]] && builtin return "$__sb_r"
__sb_d=1
{ builtin trap - DEBUG ERR RETURN; builtin printf '\0begin NONCE\0'
builtin declare -p; builtin printf '\0'; builtin declare -f; builtin printf '\0'; builtin declare -F; builtin printf '\0'
builtin alias -p; builtin printf '\0'; builtin umask; builtin printf '\0'; builtin pwd || :; builtin printf '\0'; builtin dirs -l -p || :
[[ ${#FUNCNAME[@]} -gt 1 ]] && ( builtin set +eu; builtin shopt -s localvar_unset; IFS=$'\n'; builtin unset -v $(builtin compgen -v); builtin printf '\0'; builtin declare -p )
builtin printf '\0end NONCE'; } >&929
builtin return "$__sb_r"
}
builtin trap '` + bashSave + ` >/dev/null 2>&1' EXIT
`

// bashTrap keeps the state of commands that set an EXIT trap of their own and then exit: both run, ours first.
const bashTrap = `trap () {
builtin trap "$@" || builtin return; [[ $BASH_SUBSHELL -gt 0 ]] && builtin return
builtin local __sb_t; __sb_t=$(builtin trap -p EXIT)
if [[ ! $__sb_t ]]; then builtin trap '` + bashSave + ` >/dev/null 2>&1' EXIT
elif [[ $__sb_t != *__sb_s* ]]; then builtin eval "builtin set $__sb_t"; builtin trap '` + bashSave + ` >/dev/null 2>&1'$'\n'"$3" EXIT; fi
}
`

var setsExitTrap = regexp.MustCompile(`(?s)\btrap\b.*\b(EXIT|exit|0)\b`)

// Exported variables travel in the environment, which costs less than a line of script, unless bash would treat them
// as its own settings when it starts.
var notByEnvironment = wordSet(`ENV POSIXLY_CORRECT POSIX_PEDANTIC PS4 IFS OLDPWD SHLVL OPTIND OPTERR HISTCMD COLUMNS LINES
	BASHOPTS SHELLOPTS FUNCNEST GLOBIGNORE EXECIGNORE`)

const (
	// One entry of an environment may hold 128 KiB; all of them together a quarter of the stack limit.
	environmentEntryLimitBytes = 64 << 10
	environmentLimitBytes      = 512 << 10
)

// restoration is what a shell needs to stand where a session stands.
type restoration struct {
	script []byte // without the closing NUL
	env    []string
}

// restoreBash makes a fresh bash, whose state is `base`, have `state` and run the command. `proven` functions have come
// back from bash unchanged and need no quoting. `gone` is a directory that is to be removed under the shell, or "".
func restoreBash(base, state shellState, proven map[string]string, command, nonce, gone string) restoration {
	var out strings.Builder
	var env []string
	var lines []string
	unset := []string{"__sb_i"}
	inEnvironment := 0
	has := map[string]bool{}
	keys := sortedKeys(state)
	for _, key := range keys {
		name := key[2:]
		switch {
		case strings.HasPrefix(key, "e:"):
			env = append(env, name+"="+state[key])
		case strings.HasPrefix(key, "v:"):
			if base[key] == state[key] {
				break
			}
			v, ok := parseVariable(state[key])
			if !ok {
				break
			}
			size := len(name) + len(v.value)
			byEnvironment := v.scalar && v.hasValue && v.flags == "x" && !notByEnvironment[name] && !strings.HasPrefix(name, "BASH") &&
				size < environmentEntryLimitBytes && inEnvironment+size < environmentLimitBytes
			if byEnvironment {
				inEnvironment += size
				env = append(env, name+"="+v.value)
				has[name] = true
			} else {
				lines = append(lines, state[key])
			}
		}
	}
	// Without these bash looks its user up, which may ask the network.
	for _, entry := range []string{"HOME=/", "SHELL=/bin/sh"} {
		if name, _, _ := strings.Cut(entry, "="); !has[name] {
			env = append(env, entry)
			unset = append(unset, name)
		}
	}
	for _, key := range sortedKeys(base) {
		if _, has := state[key]; !has && strings.HasPrefix(key, "v:") && key != "v:PS4" {
			unset = append(unset, key[2:])
		}
	}
	out.WriteString("builtin unset -v " + strings.Join(unset, " ") + "\n")
	if gone != "" {
		out.WriteString("builtin command -p rmdir -- " + quoteShell(gone) + "\n")
	}
	for _, line := range lines {
		out.WriteString(line + "\n")
	}
	writeFunctions(&out, keys, state, proven)
	out.WriteString(strings.ReplaceAll(bashSaver, "NONCE", nonce))
	if _, own := state["f:trap"]; !own && setsExitTrap.MatchString(command) {
		out.WriteString(bashTrap)
	}
	if state["umask"] != base["umask"] {
		out.WriteString("builtin umask " + quoteShell(state["umask"]) + "\n")
	}
	stack := strings.Split(state["dirs"], "\n")
	for i := len(stack) - 1; i >= 0 && state["dirs"] != ""; i-- {
		out.WriteString("builtin pushd -n -- " + quoteShell(stack[i]) + " >/dev/null\n")
	}
	if base["v:PS4"] != "" && state["v:PS4"] == "" {
		out.WriteString("builtin unset -v PS4\n")
	}
	writeAliasesAndTraps(&out, keys, state)
	writeOptions(&out, base, state, "s:", `\builtin shopt -s `, `\builtin shopt -u `)
	out.WriteString(`__sb_c=` + quoteShell(commandLine(state, command)) + "\n")
	writeOptions(&out, base, state, "o:", `\builtin set -o `, `\builtin set +o `)
	return restoration{[]byte(out.String()), env}
}

func writeFunctions(out *strings.Builder, keys []string, state shellState, proven map[string]string) {
	first := true
	for _, key := range keys {
		if !strings.HasPrefix(key, "f:") {
			continue
		}
		if first {
			out.WriteString("builtin shopt -s extglob\n") // a text may need it to be read
			first = false
		}
		if proven[key] == state[key] {
			out.WriteString(state[key] + "\n")
		} else {
			out.WriteString("builtin eval " + quoteShell(state[key]) + "\n")
		}
		if flags := state["x:"+key[2:]]; flags != "" {
			out.WriteString("builtin declare -f" + flags + " -- " + quoteShell(key[2:]) + "\n")
		}
	}
	if _, on := state["s:extglob"]; !first && !on {
		out.WriteString("builtin shopt -u extglob\n")
	}
}

// Aliases come after the functions, whose texts have theirs expanded already. From here on a word may be an alias: a
// backslash keeps it from being one.
func writeAliasesAndTraps(out *strings.Builder, keys []string, state shellState) {
	for _, key := range keys {
		if strings.HasPrefix(key, "a:") {
			out.WriteString(`\builtin alias -- ` + state[key] + "\n")
		}
	}
	for _, key := range keys {
		if strings.HasPrefix(key, "t:") && key != "t:DEBUG" {
			out.WriteString(`\builtin ` + state[key] + "\n")
		}
	}
}

// Set with the command: they would show or run our own lines.
var optionsOfCommand = wordSet("xtrace verbose")

func commandLine(state shellState, command string) string {
	line := ""
	for _, option := range []string{"xtrace", "verbose"} {
		if state["o:"+option] != "" {
			line += `\builtin set -o ` + option + "; "
		}
	}
	if debug := state["t:DEBUG"]; debug != "" {
		line += `\builtin ` + debug + "; "
	}
	return line + command
}

func writeOptions(out *strings.Builder, base, state shellState, prefix, on, off string) {
	for _, key := range sortedKeys(state) {
		if strings.HasPrefix(key, prefix) && base[key] == "" && !optionsOfCommand[key[2:]] {
			out.WriteString(on + key[2:] + "\n")
		}
	}
	for _, key := range sortedKeys(base) {
		if strings.HasPrefix(key, prefix) && state[key] == "" {
			out.WriteString(off + key[2:] + "\n")
		}
	}
}

func sortedKeys(state shellState) []string {
	keys := make([]string, 0, len(state))
	for key := range state {
		if len(key) > 2 && key[1] == ':' {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return keys
}
