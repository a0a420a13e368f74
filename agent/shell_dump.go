package main

import (
	"bytes"
	"strings"
)

// parseBash reads what the saver wrote: the sections between the last "begin NONCE" and "end NONCE", NUL between them,
// the traps before. `former` is the state the shell started from: it holds for variables that were only hidden by locals.
func parseBash(dump []byte, nonce string, former shellState) (shellState, bool) {
	before, section := dumpSections(dump, nonce)
	traps := before[bytes.LastIndexByte(before, 0)+1:]
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

// dumpSections gives what stands between the last "begin NONCE" and its "end NONCE", cut at NUL, and what came before it;
// no section when the saver did not come to its end.
func dumpSections(dump []byte, nonce string) (before []byte, sections []string) {
	begin := bytes.LastIndex(dump, []byte("\x00begin "+nonce+"\x00"))
	if begin < 0 {
		return nil, nil
	}
	rest := dump[begin+len("\x00begin \x00")+len(nonce):]
	end := bytes.Index(rest, []byte("\x00end "+nonce))
	if end < 0 {
		return nil, nil
	}
	return dump[:begin], strings.Split(string(rest[:end]), "\x00")
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
