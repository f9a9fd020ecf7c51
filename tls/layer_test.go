package tls

import (
	"bytes"
	"crypto/cipher"
	cryptotls "crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// suitesByName are those that every test of records runs with.
var suitesByName = map[string]uint16{
	"AES-128-GCM":       cryptotls.TLS_AES_128_GCM_SHA256,
	"AES-256-GCM":       cryptotls.TLS_AES_256_GCM_SHA384,
	"ChaCha20-Poly1305": cryptotls.TLS_CHACHA20_POLY1305_SHA256,
}

// layers returns the two ends of a connection.
func layers(t testing.TB, id uint16) (client, server *Layer) {
	t.Helper()
	n := suiteOf(id).hashBytes
	up, down := bytes.Repeat([]byte("u"), n), bytes.Repeat([]byte("d"), n)
	state := &cryptotls.ConnectionState{Version: cryptotls.VersionTLS13, CipherSuite: id, ServerName: "a.test"}
	client, err := newLayer(state, true, down, up, 0)
	must(t, err)
	server, err = newLayer(state, false, up, down, 0)
	must(t, err)
	return client, server
}

// forge seals a record of any inner type, with padding, as the writer would.
func (l *Layer) forge(dst []byte, innerType byte, content string, padding int) []byte {
	head := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0)
	dst = append(dst, content...)
	if padding == 0 {
		return l.write.seal(dst, head, innerType)
	}
	dst = append(dst, innerType)
	dst = append(dst, make([]byte, padding-1)...)
	return l.write.seal(dst, head, 0)
}

func (l *Layer) data(t testing.TB, content string) []byte {
	t.Helper()
	sealed, err := l.Seal(nil, [][]byte{[]byte(content)})
	must(t, err)
	return sealed
}

// opened is all that came of feeding a codec.
type opened struct {
	plain, reply []byte
	err          error
	left         int
}

// feed presents wire in pieces, and what an Open leaves again in front of the next.
// Each call gets a buffer of its own, poisoned afterwards, as a loop's scratch is.
func feed(t testing.TB, c Codec, wire []byte, pieces func() int, scratchBytes int) (o opened) {
	t.Helper()
	var rest []byte
	scratch := make([]byte, scratchBytes)
	for first := true; first || len(wire) > 0; first = false {
		n := min(pieces(), len(wire))
		in := slices.Concat(rest, wire[:n])
		wire = wire[n:]
		for again := true; again; {
			buf := bytes.Clone(in)
			var plain []byte
			var used int
			var err error
			before := len(o.reply)
			plain, used, o.reply, again, err = c.Open(buf, scratch, o.reply)
			o.plain = append(o.plain, plain...)
			if used < 0 || used > len(in) || len(o.reply) < before {
				t.Fatalf("used %d of %d, the reply went from %d to %d bytes", used, len(in), before, len(o.reply))
			}
			if o.err != nil && (err == nil || err.Error() != o.err.Error()) {
				t.Fatalf("after %v came %v", o.err, err)
			}
			if err != nil {
				if used != len(in) || again {
					t.Fatalf("used %d of %d, again %v, with %v", used, len(in), again, err)
				}
				o.err = err
			}
			if in = in[used:]; !bytes.Equal(in, buf[used:]) {
				t.Fatal("what is left was changed")
			}
			clear(buf)
			clear(scratch)
		}
		if len(in) >= MaxRecordBytes {
			t.Fatalf("%d bytes were left", len(in))
		}
		rest = in
	}
	o.left = len(rest)
	return o
}

func inOne() int          { return 1 << 30 }
func byteByByte() int     { return 1 }
func of(n int) func() int { return func() int { return n } }

// splitAt gives all up to n, then the rest.
func splitAt(n int) func() int {
	return func() int { defer func() { n = 1 << 30 }(); return n }
}

// alertIn decrypts what a layer answered and returns the alert that it ends with.
func (l *Layer) alertIn(t testing.TB, reply []byte) (Alert, bool) {
	t.Helper()
	_, _, _, _, err := l.Open(bytes.Clone(reply), nil, nil)
	if e, ok := errors.AsType[*PeerAlertError](err); ok {
		return e.Alert, true
	}
	if err != nil && err != io.EOF {
		t.Fatalf("the reply cannot be read: %v", err)
	}
	return 0, false
}

// The records of a server and a client, with the keys that they belong to, from a
// handshake that others have made.
func TestRFC8448(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		must(t, err)
		return b
	}
	// RFC 8448 §3.
	client := unhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
	server := unhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
	state := &cryptotls.ConnectionState{CipherSuite: cryptotls.TLS_AES_128_GCM_SHA256}
	l, err := newLayer(state, false, client, server, 1) // one ticket was sent
	must(t, err)
	payload := make([]byte, 50)
	for i := range payload {
		payload[i] = byte(i)
	}
	fromClient := unhex("17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4")
	fromServer := unhex("17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 aa 1b 36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 c2 95 5d")
	plain, used, _, _, err := l.Open(bytes.Clone(fromClient), nil, nil)
	if err != nil || used != len(fromClient) || !bytes.Equal(plain, payload) {
		t.Errorf("opened %x, %v", plain, err)
	}
	sealed, err := l.Seal(nil, [][]byte{payload})
	if err != nil || !bytes.Equal(sealed, fromServer) {
		t.Errorf("sealed\n%x, want\n%x (%v)", sealed, fromServer, err)
	}
	// Theirs end with a close_notify each.
	closing := unhex("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3")
	if _, _, _, _, err = l.Open(closing, nil, nil); err != io.EOF {
		t.Errorf("close_notify: %v", err)
	}
	if got, want := l.CloseNotify(nil), unhex("17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64 a9"); !bytes.Equal(got, want) {
		t.Errorf("close_notify sealed\n%x, want\n%x", got, want)
	}
}

// update is a KeyUpdate message.
const (
	updateQuietly = "\x18\x00\x00\x01\x00"
	updateAsking  = "\x18\x00\x00\x01\x01"
)

func TestOpen(t *testing.T) {
	refused := func(alert Alert) error { return &RecordError{Alert: alert} }
	told := func(alert Alert) error { return &PeerAlertError{alert} }
	type peer struct {
		*Layer
		out []byte
	}
	put := func(p *peer, innerType byte, content string) { p.out = p.forge(p.out, innerType, content, 0) }
	say := func(p *peer, content string) { put(p, typeApplicationData, content) }
	rekey := func(p *peer) { must(t, p.write.update(p.suite)) }
	long := strings.Repeat("x", maxPlaintextBytes)

	for name, c := range map[string]struct {
		send  func(p *peer)
		plain string
		err   error
		left  int // bytes that remain
		reply int // records of the reply, alerts included
	}{
		"nothing":            {send: func(p *peer) {}},
		"one record":         {send: func(p *peer) { say(p, "hello") }, plain: "hello"},
		"several records":    {send: func(p *peer) { say(p, "a"); say(p, "bc"); say(p, "d") }, plain: "abcd"},
		"largest":            {send: func(p *peer) { say(p, "a"); say(p, long); say(p, "b") }, plain: "a" + long + "b"},
		"padded":             {send: func(p *peer) { p.out = p.forge(nil, typeApplicationData, "ab\x00", 200); say(p, "c") }, plain: "ab\x00c"},
		"padded to the brim": {send: func(p *peer) { p.out = p.forge(nil, typeApplicationData, "a", maxPlaintextBytes-1); say(p, "b") }, plain: "ab"},
		"empty among others": {send: func(p *peer) { say(p, "a"); say(p, ""); say(p, "b"); say(p, "") }, plain: "ab"},
		"empty, padded":      {send: func(p *peer) { p.out = p.forge(nil, typeApplicationData, "", 99); say(p, "b") }, plain: "b"},
		"16 empty ones": {send: func(p *peer) {
			for range 16 {
				say(p, "")
			}
			say(p, "a")
			for range 16 {
				say(p, "")
			}
			say(p, "b")
		}, plain: "ab"},
		"17 empty ones": {send: func(p *peer) {
			say(p, "a")
			for range 17 {
				say(p, "")
			}
			say(p, "b")
		}, plain: "a", err: refused(alertUnexpectedMessage), reply: 1},
		"half a header": {send: func(p *peer) { say(p, "a"); p.out = append(p.out, 23, 3) }, plain: "a", left: 2},
		"half a record": {send: func(p *peer) { say(p, "a"); say(p, "b"); p.out = p.out[:len(p.out)-1] }, plain: "a", left: 22},

		"padding is too long": {send: func(p *peer) { p.out = p.forge(nil, typeApplicationData, "a", maxPlaintextBytes) }, err: refused(alertRecordOverflow), reply: 1},
		"content is too long": {send: func(p *peer) { say(p, "a"); say(p, long+"x") }, plain: "a", err: refused(alertRecordOverflow), reply: 1},
		"body is too long":    {send: func(p *peer) { say(p, "a"); p.out = append(p.out, 23, 3, 3, 0x41, 0x01) }, plain: "a", err: refused(alertRecordOverflow), reply: 1},
		"body is the longest": {send: func(p *peer) { p.out = append(p.out, 23, 3, 3, 0x41, 0x00) }, left: 5},
		"only padding":        {send: func(p *peer) { put(p, 0, "\x00\x00\x00") }, err: refused(alertUnexpectedMessage), reply: 1},
		"nothing at all": {send: func(p *peer) {
			header := []byte{23, 3, 3, 0, tagBytes}
			p.out = p.write.aead.Seal(header, p.write.nonceOf(0), nil, header)
		}, err: refused(alertUnexpectedMessage), reply: 1},
		"less than a tag": {send: func(p *peer) { p.out = append([]byte{23, 3, 3, 0, 15}, make([]byte, 15)...) }, err: refused(alertBadRecordMAC), reply: 1},
		"empty body":      {send: func(p *peer) { p.out = []byte{23, 3, 3, 0, 0} }, err: refused(alertBadRecordMAC), reply: 1},

		"forged":             {send: func(p *peer) { say(p, "a"); say(p, "b"); p.out[len(p.out)-1] ^= 1 }, plain: "a", err: refused(alertBadRecordMAC), reply: 1},
		"length was changed": {send: func(p *peer) { say(p, "ab"); p.out[4]--; say(p, "c") }, err: refused(alertBadRecordMAC), reply: 1},
		"replayed":           {send: func(p *peer) { say(p, "a"); p.out = append(p.out, p.out...) }, plain: "a", err: refused(alertBadRecordMAC), reply: 1},
		"reordered":          {send: func(p *peer) { say(p, "a"); say(p, "b"); p.out = append(p.out[len(p.out)/2:], p.out[:len(p.out)/2]...) }, err: refused(alertBadRecordMAC), reply: 1},
		"one is missing":     {send: func(p *peer) { say(p, "a"); say(p, "b"); p.out = nil; say(p, "c") }, err: refused(alertBadRecordMAC), reply: 1},
		"of the other side":  {send: func(p *peer) { p.write, p.read = p.read, p.write; say(p, "a") }, err: refused(alertBadRecordMAC), reply: 1},

		"change_cipher_spec": {send: func(p *peer) { say(p, "a"); p.out = append(p.out, 20, 3, 3, 0, 1, 1) }, plain: "a", err: refused(alertUnexpectedMessage), reply: 1},
		"sealed CCS":         {send: func(p *peer) { put(p, typeChangeCipherSpec, "\x01") }, err: refused(alertUnexpectedMessage), reply: 1},
		"alert in clear":     {send: func(p *peer) { p.out = []byte{21, 3, 3, 0, 2, 1, 0} }, err: refused(alertUnexpectedMessage), reply: 1},
		"handshake in clear": {send: func(p *peer) { p.out = []byte{22, 3, 3, 0, 5, 24, 0, 0, 1, 0} }, err: refused(alertUnexpectedMessage), reply: 1},
		"unknown outer type": {send: func(p *peer) { p.out = []byte{0x80, 3, 3, 0, 5} }, err: refused(alertUnexpectedMessage), reply: 1},
		"unknown inner type": {send: func(p *peer) { put(p, 24, "heartbeat") }, err: refused(alertUnexpectedMessage), reply: 1},
		"version":            {send: func(p *peer) { say(p, "a"); p.out = append(p.out, 23, 3, 1, 0, 20) }, plain: "a", err: refused(alertProtocolVersion), reply: 1},
		"plain HTTP":         {send: func(p *peer) { p.out = []byte("GET / HTTP/1.1\r\n\r\n") }, err: refused(alertProtocolVersion), reply: 1},

		"close_notify":        {send: func(p *peer) { say(p, "a"); put(p, typeAlert, "\x01\x00"); p.out = append(p.out, "anything"...) }, plain: "a", err: io.EOF},
		"close_notify, fatal": {send: func(p *peer) { put(p, typeAlert, "\x02\x00") }, err: io.EOF},
		"user_canceled":       {send: func(p *peer) { say(p, "a"); put(p, typeAlert, "\x01\x5a"); say(p, "b"); put(p, typeAlert, "\x01\x00") }, plain: "ab", err: io.EOF},
		"17 times user_canceled": {send: func(p *peer) {
			for range 17 {
				put(p, typeAlert, "\x01\x5a")
			}
		}, err: refused(alertUnexpectedMessage), reply: 1},
		"fatal alert":          {send: func(p *peer) { say(p, "a"); put(p, typeAlert, "\x02\x30"); say(p, "b") }, plain: "a", err: told(48)},
		"alert as a warning":   {send: func(p *peer) { put(p, typeAlert, "\x01\x64") }, err: told(100)},
		"alert, level unknown": {send: func(p *peer) { put(p, typeAlert, "\x09\x30") }, err: told(48)},
		"empty alert":          {send: func(p *peer) { put(p, typeAlert, "") }, err: refused(alertUnexpectedMessage), reply: 1},
		"half an alert":        {send: func(p *peer) { put(p, typeAlert, "\x02") }, err: refused(alertUnexpectedMessage), reply: 1},
		"two alerts":           {send: func(p *peer) { put(p, typeAlert, "\x01\x5a\x01\x00") }, err: refused(alertUnexpectedMessage), reply: 1},

		"key update":            {send: func(p *peer) { say(p, "a"); put(p, typeHandshake, updateQuietly); rekey(p); say(p, "b") }, plain: "ab"},
		"key update, asked for": {send: func(p *peer) { say(p, "a"); put(p, typeHandshake, updateAsking); rekey(p); say(p, "b") }, plain: "ab", reply: 1},
		"three, one answer": {send: func(p *peer) {
			for _, m := range []string{updateAsking, updateAsking, updateQuietly} {
				put(p, typeHandshake, m)
				rekey(p)
			}
			say(p, "b")
		}, plain: "b", reply: 1},
		"update not made": {send: func(p *peer) { put(p, typeHandshake, updateQuietly); say(p, "b") }, err: refused(alertBadRecordMAC), reply: 1},
		"update in pieces": {send: func(p *peer) {
			put(p, typeHandshake, "\x18")
			put(p, typeHandshake, "\x00\x00")
			put(p, typeHandshake, "\x01\x01")
			rekey(p)
			say(p, "b")
		}, plain: "b", reply: 1},
		"data in an update":  {send: func(p *peer) { put(p, typeHandshake, "\x18"); say(p, "b") }, err: refused(alertUnexpectedMessage), reply: 1},
		"empty in an update": {send: func(p *peer) { put(p, typeHandshake, "\x18"); say(p, "") }, err: refused(alertUnexpectedMessage), reply: 1},
		"alert in an update": {send: func(p *peer) { put(p, typeHandshake, "\x18"); put(p, typeAlert, "\x01\x00") }, err: refused(alertUnexpectedMessage), reply: 1},
		"two in a record":    {send: func(p *peer) { put(p, typeHandshake, updateAsking+updateAsking) }, err: refused(alertUnexpectedMessage), reply: 1},
		"update and a bit":   {send: func(p *peer) { put(p, typeHandshake, updateQuietly+"\x18") }, err: refused(alertUnexpectedMessage), reply: 1},
		"update asks for 2":  {send: func(p *peer) { put(p, typeHandshake, "\x18\x00\x00\x01\x02") }, err: refused(alertIllegalParameter), reply: 1},
		"update is empty":    {send: func(p *peer) { put(p, typeHandshake, "\x18\x00\x00\x00") }, err: refused(alertDecodeError), reply: 1},
		"update is long":     {send: func(p *peer) { put(p, typeHandshake, "\x18\x01\x00\x01") }, err: refused(alertDecodeError), reply: 1},
		"16 updates": {send: func(p *peer) {
			for range 16 {
				put(p, typeHandshake, updateAsking)
				rekey(p)
			}
			say(p, "a")
		}, plain: "a", reply: 1},
		"17 updates": {send: func(p *peer) {
			for range 17 {
				put(p, typeHandshake, updateAsking)
				rekey(p)
			}
			say(p, "a")
		}, err: refused(alertUnexpectedMessage), reply: 1},

		"empty handshake":       {send: func(p *peer) { put(p, typeHandshake, "") }, err: refused(alertUnexpectedMessage), reply: 1},
		"empty, padded message": {send: func(p *peer) { p.out = p.forge(nil, typeHandshake, "", 30) }, err: refused(alertUnexpectedMessage), reply: 1},
		"ClientHello":           {send: func(p *peer) { put(p, typeHandshake, "\x01\x00\x10\x00") }, err: refused(alertUnexpectedMessage), reply: 1},
		"a client's ticket":     {send: func(p *peer) { put(p, typeHandshake, "\x04") }, err: refused(alertUnexpectedMessage), reply: 1},
		"certificate":           {send: func(p *peer) { put(p, typeHandshake, "\x0b\x00\x00\x08") }, err: refused(alertUnexpectedMessage), reply: 1},
		"certificate request":   {send: func(p *peer) { put(p, typeHandshake, "\x0d\x00\x00\x08") }, err: refused(alertUnexpectedMessage), reply: 1},
		"finished":              {send: func(p *peer) { put(p, typeHandshake, "\x14\x00\x00\x20") }, err: refused(alertUnexpectedMessage), reply: 1},
		"end of early data":     {send: func(p *peer) { put(p, typeHandshake, "\x05\x00\x00\x00") }, err: refused(alertUnexpectedMessage), reply: 1},
	} {
		t.Run(name, func(t *testing.T) {
			for suite, id := range suitesByName {
				client, _ := layers(t, id)
				p := &peer{Layer: client}
				c.send(p)
				check := func(how string, pieces func() int) (reply []byte) {
					t.Helper()
					got := checkOpen(t, suite+", "+how, id, p.out, pieces, c.plain, c.err)
					if c.err == nil && got.left != c.left {
						t.Fatalf("%s, %s: %d bytes are left, want %d", suite, how, got.left, c.left)
					}
					return got.reply
				}
				if n := records(t, check("at once", inOne)); n != c.reply {
					t.Fatalf("%s: %d records in reply, want %d", suite, n, c.reply)
				}
				if len(p.out) > 2000 {
					for _, n := range []int{1499, 4096, 16383, 16384, 16406, 16407} {
						check(fmt.Sprintf("in pieces of %d", n), of(n))
					}
					continue
				}
				check("byte by byte", byteByByte)
				for i := range p.out {
					if suite == "AES-128-GCM" {
						check(fmt.Sprintf("split at %d", i), splitAt(i))
					}
				}
			}
		})
	}
}

// checkOpen has a new server open what a client has sent, and the client read what that
// is answered with.
func checkOpen(t *testing.T, how string, id uint16, wire []byte, pieces func() int, plain string, err error) opened {
	t.Helper()
	reader, server := layers(t, id)
	got := feed(t, server, wire, pieces, 1)
	if string(got.plain) != plain || outcome(got.err) != outcome(err) {
		t.Fatalf("%s: %.80q, %v, want %.80q, %v", how, got.plain, got.err, plain, outcome(err))
	}
	_, sealErr := server.Seal(nil, [][]byte{[]byte("x")})
	if (sealErr != nil) != (err != nil && err != io.EOF) {
		t.Fatalf("%s: sealing after %v: %v", how, err, sealErr)
	}
	refusal, refused := errors.AsType[*RecordError](err)
	alert, told := reader.alertIn(t, got.reply)
	if told != refused || refused && alert != refusal.Alert {
		t.Fatalf("%s: after %v the peer was told %v, %v", how, err, told, alert)
	}
	return got
}

// records counts the records of a reply.
func records(t testing.TB, reply []byte) (n int) {
	t.Helper()
	for ; len(reply) > 0; n++ {
		size := recordHeaderBytes + bodyBytes(reply)
		if size > len(reply) {
			t.Fatalf("half a record: %d of %d bytes", len(reply), size)
		}
		reply = reply[size:]
	}
	return n
}

// A client gets tickets, in pieces and several in one record.
func TestClientSkipsTickets(t *testing.T) {
	ticket := "\x04\x00\x4e\x20" + strings.Repeat("t", 20000)
	small := "\x04\x00\x00\x05small"
	for _, pieces := range []func() int{inOne, of(7), byteByByte} {
		client, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
		wire := server.forge(nil, typeHandshake, ticket[:3], 0)
		wire = server.forge(wire, typeHandshake, ticket[3:16000], 0)
		wire = server.forge(wire, typeHandshake, ticket[16000:]+small+small+small[:2], 0)
		wire = server.forge(wire, typeHandshake, small[2:]+updateAsking, 0)
		must(t, server.write.update(server.suite))
		wire = append(wire, server.data(t, "data")...)
		if got := feed(t, client, wire, pieces, 1); got.err != nil || string(got.plain) != "data" || records(t, got.reply) != 1 {
			t.Fatalf("got %.100q, %v, %d records", got.plain, got.err, records(t, got.reply))
		}
	}
	client, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
	wire := server.forge(nil, typeHandshake, ticket[:100], 0)
	wire = append(wire, server.data(t, "within")...)
	if got := feed(t, client, wire, inOne, 1); len(got.plain) > 0 || got.err == nil {
		t.Errorf("data within a ticket: %q, %v", got.plain, got.err)
	}
}

// Each side updates its keys many times, asking and not, while both send.
func TestKeyUpdates(t *testing.T) {
	for name, id := range suitesByName {
		t.Run(name, func(t *testing.T) {
			client, server := layers(t, id)
			ends := [2]*Layer{client, server}
			var toward [2][]byte // on the way to an end
			var sent, got [2][]byte
			deliver := func(i int) {
				var plain []byte
				var err error
				plain, _, toward[1-i], _, err = ends[i].Open(toward[i], nil, toward[1-i])
				must(t, err)
				got[i] = append(got[i], plain...)
				toward[i] = nil
			}
			for step := range 400 {
				from := rand.IntN(2)
				switch rand.IntN(4) {
				case 0:
					toward[1-from] = ends[from].KeyUpdate(toward[1-from], rand.IntN(2) == 0)
				case 1:
					deliver(from)
				default:
					data := fmt.Appendf(nil, "%d;", step)
					sent[1-from] = append(sent[1-from], data...)
					var err error
					toward[1-from], err = ends[from].Seal(toward[1-from], [][]byte{data})
					must(t, err)
				}
			}
			for len(toward[0])+len(toward[1]) > 0 {
				deliver(0)
				deliver(1)
			}
			for i := range ends {
				if !bytes.Equal(sent[i], got[i]) {
					t.Errorf("toward end %d: sent %d bytes, got %d", i, len(sent[i]), len(got[i]))
				}
				if ends[i].write.secret != ends[1-i].read.secret {
					t.Errorf("the secrets of end %d differ", i)
				}
			}
		})
	}
}

func TestKeysAreUpdatedInTime(t *testing.T) {
	const id = cryptotls.TLS_AES_128_GCM_SHA256
	t.Run("by the writer", func(t *testing.T) {
		client, server := layers(t, id)
		server.write.seq, client.read.seq = updateAfterRecords-1, updateAfterRecords-1
		before := server.write.secret
		data := bytes.Repeat([]byte("x"), 3*maxPlaintextBytes)
		wire, err := server.Seal(nil, [][]byte{data})
		must(t, err)
		if server.write.secret == before || server.write.seq != 2 || records(t, wire) != 4 {
			t.Fatalf("sequence number %d, %d records", server.write.seq, records(t, wire))
		}
		if got := feed(t, client, wire, inOne, 1); got.err != nil || !bytes.Equal(got.plain, data) || len(got.reply) != 0 {
			t.Fatalf("got %d bytes, %v, a reply of %d bytes", len(got.plain), got.err, len(got.reply))
		}
	})
	t.Run("by the reader's request", func(t *testing.T) {
		client, server := layers(t, id)
		client.write.seq, server.read.seq = askAfterRecords-1, askAfterRecords-1
		wire := client.forge(nil, typeApplicationData, "a", 0)
		// A peer that does not look after its keys, and does so when it is asked.
		client.write.seq = 0
		client.write.iv ^= askAfterRecords
		for range 3 {
			wire = append(wire, client.data(t, "b")...)
		}
		asked := feed(t, server, wire, of(24), 1)
		if asked.err != nil || string(asked.plain) != "abbb" || records(t, asked.reply) != 1 {
			t.Fatalf("got %q, %v, %d records", asked.plain, asked.err, records(t, asked.reply))
		}
		answer := feed(t, client, asked.reply, inOne, 1)
		if answer.err != nil || records(t, answer.reply) != 1 {
			t.Fatalf("%v, %d records", answer.err, records(t, answer.reply))
		}
		wire = append(answer.reply, client.data(t, "c")...)
		server.idle, server.updates = maxIdleRecords, 0 // an update that was asked for is no nuisance
		if got := feed(t, server, wire, inOne, 1); got.err != nil || string(got.plain) != "c" || len(got.reply) != 0 || server.asked {
			t.Fatalf("got %q, %v, %d records", got.plain, got.err, records(t, got.reply))
		}
	})
}

// Updates with data between them escape the limit on idle records.
func TestTooManyKeyUpdates(t *testing.T) {
	client, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
	n := 0
	for ; n < 5000; n++ {
		wire := client.KeyUpdate(client.data(t, "x"), false)
		if got := feed(t, server, wire, inOne, 1); got.err != nil {
			if _, ok := errors.AsType[*RecordError](got.err); !ok || !strings.Contains(got.err.Error(), "key updates") {
				t.Fatal(got.err)
			}
			break
		}
	}
	if n != maxPeerUpdates {
		t.Errorf("%d updates were allowed", n)
	}
	// One for every so many records can go on for ever.
	client, server = layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
	for range maxPeerUpdates + 500 {
		var wire []byte
		for range recordsPerUpdate - 1 {
			wire = append(wire, client.data(t, "x")...)
		}
		if got := feed(t, server, client.KeyUpdate(wire, false), inOne, 1); got.err != nil {
			t.Fatal(got.err)
		}
	}
}

func TestSeal(t *testing.T) {
	k := func(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8), 7}, n)[:n] }
	for name, c := range map[string]struct {
		segs  [][]byte
		sizes []int
	}{
		"nothing":            {nil, nil},
		"empty segments":     {[][]byte{{}, nil, {}}, nil},
		"one byte":           {[][]byte{k(1)}, []int{1}},
		"small ones":         {[][]byte{k(2), {}, k(3), nil, k(4), {}}, []int{9}},
		"a full record":      {[][]byte{k(16384)}, []int{16384}},
		"one more":           {[][]byte{k(16385)}, []int{16384, 1}},
		"header and payload": {[][]byte{k(4), k(16384)}, []int{16384, 4}},
		"many":               {[][]byte{k(10), k(40000), k(1), k(16000)}, []int{16384, 16384, 16384, 6859}},
		"two full":           {[][]byte{k(16384), k(16384)}, []int{16384, 16384}},
	} {
		t.Run(name, func(t *testing.T) {
			for suite, id := range suitesByName {
				client, server := layers(t, id)
				segs := make([][]byte, len(c.segs))
				for i := range segs {
					segs[i] = bytes.Clone(c.segs[i])
				}
				wire, err := server.Seal([]byte("before"), segs)
				must(t, err)
				for i := range segs {
					if !bytes.Equal(segs[i], c.segs[i]) {
						t.Fatalf("%s: segment %d was changed", suite, i)
					}
				}
				if string(wire[:6]) != "before" {
					t.Fatalf("%s: what was there before is %q", suite, wire[:6])
				}
				wire = wire[6:]
				var sizes []int
				for rest := wire; len(rest) > 0; rest = rest[recordHeaderBytes+bodyBytes(rest):] {
					sizes = append(sizes, bodyBytes(rest)-1-tagBytes)
				}
				if !slices.Equal(sizes, c.sizes) {
					t.Errorf("%s: records of %v bytes, want %v", suite, sizes, c.sizes)
				}
				if got := feed(t, client, wire, inOne, 1); got.err != nil || !bytes.Equal(got.plain, slices.Concat(c.segs...)) {
					t.Errorf("%s: %v, or other data", suite, got.err)
				}
			}
		})
	}
}

func TestCloseNotify(t *testing.T) {
	client, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
	wire := server.CloseNotify(server.data(t, "last"))
	if got := feed(t, client, wire, inOne, 1); string(got.plain) != "last" || got.err != io.EOF {
		t.Fatalf("got %q, %v", got.plain, got.err)
	}
	if again := server.CloseNotify(nil); len(again) != 0 {
		t.Error("a second close_notify")
	}
	if dst, err := server.Seal([]byte("as it was"), [][]byte{[]byte("x")}); !errors.Is(err, ErrWriteClosed) || string(dst) != "as it was" {
		t.Errorf("sealed %q, %v", dst, err)
	}
	// The other direction stays open (RFC 8446 §6.1); what it asks for cannot be answered.
	wire = client.KeyUpdate(client.data(t, "still here"), true)
	wire = append(wire, client.data(t, " and here")...)
	if got := feed(t, server, wire, inOne, 1); got.err != nil || string(got.plain) != "still here and here" || len(got.reply) != 0 {
		t.Errorf("got %q, %v, %d bytes of reply", got.plain, got.err, len(got.reply))
	}
	if got := feed(t, server, []byte{20, 3, 3, 0, 1, 1}, inOne, 1); got.err == nil || len(got.reply) != 0 {
		t.Errorf("got %v, %d bytes of reply", got.err, len(got.reply))
	}
	if more := server.KeyUpdate(nil, true); len(more) != 0 {
		t.Error("a KeyUpdate after the close_notify")
	}
}

// What remains of in is the caller's, and plain must not grow into it.
func TestPlainIsClipped(t *testing.T) {
	client, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
	in := append(slices.Concat(client.data(t, "a"), client.data(t, "b")), 23, 3, 3)
	plain, used, _, _, err := server.Open(in, nil, nil)
	must(t, err)
	if cap(plain) != len(plain) {
		t.Errorf("%d bytes could be appended", cap(plain)-len(plain))
	}
	if _ = append(plain, "overflow"...); !bytes.Equal(in[used:], []byte{23, 3, 3}) {
		t.Errorf("what is left is %x", in[used:])
	}
}

func TestForget(t *testing.T) {
	_, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
	if state := server.ConnectionState(); state.ServerName != "a.test" {
		t.Error(state)
	}
	server.Forget()
	if state := server.ConnectionState(); state.ServerName != "" || state.Version != cryptotls.VersionTLS13 || state.CipherSuite != cryptotls.TLS_AES_128_GCM_SHA256 || !state.HandshakeComplete {
		t.Error(state)
	}
}

func TestLayerRefusesSecrets(t *testing.T) {
	secret := make([]byte, 32)
	for name, c := range map[string]struct {
		suite       uint16
		read, write []byte
	}{
		"suite of TLS 1.2": {cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, secret, secret},
		"no read secret":   {cryptotls.TLS_AES_128_GCM_SHA256, nil, secret},
		"no write secret":  {cryptotls.TLS_AES_128_GCM_SHA256, secret, nil},
		"of another hash":  {cryptotls.TLS_AES_256_GCM_SHA384, secret, secret},
	} {
		if _, err := newLayer(&cryptotls.ConnectionState{CipherSuite: c.suite}, false, c.read, c.write, 0); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestKeyLog(t *testing.T) {
	client, server := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	random := strings.Repeat("00", 32)
	for name, c := range map[string]struct {
		lines    string
		complete bool
		fails    bool
	}{
		"both":        {"CLIENT_TRAFFIC_SECRET_0 " + random + " " + client + "\nSERVER_TRAFFIC_SECRET_0 " + random + " " + server, true, false},
		"one":         {"CLIENT_TRAFFIC_SECRET_0 " + random + " " + client, false, false},
		"others":      {"CLIENT_HANDSHAKE_TRAFFIC_SECRET " + random + " " + client + "\nCLIENT_RANDOM " + random + " " + server, false, false},
		"twice":       {"CLIENT_TRAFFIC_SECRET_0 " + random + " " + client + "\nCLIENT_TRAFFIC_SECRET_0 " + random + " " + client, false, true},
		"no secret":   {"CLIENT_TRAFFIC_SECRET_0 " + random, false, false},
		"no hex":      {"CLIENT_TRAFFIC_SECRET_0 " + random + " xy", false, true},
		"odd":         {"CLIENT_TRAFFIC_SECRET_0 " + random + " abc", false, true},
		"of 49 bytes": {"CLIENT_TRAFFIC_SECRET_0 " + random + " " + strings.Repeat("ab", 49), false, true},
	} {
		var s secrets
		var err error
		for line := range strings.SplitSeq(c.lines, "\n") {
			var lineErr error
			_, lineErr = s.Write([]byte(line + "\n"))
			err = errors.Join(err, lineErr)
		}
		if complete := s.clientLen > 0 && s.serverLen > 0; complete != c.complete || (err != nil) != c.fails {
			t.Errorf("%s: complete %v, %v", name, complete, err)
		}
		if c.complete && (s.client[0] != 0xab || s.server[31] != 0xcd || s.clientLen != 32) {
			t.Errorf("%s: secrets %x and %x", name, s.client, s.server)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	for name, id := range suitesByName {
		for _, size := range []int{1, 64, 1024, 16384, 40000} {
			client, server := layers(t, id)
			segs := [][]byte{make([]byte, size/2), make([]byte, size-size/2)}
			wire, in := make([]byte, 0, 50000), make([]byte, 0, 50000)
			reply := make([]byte, 0, 100)
			allocations := testing.AllocsPerRun(50, func() {
				wire, _ = server.Seal(wire[:0], segs)
				in = append(in[:0], wire...)
				if plain, _, _, _, err := client.Open(in, nil, reply); err != nil || len(plain) != size {
					t.Fatal(err)
				}
			})
			if allocations != 0 {
				t.Errorf("%s, %d bytes: %v allocations", name, size, allocations)
			}
		}
	}
}

func TestLayerIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Layer{}); size > 320 {
		t.Errorf("a Layer takes %d bytes", size)
	}
}

var _ cipher.AEAD = (*countingAEAD)(nil)

// countingAEAD notes each nonce that is sealed with.
type countingAEAD struct {
	cipher.AEAD
	nonces map[string]bool
	twice  int
}

func (c *countingAEAD) Seal(dst, nonce, plaintext, additional []byte) []byte {
	if c.nonces[string(nonce)] {
		c.twice++
	}
	c.nonces[string(nonce)] = true
	return c.AEAD.Seal(dst, nonce, plaintext, additional)
}

// No nonce is used twice with a key, whatever is sealed.
func TestNonces(t *testing.T) {
	client, server := layers(t, cryptotls.TLS_AES_128_GCM_SHA256)
	for range 20 {
		count := &countingAEAD{AEAD: server.write.aead, nonces: map[string]bool{}}
		server.write.aead = count
		for range 20 {
			_, err := server.Seal(nil, [][]byte{make([]byte, rand.IntN(40000))})
			must(t, err)
		}
		server.KeyUpdate(nil, true)
		if count.twice > 0 || len(count.nonces) < 20 {
			t.Fatalf("%d nonces, %d of them more than once", len(count.nonces), count.twice)
		}
	}
	count := &countingAEAD{AEAD: server.write.aead, nonces: map[string]bool{}}
	server.write.aead = count
	_, _, _, _, err := server.Open(client.KeyUpdate(nil, true), nil, nil)
	must(t, err)
	server.CloseNotify(nil)
	if count.twice > 0 {
		t.Error("a nonce was used twice")
	}
}
