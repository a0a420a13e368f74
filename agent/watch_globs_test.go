package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestGlobsMatchLikeThoseOfShells(t *testing.T) {
	for _, one := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.ts", "a.ts", true},
		{"*.ts", "deep/in/a.ts", true},
		{"*.ts", "a.tsx", false},
		{"*.ts", "a.ts/b", false},
		{".git", ".git", true},
		{".git", "sub/.git", true},
		{".git", ".gitignore", false},
		{"*", ".hidden", true},
		{"a?c", "abc", true},
		{"a?c", "aüc", true},
		{"[a-c]x", "bx", true},
		{"[^a-c]x", "bx", false},
		{"*.{ts,tsx}", "x.tsx", true},
		{"*.{ts,{js,mjs}}", "x.mjs", true},
		{"{a}", "{a}", true},
		{"{a,b", "{a,b", true},
		{`\{a,b\}`, "{a,b}", true},
		{"src/*.ts", "src/a.ts", true},
		{"src/*.ts", "lib/src/a.ts", false},
		{"src/*.ts", "src/deep/a.ts", false},
		{"/a.ts", "a.ts", true},
		{"/a.ts", "b/a.ts", false},
		{"./src/a", "src/a", true},
		{"dist/", "dist", true},
		{"**", "any/thing", true},
		{"**/*.ts", "a.ts", true},
		{"**/*.ts", "x/y/a.ts", true},
		{"src/**", "src/a", true},
		{"src/**", "src/a/b", true},
		{"src/**", "src", false},
		{"src/**/a", "src/a", true},
		{"src/**/a", "src/x/y/a", true},
		{"src/**/a", "src/x/y/b", false},
		{"**/a/**/b", "a/x/a/y/b", true},
		{"**/a/**/b", "a/x/a/y/c", false},
		{"a/**/**/b", "a/b", true},
		{"*/b", "a/b", true},
		{"*/b", "b", false},
	} {
		globs, err := parseGlobs([]string{one.pattern})
		if err != nil {
			t.Errorf("%q: %v", one.pattern, err)
		} else if got := matchesAny(globs, one.path); got != one.want {
			t.Errorf("%q matches %q: %v", one.pattern, one.path, got)
		}
	}
}

func FuzzGlobsMatchWhatARegularExpressionMatches(f *testing.F) {
	for _, one := range [][2]string{{"**/a", "x/a"}, {"a/**/b/**/c", "a/x/b/y/c"}, {"a*b?/**", "axb1/y"}, {"*", "a"}} {
		f.Add(one[0], one[1])
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if strings.Trim(pattern, "ab*?/") != "" || strings.Trim(path, "ab/") != "" {
			return // names that mean themselves, and the wildcards
		}
		if path == "" || strings.Contains("/"+path+"/", "//") || len(pattern) > 60 || len(path) > 60 {
			return
		}
		globs, err := parseGlobs([]string{pattern})
		if err != nil {
			return
		}
		trimmed := strings.TrimSuffix(strings.TrimPrefix(pattern, "./"), "/")
		text, last := "^", path
		if !strings.Contains(trimmed, "/") {
			last = path[strings.LastIndexByte(path, '/')+1:]
			if trimmed == "**" {
				trimmed = "*"
			}
		}
		parts := strings.Split(strings.TrimPrefix(trimmed, "/"), "/")
		for i, part := range parts {
			switch {
			case part == "**" && i == len(parts)-1:
				text += "[^/].*"
				continue
			case part == "**":
				text += "([^/]+/)*"
				continue
			case part == "":
				return // matches nothing
			}
			one := regexp.MustCompile(`\*+`).ReplaceAllString(part, "*")
			text += strings.NewReplacer("*", "[^/]*", "?", "[^/]").Replace(one)
			if i < len(parts)-1 {
				text += "/"
			}
		}
		if want := regexp.MustCompile(text + "$").MatchString(last); matchesAny(globs, path) != want {
			t.Errorf("%q matches %q: %v, by %s", pattern, path, !want, text)
		}
	})
}

func FuzzAnyPatternIsParsedInBoundedTime(f *testing.F) {
	f.Add("{a,b}{c,d}", "ac")
	f.Add("[", "[")
	f.Add("{{{,}},", "")
	f.Fuzz(func(_ *testing.T, pattern, path string) {
		if globs, err := parseGlobs([]string{pattern}); err == nil {
			matchesAny(globs, path)
		}
	})
}

func FuzzTheKernelsRecordsAreParsedSafely(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00name\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x18\x00\x04name\x00"))
	f.Fuzz(func(t *testing.T, bytes []byte) {
		for _, event := range parseInotify(bytes, 0) {
			if event.end > int64(len(bytes)) || strings.IndexByte(event.name, 0) >= 0 {
				t.Errorf("%+v", event)
			}
		}
		for _, one := range parseEntries(bytes) {
			if one.name == "" || strings.IndexByte(one.name, 0) >= 0 {
				t.Errorf("%+v", one)
			}
		}
	})
}
