package tls

import (
	"bytes"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
)

// twins makes one handshake and returns both of those that could go on as its server,
// and what can say anything as its client.
func twins(t testing.TB, store *Store) (client *Layer, ours *Layer, theirs *Stdlib) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	tr := &transport{conn: far, takeover: new(takeover)}
	std := cryptotls.Server(tr, store.accepting)
	failed := make(chan error, 1)
	go func() { failed <- std.Handshake() }()
	client, _ = clientLayer(t, near, withoutTickets(cryptotls.VersionTLS13))
	must(t, <-failed)
	state := std.ConnectionState()
	ours, err := tr.takeover.layer(&state)
	must(t, err)
	if left := tr.toMemory(); len(left) > 0 {
		t.Fatal("something was left")
	}
	return client, ours, &Stdlib{conn: std, memory: tr}
}

// clone returns the client as it is now, to read what either twin answers.
func (l *Layer) clone(t testing.TB) *Layer {
	t.Helper()
	c := *l
	must(t, c.read.setKeys(c.suite, c.read.secret[:c.suite.hashBytes]))
	must(t, c.write.setKeys(c.suite, c.write.secret[:c.suite.hashBytes]))
	c.read.seq, c.write.seq = l.read.seq, l.write.seq
	return &c
}

// script turns bytes into what a client might send: mostly well-formed records in
// all variations, at times something else. differs is set once something was sent that
// RFC 8446 refuses and crypto/tls takes in part, or answers with another alert.
type script struct {
	wire    []byte
	plain   []byte // what arrives, if nothing is refused
	differs string
}

func newScript(client *Layer, code []byte) (s script) {
	next := func() int {
		if len(code) == 0 {
			return 0
		}
		b := code[0]
		code = code[1:]
		return int(b)
	}
	put := func(innerType byte, content string, padding int) {
		s.wire = client.forge(s.wire, innerType, content, padding)
	}
	rekey := func() { client.write.update(client.suite) }
	for ops := 0; len(code) > 0 && ops < 60; ops++ {
		switch op := next(); op % 24 {
		default: // data
			data := bytes.Repeat([]byte{byte(op)}, next())
			put(typeApplicationData, string(data), 0)
			s.plain = append(s.plain, data...)
		case 4: // much data, with padding
			data := bytes.Repeat([]byte{byte(op)}, next()*66)
			put(typeApplicationData, string(data), next()%200)
			s.plain = append(s.plain, data...)
		case 5:
			put(typeApplicationData, "", next()*65)
		case 6:
			put(typeHandshake, updateQuietly, 0)
			rekey()
		case 7:
			put(typeHandshake, updateAsking, next()%100)
			rekey()
		case 8: // in pieces
			message := updateQuietly
			for n := 1 + next()%4; len(message) > n; message = message[n:] {
				put(typeHandshake, message[:n], 0)
			}
			put(typeHandshake, message, 0)
			rekey()
		case 9: // never completed, unless by something that was not meant to
			s.differs = first(s.differs, "junk")
			put(typeHandshake, updateAsking[:1+next()%4], 0)
		case 10:
			put(typeAlert, "\x01\x5a", 0) // user_canceled
		case 11:
			put(typeAlert, "\x01\x00", 0) // close_notify
		case 12:
			put(typeAlert, string([]byte{byte(next()), byte(next())}), 0)
		case 13:
			n := next() % 5
			put(typeAlert, string(code[:min(len(code), n)]), 0)
		case 14:
			innerType := byte(next())
			put(innerType, "x", 0)
			switch innerType {
			case typeApplicationData:
				s.plain = append(s.plain, 'x')
			case typeHandshake:
				s.differs = first(s.differs, "junk")
			case typeChangeCipherSpec: // unexpected_message by RFC 8446 §5
				s.differs = first(s.differs, "change_cipher_spec")
			}
		case 15: // not quite as long as announced, or longer than allowed
			put(typeApplicationData, string(make([]byte, 16200+next()*4)), 0)
			s.differs = first(s.differs, "large")
		case 16:
			if len(s.wire) > 0 { // a forged byte
				s.wire[next()*len(s.wire)/256] ^= byte(1 + next()%255)
				s.differs = first(s.differs, "forged")
			}
		case 17: // a replay
			s.wire = append(s.wire, s.wire[max(0, len(s.wire)-next()):]...)
			s.differs = first(s.differs, "forged")
		case 18:
			put(typeHandshake, "", next()%3)
		case 19: // two messages in one record
			put(typeHandshake, updateQuietly+updateAsking[:next()%6], 0)
			rekey()
		case 20:
			if next()%4 == 0 {
				// RFC 8446 §5 refuses it, crypto/tls ignores up to 16.
				s.wire = append(s.wire, 20, 3, 3, 0, 1, 1)
				s.differs = first(s.differs, "change_cipher_spec")
			}
		case 21:
			if next()%4 == 0 {
				// illegal_parameter by RFC 8446 §4.6.3, decode_error by crypto/tls.
				put(typeHandshake, "\x18\x00\x00\x01\x07", 0)
				s.differs = first(s.differs, "KeyUpdate")
			}
		case 22:
			if next()%4 == 0 {
				// Refused at once here, by crypto/tls when the message is complete.
				put(typeHandshake, string([]byte{byte(next()), 0, 0, byte(next())}), 0)
				s.differs = first(s.differs, "message")
			}
		case 23:
			if n := next(); n%4 == 0 { // raw bytes
				n = min(len(code), n)
				s.wire, code = append(s.wire, code[:n]...), code[n:]
				s.differs = first(s.differs, "forged")
			}
		}
	}
	return s
}

// first keeps the first difference; a large record is none, it only is not counted.
func first(a, b string) string {
	if a != "" && a != "large" {
		return a
	}
	return b
}

// outcome is the kind of an error of Open, with its alert.
func outcome(err error) string {
	if e, ok := errors.AsType[*RecordError](err); ok {
		return fmt.Sprintf("refused: %v", e.Alert)
	}
	if e, ok := errors.AsType[*PeerAlertError](err); ok {
		return fmt.Sprintf("told: %v", e.Alert)
	}
	return fmt.Sprint(err)
}

// What a Layer makes of anything that a client may send is what crypto/tls makes of it,
// save what RFC 8446 is stricter about.
func FuzzLayerAgainstCryptoTLS(f *testing.F) {
	store := oneCertificate(f, ServerSettings{})
	for op := range 24 {
		f.Add([]byte{0, 5, byte(op), 1, 2, 3, 4, 0, 7}, uint16(0))
		f.Add([]byte{0, 5, byte(op), 0, 0, 0, 4, 0, 7, byte(op), 9, 9, 9}, uint16(1))
		f.Add(bytes.Repeat([]byte{byte(op), 8}, 30), uint16(17))
	}
	f.Add(bytes.Repeat([]byte{7, 0, 1, 3, 6, 1, 9, 8, 2}, 6), uint16(300))
	f.Fuzz(func(t *testing.T, code []byte, piece uint16) {
		client, ours, theirs := twins(t, store)
		reader := client.clone(t)
		s := newScript(client, code)
		pieces := func() int { return int(piece) }
		if piece == 0 || int(piece) < len(s.wire)/300 {
			pieces = inOne
		}
		got, want := feed(t, ours, s.wire, pieces, 1), feed(t, theirs, s.wire, pieces, 700)
		compare(t, s, got, want)
		if got.err != nil && got.err != io.EOF {
			checkReply(t, reader.clone(t), ours, got)
			return
		}
		// Both go on, and the client understands what either sends now.
		for _, server := range []struct {
			Codec
			opened
		}{{ours, got}, {theirs, want}} {
			if server.err != nil && server.err != io.EOF {
				continue // only theirs, after something that differs
			}
			sealed, err := server.Seal(server.reply, [][]byte{[]byte("still "), []byte("here")})
			must(t, err)
			back := feed(t, reader.clone(t), server.CloseNotify(sealed), inOne, 1)
			if tooMany(back.err) {
				continue // answers of crypto/tls, one to each request
			}
			if string(back.plain) != "still here" || back.err != io.EOF {
				t.Fatalf("%T: the client reads %q, %v", server.Codec, back.plain, back.err)
			}
		}
	})
}

func tooMany(err error) bool {
	e, ok := errors.AsType[*RecordError](err)
	return ok && e.Reason == "too many records without data"
}

func compare(t *testing.T, s script, got, want opened) {
	t.Helper()
	same := bytes.Equal(got.plain, want.plain) && outcome(got.err) == outcome(want.err)
	switch s.differs {
	case "":
		if !same {
			t.Fatalf("ours: %d bytes, %v; crypto/tls: %d bytes, %v", len(got.plain), got.err, len(want.plain), want.err)
		}
		if got.err == nil && !bytes.Equal(got.plain, s.plain) {
			t.Fatalf("%d bytes were sent, %d arrived", len(s.plain), len(got.plain))
		}
	case "large":
		// Sizes around the limit: nobody counts here what arrives, but both agree.
		if !same {
			t.Fatalf("ours: %d bytes, %v; crypto/tls: %d bytes, %v", len(got.plain), got.err, len(want.plain), want.err)
		}
	default:
		// Ours may be earlier, and stricter: it has seen no more data, and what
		// crypto/tls refuses it refuses or still waits for.
		if !bytes.HasPrefix(want.plain, got.plain) {
			t.Fatalf("ours: %d bytes, crypto/tls: %d, and these are no beginning of those", len(got.plain), len(want.plain))
		}
		if want.err != nil && got.err == nil {
			t.Fatalf("ours goes on, crypto/tls: %v", want.err)
		}
		if got.err == nil && !bytes.Equal(got.plain, want.plain) {
			t.Fatalf("ours: %d bytes, crypto/tls: %d", len(got.plain), len(want.plain))
		}
		if s.differs != "forged" && s.differs != "junk" && got.err == nil && got.left == 0 {
			t.Fatalf("%s was accepted", s.differs)
		}
	}
}

// checkReply reads what a layer that has failed told the client: an alert, and
// nothing behind it.
func checkReply(t *testing.T, reader *Layer, server *Layer, got opened) {
	t.Helper()
	back := feed(t, reader, got.reply, inOne, 1)
	if tooMany(back.err) {
		return
	}
	if e, ok := errors.AsType[*RecordError](got.err); ok {
		if outcome(back.err) != fmt.Sprintf("told: %v", e.Alert) {
			t.Fatalf("the client was told %v, not %v", back.err, got.err)
		}
	} else if back.err != nil {
		t.Fatalf("after an alert the client reads %v", back.err)
	}
	if _, err := server.Seal(nil, [][]byte{[]byte("x")}); err == nil {
		t.Fatal("the connection goes on")
	}
}

// Whatever comes, in whatever pieces, leads to the same end.
func FuzzLayerSplits(f *testing.F) {
	for op := range 24 {
		f.Add([]byte{0, 5, byte(op), 1, 2, 3, 4, 0, 7}, uint16(1), byte(0))
		f.Add(bytes.Repeat([]byte{byte(op), 8}, 30), uint16(3), byte(1))
	}
	ids := []uint16{cryptotls.TLS_AES_128_GCM_SHA256, cryptotls.TLS_AES_256_GCM_SHA384, cryptotls.TLS_CHACHA20_POLY1305_SHA256}
	f.Fuzz(func(t *testing.T, code []byte, piece uint16, suite byte) {
		id := ids[int(suite)%len(ids)]
		var results []opened
		for _, pieces := range []func() int{inOne, of(max(1, int(piece)))} {
			client, server := layers(t, id)
			s := newScript(client, code)
			if len(s.wire) > 100*max(1, int(piece)) {
				pieces = of(len(s.wire)/100 + 1)
			}
			results = append(results, feed(t, server, s.wire, pieces, 1))
		}
		a, b := results[0], results[1]
		if !bytes.Equal(a.plain, b.plain) || outcome(a.err) != outcome(b.err) || a.err == nil && a.left != b.left {
			t.Fatalf("at once: %d bytes, %v, %d left; in pieces: %d bytes, %v, %d left", len(a.plain), a.err, a.left, len(b.plain), b.err, b.left)
		}
	})
}

// Arbitrary bytes: nobody without the keys gets anything through.
func FuzzLayerOpen(f *testing.F) {
	client, _ := layers(f, cryptotls.TLS_AES_128_GCM_SHA256)
	f.Add(client.data(f, "hello"))
	f.Add(client.KeyUpdate(nil, true))
	f.Add([]byte{23, 3, 3, 0, 17, 1, 2, 3})
	f.Add([]byte{20, 3, 3, 0, 1, 1})
	f.Add([]byte{23, 3, 3, 0x41, 0})
	f.Add([]byte{23, 3, 3, 0x41, 1})
	f.Fuzz(func(t *testing.T, wire []byte) {
		_, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
		server.read.secret[0] ^= 1 // not those of the seeds
		must(t, server.read.setKeys(server.suite, server.read.secret[:32]))
		got := feed(t, server, wire, inOne, 1)
		if len(got.plain) > 0 {
			t.Fatalf("%x came through", got.plain)
		}
		if got.err == nil && len(wire) >= recordHeaderBytes && len(wire) >= recordHeaderBytes+bodyBytes(wire) {
			t.Fatal("a record was taken")
		}
		if _, ok := errors.AsType[*RecordError](got.err); !ok && got.err != nil {
			t.Fatal(got.err)
		}
	})
}

// What a Layer seals, crypto/tls opens.
func FuzzSealAgainstCryptoTLS(f *testing.F) {
	f.Add([]byte("hello"), uint32(3), uint16(1))
	f.Add([]byte("x"), uint32(16384), uint16(2))
	f.Add([]byte("xy"), uint32(50_000), uint16(7))
	f.Add([]byte{}, uint32(0), uint16(0))
	store := oneCertificate(f, ServerSettings{})
	client, server := inMemory(f, store, EngineAuto, withoutTickets(cryptotls.VersionTLS13))
	layer := server.(*Layer)
	f.Fuzz(func(t *testing.T, pattern []byte, total uint32, segments uint16) {
		total %= 100_000
		data := make([]byte, total)
		for n := 0; n < len(data) && len(pattern) > 0; {
			n += copy(data[n:], pattern)
		}
		var segs [][]byte
		rest := data
		for range segments % 50 {
			n := len(rest) / 3
			segs, rest = append(segs, rest[:n]), rest[n:]
		}
		segs = append(segs, rest)
		wire, err := layer.Seal(nil, segs)
		must(t, err)
		if records(t, wire) != (len(data)+maxPlaintextBytes-1)/maxPlaintextBytes {
			t.Fatalf("%d records for %d bytes", records(t, wire), len(data))
		}
		if total%5 == 0 {
			wire = layer.KeyUpdate(wire, false)
			more, err := layer.Seal(nil, [][]byte{[]byte("+")}) // also so that updates do not follow one another
			must(t, err)
			wire, data = append(wire, more...), append(slices.Clone(data), '+')
		}
		if got := feed(t, client, wire, inOne, 9000); got.err != nil || !bytes.Equal(got.plain, data) {
			t.Fatalf("crypto/tls reads %d bytes of %d, %v", len(got.plain), len(data), got.err)
		}
	})
}
