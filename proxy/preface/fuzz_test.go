package preface

import (
	"bufio"
	"errors"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// FuzzReceive holds what is read, and how much is taken for it, against the library reading
// the stream by itself, and against the same bytes in other pieces.
func FuzzReceive(f *testing.F) {
	for _, tt := range headers {
		f.Add(tt.header+behind, uint8(len(tt.header)/2), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream string, here, steps uint8) {
		if len(stream) > 1<<13 {
			return
		}
		w := &slowWire{left: stream, here: len(stream), steps: 1}
		got, err := receive(w)
		slow := &slowWire{left: stream, here: min(int(here), len(stream)), steps: 1 + int(steps)}
		again, slowErr := receive(slow)
		if (err != nil) != (slowErr != nil) || got.String() != again.String() || err == nil && slow.left != w.left {
			t.Fatalf("in pieces: %q, %v and %q left; whole: %q, %v and %q left", again, slowErr, slow.left, got, err, w.left)
		}
		if err != nil && got != nil || !strings.HasSuffix(stream, w.left) {
			t.Fatalf("got %q, %v, left %q", got, err, w.left)
		}
		in := bufio.NewReaderSize(strings.NewReader(stream), 1<<14)
		want, wantErr := proxyproto.Read(in)
		switch {
		case strings.HasPrefix(stream, string(proxyUnspecified)): // the library refuses it
		case errors.Is(wantErr, proxyproto.ErrNoProxyProtocol):
			if got != nil || w.taken != 0 {
				t.Fatalf("got %q, %v of %q, and took %d", got, err, stream, w.taken)
			}
		case (err != nil) != (wantErr != nil):
			t.Fatalf("got %v, the library %v", err, wantErr)
		case err == nil:
			left, _ := in.Peek(len(w.left) + 1)
			if string(left) != w.left {
				t.Fatalf("%q is left, by the library %q", w.left, left)
			}
			source, destination, ok := want.TCPAddrs()
			if known := ok && want.Command == proxyproto.PROXY; known != (got != nil && *got != (Ends{})) {
				t.Fatalf("got %q, the library %v", got, want)
			}
			if got != nil && *got != (Ends{}) && (got.Source != plain(source) || got.Destination != plain(destination)) {
				t.Fatalf("got %q, the library %v and %v", got, source, destination)
			}
		}
	})
}
