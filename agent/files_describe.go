package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// agentFile is AgentFile of protocol/agent.ts. Names are JSON, so bytes that are not UTF-8 appear as U+FFFD.
type agentFile struct {
	Name         string  `json:"name"`
	AbsolutePath string  `json:"absolutePath"`
	RelativePath string  `json:"relativePath"`
	Type         string  `json:"type"`
	Size         int64   `json:"size"`
	ModifiedAtMs int64   `json:"modifiedAtMs"`
	Mode         uint32  `json:"mode"`
	Target       *string `json:"target,omitempty"`
}

// stat describes what has this name: a symlink itself, not what it leads to, unless follow=1.
func (f *files) stat(w http.ResponseWriter, r *http.Request) error {
	q, path, err := f.target(r)
	if err != nil {
		return err
	}
	follow, err := q.flag("follow")
	if err != nil {
		return err
	}
	look := describePath
	if follow {
		look = describeTarget
	}
	described, err := look(path)
	if err != nil {
		return cannot("stat", path, err)
	}
	writeJSON(w, http.StatusOK, described)
	return nil
}

func describePath(path string) (agentFile, error) {
	var stat syscall.Stat_t
	if err := syscall.Lstat(path, &stat); err != nil {
		return agentFile{}, err
	}
	return describe(path, "", path, &stat), nil
}

func describeTarget(path string) (agentFile, error) {
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return agentFile{}, err
	}
	return describe(path, "", path, &stat), nil
}

// describe words stat. reach is a path by which a symlink can be read; it may differ from the path that is shown.
func describe(absolute, relative, reach string, stat *syscall.Stat_t) agentFile {
	file := agentFile{
		Name:         filepath.Base(absolute),
		AbsolutePath: absolute,
		RelativePath: relative,
		Type:         "other",
		Size:         stat.Size,
		ModifiedAtMs: modifiedAt(stat).UnixMilli(),
		Mode:         stat.Mode & 0o7777,
	}
	switch stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		file.Type = "file"
	case syscall.S_IFDIR:
		file.Type = "directory"
	case syscall.S_IFLNK:
		file.Type = "symlink"
		if target, err := os.Readlink(reach); err == nil {
			file.Target = &target
		}
	}
	return file
}

func modifiedAt(stat *syscall.Stat_t) time.Time {
	return time.Unix(int64(stat.Mtim.Sec), int64(stat.Mtim.Nsec))
}

// headerJSON is value as JSON in ASCII, as a header can carry it.
func headerJSON(value any) string {
	encoded, err := json.Marshal(value)
	if err != nil {
		return "{}" // our own structs always have a JSON form
	}
	var ascii strings.Builder
	for _, r := range string(encoded) {
		switch {
		case r < 0x7f:
			ascii.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&ascii, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&ascii, `\u%04x`, r)
		}
	}
	return ascii.String()
}

// kind says what a file that is not a regular one is, for messages.
func kind(mode uint32) string {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return "a directory"
	case syscall.S_IFLNK:
		return "a symlink"
	case syscall.S_IFIFO:
		return "a named pipe"
	case syscall.S_IFSOCK:
		return "a socket"
	case syscall.S_IFCHR, syscall.S_IFBLK:
		return "a device"
	default:
		return "a file"
	}
}
