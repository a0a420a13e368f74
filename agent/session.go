package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const defaultSession = "default"

const (
	// The longest name whose escaped form still is a file's name.
	sessionIDLimitBytes = 80
	// More than this is no shell's state.
	sessionFileLimitBytes = 64 << 20
)

// sessions are saved shell states by name. Each is a file, so that it is there after sleep.
type sessions struct {
	folder    string
	workspace string
	mutex     sync.Mutex
	byID      map[string]*session
	bases     map[string]shellState // what a fresh shell has, by its path
}

// session is what its commands left behind, as changes against what every shell of the sandbox starts with. So a
// variable that the daemon changes later reaches it, unless the session changed that very variable itself.
type session struct {
	id               string
	createdAt        time.Time
	commandTimeoutMs int64

	mutex   sync.Mutex
	cwd     string
	changes map[string]stateChange
	proven  map[string]string // function texts that came back from bash as they were
	deleted bool
	unsaved bool // the file is older than the state: the disk was full
}

func loadSessions(folder, workspace string) *sessions {
	s := &sessions{folder: folder, workspace: workspace, byID: map[string]*session{}, bases: map[string]shellState{}}
	names, _ := filepath.Glob(folder + "/*.json")
	for _, name := range names {
		loaded, err := loadSession(name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "Cannot read the session in %s, it starts fresh: %v\n", name, err)
			continue
		}
		s.byID[loaded.id] = loaded
	}
	return s
}

func newSession(id, cwd string) *session {
	return &session{id: id, cwd: cwd, createdAt: time.Now(), changes: map[string]stateChange{}, proven: map[string]string{}}
}

// find gives a session; "" and the default one need not have been made.
func (s *sessions) find(id string) (*session, error) {
	if id == "" {
		id = defaultSession
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if found := s.byID[id]; found != nil {
		return found, nil
	}
	if id == defaultSession {
		s.byID[id] = newSession(id, s.workspace)
		return s.byID[id], nil
	}
	return nil, refuse("SESSION_NOT_FOUND", "Cannot find session %q: there is none. Create it first", id)
}

func (s *sessions) directory(id string) (string, error) {
	found, err := s.find(id)
	if err != nil {
		return "", err
	}
	found.mutex.Lock()
	defer found.mutex.Unlock()
	return found.cwd, nil
}

// lend gives a program without a shell what the session has for it: its directory, and in `env` the variables that its
// commands exported or took away.
func (s *session) lend(env map[string]string) (directory string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for key, change := range s.changes {
		switch {
		case strings.HasPrefix(key, "e:"):
			if delete(env, key[2:]); !change.gone {
				env[key[2:]] = change.value
			}
		case strings.HasPrefix(key, "v:"):
			delete(env, key[2:])
			v, ok := parseVariable(change.value)
			if !change.gone && ok && v.scalar && v.hasValue && strings.Contains(v.flags, "x") && len(v.value) < environmentEntryLimitBytes {
				env[v.name] = v.value
			}
		}
	}
	return s.cwd
}

func (s *sessions) create(id string, spec sessionSpec) (*session, error) {
	if id == "" || len(id) > sessionIDLimitBytes || strings.IndexByte(id, 0) >= 0 {
		return nil, refuse("VALIDATION_FAILED", "Cannot create a session: its id must be 1 to %d bytes without NUL", sessionIDLimitBytes)
	}
	if spec.CommandTimeoutMs < 0 {
		return nil, refuse("VALIDATION_FAILED", "Cannot create session %q: commandTimeoutMs must be positive", id)
	}
	cwd := s.workspace
	if spec.Cwd != nil {
		cwd = filepath.Clean(joinPath(cwd, *spec.Cwd))
		if err := checkDirectory(cwd); err != nil {
			return nil, err
		}
	}
	created := newSession(id, cwd)
	created.commandTimeoutMs = spec.CommandTimeoutMs
	changes, err := environmentChanges(spec.Env)
	if err != nil {
		return nil, err
	}
	created.changes = changes
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.byID[id] != nil || id == defaultSession {
		return nil, refuse("SESSION_ALREADY_EXISTS", "Cannot create session %q: there is one of this name", id)
	}
	if err := created.save(s.folder); err != nil {
		return nil, err
	}
	s.byID[id] = created
	return created, nil
}

// environmentChanges are the state's changes that set and export variables; null removes one.
func environmentChanges(env map[string]*string) (map[string]stateChange, error) {
	changes := map[string]stateChange{}
	for name, value := range env {
		if !validEntry(name, text(value)) {
			return nil, refuse("VALIDATION_FAILED", "Cannot set the variable %q: it cannot be in an environment", name)
		}
		key, line := environmentKey(name, text(value))
		if skipVariable(name) {
			continue
		}
		changes[key] = stateChange{value: line, gone: value == nil}
	}
	return changes, nil
}

func text(value *string) string {
	if value == nil {
		return ""
	}
	return *value
}

// environmentKey is where an environment's entry lies in a state.
func environmentKey(name, value string) (key, line string) {
	if !isShellName(name) {
		return "e:" + name, value
	}
	return "v:" + name, exportLine(name, value)
}

func (s *sessions) remove(id string) error {
	found, err := s.find(id)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	delete(s.byID, found.id)
	s.mutex.Unlock()
	found.mutex.Lock()
	defer found.mutex.Unlock()
	found.deleted = true
	if err := os.Remove(sessionFile(s.folder, found.id)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// merge takes what a command changed, key by key; false when the session is gone.
func (s *sessions) merge(to *session, changes map[string]stateChange, proven map[string]string) bool {
	to.mutex.Lock()
	defer to.mutex.Unlock()
	if to.deleted {
		return false
	}
	for key, value := range proven {
		to.proven[key] = value
	}
	if len(changes) == 0 && !to.unsaved {
		return true
	}
	if cwd, moved := changes["cwd"]; moved && !cwd.gone {
		to.cwd = cwd.value
	}
	for key, change := range changes {
		if key != "cwd" {
			to.changes[key] = change
		}
	}
	// The state holds from now on also when it cannot be written: it is written with the next change.
	if err := to.save(s.folder); err != nil {
		to.unsaved = true
		fmt.Fprintln(os.Stderr, err)
	}
	return true
}

// sessionRecord is a session's file, version 1. Names and values are bytes that need not be text.
type sessionRecord struct {
	Version          int             `json:"version"`
	ID               string          `json:"id"`
	CreatedAtMs      int64           `json:"createdAtMs"`
	CommandTimeoutMs int64           `json:"commandTimeoutMs,omitempty"`
	Cwd              []byte          `json:"cwd"`
	Changes          []changedRecord `json:"changes"`
}

type changedRecord struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
	Gone  bool   `json:"gone,omitempty"`
}

func sessionFile(folder, id string) string { return filepath.Join(folder, url.PathEscape(id)+".json") }

// save replaces the session's file whole. It is not forced to the disk: an agent ends by SIGKILL, which the page cache
// outlives, and after the host's own crash an older state is one the session had.
func (s *session) save(folder string) error {
	record := sessionRecord{
		Version: 1, ID: s.id, CreatedAtMs: s.createdAt.UnixMilli(), CommandTimeoutMs: s.commandTimeoutMs,
		Cwd: []byte(s.cwd), Changes: []changedRecord{},
	}
	for key, change := range s.changes {
		record.Changes = append(record.Changes, changedRecord{[]byte(key), []byte(change.value), change.gone})
	}
	body, err := json.Marshal(record)
	if err == nil {
		err = writeWhole(sessionFile(folder, s.id), body)
	}
	if err != nil {
		return fmt.Errorf("Cannot save session %q: %w", s.id, err)
	}
	s.unsaved = false
	return nil
}

func writeWhole(name string, body []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = file.Write(body)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the first error is the one that counts
	}
	return err
}

func loadSession(name string) (*session, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is no regular file")
	}
	body, err := io.ReadAll(io.LimitReader(file, sessionFileLimitBytes))
	if err != nil {
		return nil, err
	}
	loaded, err := parseSession(body)
	if err == nil && sessionFile(filepath.Dir(name), loaded.id) != name {
		return nil, fmt.Errorf("it holds another session")
	}
	return loaded, err
}

func parseSession(body []byte) (*session, error) {
	var record sessionRecord
	if err := decodeStrictly(body, &record); err != nil {
		return nil, err
	}
	if record.Version != 1 {
		return nil, fmt.Errorf("version %d is unknown", record.Version)
	}
	cwd := string(record.Cwd)
	if !filepath.IsAbs(cwd) || strings.IndexByte(cwd, 0) >= 0 {
		return nil, fmt.Errorf("its directory is no path")
	}
	loaded := newSession(record.ID, cwd)
	loaded.createdAt = time.UnixMilli(record.CreatedAtMs)
	loaded.commandTimeoutMs = record.CommandTimeoutMs
	for _, one := range record.Changes {
		loaded.changes[string(one.Key)] = stateChange{string(one.Value), one.Gone}
	}
	return loaded, nil
}
