package main

import (
	"sort"
	"strings"
)

// posixDialect is the fallback for images without bash (exec.md A.7): directory, variables, aliases, umask and options
// are kept, functions and traps are not, as such shells cannot print them. Descriptors have one digit here, and are
// closed to the command itself.
var posixDialect = dialect{
	name:    "sh",
	wrapper: `{ exec 9>&4 4>&-; . /proc/self/fd/3; exec 3<&-; eval "$__sb_c" 9>&-; ` + posixSave + ` >/dev/null 2>&1; }`,
	restore: restorePosix,
	parse:   parsePosix,
	close:   func(script []byte) []byte { return script },
}

const posixSave = `{ __sb_r=$?; __sb_s && :; }`

// Without `9>&-` inside: an EXIT trap of an `exit` in the command runs with descriptor 9 open again.
const posixSaver = `__sb_s () {
[ "${__sb_d-}" ] && return "$__sb_r"
__sb_d=1
{ printf '\0begin NONCE\0'; set; printf '\0'; export -p; printf '\0'; readonly -p; printf '\0'; alias; printf '\0'; umask; printf '\0'; pwd || :; printf '\0'; set +o; printf '\0end NONCE'; } >&9
return "$__sb_r"
}
trap '` + posixSave + ` >/dev/null 2>&1' EXIT
`

// The keys are bash's, the values too as far as they can be: a session outlives an image's change of shell.
func restorePosix(base, state shellState, _ map[string]string, command, nonce, gone string) restoration {
	var out strings.Builder
	env := []string{}
	keys := sortedKeys(state)
	late := []string{}
	for _, key := range keys {
		name := key[2:]
		switch {
		case strings.HasPrefix(key, "e:"):
			env = append(env, name+"="+state[key])
		case strings.HasPrefix(key, "v:") && base[key] != state[key]:
			v, ok := parseVariable(state[key])
			if !ok || !v.scalar {
				break
			}
			if v.flags == "x" && v.hasValue && len(v.value) < environmentEntryLimitBytes && !notByEnvironment[name] {
				env = append(env, name+"="+v.value)
				break
			}
			if v.hasValue {
				out.WriteString(name + "=" + quoteShell(v.value) + "\n")
			}
			if strings.Contains(v.flags, "x") {
				out.WriteString("export " + name + "\n")
			}
			if strings.Contains(v.flags, "r") {
				late = append(late, "readonly "+name+"\n")
			}
		}
	}
	for _, key := range sortedKeys(base) {
		if _, has := state[key]; !has && strings.HasPrefix(key, "v:") {
			out.WriteString("unset " + key[2:] + "\n")
		}
	}
	sort.Strings(env)
	if gone != "" {
		out.WriteString("command -p rmdir -- " + quoteShell(gone) + "\n")
	}
	out.WriteString(strings.Join(late, ""))
	out.WriteString(strings.ReplaceAll(posixSaver, "NONCE", nonce))
	if state["umask"] != base["umask"] && state["umask"] != "" {
		out.WriteString("umask " + quoteShell(state["umask"]) + "\n")
	}
	out.WriteString("__sb_c=" + quoteShell(posixCommandLine(base, state, command)) + "\n")
	// Aliases last, and by words that are none: what follows is parsed with them.
	for _, key := range keys {
		if strings.HasPrefix(key, "a:") {
			out.WriteString(`\alias ` + state[key] + "\n")
		}
	}
	return restoration{[]byte(out.String()), env}
}

// posixCommandLine puts the options before the command, on its line: a wrong one must not end the restore script.
func posixCommandLine(base, state shellState, command string) string {
	line := ""
	for _, key := range sortedKeys(state) {
		if strings.HasPrefix(key, "o:") && base[key] == "" && posixOptions[key[2:]] {
			line += `\set -o ` + key[2:] + "; "
		}
	}
	for _, key := range sortedKeys(base) {
		if strings.HasPrefix(key, "o:") && state[key] == "" {
			line += `\set +o ` + key[2:] + "; "
		}
	}
	return line + command
}

var posixOptions = wordSet("allexport errexit noclobber noglob nounset pipefail verbose xtrace")

func parsePosix(dump []byte, nonce string, former shellState) (shellState, bool) {
	_, section := dumpSections(dump, nonce)
	if len(section) != 7 {
		return nil, false
	}
	flags := map[string]string{}
	values := map[string]string{}
	valued := map[string]bool{}
	note := func(text, flag string) {
		for _, line := range records(text) {
			line = strings.TrimPrefix(strings.TrimPrefix(line, "export "), "readonly ")
			name, quoted, has := strings.Cut(line, "=")
			if !isShellName(name) || skipVariable(name) || posixOwn[name] {
				continue
			}
			if value, ok := unquoteBash(quoted); has && ok {
				values[name], valued[name] = value, true
			}
			flags[name] += flag
		}
	}
	note(section[0], "")
	note(section[1], "x")
	note(section[2], "r")
	state := shellState{}
	for name, flag := range flags {
		letters := map[string]string{"": "-", "x": "x", "r": "r", "xr": "rx"}[flag]
		line := "declare -" + letters + " " + name
		if valued[name] {
			line += "=" + quoteDouble(values[name])
		}
		state["v:"+name] = line
	}
	for _, line := range records(section[3]) {
		text := strings.TrimPrefix(line, "alias ")
		if name, _, ok := strings.Cut(text, "="); ok {
			state["a:"+name] = text
		}
	}
	state["umask"] = strings.TrimSpace(section[4])
	if state["cwd"] = strings.TrimSuffix(section[5], "\n"); state["cwd"] == "" {
		state["cwd"] = former["cwd"]
	}
	for _, line := range strings.Split(section[6], "\n") {
		if name := strings.TrimPrefix(line, "set -o "); name != line && posixOptions[name] {
			state["o:"+name] = "on"
		}
	}
	// What this shell cannot have stays for one that can.
	for key, value := range former {
		if strings.HasPrefix(key, "f:") || strings.HasPrefix(key, "x:") || strings.HasPrefix(key, "t:") || strings.HasPrefix(key, "s:") || key == "dirs" {
			state[key] = value
		}
	}
	return state, true
}

// Variables that such shells make or keep for themselves.
var posixOwn = wordSet("PPID OPTIND OPTARG LINENO PS1 PS2 PS4")
