package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"syscall"
)

// agentError is a refusal as protocol/errors.ts words it: Code is one of its table, Message says
// "Cannot <verb> <what>: <why>" and the remedy.
type agentError struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Details map[string]any `json:"details,omitempty"`
}

func (e *agentError) Error() string { return e.Message }

func refuse(code, format string, values ...any) *agentError {
	return &agentError{Code: code, Message: fmt.Sprintf(format, values...)}
}

// asAgentError gives any error its place in the table: an agentError keeps its own, an errno gets the code of its
// meaning, everything else is INTERNAL_ERROR.
func asAgentError(err error) *agentError {
	var refusal *agentError
	if errors.As(err, &refusal) {
		return refusal
	}
	code := "INTERNAL_ERROR"
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if known, ok := errnoCodes[errno]; ok {
			code = known
		}
	}
	return &agentError{Code: code, Message: err.Error()}
}

var errnoCodes = map[syscall.Errno]string{
	syscall.ENOENT:       "FILE_NOT_FOUND",
	syscall.ENOTDIR:      "NOT_DIRECTORY",
	syscall.EISDIR:       "IS_DIRECTORY",
	syscall.EEXIST:       "FILE_EXISTS",
	syscall.ENOTEMPTY:    "NOT_EMPTY",
	syscall.ENAMETOOLONG: "NAME_TOO_LONG",
	syscall.EACCES:       "PERMISSION_DENIED",
	syscall.EPERM:        "PERMISSION_DENIED",
	syscall.EROFS:        "READ_ONLY",
	syscall.EBUSY:        "RESOURCE_BUSY",
	syscall.ETXTBSY:      "RESOURCE_BUSY",
	syscall.ENOSPC:       "NO_SPACE",
	syscall.EDQUOT:       "NO_SPACE",
	syscall.EAGAIN:       "LIMIT_REACHED",
	syscall.EMFILE:       "LIMIT_REACHED",
	syscall.ENFILE:       "LIMIT_REACHED",
	syscall.EINVAL:       "VALIDATION_FAILED",
	syscall.ELOOP:        "VALIDATION_FAILED",
}

// The statuses of protocol/errors.ts, of those codes that an agent gives.
var statuses = map[string]int{
	"VALIDATION_FAILED":      400,
	"INVALID_COMMAND":        400,
	"INVALID_PORT":           400,
	"IS_DIRECTORY":           400,
	"NOT_DIRECTORY":          400,
	"NOT_EMPTY":              400,
	"NAME_TOO_LONG":          400,
	"PERMISSION_DENIED":      403,
	"READ_ONLY":              403,
	"FILE_NOT_FOUND":         404,
	"PROCESS_NOT_FOUND":      404,
	"SESSION_NOT_FOUND":      404,
	"FILE_EXISTS":            409,
	"RESOURCE_BUSY":          409,
	"SESSION_ALREADY_EXISTS": 409,
	"STALE_HANDLE":           409,
	"OPERATION_INTERRUPTED":  409,
	"PAYLOAD_TOO_LARGE":      413,
	"LIMIT_REACHED":          429,
	"ABORTED":                499,
	"INTERNAL_ERROR":         500,
	"NOT_SUPPORTED":          501,
	"SERVICE_NOT_RESPONDING": 502,
	"NO_SPACE":               507,
}

// writeError answers a request with a refusal. Only before the first byte of an answer.
func writeError(w http.ResponseWriter, err error) {
	refusal := asAgentError(err)
	status, ok := statuses[refusal.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, refusal)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		status, body = 500, []byte(`{"code":"INTERNAL_ERROR","message":"Cannot word the answer"}`)
	}
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the reader may be gone: nobody is left to tell
}
