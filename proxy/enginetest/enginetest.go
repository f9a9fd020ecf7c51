// Package enginetest holds every session engine to the same behaviour: [Run] moves real
// frames over real sockets through an engine, plain and with TLS. It is for tests only.
package enginetest

import (
	cryptotls "crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

// Leg is one connection that an engine is given.
type Leg struct {
	// Conn is the near end.
	Conn *net.TCPConn
	// Store, if not nil, has the certificate for a TLS server handshake on Conn, which the
	// far end waits for.
	Store *tls.Store
	// Head are bytes that count as read already.
	Head []byte
}

// Start begins a session on the engine under test. The backend's leg is always plain.
type Start func(t *testing.T, opt *engine.Options, obs engine.Observer, client, backend Leg) engine.Session

// Move gives a session a connection to another backend.
type Move func(t *testing.T, s engine.Session, backend Leg)

// Sum returns what the engine's sessions have counted in a tally.
type Sum func(*engine.Tally) relay.Traffic

// Run runs all tests on an engine.
func Run(t *testing.T, start Start, move Move, sum Sum) {
	for _, secure := range []bool{false, true} {
		s := suite{start: start, move: move, sum: sum, secure: secure}
		if secure {
			s.store = newStore(t)
		}
		t.Run(map[bool]string{false: "ws", true: "wss"}[secure], s.run)
	}
}

// suite is the tests of one engine with plain or with TLS clients.
type suite struct {
	start  Start
	move   Move
	sum    Sum
	secure bool
	store  *tls.Store
}

func (s suite) run(t *testing.T) {
	t.Run("frame sizes", s.frameSizes)
	t.Run("large messages at odd splits", s.largeMessages)
	t.Run("heads are not lost", s.heads)
	t.Run("endings", s.endings)
	t.Run("close timeout", s.closeTimeout)
	t.Run("backpressure", s.backpressure)
	t.Run("close timeout within a message", s.endlessMessage)
	t.Run("write timeout", s.writeTimeout)
	if !s.secure { // it is the socket's doing
		t.Run("slow but alive", s.slowButAlive)
	}
	t.Run("reset behind both ends", s.resetBehindEnds)
	t.Run("kill while stuck", s.killWhileStuck)
	t.Run("concurrent closes", s.concurrentCloses)
	t.Run("counts", s.counts)
	t.Run("small buffers", s.smallBuffers)
	t.Run("drop oldest", s.dropOldest)
	t.Run("close slow", s.closeSlow)
	t.Run("keeps up", s.keepsUp)
	t.Run("shed", s.shed)
	t.Run("delay", s.delay)
	t.Run("held then end", s.heldThenEnd)
	t.Run("inflating then end", s.inflatingThenEnd)
	t.Run("slow after a close", s.slowAfterClose)
	t.Run("slow in a frame", s.slowInAFrame)
	t.Run("idle while held", s.idleWhileHeld)
	t.Run("heartbeat", s.heartbeat)
	t.Run("move", s.moves)
}

func newStore(t *testing.T) *tls.Store {
	t.Helper()
	certPEM, keyPEM, err := tls.NewDevelopmentCertificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pair := tls.KeyPairFiles{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem")}
	if err := errors.Join(os.WriteFile(pair.CertFile, certPEM, 0o600), os.WriteFile(pair.KeyFile, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	store, err := tls.NewStore(tls.ServerSettings{Certificates: []tls.KeyPairFiles{pair}})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// patience bounds every wait.
const patience = 20 * time.Second

// Pipe returns both ends of a TCP connection over loopback, which the test's end closes.
func Pipe(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close(); a.Close() })
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

// session is a session under test with its far ends. It is its own observer.
type session struct {
	engine.Session
	client, backend *peer
	done            chan engine.Result
	closing         chan struct{}
	lost            chan engine.Loss
	moved           chan engine.Moved
	pongs           chan time.Duration // of the backend; what nobody takes is dropped
}

func (s *session) Closing() { close(s.closing) }
func (s *session) Ponged(d time.Duration) {
	select {
	case s.pongs <- d:
	default:
	}
}
func (s *session) Done(r engine.Result) { s.done <- r }
func (s *session) Lost(l engine.Loss)   { s.lost <- l }
func (s *session) Moved(m engine.Moved) { s.moved <- m }

type setup struct {
	opt         engine.Options
	clientHead  []byte
	backendHead []byte
}

func (su suite) open(t *testing.T, st setup) *session {
	t.Helper()
	opt := st.opt
	if opt.Tally == nil {
		opt.Tally = new(engine.Tally)
	}
	if opt.Relay.CloseTimeout == 0 {
		opt.Relay.CloseTimeout = 10 * time.Second
	}
	if opt.WriteTimeout == 0 {
		opt.WriteTimeout = 10 * time.Second
	}
	s := &session{done: make(chan engine.Result, 1), closing: make(chan struct{}),
		lost: make(chan engine.Loss, 10), moved: make(chan engine.Moved, 10), pongs: make(chan time.Duration, 100)}
	near, far := Pipe(t)
	s.client = &peer{far, t, relay.Client}
	client := Leg{Conn: near, Store: su.store, Head: st.clientHead}
	handshake := make(chan error, 1)
	if su.secure {
		conn := cryptotls.Client(far, &cryptotls.Config{InsecureSkipVerify: true})
		s.client.Conn = conn
		go func() { handshake <- conn.Handshake() }()
	} else {
		handshake <- nil
	}
	near, far = Pipe(t)
	s.backend = &peer{far, t, relay.Backend}
	s.Session = su.start(t, &opt, s, client, Leg{Conn: near, Head: st.backendHead})
	if err := <-handshake; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		s.client.Close()
		s.backend.Close()
		// The session has ended before the test has: nothing of it is left running.
		select {
		case r := <-s.done:
			s.done <- r
		case <-time.After(patience):
			t.Error("the session does not end")
		}
	})
	return s
}

// result waits for the end of the session.
func (s *session) result(t *testing.T) engine.Result {
	t.Helper()
	select {
	case r := <-s.done:
		s.done <- r
		return r
	case <-time.After(patience):
		t.Fatal("the session does not end")
		panic("unreachable")
	}
}
