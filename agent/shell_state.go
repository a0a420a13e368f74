package main

import (
	"bytes"
	"strconv"
	"strings"
)

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

// parseBash reads what the saver wrote: the sections between the last "begin NONCE" and "end NONCE", NUL between them,
// the traps before. `former` is the state the shell started from: it holds for variables that were only hidden by locals.
func parseBash(dump []byte, nonce string, former shellState) (shellState, bool) {
	begin := bytes.LastIndex(dump, []byte("\x00begin "+nonce+"\x00"))
	if begin < 0 {
		return nil, false
	}
	rest := dump[begin+len("\x00begin \x00")+len(nonce):]
	end := bytes.Index(rest, []byte("\x00end "+nonce))
	if end < 0 {
		return nil, false
	}
	traps := dump[:begin]
	traps = traps[bytes.LastIndexByte(traps, 0)+1:]
	section := strings.Split(string(rest[:end]), "\x00")
	if len(section) < 7 {
		return nil, false
	}
	state := shellState{}
	if !state.addVariables(section[0]) || !state.addFunctions(section[1], section[2]) {
		return nil, false
	}
	for _, line := range records(section[3]) {
		text := strings.TrimPrefix(strings.TrimPrefix(line, "alias "), "-- ")
		if name, _, ok := strings.Cut(text, "="); ok {
			state["a:"+name] = text
		}
	}
	state["umask"] = strings.TrimSpace(section[4])
	state["cwd"] = strings.TrimSuffix(section[5], "\n")
	if state["cwd"] == "" {
		state["cwd"] = former["cwd"] // it was removed under the shell
	}
	if _, stack, ok := strings.Cut(strings.TrimSuffix(section[6], "\n"), "\n"); ok {
		state["dirs"] = stack
	}
	if len(section) > 7 {
		state.uncover(section[7], former)
	}
	for _, line := range records(string(traps)) {
		name := line[strings.LastIndexByte(line, ' ')+1:]
		if strings.HasPrefix(line, "trap -- ") && name != "EXIT" {
			state["t:"+name] = line
		}
	}
	return state, true
}

func (s shellState) addVariables(section string) bool {
	for _, line := range records(section) {
		v, ok := parseVariable(line)
		if !ok {
			return false
		}
		switch {
		case v.name == "SHELLOPTS":
			s.addOptions("o:", v.value)
		case v.name == "BASHOPTS":
			s.addOptions("s:", v.value)
		case !skipVariable(v.name):
			s["v:"+v.name] = line
		}
	}
	return true
}

func (s shellState) addOptions(prefix, list string) {
	for _, option := range strings.Split(list, ":") {
		if option != "" && !skippedOptions[option] {
			s[prefix+option] = "on"
		}
	}
}

// addFunctions cuts the texts of `declare -f` by the names of `declare -F`, which come in the same order.
func (s shellState) addFunctions(texts, names string) bool {
	type function struct{ name, flags string }
	var list []function
	for _, line := range strings.Split(names, "\n") {
		if line == "" {
			continue
		}
		flags, name, ok := strings.Cut(strings.TrimPrefix(line, "declare -"), " ")
		if !ok {
			return false
		}
		list = append(list, function{name, strings.ReplaceAll(flags, "f", "")})
	}
	for i, f := range list {
		if _, ok := afterHeader(texts, f.name); !ok {
			return false
		}
		next := len(texts)
		if i+1 < len(list) {
			if next = headerIndex(texts, list[i+1].name); next < 0 {
				return false
			}
		}
		text := strings.TrimSuffix(texts[:next], "\n")
		texts = texts[next:]
		if strings.HasPrefix(f.name, "__sb_") || strings.Contains(text, "__sb_t=") {
			continue
		}
		s["f:"+f.name] = text
		if f.flags != "" {
			s["x:"+f.name] = f.flags
		}
	}
	return true
}

func afterHeader(text, name string) (string, bool) {
	for _, header := range []string{name + " () ", "function " + name + " () "} {
		if strings.HasPrefix(text, header) {
			return text[len(header):], true
		}
	}
	return "", false
}

func headerIndex(text, name string) int {
	best := -1
	for _, header := range []string{"\n" + name + " () ", "\nfunction " + name + " () "} {
		if i := strings.Index(text, header); i >= 0 && (best < 0 || i+1 < best) {
			best = i + 1
		}
	}
	return best
}

// uncover gives the former value to every variable that was a function's local when the shell ended.
func (s shellState) uncover(section string, former shellState) {
	for _, line := range records(section) {
		v, ok := parseVariable(line)
		if !ok || v.hasValue || skipVariable(v.name) {
			continue
		}
		if old, had := former["v:"+v.name]; had {
			s["v:"+v.name] = old
		} else {
			delete(s, "v:"+v.name)
		}
	}
}

// records splits at the newlines that are outside of quotes.
func records(text string) []string {
	var list []string
	start := 0
	for i := 0; i < len(text); {
		switch text[i] {
		case '\n':
			if i > start {
				list = append(list, text[start:i])
			}
			i++
			start = i
		case '\\':
			i += 2
		case '\'':
			ansi := i > 0 && text[i-1] == '$'
			i = skipQuoted(text, i+1, '\'', ansi)
		case '"':
			i = skipQuoted(text, i+1, '"', true)
		default:
			i++
		}
	}
	if start < len(text) {
		list = append(list, text[start:])
	}
	return list
}

func skipQuoted(text string, i int, quote byte, escapes bool) int {
	for i < len(text) {
		switch {
		case text[i] == quote:
			return i + 1
		case text[i] == '\\' && escapes:
			i += 2
		default:
			i++
		}
	}
	return len(text)
}

// variable is a line of `declare -p`. Only a scalar's value is decoded.
type variable struct {
	flags, name, value string
	hasValue, scalar   bool
}

func parseVariable(line string) (variable, bool) {
	rest := strings.TrimPrefix(line, "declare -")
	if rest == line {
		return variable{}, false
	}
	flags, rest, ok := strings.Cut(rest, " ")
	if !ok {
		return variable{}, false
	}
	v := variable{flags: flags, name: rest, scalar: !strings.ContainsAny(flags, "aA")}
	if name, value, has := strings.Cut(rest, "="); has {
		v.name, v.hasValue = name, true
		if v.scalar {
			if v.value, ok = unquoteBash(value); !ok {
				return variable{}, false
			}
		}
	}
	return v, isShellName(v.name)
}

func isShellName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return name != ""
}

// unquoteBash decodes one word as `declare -p` writes it: "…", $'…', '…' and unquoted bytes.
func unquoteBash(word string) (string, bool) {
	if len(word) >= 2 && word[0] == '"' && strings.IndexByte(word, '\\') < 0 && strings.IndexByte(word[1:], '"') == len(word)-2 {
		return word[1 : len(word)-1], true
	}
	var out []byte
	for i := 0; i < len(word); {
		switch {
		case strings.HasPrefix(word[i:], "$'"):
			end := skipQuoted(word, i+2, '\'', true)
			if end > len(word) || word[end-1] != '\'' || end < i+3 {
				return "", false
			}
			out = appendAnsi(out, word[i+2:end-1])
			i = end
		case word[i] == '\'':
			end := skipQuoted(word, i+1, '\'', false)
			if end < i+2 || word[end-1] != '\'' {
				return "", false
			}
			out = append(out, word[i+1:end-1]...)
			i = end
		case word[i] == '"':
			i++
			for i < len(word) && word[i] != '"' {
				if word[i] == '\\' && i+1 < len(word) && strings.IndexByte("$`\"\\\n", word[i+1]) >= 0 {
					i++
				}
				out = append(out, word[i])
				i++
			}
			if i >= len(word) {
				return "", false
			}
			i++
		case word[i] == '\\' && i+1 < len(word):
			out = append(out, word[i+1])
			i += 2
		default:
			out = append(out, word[i])
			i++
		}
	}
	return string(out), true
}

const ansiLetters = "abeEfnrtv\\'\"?"
const ansiBytes = "\a\b\x1b\x1b\f\n\r\t\v\\'\"?"

func appendAnsi(out []byte, text string) []byte {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 >= len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		c := text[i]
		if at := strings.IndexByte(ansiLetters, c); at >= 0 {
			out = append(out, ansiBytes[at])
			continue
		}
		base, digits, start := 0, 0, i
		switch {
		case c >= '0' && c <= '7':
			base, digits = 8, 3
		case c == 'x':
			base, digits, start = 16, 2, i+1
		case c == 'u':
			base, digits, start = 16, 4, i+1
		case c == 'U':
			base, digits, start = 16, 8, i+1
		}
		end := start
		for end < len(text) && end-start < digits && isDigit(text[end], base) {
			end++
		}
		number, err := strconv.ParseUint(text[start:end], base, 32)
		switch {
		case base == 0 || err != nil:
			out = append(out, '\\', c)
		case c == 'u' || c == 'U':
			out = append(out, string(rune(number))...)
			i = end - 1
		default:
			out = append(out, byte(number))
			i = end - 1
		}
	}
	return out
}

func isDigit(c byte, base int) bool {
	if base == 8 {
		return c >= '0' && c <= '7'
	}
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// exportLine is the line of an exported variable, in words the shell reads; it prints it its own way later.
func exportLine(name, value string) string { return "declare -x " + name + "=" + quoteDouble(value) }

// quoteDouble needs no escape for `!`: history expansion is off in a shell that is not interactive.
func quoteDouble(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for i := 0; i < len(text); i++ {
		if strings.IndexByte("$`\"\\", text[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(text[i])
	}
	out.WriteByte('"')
	return out.String()
}
