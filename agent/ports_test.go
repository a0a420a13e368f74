package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// listen opens a server on a free port.
func (l *live) listen(address string) (net.Listener, int) {
	l.t.Helper()
	network := "tcp4"
	if strings.Contains(address, ":") {
		network = "tcp6"
	}
	server, err := net.Listen(network, net.JoinHostPort(address, "0"))
	if err != nil {
		l.t.Skipf("Cannot listen on %s here: %v", address, err)
	}
	l.t.Cleanup(func() { server.Close() })
	return server, server.Addr().(*net.TCPAddr).Port
}

func (l *live) portsOf(port int) []listeningPort {
	l.t.Helper()
	var all portList
	if refusal := l.ask("GET", "/ports", nil, &all); refusal != nil {
		l.t.Fatal(refusal)
	}
	var found []listeningPort
	for _, one := range all.Ports {
		if one.Port == port {
			found = append(found, one)
		}
	}
	return found
}

func TestListeningPortsAreToldWithWhoListens(t *testing.T) {
	l := startLive(t)
	self, err := os.Executable()
	l.must(err)
	for _, address := range []string{"127.0.0.1", "127.0.0.9", "0.0.0.0", "::1", "::"} {
		server, port := l.listen(address)
		found := l.portsOf(port)
		if len(found) != 1 {
			t.Fatalf("%s: %+v", address, found)
		}
		equal(t, "port", found[0], listeningPort{port, address, os.Getpid(), filepath.Base(self)})
		server.Close()
		equal(t, "after its end", len(l.portsOf(port)), 0)
	}
}

func TestServersOfOtherUsersAreToldToo(t *testing.T) {
	l := startLive(t)
	server, port := l.listen("127.0.0.1")
	file, err := server.(*net.TCPListener).File()
	l.must(err)
	other := exec.Command("sleep", "60")
	other.ExtraFiles = []*os.File{file}
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65_534, Gid: 65_534}}
	l.must(other.Start())
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	file.Close()
	server.Close()
	for _, look := range []string{"first", "known"} {
		found := l.portsOf(port)
		if len(found) != 1 {
			t.Fatalf("%s: %+v", look, found)
		}
		equal(t, look, found[0], listeningPort{port, "127.0.0.1", other.Process.Pid, "sleep"})
	}
}

func TestWhoListensIsSearchedForOnlyWhenThatIsNew(t *testing.T) {
	l := startLive(t)
	_, port := l.listen("127.0.0.1")
	l.portsOf(port)
	before := l.agent.ports.searched
	for i := 0; i < 10; i++ {
		equal(t, "pid", l.portsOf(port)[0].Pid, os.Getpid())
	}
	equal(t, "searches", l.agent.ports.searched, before)
	_, other := l.listen("127.0.0.1")
	equal(t, "pid", l.portsOf(other)[0].Pid, os.Getpid())
}

func TestTheKernelsTableIsRead(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0000000000000000 20 4 30 10 -1
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 7 1 0
   3: B80D01200000000000000000EFBEADDE:FFFF 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 8 1 0
   4: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 9 1 0
   5: xyz 0A
`
	found, err := parseListening(strings.NewReader(table), nil)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, one := range found {
		words = append(words, net.JoinHostPort(one.address.String(), strconv.Itoa(one.port))+"="+strconv.FormatUint(one.inode, 10))
	}
	equal(t, "table", strings.Join(words, " "), "127.0.0.1:8080=12345 [::1]:80=7 [2001:db8::dead:beef]:65535=8 127.0.0.1:81=9")
}

func FuzzTheKernelsTableIsReadSafely(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1\n")
	f.Add("a b:c d 0A e f g h i 1\n")
	f.Fuzz(func(t *testing.T, table string) {
		found, _ := parseListening(strings.NewReader(table), nil)
		for _, one := range found {
			if one.port < 1 || one.port > 65535 || len(one.address) != 4 && len(one.address) != 16 {
				t.Errorf("%+v", one)
			}
		}
	})
}
