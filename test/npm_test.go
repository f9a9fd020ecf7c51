package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// TestNPM has clients and servers of the package ws from npm talk through an edge, to
// those in Go and to each other.
func TestNPM(t *testing.T) {
	npm := npmLibrary(t)
	all := append([]library{npm}, libraries...)
	m := meet(t, all)
	t.Run("ws/npm-to-npm", func(t *testing.T) { m.converse(t, "ws", npm, npm) })
	for _, other := range all {
		t.Run("wss/npm-to-"+other.name, func(t *testing.T) { m.converse(t, "wss", npm, other) })
		if other.name != npm.name {
			t.Run("wss/"+other.name+"-to-npm", func(t *testing.T) { m.converse(t, "wss", other, npm) })
		}
	}
	m.check(t)
}

// npmLibrary starts the clients; without Node.js or the package the test is skipped, or
// fails if CI is set.
func npmLibrary(t *testing.T) library { return npmOffering(t, true) }

// npmOffering is npmLibrary with the option perMessageDeflate of the clients.
func npmOffering(t *testing.T, deflate any) library {
	t.Helper()
	return npmScript(t, "npm", "client.js", deflate)
}

// npmScript is npmLibrary with the clients of a script.
func npmScript(t *testing.T, name, script string, deflate any) library {
	t.Helper()
	needNPM(t, "ws")
	clients := startNode(t, script)
	return library{name: name,
		dial: func(ctx context.Context, url string, protocols []string) (peer, error) {
			p := clients.add()
			clients.tell(map[string]any{"id": p.id, "command": "open", "url": url, "protocols": append([]string{}, protocols...), "deflate": deflate})
			select {
			case <-p.opened:
				return p, nil
			case e := <-p.inbox:
				return nil, e.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		serve: func(t *testing.T) (string, <-chan peer) {
			server := startNode(t, append([]string{"server.js"}, serverProtocols...)...)
			select {
			case port := <-server.port:
				return fmt.Sprintf("127.0.0.1:%d", port), server.accepted
			case <-time.After(soon):
				t.Fatal("server.js does not listen")
				return "", nil
			}
		}}
}

// missing skips the test for want of something that test/prepare.sh installs; in CI,
// where nothing may be skipped, it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: run test/prepare.sh", what)
	}
	t.Skipf("%s: run test/prepare.sh", what)
}

// node is a script that has WebSockets of the package ws.
type node struct {
	*script
	t        *testing.T
	port     chan int
	accepted chan peer

	mu    sync.Mutex
	last  int // id of the newest client
	peers map[int]*npmPeer
}

// npmPeer is a WebSocket in the hands of the package ws.
type npmPeer struct {
	link
	n      *node
	id     int
	opened chan struct{}
	failed error // what ws reported before its end
}

// nodeEvent is a line from a script.
type nodeEvent struct {
	ID                                  int
	Event, Protocol, Extensions, Reason string
	Data                                []byte
	Code, Port                          int
}

func startNode(t *testing.T, args ...string) *node {
	t.Helper()
	n := &node{t: t, port: make(chan int, 1), accepted: make(chan peer, 16), peers: map[int]*npmPeer{}}
	n.script = startScript(t, n.hear, nil, args...)
	return n
}

func (n *node) hear(line []byte) {
	var e nodeEvent
	if err := json.Unmarshal(line, &e); err != nil {
		n.t.Errorf("a script wrote %.100q: %v", line, err)
		return
	}
	if e.Event == "listening" {
		n.port <- e.Port
		return
	}
	n.take(e)
}

// take hands an event to the WebSocket that it is about.
func (n *node) take(e nodeEvent) {
	n.mu.Lock()
	p := n.peers[e.ID]
	n.mu.Unlock()
	if p == nil { // a server's: its ids are its own
		p = n.addID(e.ID)
	}
	switch e.Event {
	case "open":
		p.subproto, p.extensionz = e.Protocol, e.Extensions
		close(p.opened)
		select {
		case n.accepted <- p:
		default: // a client
		}
	case "error":
		p.failed = errors.New(e.Reason)
	case "close":
		if e.Code == 1006 {
			p.inbox <- event{kind: "end", err: errors.Join(errors.New("1006"), p.failed)}
		} else {
			p.inbox <- event{kind: "close", code: e.Code, reason: e.Reason}
		}
	default:
		p.inbox <- event{kind: e.Event, data: e.Data}
	}
}

// add makes room for a client.
func (n *node) add() *npmPeer {
	n.mu.Lock()
	n.last++
	id := n.last
	n.mu.Unlock()
	return n.addID(id)
}

func (n *node) addID(id int) *npmPeer {
	p := &npmPeer{link: newLink(nil, "", ""), n: n, id: id, opened: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers[id] = p
	return p
}

func (p *npmPeer) send(kind string, parts ...[]byte) error {
	for i, part := range parts {
		if part == nil {
			parts[i] = []byte{} // null in JSON is no string
		}
	}
	return p.n.tell(map[string]any{"id": p.id, "command": "send", "kind": kind, "parts": parts})
}

func (p *npmPeer) ping(payload string) error {
	return p.n.tell(map[string]any{"id": p.id, "command": "ping", "data": []byte(payload)})
}

func (p *npmPeer) close(code int, reason string) error {
	return p.n.tell(map[string]any{"id": p.id, "command": "close", "code": code, "reason": reason})
}

func (p *npmPeer) cut() { p.n.tell(map[string]any{"id": p.id, "command": "terminate"}) }
