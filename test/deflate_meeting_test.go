package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// zipMeeting is an edge between clients and app servers that offer and accept compression,
// with a cable on each side of it.
type zipMeeting struct {
	e       *edge
	entries map[string]*cable // by scheme
	backs   map[string]*cable // by server
	peers   map[string]<-chan peer
}

// zipModes are all the ways to treat compression. Each has a route for each server.
var zipModes = []string{"passthrough", "terminate", "strip"}

// zipMeet starts the servers and, of a build, an edge before them.
func zipMeet(t *testing.T, program string, servers []library) *zipMeeting {
	t.Helper()
	m := &zipMeeting{entries: map[string]*cable{}, backs: map[string]*cable{}, peers: map[string]<-chan peer{}}
	var routes, pools strings.Builder
	for _, l := range servers {
		addr, accepted := l.serve(t)
		m.peers[l.name], m.backs[l.name] = accepted, newCable(t, addr, false)
		fmt.Fprintf(&pools, "  - {name: %s, backends: [{address: %q}]}\n", l.name, m.backs[l.name].addr())
		for _, mode := range zipModes {
			fmt.Fprintf(&routes, "  - {name: %[1]s-%[2]s, match: {path: /%[1]s/%[2]s}, pool: %[2]s, websocket: {compression: %[1]s}}\n", mode, l.name)
		}
	}
	m.e = startProgram(t, program, []string{"GOGC=100"}, `
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0"}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
`+routes.String()+"pools:\n"+pools.String())
	for _, scheme := range []string{"ws", "wss"} {
		m.entries[scheme] = newCable(t, m.e.addr(scheme), scheme == "wss")
	}
	return m
}

// zipSession is one session of a zipMeeting.
type zipSession struct {
	mode, scheme string
	client       library
	c, s         peer
	front, back  *cable
}

// open opens a session.
func (m *zipMeeting) open(t *testing.T, mode, scheme string, client, server library) *zipSession {
	t.Helper()
	z := &zipSession{mode: mode, scheme: scheme, client: client, front: m.entries[scheme], back: m.backs[server.name]}
	z.front.take()
	z.back.take()
	var err error
	z.c, err = dialVia(t, scheme+"://"+z.front.addr()+"/"+mode+"/"+server.name, client)
	must(t, err)
	t.Cleanup(z.c.cut)
	z.s = m.accepted(t, server)
	return z
}

// accepted is the next session that a server has.
func (m *zipMeeting) accepted(t *testing.T, server library) peer {
	t.Helper()
	select {
	case s := <-m.peers[server.name]:
		return s
	case <-time.After(soon):
		t.Fatal("the app server got nothing")
		return nil
	}
}

func dialVia(t *testing.T, url string, client library) (peer, error) {
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return client.dial(ctx, url, nil)
}

// eachEngine runs a test with a program for each engine, at the same time.
func eachEngine(t *testing.T, test func(t *testing.T, program string)) {
	t.Run("engines", func(t *testing.T) {
		for _, engine := range []string{"loops", "goroutines"} {
			t.Run(engine, func(t *testing.T) {
				t.Parallel()
				test(t, programOf(t, engine))
			})
		}
	})
}

// goroutineProgram is built once, beside the other one.
var goroutineProgram struct {
	once sync.Once
	path string
}

func programOf(t *testing.T, engine string) string {
	t.Helper()
	if engine == "loops" {
		return binary
	}
	goroutineProgram.once.Do(func() {
		path := filepath.Join(filepath.Dir(binary), "tidegate-goroutines")
		must(t, os.Rename(goroutineBinary(t), path))
		goroutineProgram.path = path
	})
	if goroutineProgram.path == "" {
		t.Fatal("the build has failed before")
	}
	return goroutineProgram.path
}

// serveGorillaAnywhere is serveGorilla for pages of all origins.
func serveGorillaAnywhere(t *testing.T) (string, <-chan peer) {
	up := gorilla.Upgrader{EnableCompression: true, CheckOrigin: func(*http.Request) bool { return true }}
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request, raw net.Conn) (peer, error) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return nil, err
		}
		return newGorillaPeer(c, raw, r.Header.Get("Sec-WebSocket-Extensions")), nil
	})
}
