package tls

import (
	cryptotls "crypto/tls"
	"errors"
	"io"
	"net"
	"reflect"
)

// Stdlib is crypto/tls as a [Codec]: a connection of it that finds the bytes it reads
// in memory and leaves there those that it writes. It serves whatever a [Layer] does
// not: TLS 1.2, FIPS mode, clients, and operators who want nothing else.
type Stdlib struct {
	conn    *cryptotls.Conn
	memory  *transport
	readErr error
}

// ConnectionState implements [Codec].
func (s *Stdlib) ConnectionState() cryptotls.ConnectionState { return s.conn.ConnectionState() }

// Forget implements [Codec]. What crypto/tls holds stays.
func (s *Stdlib) Forget() {}

// Open implements [Codec]. It takes all of in, parts of records too, unless it asks to
// be called again. While a record is incomplete crypto/tls holds a buffer for it.
func (s *Stdlib) Open(in, scratch, reply []byte) (plain []byte, used int, replyOut []byte, again bool, err error) {
	if s.readErr != nil {
		return nil, len(in), reply, false, s.readErr
	}
	s.memory.in, s.memory.out = in, reply
	n := 0
	for n < len(scratch) && s.readErr == nil {
		k, err := s.conn.Read(scratch[n:])
		n += k
		if err == errWouldBlock {
			used, replyOut = len(in)-len(s.memory.in), s.memory.out
			s.memory.in, s.memory.out = nil, nil
			return scratch[:n], used, replyOut, false, nil
		}
		if err != nil {
			s.readErr = s.explain(err)
		}
	}
	used, replyOut = len(in)-len(s.memory.in), s.memory.out
	s.memory.in, s.memory.out = nil, nil
	if s.readErr != nil {
		return scratch[:n], len(in), replyOut, false, s.readErr
	}
	return scratch[:n], used, replyOut, true, nil
}

// drain returns what crypto/tls has opened and nobody has read. Nothing is opened
// here, and so nothing has to be answered: transport gave it no whole record more.
func (s *Stdlib) drain() []byte {
	var all []byte
	scratch := make([]byte, 512)
	for {
		plain, _, _, again, _ := s.Open(nil, scratch, nil)
		all = append(all, plain...)
		if !again {
			return all
		}
	}
}

// explain turns an error of crypto/tls into one of those that Codec promises.
func (s *Stdlib) explain(err error) error {
	if err == io.EOF {
		return err
	}
	if alert, ok := alertOf(err, "remote error"); ok {
		return &PeerAlertError{alert}
	}
	alert, ok := alertOf(err, "local error")
	if !ok {
		// An error in words: the alert that went with it is what writing fails with.
		_, writeErr := s.conn.Write(nil)
		if alert, ok = alertOf(writeErr, "local error"); !ok {
			alert = alertInternalError
		}
	}
	return &RecordError{alert, err.Error()}
}

// alertOf returns the alert of an error of crypto/tls, which wraps a number that has a
// type but no name for others.
func alertOf(err error, op string) (Alert, bool) {
	opErr, ok := errors.AsType[*net.OpError](err)
	if !ok || opErr.Op != op {
		return 0, false
	}
	value := reflect.ValueOf(opErr.Err)
	if value.Kind() != reflect.Uint8 {
		return 0, false
	}
	return Alert(value.Uint()), true
}

// Seal implements [Codec].
func (s *Stdlib) Seal(dst []byte, segs [][]byte) ([]byte, error) {
	before := len(dst)
	s.memory.out = dst
	var err error
	withSealBuffer(func(buf []byte) []byte {
		for _, seg := range segs {
			// A record is one Write of crypto/tls: fill them.
			for len(seg) > 0 && err == nil {
				if len(buf) == 0 && len(seg) >= maxPlaintextBytes {
					_, err = s.conn.Write(seg[:maxPlaintextBytes])
					seg = seg[maxPlaintextBytes:]
					continue
				}
				n := min(len(seg), maxPlaintextBytes-len(buf))
				buf, seg = append(buf, seg[:n]...), seg[n:]
				if len(buf) == maxPlaintextBytes {
					_, err = s.conn.Write(buf)
					buf = buf[:0]
				}
			}
		}
		if len(buf) > 0 && err == nil {
			_, err = s.conn.Write(buf)
		}
		return buf
	})
	dst, s.memory.out = s.memory.out, nil
	if err != nil {
		return dst[:before], errors.Join(ErrWriteClosed, err)
	}
	return dst, nil
}

// CloseNotify implements [Codec].
func (s *Stdlib) CloseNotify(dst []byte) []byte {
	s.memory.out = dst
	s.conn.CloseWrite()
	dst, s.memory.out = s.memory.out, nil
	return dst
}
