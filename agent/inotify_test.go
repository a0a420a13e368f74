package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// meanwhile does the same again and again until it is ended.
func meanwhile(do func()) (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				do()
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

// The Go runtime sends such signals to its own threads at any time.
func TestADirectoryIsListedWholeUnderSignals(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := syscall.Gettid()
	defer meanwhile(func() {
		_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(thread), uintptr(syscall.SIGURG))
	})()
	buffer := make([]byte, 32<<10)
	for round := 0; round < 20_000; round++ {
		listing, err := openRetry(-1, folder, syscall.O_DIRECTORY|syscall.O_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for {
			entries, err := readEntries(listing, buffer)
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) == 0 {
				break
			}
			seen += len(entries)
		}
		_ = syscall.Close(listing)
		if seen != 3 {
			t.Fatalf("round %d: %d names of 3", round, seen)
		}
	}
}

func TestNothingIsLostWhileADirectoryIsAddedAgain(t *testing.T) {
	folder := t.TempDir()
	directory, err := openTree(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(directory)
	queue, err := openInotify()
	if err != nil {
		t.Fatal(err)
	}
	defer queue.close()
	add := func() {
		if _, err := queue.add(directory, watchedBits); err != nil {
			t.Error(err)
		}
	}
	add()
	end := meanwhile(add)
	const files = 50_000
	buffer := make([]byte, 256<<10)
	told := 0
	read := func() {
		for {
			events, err := queue.readNow(buffer)
			if err == syscall.EAGAIN {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range events {
				if one.has(syscall.IN_Q_OVERFLOW) {
					t.Fatal("the queue was too short for this test")
				}
				if one.has(syscall.IN_CREATE) {
					told++
				}
			}
		}
	}
	for i := 0; i < files; i++ {
		path := filepath.Join(folder, fmt.Sprint(i))
		fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_EXCL|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Close(fd)
		_ = syscall.Unlink(path)
		if i%100 == 0 {
			read()
		}
	}
	end()
	read()
	if told != files {
		t.Errorf("%d files were told of %d", told, files)
	}
}
