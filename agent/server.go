package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

type settings struct {
	socket string
}

func configuration(arguments []string, environment func(string) string) settings {
	chosen := settings{socket: "/run/atoll/link/agent.sock"}
	for i := 0; i+1 < len(arguments); i++ {
		if arguments[i] == "--socket" {
			chosen.socket = arguments[i+1]
		}
	}
	return chosen
}

// sessionDirectories tells where a session stands; "" is the default session.
type sessionDirectories interface {
	directory(session string) (string, error)
}

func serve(chosen settings) error {
	_ = os.Remove(chosen.socket)
	listener, err := net.Listen("unix", chosen.socket)
	if err != nil {
		return fmt.Errorf("Cannot listen: %w", err)
	}
	mux := http.NewServeMux()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 64 << 10}
	return server.Serve(listener)
}
