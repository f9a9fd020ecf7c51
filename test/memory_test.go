package test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

const memoryConfig = `
ADMIN
log: {level: debug}
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: all, pool: apps}
pools:
  - {name: apps, backends: [{address: %q}]}
`

// rest opens silent sessions and returns once all are open. They end with leave, which
// waits for that.
func (e *edge) rest(url string, sessions int) (leave func()) {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := load.Run(ctx, load.Options{URL: url, TLS: insecure(), Mode: load.Idle, Connections: sessions,
			Duration: time.Hour, Timeout: time.Minute})
		done <- err
	}()
	e.eventually("the sessions are open", func() bool { return e.status().Sessions == int64(sessions) })
	return func() {
		e.t.Helper()
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			e.t.Fatal(err)
		}
		e.eventually("the sessions have ended", func() bool { return e.status().Sessions == 0 })
	}
}

// TestMemoryIsReturned: what handshakes leave behind goes back to the system once it is
// quiet, though nothing else would make the collector run; and so does what sessions held
// when most of them have ended.
func TestMemoryIsReturned(t *testing.T) {
	e := startWith(t, []string{"GOGC="}, fmt.Sprintf(memoryConfig, newApp(t, "app").addr))
	idle := func() float64 {
		m := e.metrics()
		return m["go_memstats_heap_idle_bytes"] - m["go_memstats_heap_released_bytes"]
	}
	leave := e.rest("wss://"+e.addr("wss")+"/", 300)
	// Where the collector ran right behind the last handshake there is nothing to return.
	e.eventually("no memory is free and kept while they are quiet", func() bool { return idle() < 4<<20 })
	before := e.countLog("memory returned")
	leave()
	e.eventually("memory is returned after they have ended", func() bool { return e.countLog("memory returned") > before })
}
