package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

const (
	// What is typed is passed on in pieces of this size, as large as a terminal's own line.
	inputPieceBytes = 4 << 10
	// A paste is cut by who sends it; a longer frame is a mistake.
	inputFrameLimitBytes = 1 << 20
	// A size is some bytes of JSON.
	resizeFrameLimitBytes = 1 << 10
	// So long a viewer may take to hear the last word.
	farewellLimit = 5 * time.Second
)

// postResize changes the size of a process's terminal.
func (a *agent) postResize(w http.ResponseWriter, r *http.Request, names []string) error {
	var size terminalSize
	if err := readRequest(w, r, &size); err != nil {
		return err
	}
	p, err := a.findTerminal(names[0])
	if err != nil {
		return err
	}
	err = p.terminal.resize(size)
	if errors.Is(err, os.ErrClosed) {
		return refuse("PROCESS_NOT_FOUND", "Cannot resize the terminal of process %q: it has ended", p.id)
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

func (a *agent) findTerminal(id string) (*process, error) {
	p, err := a.processes.find(id)
	if err == nil && p.terminal == nil {
		err = refuse("VALIDATION_FAILED", "Cannot attach to process %q: it was started without a terminal", id)
	}
	return p, err
}

// getAttach shows a process's terminal to one more viewer: its log from an offset on, as frames, while what the viewer
// types comes as frames too. A viewer leaves by closing the connection, or its sending half.
func (a *agent) getAttach(w http.ResponseWriter, r *http.Request, names []string) error {
	p, err := a.findTerminal(names[0])
	if err != nil {
		return err
	}
	after, err := position(r)
	if err == nil {
		err = beyond(p, after)
	}
	if err == nil {
		err = wantsUpgrade(r, "atoll-terminal")
	}
	if err != nil {
		return err
	}
	client, early, err := upgrade(w, "atoll-terminal")
	if err != nil {
		return err
	}
	v := &view{client: client, left: make(chan struct{}), gone: make(chan struct{})}
	v.follower = &follower{process: p, writer: v, position: after, wait: true}
	defer client.Close()
	p.terminal.seen(v, after)
	go v.listen(p.terminal, early)
	v.follower.run(v.gone, a.times.heartbeat)
	p.terminal.leave(v)
	v.sayFarewell()
	return nil
}

// view is one viewer's connection. To the follower it is an answer to write frames to.
type view struct {
	client   *net.UnixConn
	follower *follower
	// left: nothing is shown any more. gone: nothing is typed any more, because of failure where there is one.
	left, gone chan struct{}
	failure    *agentError
}

func (v *view) Header() http.Header              { return http.Header{} }
func (v *view) WriteHeader(int)                  {}
func (v *view) Write(frames []byte) (int, error) { return v.client.Write(frames) }
func (v *view) Flush()                           { v.follower.process.terminal.seen(v, v.follower.position) }

// sayFarewell tells what was wrong with what was typed, and that nothing more is shown. What is still being typed is taken
// from the connection, or its end would reach the viewer as a broken connection.
func (v *view) sayFarewell() {
	close(v.left)
	select {
	case <-v.gone:
		if v.failure != nil {
			_, _ = v.client.Write(appendFrameJSON(nil, frameError, v.follower.position, v.failure)) // who does not hear it is gone
		}
		return
	default:
	}
	_ = v.client.CloseWrite() // fails only when the viewer is gone
	patience := time.NewTimer(farewellLimit)
	defer patience.Stop()
	select {
	case <-v.gone:
	case <-patience.C:
	}
}

// listen passes on what the viewer types, until he leaves.
func (v *view) listen(t *terminal, early []byte) {
	err := v.readInput(io.MultiReader(bytes.NewReader(early), v.client), t)
	var refusal *agentError
	if errors.As(err, &refusal) {
		v.failure = refusal
		_ = v.client.SetWriteDeadline(time.Now().Add(farewellLimit)) // fails only when closed
	}
	close(v.gone)
}

func (v *view) readInput(from io.Reader, t *terminal) error {
	var header [frameHeaderBytes]byte
	for {
		if _, err := io.ReadFull(from, header[:]); err != nil {
			return err
		}
		length := int64(binary.LittleEndian.Uint32(header[4:]))
		switch header[0] {
		case frameInput:
			if length > inputFrameLimitBytes {
				return badInput("%d bytes at once", length)
			}
			if err := v.passInput(from, length, t); err != nil {
				return err
			}
		case frameResize:
			if length > resizeFrameLimitBytes {
				return badInput("a size of %d bytes", length)
			}
			text := make([]byte, length)
			if _, err := io.ReadFull(from, text); err != nil {
				return err
			}
			var size terminalSize
			if err := decodeStrictly(text, &size); err != nil {
				return err
			}
			// A terminal that has ended has no size to change.
			if err := t.resize(size); err != nil && !errors.Is(err, os.ErrClosed) {
				return err
			}
		default:
			return badInput("frame kind %d", header[0])
		}
	}
}

func badInput(format string, values ...any) error {
	return refuse("VALIDATION_FAILED", "Cannot read what was typed: "+format, values...)
}

// passInput types one frame's bytes. What is typed into a terminal that has ended is nobody's.
func (v *view) passInput(from io.Reader, length int64, t *terminal) error {
	size := length
	if size > inputPieceBytes {
		size = inputPieceBytes
	}
	piece := make([]byte, size)
	for length > 0 {
		if length < size {
			piece = piece[:length]
		}
		n, err := from.Read(piece)
		if n > 0 {
			if err := t.write(piece[:n], v.isThere); err == errLeft {
				return err
			}
		}
		if err != nil {
			return err
		}
		length -= int64(n)
	}
	return nil
}

func (v *view) isThere() bool {
	select {
	case <-v.left:
		return false
	default:
		return !hasLeft(v.client)
	}
}
