// The agent: PID 1 of a sandbox. It offers mechanism and no policy: processes, files, events, over HTTP/1.1 on a unix
// socket. The contract is protocol/agent.ts and protocol/frame.ts.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := serve(configuration(os.Args[1:], os.Getenv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
