package tls

import (
	"bytes"
	cryptotls "crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// A Connection is a TLS connection after its handshake, as a net.Conn, until it is handed
// to an event loop with [Connection.Detach]: net/http reads the request from it. Reads,
// writes, deadlines and Close may be used at the same time, as with any net.Conn.
type Connection struct {
	conn     net.Conn // what the handshake was made over
	detached bool

	// Records are crypto/tls's (std over transport), or else layer's.
	std       *cryptotls.Conn
	transport *transport
	layer     *Layer

	// Of layer: its reading half, what was read, and what it made of that.
	reading sync.Mutex
	wire    recordBuffer
	plain   []byte // aliases wire
	readErr error

	// Of layer: its writing half. The mutex is held while a record is written: that is
	// what keeps records in the order in which they were sealed.
	writing  sync.Mutex
	writeErr error
}

// NetConn returns the connection below, which the handshake was made over.
func (c *Connection) NetConn() net.Conn { return c.conn }

// CryptoTLS returns the connection of crypto/tls, or nil where a [Layer] took over.
// Something that insists on a *tls.Conn (the HTTP/2 server of net/http does) can use
// it instead of c, which must then be left alone.
func (c *Connection) CryptoTLS() *cryptotls.Conn { return c.std }

// ConnectionState says what the handshake agreed on.
func (c *Connection) ConnectionState() cryptotls.ConnectionState {
	if c.layer == nil {
		return c.std.ConnectionState()
	}
	return c.layer.ConnectionState()
}

// Read implements net.Conn. It returns io.EOF after a close_notify, and, as crypto/tls
// does, when the connection below ends between two records without one.
func (c *Connection) Read(p []byte) (int, error) {
	if c.detached {
		return 0, net.ErrClosed
	}
	if c.layer == nil {
		return c.std.Read(p)
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.plain) == 0 {
		if c.readErr != nil {
			return 0, c.readErr
		}
		c.open()
		if len(c.plain) > 0 || c.readErr != nil {
			continue
		}
		want := recordHeaderBytes
		if unread := c.wire.unread(); len(unread) >= recordHeaderBytes {
			want += bodyBytes(unread)
		}
		if err := c.wire.fill(c.conn, want); err != nil {
			if err == io.EOF && c.wire.len() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	n := copy(p, c.plain)
	c.plain = c.plain[n:]
	return n, nil
}

// open takes what was read to the layer, and writes what that has to answer. That
// the answer could not be written shows with the next Write, as in crypto/tls.
func (c *Connection) open() {
	var used int
	c.plain, used, c.readErr = c.layer.open(c.wire.unread())
	c.wire.take(used)
	if c.readErr == nil && !c.layer.owesReply {
		return
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	withSealBuffer(func(buf []byte) []byte {
		buf = c.layer.reply(buf, c.readErr)
		c.write(buf)
		return buf
	})
}

// maxSealBytes is what is sealed at a time, so that the pooled buffers stay small.
const maxSealBytes = 2 * maxPlaintextBytes

// Write implements net.Conn. After an error, and be it a deadline, part of a record
// may have been written, so that every later one fails alike.
func (c *Connection) Write(p []byte) (n int, err error) {
	if c.detached {
		return 0, net.ErrClosed
	}
	if c.layer == nil {
		return c.std.Write(p)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	withSealBuffer(func(buf []byte) []byte {
		for len(p) > 0 && err == nil {
			some := p[:min(len(p), maxSealBytes)]
			if buf, err = c.layer.Seal(buf[:0], [][]byte{some}); err != nil {
				break
			}
			if err = c.write(buf); err == nil {
				n, p = n+len(some), p[len(some):]
			}
		}
		return buf
	})
	return n, err
}

// write writes sealed records; writing is held.
func (c *Connection) write(records []byte) error {
	if c.writeErr == nil && len(records) > 0 {
		_, c.writeErr = c.conn.Write(records)
	}
	return c.writeErr
}

// closeTimeout is how long a close_notify may take.
const closeTimeout = 5 * time.Second

// CloseWrite sends a close_notify, and then the end of the stream if the connection
// below has a CloseWrite of its own.
func (c *Connection) CloseWrite() error {
	if c.detached {
		return net.ErrClosed
	}
	if c.layer == nil {
		if err := c.std.CloseWrite(); err != nil {
			return err
		}
	} else {
		c.writing.Lock()
		err := c.closeNotify()
		c.writing.Unlock()
		if err != nil {
			return err
		}
	}
	if below, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return below.CloseWrite()
	}
	return nil
}

// closeNotify writes a close_notify; writing is held.
func (c *Connection) closeNotify() (err error) {
	withSealBuffer(func(buf []byte) []byte {
		if buf = c.layer.CloseNotify(buf); len(buf) > 0 {
			c.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
			err = c.write(buf)
		}
		return buf
	})
	return err
}

// Close implements net.Conn. It sends a close_notify, unless a Write is going on: then
// Close is there to break it off. After Detach it only closes the connection below.
func (c *Connection) Close() error {
	if c.detached {
		return c.conn.Close()
	}
	if c.layer == nil {
		return c.std.Close()
	}
	var notifyErr error
	if c.writing.TryLock() {
		notifyErr = c.closeNotify()
		c.writing.Unlock()
	}
	if err := c.conn.Close(); err != nil {
		return err
	}
	return notifyErr
}

// LocalAddr implements net.Conn.
func (c *Connection) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Connection) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Connection) SetDeadline(at time.Time) error { return c.conn.SetDeadline(at) }

// SetReadDeadline implements net.Conn.
func (c *Connection) SetReadDeadline(at time.Time) error { return c.conn.SetReadDeadline(at) }

// SetWriteDeadline implements net.Conn.
func (c *Connection) SetWriteDeadline(at time.Time) error { return c.conn.SetWriteDeadline(at) }

// Detach ends the use of c as a net.Conn, of which no call may be going on, and
// returns what is needed to go on without it: the codec, wire bytes that were read
// from the connection and not opened, and plaintext that was opened and not read. All
// three are the caller's. The connection below is left open. It may be called once.
//
// plain comes before what the codec makes of wire. The caller presents wire to
// [Codec.Open] even if it is empty: the peer may have closed already.
func (c *Connection) Detach() (codec Codec, wire, plain []byte) {
	c.detached = true
	if c.layer == nil {
		wire = c.transport.toMemory()
		std := &Stdlib{conn: c.std, memory: c.transport}
		return std, wire, std.drain()
	}
	wire, plain = bytes.Clone(c.wire.unread()), bytes.Clone(c.plain)
	c.wire.release()
	c.plain = nil
	return c.layer, wire, plain
}
