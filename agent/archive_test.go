package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (h *house) unpack(stream []byte, into string) reply {
	h.Helper()
	return h.ask("PUT", "archive", bytes.NewReader(stream), "path", into)
}

type entry struct {
	header  tar.Header
	content string
}

func regular(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content}
}

func special(kind byte, name, link string) entry {
	return entry{tar.Header{Name: name, Typeflag: kind, Linkname: link, Mode: 0o755}, ""}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, e := range entries {
		header := e.header
		if err := archive.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// pictureOf is what a tree is, in words, for comparison.
func pictureOf(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	err := filepath.Walk(root, func(path string, info fs.FileInfo, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		stat := info.Sys().(*syscall.Stat_t)
		line := name + " " + info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(content) + " " + info.ModTime().UTC().Format(time.RFC3339Nano)
			if earlier, ok := first[stat.Ino]; ok {
				line += " = " + earlier
			}
			first[stat.Ino] = name
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func (h *house) makeTree() {
	h.Helper()
	h.put("tree/plain", "content")
	h.put("tree/bytes \xff\xfe\n", "odd")
	h.put("tree/"+strings.Repeat("long/", 60)+"name", "deep")
	h.put("tree/.hidden", "")
	h.put("tree/run", "#!/bin/sh")
	h.must(os.Chmod(h.path("tree/run"), 0o755))
	h.must(os.Mkdir(h.path("tree/empty"), 0o700))
	h.must(os.Link(h.path("tree/plain"), h.path("tree/same")))
	h.must(os.Symlink("/etc/passwd", h.path("tree/absolute")))
	h.must(os.Symlink("missing \xff", h.path("tree/dangling")))
	when := time.Unix(1_500_000_000, 123_456_789)
	h.must(os.Chtimes(h.path("tree/plain"), when, when))
}

func TestWhatIsPackedUnpacksToTheSame(t *testing.T) {
	h := openHouse(t)
	h.makeTree()
	want := pictureOf(t, h.path("tree"))
	h.must(syscall.Mkfifo(h.path("tree/pipe"), 0o600))
	socket, err := net.Listen("unix", h.path("tree/socket"))
	h.must(err)
	defer socket.Close()
	packed := h.succeeds(h.ask("GET", "archive", nil, "path", "tree")).body
	h.succeeds(h.unpack(packed, "copy/of"))
	if got := pictureOf(t, h.path("copy/of")); got != want {
		t.Errorf("%s\n---\n%s", got, want)
	}
	var squeezed bytes.Buffer
	compressor := gzip.NewWriter(&squeezed)
	_, _ = compressor.Write(packed)
	compressor.Close()
	h.succeeds(h.unpack(squeezed.Bytes(), "second"))
	if pictureOf(t, h.path("second")) != want {
		t.Error("gzip made a difference")
	}
	h.succeeds(h.unpack(packed, "second")) // over what is there
	if pictureOf(t, h.path("second")) != want {
		t.Error("unpacking again made a difference")
	}
	h.isTidy()
}

func TestTheSystemsTarUnderstandsUsAndWeIt(t *testing.T) {
	h := openHouse(t)
	h.makeTree()
	want := pictureOf(t, h.path("tree"))
	packed := h.succeeds(h.ask("GET", "archive", nil, "path", "tree")).body
	h.must(os.Mkdir(h.path("theirs"), 0o755))
	unpack := exec.Command("tar", "-x", "-C", h.path("theirs"))
	unpack.Stdin = bytes.NewReader(packed)
	if words, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, words)
	}
	if got := pictureOf(t, h.path("theirs")); got != want {
		t.Errorf("%s\n---\n%s", got, want)
	}
	for _, format := range [][]string{{"--format=pax"}, {"--format=pax", "-z"}, {"--format=gnu"}} {
		arguments := append([]string{"-c", "-C", h.path("tree")}, format...)
		theirs, err := exec.Command("tar", append(arguments, ".")...).Output()
		h.must(err)
		into := "ours" + strings.Join(format, "")
		h.succeeds(h.unpack(theirs, into))
		got := pictureOf(t, h.path(into))
		if format[0] == "--format=gnu" {
			got, want = withoutFractions(got), withoutFractions(want)
		}
		if got != want {
			t.Errorf("%v: %s\n---\n%s", format, got, want)
		}
	}
}

// withoutFractions leaves out fractions of seconds, which old formats do not hold.
func withoutFractions(picture string) string {
	lines := strings.Split(picture, "\n")
	for i, line := range lines {
		if dot := strings.LastIndexByte(line, '.'); dot > 0 && strings.Contains(line[dot:], "Z") {
			lines[i] = line[:dot] + line[dot+strings.IndexByte(line[dot:], 'Z'):]
		}
	}
	return strings.Join(lines, "\n")
}

func TestASingleFileIsAnArchiveOfOne(t *testing.T) {
	h := openHouse(t)
	h.put("dir/file", "content")
	h.must(os.Symlink("dir/file", h.path("link")))
	for _, name := range []string{"dir/file", "link"} {
		packed := tar.NewReader(bytes.NewReader(h.succeeds(h.ask("GET", "archive", nil, "path", name)).body))
		header, err := packed.Next()
		h.must(err)
		content, err := io.ReadAll(packed)
		h.must(err)
		if header.Name != filepath.Base(name) || header.Typeflag != tar.TypeReg || string(content) != "content" {
			t.Errorf("%+v %q", header, content)
		}
		if _, err := packed.Next(); err != io.EOF {
			t.Error(err)
		}
	}
	h.refused(h.ask("GET", "archive", nil, "path", "/proc"), "NOT_SUPPORTED")
}

func TestAHostileArchiveIsRefusedByNameAndWritesNothingOutside(t *testing.T) {
	cases := map[string]struct {
		entries []entry
		code    string
	}{
		"two dots":                      {[]entry{regular("a/../../evil", "x")}, "VALIDATION_FAILED"},
		"an absolute name":              {[]entry{regular("/evil", "x")}, "VALIDATION_FAILED"},
		"a file through a symlink":      {[]entry{special(tar.TypeSymlink, "evil", ".."), regular("evil/escaped", "x")}, "VALIDATION_FAILED"},
		"a directory over a symlink":    {[]entry{special(tar.TypeSymlink, "evil", ".."), special(tar.TypeDir, "evil/", "")}, "VALIDATION_FAILED"},
		"a file through an older link":  {[]entry{regular("old-link/evil", "x")}, "VALIDATION_FAILED"},
		"a hard link outside":           {[]entry{special(tar.TypeLink, "evil", "../secret")}, "VALIDATION_FAILED"},
		"an absolute hard link":         {[]entry{special(tar.TypeLink, "evil", "/etc/passwd")}, "VALIDATION_FAILED"},
		"a hard link through a symlink": {[]entry{special(tar.TypeLink, "evil", "old-link/secret")}, "VALIDATION_FAILED"},
		"a hard link to a symlink":      {[]entry{special(tar.TypeLink, "evil", "secret-link")}, "VALIDATION_FAILED"},
		"a hard link to nothing":        {[]entry{special(tar.TypeLink, "evil", "missing")}, "VALIDATION_FAILED"},
		"a hard link to the top":        {[]entry{special(tar.TypeLink, "evil", ".")}, "VALIDATION_FAILED"},
		"a named pipe":                  {[]entry{special(tar.TypeFifo, "evil", "")}, "VALIDATION_FAILED"},
		"a device":                      {[]entry{special(tar.TypeChar, "evil", "")}, "VALIDATION_FAILED"},
		"a block device":                {[]entry{special(tar.TypeBlock, "evil", "")}, "VALIDATION_FAILED"},
		"the same file twice":           {[]entry{regular("evil", "1"), regular("./evil", "2")}, "VALIDATION_FAILED"},
		"a file over a directory":       {[]entry{special(tar.TypeDir, "evil/", ""), regular("evil", "")}, "FILE_EXISTS"},
		"a directory over a file":       {[]entry{regular("evil", ""), special(tar.TypeDir, "evil/", "")}, "NOT_DIRECTORY"},
		"a file below a file":           {[]entry{regular("evil", ""), regular("evil/below", "")}, "NOT_DIRECTORY"},
		"a file with no name":           {[]entry{regular(".", "x")}, "VALIDATION_FAILED"},
		"a symlink with no target":      {[]entry{special(tar.TypeSymlink, "evil", "")}, "VALIDATION_FAILED"},
		"an unknown type":               {[]entry{special('Q', "evil", "")}, "VALIDATION_FAILED"},
		"a name that is too long":       {[]entry{regular("evil/"+strings.Repeat("n", 300), "x")}, "NAME_TOO_LONG"},
		"a path that is too long":       {[]entry{regular("evil/"+strings.Repeat("n/", 3000)+"x", "x")}, "NAME_TOO_LONG"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := openHouse(t)
			h.put("secret", "secret")
			h.must(os.Mkdir(h.path("in"), 0o755))
			h.must(os.Symlink("..", h.path("in/old-link")))
			h.must(os.Symlink("../secret", h.path("in/secret-link")))
			outside := func() string {
				files, _ := h.list("path", ".", "hidden", "1")
				return relativePaths(files)
			}
			before := outside()
			stream := tarOf(t, append([]entry{regular("good", "good")}, append(c.entries, regular("after", ""))...)...)
			message := h.refused(h.unpack(stream, "in"), c.code)
			if !strings.Contains(message, "evil") && !strings.Contains(message, `"."`) {
				t.Error(message)
			}
			if outside() != before || h.content("secret") != "secret" || h.content("in/good") != "good" {
				t.Errorf("%s; %s", before, outside())
			}
			if _, err := os.Lstat(h.path("in/after")); err == nil {
				t.Error("went on after the refusal")
			}
			h.isTidy()
		})
	}
}

func TestHugeSizesAreRefusedBeforeTheyAreWritten(t *testing.T) {
	h := openHouse(t)
	h.tmpfs("small", "size=4m")
	h.must(os.Mkdir(h.path("small/in"), 0o755))
	for size, code := range map[int64]string{1 << 60: "VALIDATION_FAILED", 4_100_000: "NO_SPACE"} {
		h.put("small/fill", strings.Repeat("x", 1<<20))
		var out bytes.Buffer
		archive := tar.NewWriter(&out)
		h.must(archive.WriteHeader(&tar.Header{Name: "evil", Typeflag: tar.TypeReg, Size: size, Mode: 0o644, Format: tar.FormatPAX}))
		h.refused(h.unpack(out.Bytes(), "small/in"), code)
	}
	h.isTidy()
}

func TestAnArchiveThatIsCutOffAnywhereIsRefusedAndLeavesNoHalfFile(t *testing.T) {
	h := openHouse(t)
	stream := tarOf(t, regular("one", strings.Repeat("1", 700)), special(tar.TypeDir, "dir/", ""), regular("dir/two", strings.Repeat("2", 1500)))
	var squeezed bytes.Buffer
	compressor := gzip.NewWriter(&squeezed)
	_, _ = compressor.Write(stream)
	compressor.Close()
	for _, whole := range [][]byte{stream, squeezed.Bytes()} {
		end := len(whole) - 1
		if whole[0] != 0x1f {
			end = len(whole) - 513 // one block of zeros is cut off too; two make the end
		}
		for length := 0; length <= end; length += 1 + end/40 {
			h.must(os.RemoveAll(h.path("in")))
			h.refused(h.unpack(whole[:length], "in"), "VALIDATION_FAILED")
			for name, size := range map[string]int64{"one": 700, "dir/two": 1500} {
				if info, err := os.Lstat(h.path("in/" + name)); err == nil && info.Size() != size {
					t.Errorf("%s has %d bytes", name, info.Size())
				}
			}
		}
	}
	h.refused(h.unpack([]byte(strings.Repeat("no tar at all ", 100)), "in"), "VALIDATION_FAILED")
	h.refused(h.unpack([]byte("\x1f\x8bno gzip"), "in"), "VALIDATION_FAILED")
	h.isTidy()
}

func TestAnUnpackedFileReplacesASymlinkAndNotItsTarget(t *testing.T) {
	h := openHouse(t)
	h.put("secret", "secret")
	h.must(os.Mkdir(h.path("in"), 0o755))
	h.must(os.Symlink("../secret", h.path("in/file")))
	h.must(os.Symlink("../secret", h.path("in/link")))
	h.succeeds(h.unpack(tarOf(t, regular("file", "new"), special(tar.TypeSymlink, "link", "file"), special(tar.TypeLink, "hard", "file")), "in"))
	if h.content("secret") != "secret" || h.content("in/link") != "new" || h.content("in/hard") != "new" {
		t.Error(pictureOf(t, h.path("in")))
	}
	h.must(os.Symlink("in", h.path("door"))) // the directory itself may be named by a symlink
	h.succeeds(h.unpack(tarOf(t, regular("through", "x")), "door"))
	h.refused(h.unpack(tarOf(t, regular("x", "x")), "secret"), "FILE_EXISTS")
}

func TestUploadedFilesAreRootsAndNeverSetUserID(t *testing.T) {
	h := openHouse(t)
	file := regular("file", "x")
	file.header.Mode, file.header.Uid, file.header.Gid = 0o6755, 1000, 1000
	directory := special(tar.TypeDir, "dir/", "")
	directory.header.Mode = 0o3777
	h.succeeds(h.unpack(tarOf(t, file, directory), "in"))
	var stat syscall.Stat_t
	h.must(syscall.Lstat(h.path("in/file"), &stat))
	if stat.Mode&0o7777 != 0o755 || int(stat.Uid) != os.Getuid() {
		t.Errorf("%o %d", stat.Mode, stat.Uid)
	}
	h.must(syscall.Lstat(h.path("in/dir"), &stat))
	if stat.Mode&0o7777 != 0o1777 {
		t.Errorf("%o", stat.Mode)
	}
}

func TestATimeThatNoFileSystemHoldsIsTheBeginningOfTime(t *testing.T) {
	for _, seconds := range []int64{-1, 1 << 40, -1 << 60} {
		if got := sensibleTime(time.Unix(seconds, 0)); got.Unix() != 0 {
			t.Errorf("%d became %v", seconds, got)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, regular("a/b", "content"), special(tar.TypeSymlink, "l", "a"), special(tar.TypeLink, "h", "a/b"), special(tar.TypeDir, "d/", "")))
	f.Add(tarOf(f, special(tar.TypeSymlink, "a", ".."), regular("a/evil", "x"), regular("../evil", "x")))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		base := t.TempDir()
		verbs := &files{unfinished: filepath.Join(base, "unfinished")}
		if err := os.MkdirAll(filepath.Join(base, "in"), 0o755); err != nil {
			t.Fatal(err)
		}
		unpacking, err := verbs.newUnpacking(filepath.Join(base, "in"))
		if err != nil {
			t.Fatal(err)
		}
		err = unpacking.run(bytes.NewReader(stream))
		unpacking.close()
		if err != nil && asAgentError(err).Code == "INTERNAL_ERROR" {
			t.Error(err)
		}
		entries, err := os.ReadDir(base)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.Name() != "in" && entry.Name() != "unfinished" {
				t.Errorf("%q was written outside", entry.Name())
			}
		}
		if left, _ := os.ReadDir(verbs.unfinished); len(left) > 0 {
			t.Errorf("%q was left", left[0].Name())
		}
	})
}
