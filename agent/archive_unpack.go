package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"path/filepath"
)

// unpacking puts the entries of a tar stream into one directory. Every path is walked component by component from the
// open directory, never through a symlink, so that nothing can land outside it, whatever the archive or another process
// puts there meanwhile.
type unpacking struct {
	files *files
	root  directory
	// How the directory is called in messages.
	path string
	// Owners and all mode bits as in the archive; otherwise everything is root's.
	keepOwners bool
	// What must not appear twice, by hash, so that a million entries cost some tens of megabytes; the seed is random, so
	// that no archive can contain a collision on purpose.
	seen map[uint64]struct{}
	seed maphash.Seed
	// The directory of the last entry: most entries lie beside the one before.
	last      directory
	lastPath  string
	lastPlace string
}

// newUnpacking opens the directory at path; close it.
func (f *files) newUnpacking(path string) (*unpacking, error) {
	root, err := openDirectory(path)
	if err != nil {
		return nil, err
	}
	return &unpacking{files: f, path: path, root: root, seen: map[uint64]struct{}{}, seed: maphash.MakeSeed()}, nil
}

func (u *unpacking) close() {
	u.forgetLast()
	u.root.close()
}

// run unpacks the whole stream. An entry that is refused is named, and nothing after it is read.
func (u *unpacking) run(stream io.Reader) error {
	source := &upload{content: stream}
	plain, err := decompressed(source)
	if err != nil {
		return u.cutOff(source, "", err)
	}
	ending := &endingReader{content: plain}
	archive := tar.NewReader(ending)
	for entry := ""; ; {
		header, err := archive.Next()
		if err == io.EOF && !ending.ended {
			_, err := io.Copy(io.Discard, plain) // a checksum may follow
			if err != nil && !errors.Is(err, gzip.ErrHeader) {
				return u.cutOff(source, entry, err)
			}
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return u.cutOff(source, entry, err)
		}
		entry = header.Name
		if err := u.entry(header, archive); err != nil {
			if ending.isBroken(err) {
				return u.cutOff(source, entry, err)
			}
			return u.named(entry, err)
		}
	}
}

// decompressed looks at the first bytes: gzip begins with 1f 8b, which no tar does.
func decompressed(stream io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(stream, transferBytes)
	magic, err := buffered.Peek(2)
	if err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		return gzip.NewReader(buffered)
	}
	return buffered, nil
}

// endingReader notes that its content has ended or failed. A whole archive ends with blocks of zeros, at which the tar reader
// stops; one that was cut off between two entries makes it read on to the end.
type endingReader struct {
	content io.Reader
	ended   bool
	failed  error
}

func (e *endingReader) Read(buffer []byte) (int, error) {
	count, err := e.content.Read(buffer)
	if err != nil && err != io.EOF {
		e.failed = err
	}
	e.ended = count == 0 && err == io.EOF // the last bytes may come together with EOF
	return count, err
}

// isBroken tells whether an error is the stream's fault rather than the disk's.
func (e *endingReader) isBroken(err error) bool {
	return e.failed != nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader)
}

func (u *unpacking) cutOff(source *upload, entry string, err error) error {
	if source.err != nil {
		return source.err
	}
	why := "it is not a valid tar stream"
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		why = "the stream ends before the archive does"
	} else if err != nil && !errors.Is(err, tar.ErrHeader) {
		why = err.Error()
	}
	after := ""
	if entry != "" {
		after = fmt.Sprintf(" after the entry %q began", entry)
	}
	refusal := refuse("VALIDATION_FAILED", "Cannot unpack into %q: %s%s; entries before it are kept", u.path, why, after)
	refusal.Details = map[string]any{"path": u.path, "entry": entry}
	return refusal
}

// named is a refusal that says which entry it concerns.
func (u *unpacking) named(entry string, err error) error {
	var refusal *agentError
	if !errors.As(err, &refusal) {
		refusal = asAgentError(cannot("write", filepath.Join(u.path, entry), err))
	}
	return &agentError{Code: refusal.Code, Message: refusal.Message, Details: map[string]any{"path": u.path, "entry": entry}}
}
