package main

import "testing"

func TestAnEndIsToldAtOnceAlsoWhenItComesWhileTheReaderLooks(t *testing.T) {
	a := startAgent(t)
	for i := 0; i < 300; i++ {
		log := a.start(makeSpec(argv("true"), roll))
		for {
			f, err := log.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.kind == frameHeartbeat {
				t.Fatal("a heartbeat came before the end")
			}
			if f.kind == frameEnded {
				break
			}
		}
		log.body.Close()
	}
}
