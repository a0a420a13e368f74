package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

type linkFixtures struct {
	Examples map[string][]json.RawMessage `json:"examples"`
	Frames   []struct {
		Kind    byte   `json:"kind"`
		Offset  int64  `json:"offset"`
		Payload string `json:"payload"`
		Bytes   string `json:"bytes"`
	} `json:"frames"`
	InputFrames []struct {
		Kind    byte   `json:"kind"`
		Payload string `json:"payload"`
		Bytes   string `json:"bytes"`
	} `json:"inputFrames"`
}

func readFixtures(t testing.TB) linkFixtures {
	t.Helper()
	text, err := os.ReadFile("../protocol/fixtures/link.json")
	if err != nil {
		t.Fatal(err)
	}
	var all linkFixtures
	strictly(t, text, &all)
	return all
}

func TestEveryExampleOfTheProtocolIsReadAndWrittenUnchanged(t *testing.T) {
	types := map[string]func() any{
		"AgentHello":     func() any { return new(agentHello) },
		"ProcessSpec":    func() any { return new(processSpec) },
		"ProcessStarted": func() any { return new(processStarted) },
		"ProcessEnd":     func() any { return new(processEnd) },
		"Truncated":      func() any { return new(truncated) },
		"AgentProcess":   func() any { return new(agentProcess) },
		"SignalRequest":  func() any { return new(signalRequest) },
		"SignalResult":   func() any { return new(signalResult) },
		"StopRequest":    func() any { return new(stopRequest) },
		"SessionSpec":    func() any { return new(sessionSpec) },
		"SessionPatch":   func() any { return new(sessionPatch) },
		"AgentSession":   func() any { return new(agentSession) },
		"AgentFile":      func() any { return new(agentFile) },
		"MkdirRequest":   func() any { return new(mkdirRequest) },
		"RemoveRequest":  func() any { return new(removeRequest) },
		"MoveRequest":    func() any { return new(moveRequest) },
		"AgentEvent":     func() any { return new(agentEvent) },
		"WatchRequest":   func() any { return new(watchRequest) },
		"WatchEvent":     func() any { return new(watchEvent) },
		"WatchLine":      func() any { return new(watchLine) },
		"ChangesRequest": func() any { return new(changesRequest) },
		"ChangesAnswer":  func() any { return new(changesAnswer) },
		"ListeningPort":  func() any { return new(listeningPort) },
		"TerminalSize":   func() any { return new(terminalSize) },
		"ErrorBody":      func() any { return new(agentError) },
	}
	for name, examples := range readFixtures(t).Examples {
		if name == "FileLine" {
			continue // a union: the agent writes each of its lines in its own place
		}
		if types[name] == nil {
			t.Errorf("%s of the protocol is unknown here", name)
			continue
		}
		for _, example := range examples {
			value := types[name]()
			strictly(t, example, value)
			again, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if !sameJSON(example, again) {
				t.Errorf("%s: %s became %s", name, example, again)
			}
			if spec, ok := value.(*processSpec); ok && spec.Pty == nil {
				if err := checkSpec(spec); err != nil {
					t.Errorf("%s: %v", example, err)
				}
			}
		}
	}
}

func sameJSON(one, other []byte) bool {
	var a, b any
	if json.Unmarshal(one, &a) != nil || json.Unmarshal(other, &b) != nil {
		return false
	}
	return reflect.DeepEqual(a, b)
}

func TestFramesOfATerminalsViewerAreKnown(t *testing.T) {
	known := map[byte]bool{frameInput: true, frameResize: true}
	for _, one := range readFixtures(t).InputFrames {
		payload, _ := base64.StdEncoding.DecodeString(one.Payload)
		want, _ := base64.StdEncoding.DecodeString(one.Bytes)
		if !known[one.Kind] || !bytes.Equal(appendFrame(nil, one.Kind, 0, payload), want) {
			t.Errorf("kind %d: %x", one.Kind, want)
		}
		delete(known, one.Kind)
	}
	equal(t, "kinds without an example", len(known), 0)
}

func TestFramesAreWrittenAsTheProtocolDoes(t *testing.T) {
	for _, one := range readFixtures(t).Frames {
		payload, _ := base64.StdEncoding.DecodeString(one.Payload)
		want, _ := base64.StdEncoding.DecodeString(one.Bytes)
		if got := appendFrame(nil, one.Kind, one.Offset, payload); !bytes.Equal(got, want) {
			t.Errorf("kind %d: %x, want %x", one.Kind, got, want)
		}
	}
}
