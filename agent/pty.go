package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// A program is as fast as the viewer who is furthest: it may be so far ahead of him, and he misses nothing of a ring twice
	// as large. One who has taken nothing for this long does not look.
	viewerWindowBytes = 128 << 10
	viewerPatience    = 500 * time.Millisecond
	// Where nobody looks, output is read no faster than this, so that a program that prints without end takes no processor
	// from others.
	unwatchedBytesPerSecond = 4 << 20
	pacePeriod              = 50 * time.Millisecond
	// How often a viewer whose keystrokes a program does not read is asked whether he is still there.
	inputPatience = 250 * time.Millisecond

	defaultTerm = "xterm-256color"
)

// The numbers of ioctl_tty(2) that package syscall lacks; the same on amd64 and arm64.
const (
	ioctlLockTerminal   = 0x40045431 // TIOCSPTLCK
	ioctlTerminalNumber = 0x80045430 // TIOCGPTN
	ioctlTerminalPeer   = 0x5441     // TIOCGPTPEER
	inputIsUTF8         = 0x4000     // IUTF8
)

// terminal is the agent's end of a process's terminal. Output goes into the process's log by a pump.
type terminal struct {
	file *os.File
	// turn: one viewer types at a time, a piece each.
	turn chan struct{}
	// left is closed when the program has ended. Until then it may close its terminal and open it again, and to close
	// our end would hang up on it: also on one that closes its descriptors just before it exits.
	left chan struct{}

	mutex   sync.Mutex
	views   map[*view]int64 // how far each viewer is
	watched time.Time       // when one of them last took something
	waiting chan struct{}   // the pump's, while it waits
	since   time.Time
	spent   int64
}

// openTerminal gives a new terminal and the descriptor of its other end, for a child of this user.
func openTerminal(size terminalSize, user *credential) (*terminal, int, error) {
	if err := size.check(); err != nil {
		return nil, 0, err
	}
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, noTerminal(err)
	}
	child, err := prepareTerminal(fd, size, user)
	if err != nil {
		_ = syscall.Close(fd) // nothing was written to it
		return nil, 0, noTerminal(err)
	}
	return &terminal{
		file: os.NewFile(uintptr(fd), "terminal"), turn: make(chan struct{}, 1), left: make(chan struct{}),
		views: map[*view]int64{},
	}, child, nil
}

func noTerminal(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return refuse("LIMIT_REACHED", "Cannot open a terminal: the sandbox has as many as it may. Close some")
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTTY), errors.Is(err, syscall.ENXIO):
		return refuse("NOT_SUPPORTED", "Cannot open a terminal: /dev/ptmx is no terminal multiplexer here (%v)", err)
	}
	return asShortage(fmt.Errorf("Cannot open a terminal: %w", err))
}

func prepareTerminal(fd int, size terminalSize, user *credential) (int, error) {
	unlocked := int32(0)
	if err := ioctl(fd, ioctlLockTerminal, unsafe.Pointer(&unlocked)); err != nil {
		return 0, err
	}
	child, err := openPeer(fd)
	if err != nil {
		return 0, err
	}
	if err = setSize(fd, size); err == nil {
		err = expectUTF8(child)
	}
	if err == nil && user != nil {
		err = syscall.Fchown(child, int(user.uid), -1) // so that its programs may open it by name
	}
	if err != nil {
		_ = syscall.Close(child) // nothing was written to it
		return 0, err
	}
	return child, nil
}

func openPeer(fd int) (int, error) {
	const flags = syscall.O_RDWR | syscall.O_NOCTTY | syscall.O_CLOEXEC
	peer, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), ioctlTerminalPeer, flags)
	if errno == 0 {
		return int(peer), nil
	}
	number := uint32(0) // an older kernel, or gVisor
	if err := ioctl(fd, ioctlTerminalNumber, unsafe.Pointer(&number)); err != nil {
		return 0, err
	}
	return syscall.Open(fmt.Sprintf("/dev/pts/%d", number), flags, 0)
}

// expectUTF8 makes a backspace take a whole character, not a byte of it.
func expectUTF8(fd int) error {
	var mode syscall.Termios
	if err := ioctl(fd, syscall.TCGETS, unsafe.Pointer(&mode)); err != nil {
		return err
	}
	mode.Iflag |= inputIsUTF8
	return ioctl(fd, syscall.TCSETS, unsafe.Pointer(&mode))
}

func setSize(fd int, size terminalSize) error {
	cells := [4]uint16{uint16(size.Rows), uint16(size.Cols)}
	return ioctl(fd, syscall.TIOCSWINSZ, unsafe.Pointer(&cells))
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// terminalSize is in characters.
type terminalSize struct {
	Cols int `json:"cols"`
	Rows int `json:"rows"`
}

const terminalSizeLimit = 1000

func (s terminalSize) check() error {
	if s.Cols < 1 || s.Rows < 1 || s.Cols > terminalSizeLimit || s.Rows > terminalSizeLimit {
		return refuse("VALIDATION_FAILED", "Cannot make a terminal of %d x %d: 1 to %d columns and rows", s.Cols, s.Rows, terminalSizeLimit)
	}
	return nil
}

// resize tells the programs in the terminal too, by SIGWINCH.
func (t *terminal) resize(size terminalSize) error {
	if err := size.check(); err != nil {
		return err
	}
	err := withDescriptor(t.file, func(fd int) error { return setSize(fd, size) })
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		return os.ErrClosed // only a closed file refuses its descriptor
	}
	return err
}

// errLeft: whom it was for has left meanwhile.
var errLeft = errors.New("the viewer has left")

// write types. It waits while the program does not read, as long as the viewer is there.
func (t *terminal) write(keys []byte, isThere func() bool) error {
	for waiting := true; waiting; {
		select {
		case t.turn <- struct{}{}:
			waiting = false
		case <-time.After(inputPatience):
			if !isThere() {
				return errLeft
			}
		}
	}
	defer func() { <-t.turn }()
	for {
		if err := t.file.SetWriteDeadline(time.Now().Add(inputPatience)); err != nil {
			return err
		}
		n, err := t.file.Write(keys)
		keys = keys[n:]
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if !isThere() {
			return errLeft
		}
	}
}

// pump reads the terminal's output into the process's log.
func (t *terminal) pump(p *process) *pump {
	return &pump{
		file: t.file, moved: p.moved, left: t.left,
		sink: func(bytes []byte) {
			p.log.append(frameStdout, bytes)
			t.mutex.Lock()
			t.spent += int64(len(bytes))
			t.mutex.Unlock()
		},
		room: func() <-chan struct{} { return t.room(p.log.state().offset) },
	}
}

// room is nil when more may be read. The log is at this offset.
func (t *terminal) room(offset int64) <-chan struct{} {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, position := range t.views {
		if offset-position <= viewerWindowBytes {
			return nil
		}
	}
	now := time.Now()
	if len(t.views) > 0 && now.Sub(t.watched) < viewerPatience {
		return t.wait(viewerPatience - now.Sub(t.watched))
	}
	if now.Sub(t.since) >= pacePeriod {
		t.since, t.spent = now, 0
	}
	if t.spent < unwatchedBytesPerSecond*int64(pacePeriod)/int64(time.Second) {
		return nil
	}
	return t.wait(pacePeriod - now.Sub(t.since))
}

// wait ends after this time, or when a viewer takes something, comes or leaves.
func (t *terminal) wait(longest time.Duration) <-chan struct{} {
	waiting := make(chan struct{})
	t.waiting = waiting
	time.AfterFunc(longest, func() {
		t.mutex.Lock()
		defer t.mutex.Unlock()
		if t.waiting == waiting {
			t.goOn()
		}
	})
	return waiting
}

// goOn needs the mutex.
func (t *terminal) goOn() {
	if t.waiting != nil {
		close(t.waiting)
		t.waiting = nil
	}
}

// seen notes how far a viewer is.
func (t *terminal) seen(v *view, position int64) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if former, known := t.views[v]; !known || position > former {
		t.watched = time.Now()
	}
	t.views[v] = position
	t.goOn()
}

func (t *terminal) leave(v *view) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	delete(t.views, v)
	t.goOn()
}
