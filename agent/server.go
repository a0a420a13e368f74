package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// settings are what an agent is started with; every one has the value that holds in a sandbox.
type settings struct {
	socket      string
	sessions    string
	cgroup      string
	workspace   string
	pidsLimit   string
	oomScoreAdj string
	times       times
}

// times are how long things are kept; tests choose their own.
type times struct {
	// A heartbeat tells a silent stream from a dead one.
	heartbeat time.Duration
	// So long a process that loses nothing waits for its reader to come back.
	readerAway time.Duration
	// An ended exec's log stays for a reader whose last bytes got lost on the way, or that has not come back yet.
	keepDelivered   time.Duration
	keepUndelivered time.Duration
}

func defaultSettings() settings {
	return settings{
		socket:      "/run/atoll/link/agent.sock",
		sessions:    "/var/lib/atoll/sessions",
		cgroup:      "/sys/fs/cgroup",
		workspace:   "/workspace",
		oomScoreAdj: "500",
		times: times{
			heartbeat:       15 * time.Second,
			readerAway:      30 * time.Second,
			keepDelivered:   30 * time.Second,
			keepUndelivered: 5 * time.Minute,
		},
	}
}

// agent is everything that handlers share.
type agent struct {
	settings  settings
	times     times
	limits    limits
	pid       int
	isInit    bool
	startedAt time.Time
	null      int // /dev/null, opened before anybody could replace it
	reaper    *reaper
	processes *processes
	sessions  *sessions
	events    *events
	watches   *watches
	changes   *changes
	ports     *ports
}

func newAgent(chosen settings) (*agent, error) {
	null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("Cannot open /dev/null: %w", err)
	}
	watches := newWatches()
	return &agent{
		settings:  chosen,
		times:     chosen.times,
		limits:    limits{root: chosen.cgroup, told: chosen.pidsLimit},
		pid:       os.Getpid(),
		isInit:    os.Getpid() == 1,
		startedAt: time.Now(),
		null:      null,
		reaper:    newReaper(),
		processes: newProcesses(chosen.times),
		sessions:  loadSessions(chosen.sessions, chosen.workspace),
		events:    newEvents(),
		watches:   watches,
		changes:   newChanges(watches),
		ports:     newPorts("/proc"),
	}, nil
}

// serve runs an agent until its socket fails.
func serve(chosen settings) error {
	beSmall()
	syscall.Umask(0o022)
	if err := os.MkdirAll(chosen.workspace, 0o755); err != nil {
		fmt.Fprintf(os.Stderr, "Cannot make %s: %v\n", chosen.workspace, err)
	}
	a, err := newAgent(chosen)
	if err != nil {
		return err
	}
	listener, err := listen(chosen.socket)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: a.handler(),
		// A header is sent in one piece; who needs longer is no daemon.
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	debug.FreeOSMemory()
	return server.Serve(listener)
}

// beSmall trades some speed under load for memory at rest: a thousand agents idle on one machine.
func beSmall() {
	if runtime.GOMAXPROCS(0) > 2 {
		runtime.GOMAXPROCS(2)
	}
	debug.SetGCPercent(50)
}

func listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, fmt.Errorf("Cannot make the socket's directory: %w", err)
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("Cannot remove what lies in the socket's place: %w", err)
	}
	before := syscall.Umask(0o177) // the socket is the owner's from its first moment
	listener, err := net.Listen("unix", socket)
	syscall.Umask(before)
	if err != nil {
		return nil, fmt.Errorf("Cannot listen on %s: %w", socket, err)
	}
	return listener, nil
}

// sessionDirectories tells where a session stands; "" is the default session.
type sessionDirectories interface {
	directory(session string) (string, error)
}

type route struct {
	method, path string
	serve        func(w http.ResponseWriter, r *http.Request, names []string) error
}

func (a *agent) routes() []route {
	return []route{
		{"GET", "/hello", a.getHello},
		{"GET", "/events", a.getEvents},
		{"POST", "/processes", a.postProcess},
		{"GET", "/processes", a.getProcesses},
		{"GET", "/processes/*", a.getProcess},
		{"DELETE", "/processes/*", a.deleteProcess},
		{"GET", "/processes/*/log", a.getLog},
		{"PUT", "/processes/*/stdin", a.putStdin},
		{"POST", "/processes/*/signal", a.postSignal},
		{"POST", "/processes/*/stop", a.postStop},
		{"GET", "/processes/*/attach", a.getAttach},
		{"POST", "/processes/*/resize", a.postResize},
		{"POST", "/signal", a.postSignalAll},
		{"GET", "/sessions", a.getSessions},
		{"GET", "/sessions/*", a.getSession},
		{"PUT", "/sessions/*", a.putSession},
		{"PATCH", "/sessions/*", a.patchSession},
		{"DELETE", "/sessions/*", a.deleteSession},
		{"POST", "/watches", a.postWatch},
		{"POST", "/changes", a.postChanges},
		{"GET", "/ports", a.getPorts},
		{"GET", "/dial", a.getDial},
	}
}

func (a *agent) handler() http.Handler {
	files := http.NewServeMux()
	registerFiles(files, a.sessions)
	routes := a.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/files/") {
			files.ServeHTTP(w, r)
			return
		}
		for _, one := range routes {
			names, ok := match(one.path, r.URL.EscapedPath())
			if !ok || one.method != r.Method {
				continue
			}
			if err := one.serve(w, r, names); err != nil {
				writeError(w, err)
			}
			return
		}
		writeError(w, refuse("NOT_SUPPORTED", "Cannot serve %s %s: this agent has no such verb", r.Method, r.URL.Path))
	})
}

// match gives what stands for each * of the pattern, decoded.
func match(pattern, path string) ([]string, bool) {
	want, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(have) {
		return nil, false
	}
	var names []string
	for i := range want {
		if want[i] != "*" {
			if want[i] != have[i] {
				return nil, false
			}
			continue
		}
		name, err := url.PathUnescape(have[i])
		if err != nil || name == "" {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}
