package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// Message is what app servers and pages exchange.
type Message struct {
	Type string `json:"type"`
	Text string `json:"text,omitempty"`
	From string `json:"from,omitempty"`
	App  string `json:"app,omitempty"`
}

// Hub hands chat messages to the participants of all app servers. Its zero value is
// ready.
type Hub struct {
	mu    sync.Mutex
	inbox map[chan<- Message]bool
}

func (h *Hub) join(inbox chan<- Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inbox == nil {
		h.inbox = map[chan<- Message]bool{}
	}
	h.inbox[inbox] = true
}

func (h *Hub) leave(inbox chan<- Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.inbox, inbox)
}

// tell hands m to everybody; who does not keep up misses it.
func (h *Hub) tell(m Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for inbox := range h.inbox {
		select {
		case inbox <- m:
		default:
		}
	}
}

// App is one demo app server.
type App struct {
	Name string
	hub  *Hub
	ln   net.Listener
	next atomic.Int64
}

// NewApp returns an app server that listens on a free port of loopback and does not
// serve yet.
func NewApp(name string, hub *Hub) (*App, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &App{Name: name, hub: hub, ln: ln}, nil
}

// Addr is where the app listens.
func (a *App) Addr() string { return a.ln.Addr().String() }

// Run serves until ctx is done and returns when every participant has gone.
func (a *App) Run(ctx context.Context) error {
	var participants sync.WaitGroup
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return // answered by UpgradeHTTP
		}
		participants.Go(func() { a.participant(ctx, conn) })
	})}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(a.ln)
	participants.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// participant serves one WebSocket: a reader here and a writer beside it.
func (a *App) participant(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	me := fmt.Sprintf("%s #%d", a.Name, a.next.Add(1))
	inbox := make(chan Message, 64)
	inbox <- Message{Type: "welcome", From: me, App: a.Name}
	a.hub.join(inbox)
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex // the writer's, and the reader's for what it answers itself
	var writer sync.WaitGroup
	writer.Go(func() {
		defer cancel()
		a.write(ctx, conn, &mu, inbox)
	})
	a.read(ctx, conn, &mu, me, inbox)
	a.hub.leave(inbox)
	cancel()
	writer.Wait()
}

func (a *App) read(ctx context.Context, conn net.Conn, mu *sync.Mutex, me string, inbox chan<- Message) {
	answer := wsutil.ControlFrameHandler(lockedWriter{conn, mu}, ws.StateServerSide)
	r := &wsutil.Reader{Source: conn, State: ws.StateServerSide, CheckUTF8: true, MaxFrameSize: 64 << 10, OnIntermediate: answer}
	for {
		h, err := r.NextFrame()
		if err != nil {
			return
		}
		if h.OpCode.IsControl() {
			if answer(h, r) != nil {
				return
			}
			continue
		}
		var m Message
		if err := json.NewDecoder(r).Decode(&m); err != nil || r.Discard() != nil {
			return
		}
		switch m.Type {
		case "chat":
			a.hub.tell(Message{Type: "chat", Text: m.Text, From: me})
		case "echo":
			select {
			case inbox <- Message{Type: "echo", Text: m.Text, From: me}:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (a *App) write(ctx context.Context, conn net.Conn, mu *sync.Mutex, inbox <-chan Message) {
	for {
		select {
		case <-ctx.Done():
			mu.Lock()
			conn.SetWriteDeadline(time.Now().Add(time.Second))
			ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusGoingAway, "")))
			mu.Unlock()
			conn.Close()
			return
		case m := <-inbox:
			m.App = a.Name
			b, _ := json.Marshal(m)
			mu.Lock()
			conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			err := wsutil.WriteServerText(conn, b)
			mu.Unlock()
			if err != nil {
				conn.Close()
				return
			}
		}
	}
}

type lockedWriter struct {
	net.Conn
	mu *sync.Mutex
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Conn.Write(p)
}
