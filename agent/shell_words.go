package main

import (
	"strconv"
	"strings"
)

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
