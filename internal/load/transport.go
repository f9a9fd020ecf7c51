package load

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// established is a connection whose handshakes are done.
type established struct {
	// conn is the TCP connection or the *tls.Conn over it, tcp the transport below.
	conn net.Conn
	tcp  *transport
	// first is what the peer sent right behind the handshake.
	first []byte
}

// transport carries TLS, or plain bytes, over a TCP connection: during the handshakes
// it is that connection, and an engine that polls takes it over later with takeOver.
// From then on TLS reads what the engine puts into in and writes into out.
//
// A tls.Conn survives a Read that says "not yet" with a temporary net.Error; a Write
// must take everything, which this one does.
type transport struct {
	net.Conn
	polled bool
	in     []byte
	eof    bool
	out    []byte
}

// errNotYet is the answer of a polled transport that has nothing to read.
var errNotYet net.Error = notYet{}

type notYet struct{}

func (notYet) Error() string   { return "nothing to read yet" }
func (notYet) Timeout() bool   { return true }
func (notYet) Temporary() bool { return true }

func (t *transport) Read(p []byte) (int, error) {
	switch {
	case !t.polled:
		return t.Conn.Read(p)
	case len(t.in) > 0:
		n := copy(p, t.in)
		t.in = t.in[n:]
		return n, nil
	case t.eof:
		return 0, io.EOF
	}
	return 0, errNotYet
}

func (t *transport) Write(p []byte) (int, error) {
	if !t.polled {
		return t.Conn.Write(p)
	}
	t.out = append(t.out, p...)
	return len(p), nil
}

// Close leaves a socket that was taken over to its engine.
func (t *transport) Close() error {
	if t.polled {
		return nil
	}
	return t.Conn.Close()
}

func (t *transport) SetDeadline(at time.Time) error {
	if t.polled {
		return nil
	}
	return t.Conn.SetDeadline(at)
}

func (t *transport) SetReadDeadline(at time.Time) error {
	if t.polled {
		return nil
	}
	return t.Conn.SetReadDeadline(at)
}

func (t *transport) SetWriteDeadline(at time.Time) error {
	if t.polled {
		return nil
	}
	return t.Conn.SetWriteDeadline(at)
}

// tcpConn is the connection below, before it is taken over.
func (t *transport) tcpConn() (*net.TCPConn, error) {
	tcp, ok := t.Conn.(*net.TCPConn)
	if !ok {
		return nil, errors.New("not a TCP connection")
	}
	return tcp, nil
}

// withoutSurprises returns a copy of a TLS configuration, nil included, whose records
// are of full size from the start, so that a message costs the same early and late.
func withoutSurprises(c *tls.Config) *tls.Config {
	if c == nil {
		c = &tls.Config{}
	}
	c = c.Clone()
	c.DynamicRecordSizingDisabled = true
	return c
}
