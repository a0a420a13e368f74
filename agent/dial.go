package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	// A server of the sandbox itself answers at once, unless it has as many callers waiting as it wants.
	dialWait = 5 * time.Second
	// Each needs two descriptors, and some kilobytes of the kernel's.
	dialLimit = 4096
)

// dialled is how many raw connections there are.
var dialled int64

// getDial connects to a port of the sandbox and becomes that connection.
func (a *agent) getDial(w http.ResponseWriter, r *http.Request, _ []string) error {
	port, err := strconv.Atoi(r.URL.Query().Get("port"))
	if err != nil || port < 1 || port > 65535 {
		return refuse("INVALID_PORT", "Cannot connect to port %.20q: a port is a number from 1 to 65535", r.URL.Query().Get("port"))
	}
	if err := wantsUpgrade(r, "atoll-tcp"); err != nil {
		return err
	}
	if atomic.AddInt64(&dialled, 1) > dialLimit {
		atomic.AddInt64(&dialled, -1)
		return refuse("LIMIT_REACHED", "Cannot connect to port %d: %d connections are the most at once. Close some", port, dialLimit)
	}
	defer atomic.AddInt64(&dialled, -1)
	server, err := a.ports.dial(r, port)
	if err != nil {
		return a.tellStarting(err)
	}
	defer server.Close()
	client, early, err := upgrade(w, "atoll-tcp")
	if err != nil {
		return err
	}
	defer client.Close()
	splice(client, early, server)
	return nil
}

// What was started in the background within this time and listens nowhere may be a server that is about to.
const aboutToListen = 30 * time.Second

// tellStarting adds to a refusal, as `starting`, that a server may be about to listen: whoever wants to can try again.
func (a *agent) tellStarting(err error) error {
	var refusal *agentError
	if !errors.As(err, &refusal) || refusal.Details == nil {
		return err
	}
	young := a.processes.young(aboutToListen)
	if len(young) == 0 {
		return err
	}
	listening, listErr := a.ports.list()
	if listErr != nil {
		return err
	}
	for _, p := range young {
		if !p.tree.holdsOneOf(listening) {
			refusal.Details["starting"] = true
			return refusal
		}
	}
	return err
}

func (t tree) holdsOneOf(ports []listeningPort) bool {
	members := map[int]bool{}
	for _, one := range t.members() {
		members[one.pid] = true
	}
	for _, one := range ports {
		if members[one.Pid] {
			return true
		}
	}
	return false
}

// dial tries the loopback addresses, then whatever else the port is listened on at.
func (p *ports) dial(r *http.Request, port int) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialWait, KeepAlive: -1} // both ends are here: the kernel knows when one is gone
	try := func(address string) (*net.TCPConn, error) {
		connection, err := dialer.DialContext(r.Context(), "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		return connection.(*net.TCPConn), nil
	}
	for _, address := range []string{"127.0.0.1", "::1"} {
		connection, err := try(address)
		if err == nil {
			return connection, nil
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return nil, refuse("SERVICE_NOT_RESPONDING", "Cannot connect to port %d: whoever listens there takes no connection", port)
		}
	}
	sockets, err := p.sockets()
	if err != nil {
		return nil, err
	}
	for _, one := range sockets {
		if one.port == port && !one.address.IsUnspecified() {
			if connection, err := try(one.address.String()); err == nil {
				return connection, nil
			}
		}
	}
	return nil, p.refusal(port)
}

// So many ports are named to somebody who asked for another.
const namedPorts = 20

func (p *ports) refusal(port int) error {
	list, err := p.list()
	if err != nil {
		return err
	}
	refusal := refuse("SERVICE_NOT_RESPONDING", "Cannot connect to port %d: nothing listens there", port)
	var words []string
	listening := []listeningPort{}
	for i, one := range list {
		if one.Port == port {
			refusal.Message = fmt.Sprintf("Cannot connect to port %d: whoever listens there refuses", port)
		}
		if i > 0 && list[i-1].Port == one.Port || len(listening) >= namedPorts {
			continue
		}
		listening = append(listening, one)
		word := strconv.Itoa(one.Port)
		if one.Program != "" {
			word += " (" + one.Program + ")"
		}
		words = append(words, word)
	}
	switch {
	case len(words) == 0:
		refusal.Message += ", nor on any other port. Start the server first"
	default:
		refusal.Message += ". Listening are: " + strings.Join(words, ", ")
	}
	refusal.Details = map[string]any{"port": port, "listening": listening}
	return refusal
}

// wantsUpgrade refuses a request that cannot become a stream of this protocol.
func wantsUpgrade(r *http.Request, protocol string) error {
	if !strings.EqualFold(r.Header.Get("upgrade"), protocol) || !strings.Contains(strings.ToLower(r.Header.Get("connection")), "upgrade") {
		return refuse("VALIDATION_FAILED", "Cannot serve %s: the request must upgrade to %s", r.URL.Path, protocol)
	}
	return nil
}

// upgrade answers 101 and hands the connection over, with what the client has sent already.
func upgrade(w http.ResponseWriter, protocol string) (*net.UnixConn, []byte, error) {
	connection, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return nil, nil, err
	}
	client, ok := connection.(*net.UnixConn)
	if !ok {
		connection.Close()
		return nil, nil, errors.New("the link is no unix socket")
	}
	_ = client.SetDeadline(time.Time{}) // of an open connection: cannot fail
	early := make([]byte, buffered.Reader.Buffered())
	_, _ = io.ReadFull(buffered.Reader, early) // they are in memory
	_, err = fmt.Fprintf(client, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if err != nil {
		client.Close()
	}
	return client, early, err
}

// stream is a connection whose two directions end one by one.
type stream interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// splice passes bytes both ways until both directions have ended, or one side is gone altogether. It may leave the
// closing to its caller.
func splice(client *net.UnixConn, early []byte, server stream) {
	var both sync.WaitGroup
	ended := int32(0)
	both.Add(2)
	go func() {
		defer both.Done()
		if !writeAll(server, early, client) || !pass(server, client, client) {
			_ = client.CloseRead() // who sends must hear that nobody reads
			return
		}
		if atomic.AddInt32(&ended, 1) == 2 {
			return
		}
		// The client has sent all. A server that neither answers nor closes must not keep what a client left behind.
		if waitForHangup(client) {
			server.Close()
		}
	}()
	go func() {
		defer both.Done()
		if !pass(client, server, nil) {
			server.Close()
			client.Close()
		} else if atomic.AddInt32(&ended, 1) == 2 {
			client.Close()
		}
	}()
	both.Wait()
}

// pass moves bytes from one connection to another until their end, and passes the end on. False when it came by an error.
// client is who sends, if that is the client.
func pass(to, from stream, client *net.UnixConn) bool {
	connection, err := from.SyscallConn()
	if err != nil {
		return false
	}
	for {
		// A buffer only while there is something to read: most connections idle most of the time.
		var buffer *[64 << 10]byte
		n := 0
		var failed error
		err := connection.Read(func(fd uintptr) bool {
			buffer = pumpBuffers.Get().(*[64 << 10]byte)
			for {
				n, failed = syscall.Read(int(fd), buffer[:])
				if failed != syscall.EINTR {
					break
				}
			}
			if failed == syscall.EAGAIN {
				pumpBuffers.Put(buffer)
				return false
			}
			return true
		})
		if err != nil {
			return false
		}
		ok := failed == nil && (n == 0 || writeAll(to, buffer[:n], client))
		pumpBuffers.Put(buffer)
		if !ok {
			return false
		}
		if n == 0 {
			_ = to.CloseWrite() // it may be gone: then the other direction tells
			return true
		}
	}
}

// What a client that has left sent before is given so long to be taken: nobody else would notice that both are stuck.
const stuckLimit = 30 * time.Second

// writeAll waits for the receiver as long as the client, if it is one who sends, is there.
func writeAll(to stream, bytes []byte, client *net.UnixConn) bool {
	for len(bytes) > 0 {
		if client != nil {
			_ = to.SetWriteDeadline(time.Now().Add(stuckLimit)) // fails only when closed: then Write does too
		}
		n, err := to.Write(bytes)
		bytes = bytes[n:]
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || n == 0 && hasLeft(client)) {
			return false
		}
	}
	return true
}

func hasLeft(client *net.UnixConn) bool {
	connection, err := client.SyscallConn()
	if err != nil {
		return true
	}
	left := false
	err = connection.Control(func(fd uintptr) { left = hasHungUp(fd) })
	return err != nil || left
}

const pollHangup = 0x10 // POLLHUP

// waitForHangup waits until the client has closed altogether, not only its sending half; false when it was closed here.
func waitForHangup(client *net.UnixConn) bool {
	connection, err := client.SyscallConn()
	if err != nil {
		return false
	}
	return connection.Read(hasHungUp) == nil
}

func hasHungUp(fd uintptr) bool {
	one := struct {
		fd              int32
		events, happens int16
	}{fd: int32(fd)}
	var now syscall.Timespec
	_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&one)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && one.happens&pollHangup != 0
}
