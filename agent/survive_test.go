package main

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

func TestAFaultThatWasSentIsNone(t *testing.T) {
	surviveSignals()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, number := range faults {
		_, _, errno := syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(number))
		equal(t, number.String(), errno, 0)
	}
	defer func() {
		if recover() == nil {
			t.Error("a mistake of the program itself is none either")
		}
	}()
	var nothing *agent
	nothing.null++
}

func TestSignalsWithoutANameAreLeftToTheKernel(t *testing.T) {
	surviveSignals()
	for number := syscall.Signal(32); number <= 64; number++ {
		var action signalAction
		equal(t, number.String(), signalAct(number, nil, &action), true)
		equal(t, number.String(), action.handler, 0)
	}
}
