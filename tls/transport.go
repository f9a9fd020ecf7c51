package tls

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

// transport is the net.Conn under a crypto/tls connection. At first it reads and
// writes the connection that it was made for. In memory mode (toMemory) it does no
// I/O any more: it hands out the bytes of in and collects what is written in out.
type transport struct {
	conn net.Conn // nil in memory mode

	// No Read from conn hands out bytes of two records, so that crypto/tls, which
	// takes all that it is given, never holds a record that it has not opened. What
	// comes with it stays in wire.
	wire   recordBuffer
	record int // bytes of the current record that are still to be handed out

	// takeover is where a handshake leaves what the record layer needs to go on
	// after it, or nil.
	takeover *takeover

	in, out []byte
}

// takeover gathers what a handshake has to leave behind for a Layer.
type takeover struct {
	secrets secrets
	sent    []byte // all that was written
}

// Read implements net.Conn.
func (t *transport) Read(p []byte) (int, error) {
	if t.conn == nil {
		if len(t.in) == 0 {
			return 0, errWouldBlock
		}
		n := copy(p, t.in)
		t.in = t.in[n:]
		return n, nil
	}
	for t.record == 0 {
		if unread := t.wire.unread(); len(unread) >= recordHeaderBytes {
			t.record = recordHeaderBytes + bodyBytes(unread)
			break
		}
		if err := t.wire.fill(t.conn, recordHeaderBytes); err != nil {
			if err == io.EOF { // let crypto/tls see that something was cut off
				return t.wire.read(p), err
			}
			return 0, err
		}
	}
	p = p[:min(len(p), t.record)]
	var n int
	var err error
	if t.wire.len() > 0 {
		n = t.wire.read(p)
	} else { // the rest of a large record
		n, err = t.conn.Read(p)
	}
	t.record -= n
	return n, err
}

// Write implements net.Conn.
func (t *transport) Write(p []byte) (int, error) {
	if t.conn == nil {
		t.out = append(t.out, p...)
		return len(p), nil
	}
	n, err := t.conn.Write(p)
	if t.takeover != nil {
		t.takeover.sent = append(t.takeover.sent, p[:n]...)
	}
	return n, err
}

// toMemory ends the use of the connection and returns what was read from it and not
// handed out.
func (t *transport) toMemory() (wire []byte) {
	wire = bytes.Clone(t.wire.unread())
	t.wire.release()
	t.conn, t.takeover = nil, nil
	return wire
}

// Close implements net.Conn.
func (t *transport) Close() error {
	if t.conn == nil {
		return nil
	}
	return t.conn.Close()
}

// LocalAddr implements net.Conn.
func (t *transport) LocalAddr() net.Addr {
	if t.conn == nil {
		return nil
	}
	return t.conn.LocalAddr()
}

// RemoteAddr implements net.Conn.
func (t *transport) RemoteAddr() net.Addr {
	if t.conn == nil {
		return nil
	}
	return t.conn.RemoteAddr()
}

// SetDeadline implements net.Conn. Memory knows no time.
func (t *transport) SetDeadline(at time.Time) error {
	if t.conn == nil {
		return nil
	}
	return t.conn.SetDeadline(at)
}

// SetReadDeadline implements net.Conn.
func (t *transport) SetReadDeadline(at time.Time) error {
	if t.conn == nil {
		return nil
	}
	return t.conn.SetReadDeadline(at)
}

// SetWriteDeadline implements net.Conn. crypto/tls sets one for its close_notify.
func (t *transport) SetWriteDeadline(at time.Time) error {
	if t.conn == nil {
		return nil
	}
	return t.conn.SetWriteDeadline(at)
}

// wouldBlock is what crypto/tls gets instead of bytes that have not come yet. Being
// temporary, it does not end the connection.
type wouldBlock struct{}

var errWouldBlock net.Error = wouldBlock{}

func (wouldBlock) Error() string   { return "no bytes yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// recordBuffer holds bytes that were read ahead.
type recordBuffer struct {
	buf        []byte
	start, end int
}

// readAheadBytes holds the flight of a client, or the head of a request. A larger
// record gets a larger buffer.
const readAheadBytes = 4 << 10

var readAhead = sync.Pool{New: func() any { return new([readAheadBytes]byte) }}

func (b *recordBuffer) len() int       { return b.end - b.start }
func (b *recordBuffer) unread() []byte { return b.buf[b.start:b.end] }

func (b *recordBuffer) take(n int) { b.start += n }

func (b *recordBuffer) read(p []byte) int {
	n := copy(p, b.unread())
	b.take(n)
	return n
}

// fill reads once, after it has made room for want unread bytes in all, which are
// MaxRecordBytes at most.
func (b *recordBuffer) fill(conn net.Conn, want int) error {
	if b.buf == nil {
		b.buf = readAhead.Get().(*[readAheadBytes]byte)[:]
	}
	if b.len() == 0 {
		b.start, b.end = 0, 0
	}
	if b.start+want > len(b.buf) || b.end == len(b.buf) {
		rest := b.unread()
		if want > len(b.buf) {
			old := b.buf
			b.buf = make([]byte, MaxRecordBytes)
			defer recycle(old)
		}
		b.start, b.end = 0, copy(b.buf, rest)
	}
	n, err := conn.Read(b.buf[b.end:])
	b.end += n
	if n > 0 {
		return nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// release gives the buffer back. What it holds is lost.
func (b *recordBuffer) release() {
	recycle(b.buf)
	*b = recordBuffer{}
}

func recycle(buf []byte) {
	if len(buf) == readAheadBytes {
		readAhead.Put((*[readAheadBytes]byte)(buf))
	}
}

// seals pools what sealed records are put in before they are written.
var seals = sync.Pool{New: func() any { return new([]byte) }}

// withSealBuffer calls use with an empty buffer, which use may return larger.
func withSealBuffer(use func(buf []byte) []byte) {
	buf := seals.Get().(*[]byte)
	*buf = use((*buf)[:0])
	seals.Put(buf)
}
