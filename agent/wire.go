package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// The link as protocol/agent.ts describes it. The tests decode fixtures made there, with unknown fields refused, and
// encode them again.

const linkVersion = 3

type agentHello struct {
	Link        int   `json:"link"`
	Pid         int   `json:"pid"`
	StartedAtMs int64 `json:"startedAtMs"`
}

// processCommand holds either Argv or Script.
type processCommand struct {
	Argv    []string `json:"argv,omitempty"`
	Script  *string  `json:"script,omitempty"`
	Session *string  `json:"session,omitempty"`
}

type processSpec struct {
	ID         string             `json:"id"`
	Attempt    string             `json:"attempt,omitempty"`
	Command    processCommand     `json:"command"`
	Env        map[string]string  `json:"env"`
	CallEnv    map[string]*string `json:"callEnv,omitempty"`
	Cwd        *string            `json:"cwd,omitempty"`
	DefaultCwd string             `json:"defaultCwd"`
	User       string             `json:"user,omitempty"`
	Stdin      stdinSpec          `json:"stdin"`
	Stderr     string             `json:"stderr"`
	Mode       string             `json:"mode"`
	RingBytes  int                `json:"ringBytes,omitempty"`
	TimeoutMs  int64              `json:"timeoutMs,omitempty"`
	Pty        *terminalSize      `json:"pty,omitempty"`
	Note       json.RawMessage    `json:"note,omitempty"`
}

// stdinSpec is "none", "pipe", or bytes. Kind is "none", "pipe" or "bytes".
type stdinSpec struct {
	Kind  string
	Bytes []byte
}

type stdinBytes struct {
	Base64 *[]byte `json:"base64"`
}

func (s *stdinSpec) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &s.Kind) == nil {
		if s.Kind != "none" && s.Kind != "pipe" {
			return errors.New(`stdin is "none", "pipe" or { base64 }`)
		}
		return nil
	}
	var given stdinBytes
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&given); err != nil {
		return err
	}
	if given.Base64 == nil {
		return errors.New(`stdin is "none", "pipe" or { base64 }`)
	}
	s.Kind, s.Bytes = "bytes", *given.Base64
	return nil
}

func (s stdinSpec) MarshalJSON() ([]byte, error) {
	if s.Kind != "bytes" {
		return json.Marshal(s.Kind)
	}
	return json.Marshal(stdinBytes{Base64: &s.Bytes})
}

type processStarted struct {
	ID          string `json:"id"`
	Pid         int    `json:"pid"`
	StartedAtMs int64  `json:"startedAtMs"`
}

type processEnd struct {
	ExitCode   int     `json:"exitCode"`
	Signal     string  `json:"signal,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	EndedAtMs  int64   `json:"endedAtMs"`
	DurationMs float64 `json:"durationMs"`
	CPUTimeMs  float64 `json:"cpuTimeMs"`
	StateSaved *bool   `json:"stateSaved,omitempty"`
	Background bool    `json:"background"`
}

type truncated struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

type agentProcess struct {
	ID          string          `json:"id"`
	Pid         int             `json:"pid"`
	StartedAtMs int64           `json:"startedAtMs"`
	Mode        string          `json:"mode"`
	Offset      int64           `json:"offset"`
	WindowStart int64           `json:"windowStart"`
	End         *processEnd     `json:"end,omitempty"`
	Note        json.RawMessage `json:"note,omitempty"`
}

type processList struct {
	Processes []agentProcess `json:"processes"`
}

type signalRequest struct {
	Signal     string `json:"signal"`
	LeftBehind bool   `json:"leftBehind,omitempty"`
}

type signalResult struct {
	Signalled int `json:"signalled"`
}

type stopRequest struct {
	Reason  string `json:"reason"`
	GraceMs *int64 `json:"graceMs,omitempty"`
}

type sessionSpec struct {
	Cwd              *string            `json:"cwd,omitempty"`
	Env              map[string]*string `json:"env,omitempty"`
	CommandTimeoutMs int64              `json:"commandTimeoutMs,omitempty"`
}

type sessionPatch struct {
	Env map[string]*string `json:"env"`
}

type agentSession struct {
	ID               string `json:"id"`
	Cwd              string `json:"cwd"`
	CreatedAtMs      int64  `json:"createdAtMs"`
	CommandTimeoutMs int64  `json:"commandTimeoutMs,omitempty"`
	Functions        bool   `json:"functions"`
}

type sessionList struct {
	Sessions []agentSession `json:"sessions"`
}

type agentEvent struct {
	Type string      `json:"type"`
	At   int64       `json:"at,omitempty"`
	ID   string      `json:"id,omitempty"`
	End  *processEnd `json:"end,omitempty"`
}

// bodyLimitBytes holds a command and an environment of megabytes and some input; larger input goes by PUT /stdin.
const bodyLimitBytes = 32 << 20

// readRequest decodes a request's body strictly: an option that this agent does not know is refused, never ignored.
func readRequest(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimitBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return refuse("PAYLOAD_TOO_LARGE", "Cannot read the request: it is larger than %d bytes", bodyLimitBytes)
		}
		return refuse("VALIDATION_FAILED", "Cannot read the request: %v", err)
	}
	return decodeStrictly(body, into)
}

func decodeStrictly(body []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return refuse("VALIDATION_FAILED", "Cannot read the request: %v", err)
	}
	if decoder.More() {
		return refuse("VALIDATION_FAILED", "Cannot read the request: something follows it")
	}
	return nil
}
