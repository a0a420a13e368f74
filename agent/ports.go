package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

type listeningPort struct {
	Port    int    `json:"port"`
	Address string `json:"address"`
	Pid     int    `json:"pid,omitempty"`
	Program string `json:"program,omitempty"`
}

type portList struct {
	Ports []listeningPort `json:"ports"`
}

const (
	// More listening sockets than anybody would read about; a program may open any number.
	portsLimit = 4096
	// The search for who holds a socket looks at no more processes and open files than this, nor longer.
	searchedProcesses = 4096
	searchedFiles     = 1 << 16
	searchLimit       = 250 * time.Millisecond
	// A socket whose holder was not found is not searched for again before this has passed.
	searchPause = time.Second
)

// ports is the kernel's table of listening TCP sockets, with what is known of their holders: who asks again and again
// whether a port is there yet costs a read of the table, no search.
type ports struct {
	procfs string // "/proc"

	mutex    sync.Mutex
	holders  map[uint64]socketHolder // by the socket's inode
	searched time.Time
}

type socketHolder struct {
	pid     int
	program string
	// descriptor is the one by which it holds the socket.
	descriptor string
}

func newPorts(procfs string) *ports {
	return &ports{procfs: procfs, holders: map[uint64]socketHolder{}}
}

func (a *agent) getPorts(w http.ResponseWriter, _ *http.Request, _ []string) error {
	list, err := a.ports.list()
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, portList{list})
	return nil
}

// list gives every listening TCP socket, by port and address.
func (p *ports) list() ([]listeningPort, error) {
	sockets, err := p.sockets()
	if err != nil {
		return nil, err
	}
	holders := p.findHolders(sockets)
	list := []listeningPort{}
	seen := map[listeningPort]bool{}
	for _, one := range sockets {
		holder := holders[one.inode]
		port := listeningPort{one.port, one.address.String(), holder.pid, holder.program}
		if !seen[port] {
			seen[port] = true
			list = append(list, port)
		}
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Port != list[j].Port {
			return list[i].Port < list[j].Port
		}
		return list[i].Address < list[j].Address
	})
	return list, nil
}

// sockets reads the kernel's table.
func (p *ports) sockets() ([]listeningSocket, error) {
	var all []listeningSocket
	for _, name := range []string{"tcp", "tcp6"} {
		file, err := os.Open(p.procfs + "/self/net/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		all, err = parseListening(file, all)
		file.Close()
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

type listeningSocket struct {
	address net.IP
	port    int
	inode   uint64
}

const stateListen = "0A"

// parseListening adds the listening sockets of /proc/net/tcp or tcp6: a header, then lines of
// "slot: address:port address:port state queues timer retransmits uid timeout inode ...".
func parseListening(table io.Reader, found []listeningSocket) ([]listeningSocket, error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() && len(found) < portsLimit {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != stateListen {
			continue
		}
		address, port, ok := parseEndpoint(fields[1])
		inode, err := strconv.ParseUint(fields[9], 10, 64)
		if ok && err == nil {
			found = append(found, listeningSocket{address, port, inode})
		}
	}
	return found, lines.Err()
}

// parseEndpoint reads an address as the kernel prints it: hexadecimal words of 32 bits, each in the machine's own byte
// order (little on both of ours), then the port.
func parseEndpoint(text string) (net.IP, int, bool) {
	words, portText, found := strings.Cut(text, ":")
	address, err := hex.DecodeString(words)
	if !found || err != nil || len(address) != net.IPv4len && len(address) != net.IPv6len {
		return nil, 0, false
	}
	for i := 0; i < len(address); i += 4 {
		address[i], address[i+1], address[i+2], address[i+3] = address[i+3], address[i+2], address[i+1], address[i]
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	return address, int(port), err == nil && port > 0
}

// findHolders searches only when a socket is new or its holder has changed.
func (p *ports) findHolders(sockets []listeningSocket) map[uint64]socketHolder {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	known := map[uint64]socketHolder{}
	wanted := map[string]uint64{}
	isNew := false
	for _, one := range sockets {
		text := "socket:[" + strconv.FormatUint(one.inode, 10) + "]"
		holder, was := p.holders[one.inode]
		if holder.pid != 0 && p.holds(holder, text) {
			known[one.inode] = holder
			continue
		}
		wanted[text] = one.inode
		isNew = isNew || !was || holder.pid != 0
		known[one.inode] = socketHolder{}
	}
	if len(wanted) > 0 && (isNew || time.Since(p.searched) > searchPause) {
		p.search(wanted, known)
		p.searched = time.Now()
	}
	p.holders = known
	return known
}

// holds tells whether the holder still holds the socket.
func (p *ports) holds(holder socketHolder, socket string) (same bool) {
	process := filepath.Join(p.procfs, strconv.Itoa(holder.pid))
	asOwner(process, func() {
		target, err := os.Readlink(filepath.Join(process, "fd", holder.descriptor))
		same = err == nil && target == socket
	})
	return same
}

// search looks through the open files of every process for the wanted sockets.
func (p *ports) search(wanted map[string]uint64, found map[uint64]socketHolder) {
	deadline := time.Now().Add(searchLimit)
	files := 0
	for _, name := range someNames(p.procfs, searchedProcesses+1024) {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		process := filepath.Join(p.procfs, name)
		asOwner(process, func() {
			for _, descriptor := range someNames(process+"/fd", searchedFiles-files) {
				files++
				target, err := os.Readlink(process + "/fd/" + descriptor)
				if err != nil {
					continue // it was closed meanwhile
				}
				if inode, ok := wanted[target]; ok {
					found[inode] = socketHolder{pid, programOf(process), descriptor}
					delete(wanted, target)
				}
			}
		})
		if len(wanted) == 0 || files >= searchedFiles || time.Now().After(deadline) {
			return
		}
	}
}

// someNames gives the names in a directory, as many as are wanted, or none where it cannot be read.
func someNames(path string, limit int) []string {
	directory, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(limit) // what was read before an error counts
	return names
}

// programOf names a program by its file; a thread or a program may call itself anything.
func programOf(process string) string {
	if path, err := os.Readlink(process + "/exe"); err == nil {
		return filepath.Base(strings.TrimSuffix(path, " (deleted)"))
	}
	return strings.TrimSpace(readSmall(process + "/comm"))
}
