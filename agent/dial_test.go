package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// upgrade makes a request that turns into a stream; early bytes are sent together with it.
func (l *live) upgrade(path, protocol, early string) (*net.UnixConn, *bufio.Reader, *http.Response) {
	l.t.Helper()
	connection, err := net.Dial("unix", l.socket)
	l.must(err)
	l.t.Cleanup(func() { connection.Close() })
	l.must(connection.SetDeadline(time.Now().Add(30 * time.Second)))
	_, err = fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n%s", path, protocol, early)
	l.must(err)
	reader := bufio.NewReader(connection)
	response, err := http.ReadResponse(reader, nil)
	l.must(err)
	return connection.(*net.UnixConn), reader, response
}

func (l *live) dial(port int, early string) (*net.UnixConn, *bufio.Reader) {
	l.t.Helper()
	connection, reader, response := l.upgrade(fmt.Sprintf("/dial?port=%d", port), "atoll-tcp", early)
	if response.StatusCode != 101 || response.Header.Get("upgrade") != "atoll-tcp" {
		text, _ := io.ReadAll(response.Body)
		l.t.Fatalf("answered %d: %s", response.StatusCode, text)
	}
	return connection, reader
}

func (l *live) dialRefused(path, protocol string) *agentError {
	l.t.Helper()
	_, _, response := l.upgrade(path, protocol, "")
	text, err := io.ReadAll(response.Body)
	l.must(err)
	refusal := &agentError{}
	strictly(l.t, text, refusal)
	equal(l.t, "status", response.StatusCode, statuses[refusal.Code])
	return refusal
}

// serving runs a server that deals with each connection by `serve` and closes it then.
func (l *live) serving(address string, serve func(*net.TCPConn)) int {
	server, port := l.listen(address)
	go func() {
		for {
			connection, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				serve(connection.(*net.TCPConn))
			}()
		}
	}()
	return port
}

func echo(connection *net.TCPConn) { _, _ = io.Copy(connection, connection) }

// noneIsLeft: every raw connection is given back.
func (l *live) noneIsLeft() {
	l.t.Helper()
	until(l.t, "no raw connection is left", func() bool { return atomic.LoadInt64(&dialled) == 0 })
}

func TestARawConnectionReachesAPortWhereverItListens(t *testing.T) {
	l := startLive(t)
	for _, address := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "127.0.0.7"} {
		port := l.serving(address, echo)
		connection, reader := l.dial(port, "early ")
		_, err := connection.Write([]byte("late"))
		l.must(err)
		l.must(connection.CloseWrite())
		text, err := io.ReadAll(reader)
		l.must(err)
		equal(t, address, string(text), "early late")
	}
	l.noneIsLeft()
}

func TestEachDirectionEndsForItself(t *testing.T) {
	l := startLive(t)
	heard := make(chan string, 1)
	port := l.serving("127.0.0.1", func(server *net.TCPConn) {
		_, _ = server.Write([]byte("hello"))
		_ = server.CloseWrite()
		text, _ := io.ReadAll(server)
		heard <- string(text)
	})
	connection, reader := l.dial(port, "")
	text, err := io.ReadAll(reader)
	l.must(err)
	equal(t, "from the server", string(text), "hello")
	_, err = connection.Write([]byte("still here"))
	l.must(err)
	l.must(connection.CloseWrite())
	equal(t, "from the client", <-heard, "still here")
	l.noneIsLeft()
}

func TestMuchPassesBothWaysUnchanged(t *testing.T) {
	l := startLive(t)
	port := l.serving("127.0.0.1", echo)
	connection, reader := l.dial(port, "")
	sent := make([]byte, 16<<20)
	rand.New(rand.NewSource(1)).Read(sent)
	go func() {
		_, _ = connection.Write(sent)
		_ = connection.CloseWrite()
	}()
	got, err := io.ReadAll(reader)
	l.must(err)
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, not the same", len(got))
	}
	l.noneIsLeft()
}

func TestNothingIsLeftOfAConnectionWhoseClientWent(t *testing.T) {
	l := startLive(t)
	ended := make(chan struct{}, 10)
	silent := l.serving("127.0.0.1", func(server *net.TCPConn) {
		_, _ = io.Copy(io.Discard, server)
		ended <- struct{}{}
	})
	connection, _ := l.dial(silent, "hello")
	connection.Close()
	<-ended
	// A server that says nothing and does not even notice an end.
	deaf := make(chan struct{})
	defer close(deaf)
	port := l.serving("127.0.0.1", func(*net.TCPConn) { <-deaf })
	connection, _ = l.dial(port, "hello")
	connection.Close()
	half, _ := l.dial(port, "hello")
	l.must(half.CloseWrite())
	half.Close()
	l.noneIsLeft()
	// And one that sends without end.
	loud := l.serving("127.0.0.1", func(server *net.TCPConn) {
		for {
			if _, err := server.Write(make([]byte, 4096)); err != nil {
				ended <- struct{}{}
				return
			}
		}
	})
	connection, reader := l.dial(loud, "")
	_, err := reader.ReadByte()
	l.must(err)
	connection.Close()
	<-ended
	l.noneIsLeft()
}

func TestAServerThatBreaksOffIsHeard(t *testing.T) {
	l := startLive(t)
	port := l.serving("127.0.0.1", func(server *net.TCPConn) {
		_, _ = server.Read(make([]byte, 1))
		_ = server.SetLinger(0)
	})
	connection, reader := l.dial(port, "x")
	_, _ = io.ReadAll(reader)
	until(t, "writing fails", func() bool {
		_, err := connection.Write([]byte("x"))
		return err != nil
	})
	l.noneIsLeft()
}

func TestAPortWhereNothingListensIsRefusedWithThoseThatDo(t *testing.T) {
	l := startLive(t)
	closed, port := l.listen("127.0.0.1")
	closed.Close()
	_, other := l.listen("127.0.0.1")
	refusal := l.dialRefused(fmt.Sprintf("/dial?port=%d", port), "atoll-tcp")
	equal(t, "code", refusal.Code, "SERVICE_NOT_RESPONDING")
	if !strings.HasPrefix(refusal.Message, fmt.Sprintf("Cannot connect to port %d: nothing listens there", port)) {
		t.Errorf("message: %s", refusal.Message)
	}
	list, err := newPorts("/proc").list()
	l.must(err)
	if len(list) <= namedPorts && !strings.Contains(refusal.Message, fmt.Sprint(other)) {
		t.Errorf("message: %s", refusal.Message)
	}
	if refusal.Details["listening"] == nil {
		t.Errorf("details: %v", refusal.Details)
	}
	for _, text := range []string{"", "0", "65536", "x", "-1", "80 "} {
		refusal := l.dialRefused("/dial?port="+strings.ReplaceAll(text, " ", "%20"), "atoll-tcp")
		equal(t, text, refusal.Code, "INVALID_PORT")
	}
	equal(t, "without upgrade", l.dialRefused(fmt.Sprintf("/dial?port=%d", other), "websocket").Code, "VALIDATION_FAILED")
	l.noneIsLeft()
}

func TestRawConnectionsGiveTheirDescriptorsBack(t *testing.T) {
	l := startLive(t)
	port := l.serving("127.0.0.1", echo)
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		l.must(err)
		return len(names)
	}
	once := func() {
		connection, reader := l.dial(port, "x")
		_, err := reader.ReadByte()
		l.must(err)
		connection.Close()
	}
	once()
	l.noneIsLeft()
	before := count()
	for i := 0; i < 100; i++ {
		once()
	}
	until(t, "the descriptors are given back", func() bool {
		runtime.GC() // the test's own servers keep pipes for splicing until then
		return count() <= before
	})
}

func BenchmarkRawConnectionEcho(b *testing.B) {
	l := startLive(b)
	port := l.serving("127.0.0.1", echo)
	connection, reader := l.dial(port, "")
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		_, err := connection.Write([]byte{1})
		l.must(err)
		_, err = reader.ReadByte()
		l.must(err)
	}
}
