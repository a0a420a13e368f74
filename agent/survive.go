package main

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"
)

// surviveSignals keeps any process of the sandbox from ending this program by a signal: also PID 1 gets those that it
// has handlers for, and Go's runtime has one for most.
func surviveSignals() {
	// Those that would end this program or that children would inherit ignored.
	var all []os.Signal
	for number := syscall.Signal(1); number < 32; number++ {
		if number != syscall.SIGURG && number != syscall.SIGCHLD { // the runtime's and the reaper's
			all = append(all, number)
		}
	}
	signal.Notify(make(chan os.Signal, 1), all...)
	for _, number := range faults {
		dropSent(number)
	}
	// Those without a name are queued each, not once: while the handler took a storm of them one by one, nobody would get
	// an answer. What PID 1 has no handler for the kernel drops at once.
	for number := syscall.Signal(32); number <= 64; number++ {
		signalAct(number, &signalAction{}, nil)
	}
}

// faults are what the runtime takes for a mistake of this program, which panics or ends, unless it was sent by kill(2):
// by tgkill(2) or sigqueue(3) they can be sent as well.
var faults = []syscall.Signal{
	syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSTKFLT, syscall.SIGSYS,
}

// signalAction is the kernel's struct sigaction, on amd64 and arm64 alike.
type signalAction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// runtimeHandler is the runtime's own, which is the same for every signal; filterSent goes on to it.
var runtimeHandler uintptr

// filterSent is the handler that drops what was sent: its si_code is 0 or less, that of a fault is more, and the kernel
// lets nobody else say so. Only the kernel may call it.
func filterSent()

func filterSentAddress() uintptr

// dropSent leaves to the runtime only those signals of this number that the kernel raised.
func dropSent(number syscall.Signal) {
	action := signalAction{}
	if !signalAct(number, nil, &action) || action.handler <= 1 || action.handler == filterSentAddress() {
		return // there is no handler, or ours
	}
	runtimeHandler = action.handler
	action.handler = filterSentAddress()
	signalAct(number, &action, nil)
}

func signalAct(number syscall.Signal, set, former *signalAction) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(number), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(former)), unsafe.Sizeof(signalAction{}.mask), 0, 0)
	return errno == 0
}
