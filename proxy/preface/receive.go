package preface

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Sizes in bytes. The signature and the longest line of version 1, with its line end, are of
// §2.1, the fixed part of version 2 is of §2.2; how much of addresses and TLVs may follow it
// is ours, as the library has it.
const (
	signatureBytes = 12
	maxLineBytes   = 107
	fixedBytes     = 16
	maxBodyBytes   = 4096
)

// Ends are the two ends of a connection as a header names them. IPv4 addresses are plain
// ones, never mapped into IPv6. The zero value is somebody of whom the sender knows no address.
type Ends struct{ Source, Destination netip.AddrPort }

// What is wrong with a header, beside what the library finds.
var (
	errTooLong    = errors.New("it is too long")
	errIncomplete = errors.New("it is not complete")
)

// wire is a connection whose next bytes can be looked at.
type wire interface {
	io.Reader
	// peek waits for at least so many bytes and fills p with what comes next, as far as it
	// has come, without taking it. With an error n says how much there was before.
	peek(p []byte, atLeast int) (n int, err error)
}

// Receive reads the header that may stand at the beginning of a connection, until the read
// deadline of c. It returns nil without an error if the connection begins with something
// else, which is left where it is, or with nothing until the deadline, or if the sender speaks
// for itself (LOCAL). It returns the zero Ends for somebody who has no TCP address, or of whom
// the sender knows none (UNKNOWN). With an error a header was begun and c is of no use any more.
func Receive(c *net.TCPConn) (*Ends, error) { return receive(socket{c}) }

func receive(w wire) (*Ends, error) {
	header, err := take(w)
	if err != nil || header == nil {
		return nil, err
	}
	return parse(header)
}

// take takes the header off the wire, nil if there is none.
func take(w wire) ([]byte, error) {
	var next [signatureBytes]byte
	for n := 0; ; {
		more, err := w.peek(next[:], n+1)
		n = max(n, more) // what was there before the error
		switch seen := next[:n]; {
		case bytes.HasPrefix(seen, proxyproto.SIGV1):
			return takeLine(w)
		case bytes.Equal(seen, proxyproto.SIGV2):
			return takeBinary(w)
		case n == 0 && errors.Is(err, errors.ErrUnsupported):
			return nil, err
		case n == 0 || !bytes.HasPrefix(proxyproto.SIGV1, seen) && !bytes.HasPrefix(proxyproto.SIGV2, seen):
			return nil, nil
		case err != nil:
			return nil, broken(err)
		}
	}
}

// takeLine takes a header of version 1: all up to the line feed.
func takeLine(w wire) ([]byte, error) {
	line := make([]byte, 0, maxLineBytes)
	for len(line) < maxLineBytes {
		room := line[len(line):maxLineBytes]
		n, err := w.peek(room, 1)
		if err != nil {
			return nil, broken(err)
		}
		end := bytes.IndexByte(room[:n], '\n')
		if end >= 0 {
			n = end + 1
		}
		if _, err := io.ReadFull(w, room[:n]); err != nil {
			return nil, broken(err)
		}
		line = line[:len(line)+n]
		if end >= 0 {
			return line, nil
		}
	}
	return nil, errTooLong
}

// takeBinary takes a header of version 2: as much as its length says.
func takeBinary(w wire) ([]byte, error) {
	var fixed [fixedBytes]byte
	if _, err := io.ReadFull(w, fixed[:]); err != nil {
		return nil, broken(err)
	}
	body := int(binary.BigEndian.Uint16(fixed[fixedBytes-2:]))
	if body > maxBodyBytes {
		return nil, errTooLong
	}
	header := append(make([]byte, 0, fixedBytes+body), fixed[:]...)[:fixedBytes+body]
	if _, err := io.ReadFull(w, header[fixedBytes:]); err != nil {
		return nil, broken(err)
	}
	return header, nil
}

func broken(err error) error { return fmt.Errorf("%w: %w", errIncomplete, err) }

// proxyUnspecified are command and family of a header of version 2 that speaks for somebody
// without a known address. The library refuses it, and §2.2 leaves the choice.
var proxyUnspecified = append(bytes.Clone(proxyproto.SIGV2), 0x21, 0x00)

// lineUnknown begins a header of version 1 that does so (§2.1).
var lineUnknown = []byte("PROXY UNKNOWN")

// parse reads a whole header.
func parse(header []byte) (*Ends, error) {
	if bytes.HasPrefix(header, proxyUnspecified) || bytes.HasPrefix(header, lineUnknown) {
		return &Ends{}, nil
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
	if err != nil {
		return nil, err
	}
	source, destination, ok := h.TCPAddrs()
	switch {
	case h.Command != proxyproto.PROXY:
		return nil, nil
	case !ok: // no TCP
		return &Ends{}, nil
	}
	return &Ends{plain(source), plain(destination)}, nil
}

func plain(a *net.TCPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
