package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"syscall"
)

// readContent sends a regular file as it is: size and description in the headers, one range when asked (with an entity
// tag, so that a download can be resumed). A file that grows meanwhile ends at the size told; one that shrinks ends the
// answer early, which the reader sees. Files of the kernel's own file systems, whose size says nothing, are streamed
// until a read would wait.
func (f *files) readContent(w http.ResponseWriter, r *http.Request) error {
	_, path, err := f.target(r)
	if err != nil {
		return err
	}
	file, stat, err := openRegular(path)
	if err != nil {
		return cannot("read", path, err)
	}
	defer file.Close()
	header := w.Header()
	header.Set("atoll-file", headerJSON(describe(path, "", path, stat)))
	header.Set("content-type", "application/octet-stream")
	if isKernels(file) {
		return send(w, http.StatusOK, path, kernelFile{file}, -1)
	}

	tag := fmt.Sprintf(`"%x-%x-%x-%x"`, stat.Ino, stat.Size, stat.Mtim.Nano(), stat.Ctim.Nano())
	header.Set("etag", tag)
	header.Set("accept-ranges", "bytes")
	part, partial, satisfiable := span{0, stat.Size}, false, true
	if condition := r.Header.Get("if-range"); condition == "" || condition == tag {
		part, partial, satisfiable = parseRange(r.Header.Get("range"), stat.Size)
	}
	if !satisfiable {
		header.Set("content-range", fmt.Sprintf("bytes */%d", stat.Size))
		writeJSON(w, http.StatusRequestedRangeNotSatisfiable,
			refuse("VALIDATION_FAILED", "Cannot read %q from there: it has %d bytes", path, stat.Size))
		return nil
	}
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		header.Set("content-range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, stat.Size))
	}
	content := io.NewSectionReader(file, part.start, part.length)
	return send(w, status, path, content, part.length)
}

// openRegular opens a file for its content without ever waiting for it and without touching a device: FIFOs, sockets,
// devices and directories are refused. Symlinks are followed.
func openRegular(path string) (*os.File, *syscall.Stat_t, error) {
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return nil, nil, err
	}
	if err := mustBeRegular(path, stat.Mode); err != nil {
		return nil, nil, err
	}
	// It may have become something else since: O_NONBLOCK keeps a FIFO from waiting, and the file itself is asked again.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil {
		stat = *info.Sys().(*syscall.Stat_t)
		err = mustBeRegular(path, stat.Mode)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, &stat, nil
}

func mustBeRegular(path string, mode uint32) error {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return nil
	case syscall.S_IFDIR:
		return syscall.EISDIR
	default:
		return refuse("VALIDATION_FAILED", "Cannot use %q as a file: it is %s", path, kind(mode))
	}
}

// Large enough that system calls do not count, small enough for hundreds of transfers in a small sandbox.
const transferBytes = 64 << 10

// send answers with exactly length bytes of content, or, when length is -1, with what is there until its end. The first
// bytes are read before the answer begins, so that a file that cannot be read is refused with the reason.
func send(w http.ResponseWriter, status int, path string, content io.Reader, length int64) error {
	size := int64(transferBytes)
	if length >= 0 && length < size {
		size = length
	}
	buffer := make([]byte, size)
	count, err := content.Read(buffer)
	if err != nil && err != io.EOF {
		return cannot("read", path, err)
	}
	if length >= 0 {
		w.Header().Set("content-length", strconv.FormatInt(length, 10))
	}
	w.WriteHeader(status)
	for sent := int64(0); ; {
		written, failed := w.Write(buffer[:count])
		sent += int64(written)
		if failed != nil {
			cut() // the reader is gone
		}
		if sent == length || length < 0 && err == io.EOF {
			return nil
		}
		if err != nil {
			cut() // the file has shrunk or cannot be read on
		}
		count, err = content.Read(buffer)
	}
}

// kernelFile reads a file whose bytes the kernel makes up as they are read. Some of them (kmsg) wait for news: opened
// with O_NONBLOCK, they end where a read would wait.
type kernelFile struct{ *os.File }

func (k kernelFile) Read(buffer []byte) (int, error) {
	count := 0
	err := withDescriptor(k.File, func(descriptor int) (err error) {
		count, err = syscall.Read(descriptor, buffer)
		return err
	})
	switch {
	case errors.Is(err, syscall.EINTR):
		return 0, nil
	case errors.Is(err, syscall.EAGAIN):
		return 0, io.EOF
	case err != nil:
		return 0, err
	case count == 0:
		return 0, io.EOF
	}
	return count, nil
}
