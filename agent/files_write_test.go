package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func (h *house) write(path, content string, pairs ...string) reply {
	h.Helper()
	return h.ask("PUT", "content", strings.NewReader(content), append([]string{"path", path}, pairs...)...)
}

func TestAWriteMakesParentsAndAppearsWhole(t *testing.T) {
	h := openHouse(t)
	file := h.file(h.write("a/b/c.txt", "hello"))
	if file.Size != 5 || file.Mode != 0o644 || h.content("a/b/c.txt") != "hello" {
		t.Errorf("%+v", file)
	}
	if file := h.file(h.write("run.sh", "#!/bin/sh", "mode", "493")); file.Mode != 0o755 {
		t.Errorf("%o", file.Mode)
	}
	h.file(h.write("empty", ""))
	if h.content("empty") != "" {
		t.Error("not empty")
	}
	h.isTidy()
}

func TestAReplacedFileKeepsModeOwnerAndAttributes(t *testing.T) {
	h := openHouse(t)
	h.put("f", "old")
	attribute := syscall.Setxattr(h.path("f"), "user.note", []byte("kept"), 0)
	if os.Getuid() == 0 {
		h.must(os.Chown(h.path("f"), 1234, 4321))
	}
	h.must(syscall.Chmod(h.path("f"), 0o4750))
	h.file(h.write("f", "new"))
	var stat syscall.Stat_t
	h.must(syscall.Stat(h.path("f"), &stat))
	if stat.Mode&0o7777 != 0o4750 || os.Getuid() == 0 && (stat.Uid != 1234 || stat.Gid != 4321) || h.content("f") != "new" {
		t.Errorf("%o %d %d", stat.Mode, stat.Uid, stat.Gid)
	}
	if attribute == nil {
		value := make([]byte, 10)
		if size, err := syscall.Getxattr(h.path("f"), "user.note", value); err != nil || string(value[:size]) != "kept" {
			t.Errorf("%q %v", value, err)
		}
	}
	if file := h.file(h.write("f", "again", "mode", "384")); file.Mode != 0o600 {
		t.Errorf("%o", file.Mode)
	}
}

func TestAWriteThroughASymlinkReplacesWhatItLeadsTo(t *testing.T) {
	h := openHouse(t)
	h.put("real/target", "old")
	h.put("other/x", "")
	h.must(os.Symlink("../real", h.path("other/dir")))
	h.must(os.Symlink("dir/../middle", h.path("other/link"))) // the parent of real, not of other
	h.must(os.Symlink("real/target", h.path("middle")))
	h.must(os.Symlink("nowhere/yet", h.path("dangling")))
	h.file(h.write("other/link", "new"))
	h.file(h.write("dangling", "made"))
	if h.content("real/target") != "new" || h.content("nowhere/yet") != "made" {
		t.Error("the targets were not written")
	}
	for _, link := range []string{"other/link", "middle", "dangling"} {
		if info, err := os.Lstat(h.path(link)); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no symlink any more", link)
		}
	}
	h.isTidy()
}

func TestAnUploadThatIsCutOffChangesNothing(t *testing.T) {
	h := openHouse(t)
	h.put("f", "old")
	for _, head := range []string{
		"PUT /files/content?path=f HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
		"PUT /files/content?path=f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
		"PUT /files/content?path=new/f HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
	} {
		connection, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		h.must(err)
		_, err = connection.Write([]byte(head + strings.Repeat("x", 500)))
		h.must(err)
		h.must(connection.(*net.TCPConn).CloseWrite())
		answer, _ := io.ReadAll(connection)
		connection.Close()
		if len(answer) > 0 && !bytes.Contains(answer, []byte("ABORTED")) {
			t.Errorf("%s", answer)
		}
	}
	if h.content("f") != "old" {
		t.Error("the old file was changed")
	}
	if _, err := os.Lstat(h.path("new")); err == nil {
		t.Error("a parent was made")
	}
	h.isTidy()
}

func TestOfManyWritersTheLastWinsWhole(t *testing.T) {
	h := openHouse(t)
	var writers sync.WaitGroup
	for i := 0; i < 16; i++ {
		writers.Add(1)
		go func(i int) {
			defer writers.Done()
			content := strings.Repeat(fmt.Sprintf("%02d", i), 100_000)
			if r := h.write("f", content); r.status != 200 {
				t.Errorf("%d %s", r.status, r.body)
			}
		}(i)
	}
	writers.Wait()
	content := h.content("f")
	if len(content) != 200_000 || content != strings.Repeat(content[:2], 100_000) {
		t.Error("the writers were mixed")
	}
	h.isTidy()
}

func TestAFullDiskIsToldAndLeavesTheOldFile(t *testing.T) {
	h := openHouse(t)
	h.tmpfs("small", "size=1m")
	h.put("small/f", "old")
	message := h.refused(h.write("small/f", strings.Repeat("x", 2<<20)), "NO_SPACE")
	if !strings.Contains(message, "the disk is full") {
		t.Error(message)
	}
	if h.content("small/f") != "old" {
		t.Error("the old file was changed")
	}
	h.isTidy()
	h.file(h.write("small/f", "new")) // a mount of its own: beside, not from the private place
	if h.content("small/f") != "new" {
		t.Error("not written")
	}
	h.isTidy()
}

func TestAReadOnlyFileSystemIsTold(t *testing.T) {
	h := openHouse(t)
	path := h.tmpfs("fixed", "")
	h.put("fixed/f", "old")
	h.must(syscall.Mount("", path, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	h.refused(h.write("fixed/f", "new"), "READ_ONLY")
	h.refused(h.post("mkdir", mkdirRequest{Path: "fixed/d"}), "READ_ONLY")
	h.refused(h.post("remove", removeRequest{Path: "fixed/f"}), "READ_ONLY")
	h.refused(h.post("move", moveRequest{Path: "fixed/f", To: "f"}), "READ_ONLY")
	if h.content("fixed/f") != "old" {
		t.Error("changed")
	}
	h.isTidy()
}

func TestNothingUnfinishedAppearsInTheDirectoryItself(t *testing.T) {
	h := openHouse(t)
	reader, writer := io.Pipe()
	done := make(chan reply)
	go func() { done <- h.ask("PUT", "content", reader, "path", "f") }()
	_, err := writer.Write(bytes.Repeat([]byte("x"), 4<<20))
	h.must(err)
	entries, err := os.ReadDir(h.directory)
	h.must(err)
	unfinished, err := os.ReadDir(h.unfinished)
	h.must(err)
	if len(entries) != 0 || len(unfinished) != 1 {
		t.Errorf("%v %v", entries, unfinished)
	}
	writer.Close()
	h.succeeds(<-done)
	h.isTidy()
}

func TestWhatAKilledAgentLeftIsRemovedAtStart(t *testing.T) {
	h := openHouse(t)
	h.must(os.MkdirAll(filepath.Join(h.unfinished, unfinishedPrefix+"1", "deep"), 0o700))
	h.must(os.WriteFile(filepath.Join(h.unfinished, unfinishedPrefix+"2"), []byte("x"), 0o600))
	h.must(os.WriteFile(filepath.Join(h.unfinished, "not ours"), []byte("x"), 0o600))
	(&files{unfinished: h.unfinished}).removeUnfinished()
	left, err := os.ReadDir(h.unfinished)
	h.must(err)
	if len(left) != 1 || left[0].Name() != "not ours" {
		t.Error(left)
	}
}

func TestANewFileTakesTheGroupOfASetGroupIDDirectory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	h := openHouse(t)
	h.must(os.Mkdir(h.path("shared"), 0o755))
	h.must(os.Chown(h.path("shared"), 0, 777))
	h.must(syscall.Chmod(h.path("shared"), 0o2775))
	h.file(h.write("shared/f", "x"))
	var stat syscall.Stat_t
	h.must(syscall.Stat(h.path("shared/f"), &stat))
	if stat.Gid != 777 {
		t.Errorf("group %d", stat.Gid)
	}
}

func TestFilesOfTheImageUnderAnOverlayAreReplacedMovedAndRemoved(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, redirect := range []string{"on", "off"} { // with off, the kernel refuses to rename a directory of the image
		h := openHouse(t)
		h.put("lower/etc/conf", "image")
		h.put("lower/lib/deep/file", "library")
		h.put("lower/gone", "")
		for _, name := range []string{"upper", "index", "root"} {
			h.must(os.Mkdir(h.path(name), 0o755))
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=%s", h.path("lower"), h.path("upper"), h.path("index"), redirect)
		if err := syscall.Mount("overlay", h.path("root"), "overlay", 0, options); err != nil {
			t.Skipf("no overlay here: %v", err)
		}
		h.Cleanup(func() { _ = syscall.Unmount(h.path("root"), syscall.MNT_DETACH) })
		verbs := &files{unfinished: h.path("root/var/unfinished")}

		h.must(os.Chmod(h.path("lower/etc/conf"), 0o600))
		h.must(verbs.replaceFile(h.path("root/etc/conf"), strings.NewReader("mine"), nil))
		h.must(verbs.movePath(h.path("root/lib"), h.path("root/usr")))
		h.must(removePath(h.path("root/gone"), false))
		h.must(removePath(h.path("root/usr/deep"), true))
		info, err := os.Stat(h.path("root/etc/conf"))
		h.must(err)
		if h.content("root/etc/conf") != "mine" || info.Mode().Perm() != 0o600 || h.content("lower/etc/conf") != "image" {
			t.Errorf("%v", info.Mode())
		}
		if _, err := os.Lstat(h.path("root/lib")); err == nil {
			t.Error("the moved directory is still there")
		}
		made, err := os.ReadDir(verbs.unfinished)
		if err != nil || len(made) > 0 {
			t.Errorf("%v %v: the private place was not used or not left tidy", made, err)
		}
	}
}
