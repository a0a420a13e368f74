package main

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// pump reads one pipe into a sink until its end.
type pump struct {
	file *os.File
	sink func([]byte)
	// room is nil when the sink may take more, else a channel to wait on; nil where the sink always may.
	room func() <-chan struct{}
	// left is closed when no program can open the other end again; nil where that is so as soon as nobody has it open.
	left <-chan struct{}
	// moved gets an item after every read and at the end, when there is place for one.
	moved chan<- struct{}

	// Held while bytes are between pipe and sink.
	reading sync.Mutex
	total   int64
	ended   bool

	pause time.Duration
}

// A pipe holds 64 KiB.
var pumpBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// newPipe gives a pipe whose first end belongs to a pump and whose second goes to a child: that end must block.
func newPipe() (*os.File, int, error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return nil, 0, err
	}
	if err := syscall.SetNonblock(ends[0], true); err != nil {
		closeAll(ends[:])
		return nil, 0, err
	}
	return os.NewFile(uintptr(ends[0]), "pipe"), ends[1], nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd) // a pipe's or memory file's close cannot fail in a way that matters
	}
}

func (p *pump) run() {
	defer p.finish()
	connection, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		for p.room != nil {
			wait := p.room()
			if wait == nil {
				break
			}
			<-wait
		}
		ended := false
		err := connection.Read(func(fd uintptr) bool {
			n, again := p.readOnce(int(fd))
			ended = n <= 0 && !again
			return !again
		})
		if err != nil || ended && !p.mayGoOn() {
			return
		}
	}
}

// How often a terminal that nobody has open is looked at.
const (
	reopenFirst = 10 * time.Millisecond
	reopenMost  = 500 * time.Millisecond
)

// mayGoOn is called where nobody has the other end open. It waits a while for somebody to open it again, and when nobody can
// any more says yes once, for what was written until then.
func (p *pump) mayGoOn() bool {
	if p.left == nil {
		return false
	}
	if p.pause *= 2; p.pause == 0 {
		p.pause = reopenFirst
	} else if p.pause > reopenMost {
		p.pause = reopenMost
	}
	select {
	case <-p.left:
		p.left = nil
	case <-time.After(p.pause):
	}
	return true
}

// readOnce moves what one read gives. Only now a buffer is taken, so that an idle pipe costs none.
func (p *pump) readOnce(fd int) (n int, again bool) {
	buffer := pumpBuffers.Get().(*[64 << 10]byte)
	defer pumpBuffers.Put(buffer)
	p.reading.Lock()
	defer p.reading.Unlock()
	for {
		n, err := syscall.Read(fd, buffer[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, true
		case err != nil || n <= 0:
			return 0, false
		}
		p.pause = 0
		p.sink(buffer[:n])
		p.total += int64(n)
		p.tell()
		return n, false
	}
}

func (p *pump) finish() {
	p.reading.Lock()
	p.ended = true
	p.reading.Unlock()
	p.close()
	p.tell()
}

func (p *pump) tell() {
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// pending is the number of bytes that were written so far: those read and those that the pipe holds at this moment.
func (p *pump) pending() int64 {
	p.reading.Lock()
	defer p.reading.Unlock()
	if p.ended {
		return p.total
	}
	held := int32(0)
	if connection, err := p.file.SyscallConn(); err == nil {
		_ = connection.Control(func(fd uintptr) { // fails only when closed: then nothing is held
			_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&held)))
		})
	}
	return p.total + int64(held)
}

func (p *pump) progress() (total int64, ended bool) {
	p.reading.Lock()
	defer p.reading.Unlock()
	return p.total, p.ended
}

// close ends the pump although somebody still holds the other end: the next read fails. It waits for a read under way,
// so it takes no lock.
func (p *pump) close() {
	_ = p.file.Close() // closing twice is an error that says so, no more
}
