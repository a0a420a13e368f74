package main

import (
	"errors"
	"fmt"
	"syscall"
)

// cannot words a failure of the kernel as a refusal: its code, the verb, the path and the reason. A refusal stays what
// it is.
func cannot(verb, path string, err error) error {
	var refusal *agentError
	if errors.As(err, &refusal) {
		return refusal
	}
	code, why := "INTERNAL_ERROR", err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		why = errno.Error()
		if known, ok := errnoCodes[errno]; ok {
			code = known
		}
		if meaning, ok := fileFailures[errno]; ok {
			why = meaning.why
			if meaning.code != "" {
				code = meaning.code
			}
		}
	}
	return &agentError{
		Code:    code,
		Message: fmt.Sprintf("Cannot %s %q: %s", verb, path, why),
		Details: map[string]any{"path": path},
	}
}

// What an errno means for files, in words; the code only where files give it another than errnoCodes.
var fileFailures = map[syscall.Errno]struct{ code, why string }{
	syscall.ENOENT:       {why: "there is no such file or directory"},
	syscall.ESTALE:       {"FILE_NOT_FOUND", "it is no longer there"},
	syscall.ENOTDIR:      {why: "it, or something on the way to it, is not a directory"},
	syscall.EISDIR:       {why: "it is a directory"},
	syscall.EEXIST:       {why: "it exists already"},
	syscall.ENOTEMPTY:    {why: "the directory is not empty"},
	syscall.ENAMETOOLONG: {why: "the name is too long: 255 bytes for a name and 4095 for a path are the most"},
	syscall.ELOOP:        {why: "too many symlinks lead to one another"},
	syscall.EACCES:       {why: "permission denied"},
	syscall.EPERM:        {why: "the kernel does not permit it here"},
	syscall.EROFS:        {why: "the file system is read-only"},
	syscall.EBUSY:        {why: "it is in use or a mount point"},
	syscall.ETXTBSY:      {why: "it is a program that is running"},
	syscall.ENOSPC:       {why: "the disk is full: remove files or take a larger instance"},
	syscall.EDQUOT:       {why: "the disk is full: remove files or take a larger instance"},
	syscall.EFBIG:        {"PAYLOAD_TOO_LARGE", "the file would be larger than the file system allows"},
	syscall.EMLINK:       {"LIMIT_REACHED", "it has as many links as the file system allows"},
	syscall.EMFILE:       {why: "too many files are open: try again"},
	syscall.ENFILE:       {why: "too many files are open: try again"},
	syscall.EXDEV:        {"NOT_SUPPORTED", "it would cross from one file system to another"},
	syscall.EOPNOTSUPP:   {"NOT_SUPPORTED", "the file system does not support it"},
}
