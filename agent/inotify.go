package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// inotify is one instance of the kernel's. What happened in the directories it watches comes as one queue; a place in
// that queue is told by the bytes before it.
type inotify struct {
	// The descriptor itself: os.File.Fd would make it block.
	fd   int
	file *os.File

	// Held while bytes go from the queue into `read`, so that the two are always told together.
	reading sync.Mutex
	read    int64
}

// inotifyEvent is one entry of the queue. The name is empty where the event is the watched directory's own.
type inotifyEvent struct {
	wd     int32
	mask   uint32
	cookie uint32
	name   string
	// end is the place in the queue behind this event.
	end int64
	// handled: it was dealt with together with its other half.
	handled bool
}

func (e *inotifyEvent) has(bits uint32) bool { return e.mask&bits != 0 }
func (e *inotifyEvent) isDirectory() bool    { return e.mask&syscall.IN_ISDIR != 0 }

func openInotify() (*inotify, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &inotify{fd: fd, file: os.NewFile(uintptr(fd), "inotify")}, nil
}

// close lets go of every directory. A read that waits ends with an error.
func (i *inotify) close() {
	_ = i.file.Close() // closing twice is an error that says so, no more
}

// add watches the directory that a descriptor leads to. The kernel gives the same number for the same directory however
// it is reached, which is how directories are told apart here.
//
// The mask is always added to what is watched already: the kernel replaces a mask by way of an empty one, and what
// happens in that moment is told to nobody.
func (i *inotify) add(directory int, mask uint32) (int32, error) {
	const always = syscall.IN_ONLYDIR | syscall.IN_MASK_ADD
	wd, err := syscall.InotifyAddWatch(i.fd, fmt.Sprintf("/proc/self/fd/%d", directory), mask|always)
	return int32(wd), err
}

func (i *inotify) remove(wd int32) {
	_, _ = syscall.InotifyRmWatch(i.fd, uint32(wd)) // the kernel may have let it go already
}

// wait reads what is in the queue, and waits while it is empty.
func (i *inotify) wait(buffer []byte) ([]inotifyEvent, error) {
	connection, err := i.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var events []inotifyEvent
	var failed error
	err = connection.Read(func(uintptr) bool {
		events, failed = i.readNow(buffer)
		return failed != syscall.EAGAIN
	})
	if err == nil {
		err = failed
	}
	return events, err
}

// readNow fails with EAGAIN when the queue is empty.
func (i *inotify) readNow(buffer []byte) ([]inotifyEvent, error) {
	i.reading.Lock()
	defer i.reading.Unlock()
	for {
		n, err := syscall.Read(i.fd, buffer)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err
		case n <= 0:
			return nil, errors.New("the queue of events has ended")
		}
		before := i.read
		i.read += int64(n)
		return parseInotify(buffer[:n], before), nil
	}
}

// horizon is the place in the queue behind everything that has happened until now.
func (i *inotify) horizon() int64 {
	i.reading.Lock()
	defer i.reading.Unlock()
	unread := int32(0)
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(i.fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&unread)))
	return i.read + int64(unread)
}

const inotifyHeaderBytes = 16

// parseInotify reads inotify(7)'s struct inotify_event: i32 wd, u32 mask, u32 cookie, u32 length of the name with its
// NULs, name.
func parseInotify(queue []byte, before int64) []inotifyEvent {
	events := make([]inotifyEvent, 0, len(queue)/(inotifyHeaderBytes+16)+1)
	for at := 0; at+inotifyHeaderBytes <= len(queue); {
		header := queue[at:]
		length := int(binary.LittleEndian.Uint32(header[12:]))
		end := at + inotifyHeaderBytes + length
		if end > len(queue) || end < at {
			break
		}
		name := header[inotifyHeaderBytes : inotifyHeaderBytes+length]
		if nul := bytes.IndexByte(name, 0); nul >= 0 {
			name = name[:nul]
		}
		events = append(events, inotifyEvent{
			wd:     int32(binary.LittleEndian.Uint32(header)),
			mask:   binary.LittleEndian.Uint32(header[4:]),
			cookie: binary.LittleEndian.Uint32(header[8:]),
			name:   string(name),
			end:    before + int64(end),
		})
		at = end
	}
	return events
}

// directoryEntry is a name in a directory.
type directoryEntry struct {
	name string
	kind byte // DT_DIR, DT_REG, ... or DT_UNKNOWN
}

// readEntries gives the next part of a directory, empty at its end. The buffer is the caller's, 32 KiB.
func readEntries(directory int, buffer []byte) ([]directoryEntry, error) {
	for {
		n, err := syscall.ReadDirent(directory, buffer)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err
		}
		// A signal may stop the kernel behind "." already: without a name is not yet the end.
		if entries := parseEntries(buffer[:n]); len(entries) > 0 || n == 0 {
			return entries, nil
		}
	}
}

// parseEntries reads getdents64(2)'s struct linux_dirent64: u64 inode, i64 offset, u16 record length, u8 type, name.
func parseEntries(records []byte) []directoryEntry {
	var entries []directoryEntry
	const header = 19
	for len(records) >= header {
		length := int(binary.LittleEndian.Uint16(records[16:]))
		if length < header || length > len(records) {
			break
		}
		name := records[header:length]
		if nul := bytes.IndexByte(name, 0); nul >= 0 {
			name = name[:nul]
		}
		if text := string(name); text != "." && text != ".." && text != "" {
			entries = append(entries, directoryEntry{text, records[18]})
		}
		records = records[length:]
	}
	return entries
}
