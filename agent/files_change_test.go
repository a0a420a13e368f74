package main

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestMkdirMakesOneOrAll(t *testing.T) {
	h := openHouse(t)
	mode := uint32(0o1777)
	if made := h.file(h.post("mkdir", mkdirRequest{Path: "a", Mode: &mode})); made.Type != "directory" || made.Mode != 0o1777 {
		t.Errorf("%+v", made)
	}
	h.refused(h.post("mkdir", mkdirRequest{Path: "a"}), "FILE_EXISTS")
	h.refused(h.post("mkdir", mkdirRequest{Path: "x/y"}), "FILE_NOT_FOUND")
	h.file(h.post("mkdir", mkdirRequest{Path: "x/y/z", Recursive: true}))
	h.file(h.post("mkdir", mkdirRequest{Path: "x/y/z", Recursive: true}))
	if kept := h.file(h.post("mkdir", mkdirRequest{Path: "a", Recursive: true})); kept.Mode != 0o1777 {
		t.Errorf("%o", kept.Mode)
	}
	h.put("file", "")
	h.refused(h.post("mkdir", mkdirRequest{Path: "file", Recursive: true}), "FILE_EXISTS")
	h.refused(h.post("mkdir", mkdirRequest{Path: "file/a", Recursive: true}), "NOT_DIRECTORY")
	h.must(os.Symlink("a", h.path("link")))
	h.file(h.post("mkdir", mkdirRequest{Path: "link", Recursive: true}))
	h.must(os.Symlink("nowhere", h.path("dangling")))
	h.refused(h.post("mkdir", mkdirRequest{Path: "dangling/a", Recursive: true}), "FILE_NOT_FOUND")
	h.refused(h.write("dangling/a", "x"), "FILE_NOT_FOUND")
	h.isTidy()
}

func TestRemoveTakesAFileASymlinkOrATree(t *testing.T) {
	h := openHouse(t)
	h.put("dir/sub/file", "")
	h.put("kept/file", "")
	h.must(os.Symlink("../kept", h.path("dir/link")))
	h.must(syscall.Mkfifo(h.path("pipe"), 0o600))
	h.refused(h.post("remove", removeRequest{Path: "missing", Recursive: true}), "FILE_NOT_FOUND")
	h.refused(h.post("remove", removeRequest{Path: "dir"}), "IS_DIRECTORY")
	h.refused(h.post("remove", removeRequest{Path: "/", Recursive: true}), "VALIDATION_FAILED")
	h.refused(h.post("remove", removeRequest{Path: "/tmp/../", Recursive: true}), "VALIDATION_FAILED")
	h.succeeds(h.post("remove", removeRequest{Path: "pipe"}))
	h.succeeds(h.post("remove", removeRequest{Path: "dir/link", Recursive: true}))
	h.must(os.Symlink("../kept", h.path("dir/link")))
	h.succeeds(h.post("remove", removeRequest{Path: "dir", Recursive: true}))
	if files, _ := h.list("path", ".", "recursive", "1"); relativePaths(files) != "kept kept/file" {
		t.Error(relativePaths(files))
	}
}

func TestRemoveTakesATreeDeeperThanAPathCanName(t *testing.T) {
	h := openHouse(t)
	h.makeDeep(3_000)
	h.succeeds(h.post("remove", removeRequest{Path: "deep", Recursive: true}))
	if files, _ := h.list("path", ".", "hidden", "1"); len(files) != 0 {
		t.Error(relativePaths(files))
	}
}

func TestATreeWithAMountPointIsRefusedBeforeAnythingIsRemoved(t *testing.T) {
	h := openHouse(t)
	h.put("tree/a", "")
	h.tmpfs("tree/mount point", "")
	message := h.refused(h.post("remove", removeRequest{Path: "tree", Recursive: true}), "RESOURCE_BUSY")
	if !strings.Contains(message, "mount point") {
		t.Error(message)
	}
	h.refused(h.post("move", moveRequest{Path: "tree/mount point", To: "elsewhere"}), "RESOURCE_BUSY")
	if h.content("tree/a") != "" {
		t.Error("removed")
	}
}

func TestMoveRenamesReplacesAndMovesIntoDirectories(t *testing.T) {
	h := openHouse(t)
	h.put("a", "A")
	h.put("b", "B")
	h.put("dir/x", "")
	if moved := h.file(h.post("move", moveRequest{Path: "a", To: "b"})); moved.AbsolutePath != h.path("b") || h.content("b") != "A" {
		t.Errorf("%+v", moved)
	}
	if moved := h.file(h.post("move", moveRequest{Path: "b", To: "dir"})); moved.AbsolutePath != h.path("dir/b") {
		t.Errorf("%+v", moved)
	}
	h.file(h.post("move", moveRequest{Path: "dir", To: "renamed"}))
	h.refused(h.post("move", moveRequest{Path: "dir", To: "other"}), "FILE_NOT_FOUND")
	h.refused(h.post("move", moveRequest{Path: "renamed", To: "no/such/parent"}), "FILE_NOT_FOUND")
	h.refused(h.post("move", moveRequest{Path: "renamed", To: "renamed"}), "VALIDATION_FAILED")
	h.refused(h.post("move", moveRequest{Path: "renamed", To: "renamed/below"}), "VALIDATION_FAILED")
	h.refused(h.post("move", moveRequest{Path: "/", To: "x"}), "VALIDATION_FAILED")
	h.put("full/renamed/y", "")
	h.refused(h.post("move", moveRequest{Path: "renamed", To: "full"}), "NOT_EMPTY")
	h.put("file", "")
	h.refused(h.post("move", moveRequest{Path: "renamed", To: "file"}), "NOT_DIRECTORY")
	h.must(os.Symlink("nothing", h.path("link")))
	if moved := h.file(h.post("move", moveRequest{Path: "link", To: "link2"})); moved.Type != "symlink" {
		t.Errorf("%+v", moved)
	}
}

func TestMoveAcrossFileSystemsIsWholeOrNotAtAll(t *testing.T) {
	h := openHouse(t)
	h.tmpfs("other", "size=2m")
	h.put("tree/sub/file", "content")
	h.must(os.Chown(h.path("tree/sub/file"), 12, 34))
	h.must(syscall.Chmod(h.path("tree/sub/file"), 0o4711))
	h.must(os.Chmod(h.path("tree/sub"), 0o750))
	h.must(os.Symlink("sub/file", h.path("tree/link")))
	h.must(os.Link(h.path("tree/sub/file"), h.path("tree/hard")))
	h.file(h.post("move", moveRequest{Path: "tree", To: "other"}))
	if _, err := os.Lstat(h.path("tree")); err == nil {
		t.Error("the source is still there")
	}
	var file, hard syscall.Stat_t
	h.must(syscall.Lstat(h.path("other/tree/sub/file"), &file))
	h.must(syscall.Lstat(h.path("other/tree/hard"), &hard))
	if file.Uid != 12 || file.Gid != 34 || file.Mode&0o7777 != 0o4711 || file.Ino != hard.Ino || h.content("other/tree/link") != "content" {
		t.Errorf("%+v", file)
	}
	h.file(h.post("move", moveRequest{Path: "other/tree/hard", To: "back"}))
	if h.content("back") != "content" {
		t.Error("not moved")
	}

	h.put("big/a", "a")
	h.put("big/b", strings.Repeat("x", 1500<<10))
	h.put("big/c", strings.Repeat("x", 1500<<10))
	h.refused(h.post("move", moveRequest{Path: "big", To: "other/big"}), "NO_SPACE")
	h.put("odd/a", "a")
	socket, err := net.Listen("unix", h.path("odd/socket"))
	h.must(err)
	defer socket.Close()
	h.refused(h.post("move", moveRequest{Path: "odd", To: "other/odd"}), "NOT_SUPPORTED")
	files, _ := h.list("path", ".", "recursive", "1", "hidden", "1")
	if paths := relativePaths(files); !strings.HasPrefix(paths, "back big big/a big/b big/c odd odd/a odd/socket other other/tree ") || strings.Contains(paths, "other/big") || strings.Contains(paths, "other/odd") {
		t.Error(paths)
	}
	h.isTidy()
}

func TestAReplyToABodyThatIsTooLargeIsARefusal(t *testing.T) {
	h := openHouse(t)
	r := h.ask("POST", "mkdir", io.LimitReader(neverEnding('a'), bodyLimitBytes+10))
	h.refused(r, "PAYLOAD_TOO_LARGE")
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}
