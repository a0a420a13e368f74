package main

import (
	"path"
	"strings"
)

// pathFilter says which paths a watch tells. Paths are relative to the watched directory.
type pathFilter struct{ include, exclude []glob }

// excludes: the path is not told and, when it is a directory, neither is what lies in it.
func (f pathFilter) excludes(relative string) bool {
	return len(f.exclude) > 0 && matchesAny(f.exclude, relative)
}

// includes holds for every path where nothing is named to be included.
func (f pathFilter) includes(relative string) bool {
	return len(f.include) == 0 || matchesAny(f.include, relative)
}

// dependsOnPlace: what is excluded below a directory depends on where that lies.
func (f pathFilter) dependsOnPlace() bool {
	for _, one := range f.exclude {
		if one.anchored {
			return true
		}
	}
	return false
}

func matchesAny(globs []glob, relative string) bool {
	for _, one := range globs {
		if one.matches(relative) {
			return true
		}
	}
	return false
}

func newPathFilter(include, exclude []string) (pathFilter, error) {
	var f pathFilter
	var err error
	if f.include, err = parseGlobs(include); err != nil {
		return f, err
	}
	f.exclude, err = parseGlobs(exclude)
	return f, err
}

const (
	// Each is tried on every path.
	globLimit      = 256
	globLimitBytes = 1024
)

func parseGlobs(patterns []string) ([]glob, error) {
	var globs []glob
	for _, pattern := range patterns {
		if pattern == "" || len(pattern) > globLimitBytes || strings.IndexByte(pattern, 0) >= 0 {
			return nil, refuse("VALIDATION_FAILED", "Cannot watch for %.100q: a pattern has 1 to %d bytes without NUL", pattern, globLimitBytes)
		}
		alternatives, ok := expandBraces(pattern)
		if !ok || len(globs)+len(alternatives) > globLimit {
			return nil, refuse("VALIDATION_FAILED", "Cannot watch for %.100q: more than %d patterns in all", pattern, globLimit)
		}
		for _, alternative := range alternatives {
			one, err := parseGlob(alternative)
			if err != nil {
				return nil, refuse("VALIDATION_FAILED", "Cannot watch for %.100q: %v", pattern, err)
			}
			globs = append(globs, one)
		}
	}
	return globs, nil
}

// glob is a pattern of shells: * ? [a-z] within a name, ** for any number of directories. Without a slash it is matched
// with the last part of a path, with one with the whole.
type glob struct {
	parts    []string
	anchored bool
}

func parseGlob(pattern string) (glob, error) {
	trimmed := strings.TrimSuffix(strings.TrimPrefix(pattern, "./"), "/")
	g := glob{anchored: strings.Contains(trimmed, "/")}
	for _, part := range strings.Split(strings.TrimPrefix(trimmed, "/"), "/") {
		if part == "**" && len(g.parts) > 0 && g.parts[len(g.parts)-1] == "**" {
			continue
		}
		if _, err := path.Match(part, ""); err != nil {
			return g, err
		}
		g.parts = append(g.parts, part)
	}
	return g, nil
}

func (g glob) matches(relative string) bool {
	if !g.anchored {
		last := relative[strings.LastIndexByte(relative, '/')+1:]
		return g.parts[0] == "**" || matchesName(g.parts[0], last)
	}
	// As for * in a name: only the last ** met so far may have to take more, so this needs no more than the product of
	// the lengths.
	rest, parts := relative, g.parts
	retryRest, retryParts := "", []string(nil)
	for {
		if len(parts) > 0 && parts[0] == "**" {
			if len(parts) == 1 {
				return rest != "" // what lies in a directory, not itself
			}
			parts = parts[1:]
			retryRest, retryParts = rest, parts
			continue
		}
		if len(parts) == 0 && rest == "" {
			return true
		}
		if len(parts) > 0 && rest != "" {
			first, next, _ := strings.Cut(rest, "/")
			if matchesName(parts[0], first) {
				rest, parts = next, parts[1:]
				continue
			}
		}
		if retryParts == nil || retryRest == "" {
			return false
		}
		_, retryRest, _ = strings.Cut(retryRest, "/")
		rest, parts = retryRest, retryParts
	}
}

func matchesName(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// expandBraces makes a pattern of each alternative: "*.{ts,tsx}" is "*.ts" and "*.tsx". Braces without a comma or an end
// are taken as they are. False when there would be too many.
func expandBraces(pattern string) ([]string, bool) {
	done, todo := []string(nil), []string{pattern}
	for len(todo) > 0 {
		one := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		before, alternatives, after, ok := firstBraces(one)
		if !ok {
			done = append(done, one)
			continue
		}
		for i := len(alternatives) - 1; i >= 0; i-- {
			todo = append(todo, before+alternatives[i]+after)
		}
		if len(todo)+len(done) > globLimit {
			return nil, false
		}
	}
	return done, true
}

func firstBraces(pattern string) (before string, alternatives []string, after string, ok bool) {
	for open := 0; open < len(pattern); open++ {
		if pattern[open] == '\\' {
			open++
			continue
		}
		if pattern[open] != '{' {
			continue
		}
		depth, from := 0, open+1
		alternatives = nil
		for i := open; i < len(pattern); i++ {
			switch pattern[i] {
			case '\\':
				i++
			case '{':
				depth++
			case ',':
				if depth == 1 {
					alternatives = append(alternatives, pattern[from:i])
					from = i + 1
				}
			case '}':
				depth--
				if depth == 0 && alternatives != nil {
					return pattern[:open], append(alternatives, pattern[from:i]), pattern[i+1:], true
				}
			}
			if depth == 0 {
				break
			}
		}
	}
	return "", nil, "", false
}
