package pump

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/proxy/engine"
)

// Conn is one leg of a session.
type Conn interface {
	// Read and Write are those of net.Conn. One goroutine reads, one writes.
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	// CloseWrite ends our direction in order, behind what was written.
	CloseWrite() error
	// Abort closes the connection as it stands. It does not block, and a Read or Write
	// that waits returns.
	Abort() error
	SetReadDeadline(t time.Time) error
	// SetProgressTimeout bounds how long a Write may wait without a byte taken; 0 is for
	// ever.
	SetProgressTimeout(d time.Duration)
	// Delivery is what the system knows of the bytes that it was given.
	Delivery() engine.Delivery
}

// Stream is a TCP or Unix connection whose writes fail when they make no progress for
// a time, however long the whole of a write takes. It goes under a TLS connection, too.
type Stream struct {
	net.Conn
	timeout time.Duration
}

// NewStream wraps conn. Until [Stream.SetProgressTimeout] it behaves as conn does.
func NewStream(conn net.Conn) *Stream { return &Stream{Conn: conn} }

// SetProgressTimeout bounds how long a write may wait without a byte taken; 0 is for
// ever. It replaces any write deadline and must not be called during a Write.
func (s *Stream) SetProgressTimeout(d time.Duration) {
	s.timeout = d
	s.Conn.SetWriteDeadline(time.Time{})
}

// Write writes all of p. It fails with os.ErrDeadlineExceeded when no byte is taken for
// the progress timeout, neither by the socket nor by the peer's system.
func (s *Stream) Write(p []byte) (written int, err error) {
	if s.timeout == 0 {
		return s.Conn.Write(p)
	}
	looked, taken := false, uint64(0) // at half of the time
	for {
		s.Conn.SetWriteDeadline(time.Now().Add(s.timeout / 2))
		n, err := s.Conn.Write(p[written:])
		written += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		now := s.Delivery().Taken
		switch {
		case n > 0:
			looked = false
		case !looked:
			looked, taken = true, now
		case taken != now:
			looked = false // the socket has not told so yet
		default:
			return written, err
		}
	}
}

// CloseWrite sends FIN behind what was written.
func (s *Stream) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return s.Conn.Close()
}

// Abort closes the connection.
func (s *Stream) Abort() error { return s.Conn.Close() }

// Delivery asks the system about the connection. What is no socket has acknowledged nothing.
func (s *Stream) Delivery() (d engine.Delivery) {
	d = engine.ReadDelivery(-1)
	if c, ok := s.Conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { d = engine.ReadDelivery(int(fd)) })
		}
	}
	return d
}

// Secure is a TLS connection over a [Stream], such as a *tls.Conn of crypto/tls. Its
// CloseWrite sends close_notify (RFC 8446 §6.1).
type Secure interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	SetReadDeadline(t time.Time) error
	CloseWrite() error
}

// TLSStream is a TLS connection together with the stream that it was made over.
type TLSStream struct {
	Secure
	under *Stream
}

// NewTLSStream pairs a TLS connection whose handshake is complete with the stream that
// it was made over.
func NewTLSStream(conn Secure, under *Stream) *TLSStream {
	return &TLSStream{Secure: conn, under: under}
}

// SetProgressTimeout is that of the stream below.
func (t *TLSStream) SetProgressTimeout(d time.Duration) { t.under.SetProgressTimeout(d) }

// Delivery is that of the stream below.
func (t *TLSStream) Delivery() engine.Delivery { return t.under.Delivery() }

// CloseWrite sends close_notify and FIN.
func (t *TLSStream) CloseWrite() error {
	return errors.Join(t.Secure.CloseWrite(), t.under.CloseWrite())
}

// Abort closes the connection below, without close_notify: that could block.
func (t *TLSStream) Abort() error { return t.under.Abort() }
