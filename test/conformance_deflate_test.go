package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// compressionModes are the values of a route's `compression` with which compressed
// messages go through. Each has a route below /passthrough or /terminate.
var compressionModes = []string{"passthrough", "terminate"}

// compressed is a conversation with permessage-deflate (RFC 7692): messages that a client
// sends, each of which waits for the echo of the one before.
type compressed struct {
	id, name string
	offer    string // of the client
	answer   string // of the backend, where the edge leaves the two alone
	// may says that an edge that ends compression itself may also decline the offer: not
	// every compressor has a window as small as is asked for.
	may      bool
	text     bool
	message  func(i, size int) []byte
	size     int
	count    int
	fragment int // octets of a frame at most; 0 is all in one
}

// offeredAnything is an offer that leaves everything to the server.
const offeredAnything = "permessage-deflate; client_no_context_takeover; client_max_window_bits"

// deflateSizes are the lengths of messages and of fragments in the sections 12 and 13.
var deflateSizes = []struct{ size, fragment int }{
	{16, 0}, {64, 0}, {256, 0}, {1024, 0}, {4096, 0}, {8192, 0}, {16384, 0}, {32768, 0}, {65536, 0}, {131072, 0},
	{8192, 256}, {16384, 256}, {32768, 256}, {65536, 256}, {131072, 256}, {131072, 1024}, {131072, 4096}, {131072, 32768},
}

// deflateContentCases are the section 12: messages of many kinds.
func deflateContentCases() (list []compressed) {
	for i, kind := range []struct {
		name    string
		text    bool
		message func(i, size int) []byte
	}{{"JSON", true, jsonText}, {"picture", false, picture}, {"prose", false, wordy}, {"HTML", true, markup}, {"noise and text", false, mixture}} {
		list = append(list, eachSize(fmt.Sprintf("12.%d", i+1), compressed{name: kind.name, text: kind.text, message: kind.message,
			offer: "permessage-deflate; client_max_window_bits", answer: "permessage-deflate"})...)
	}
	return list
}

// deflateParameterCases are the section 13: what can be agreed on.
func deflateParameterCases() (list []compressed) {
	const fresh, nine, fifteen = "; server_no_context_takeover", "; server_max_window_bits=9", "; server_max_window_bits=15"
	const alsoFresh, alsoNine, alsoFifteen = "; client_no_context_takeover", "; client_max_window_bits=9", "; client_max_window_bits=15"
	for i, p := range []compressed{
		{name: "as it likes", offer: offeredAnything, answer: "permessage-deflate"},
		{name: "no takeover", offer: offeredAnything + fresh, answer: "permessage-deflate" + fresh + alsoFresh},
		{name: "9 bits", offer: offeredAnything + nine, answer: "permessage-deflate" + nine + alsoNine, may: true},
		{name: "15 bits", offer: offeredAnything + fifteen, answer: "permessage-deflate" + fifteen + alsoFifteen},
		{name: "no takeover and 9 bits", offer: offeredAnything + fresh + nine, answer: "permessage-deflate" + fresh + nine + alsoFresh + alsoNine, may: true},
		{name: "no takeover and 15 bits", offer: offeredAnything + fresh + fifteen, answer: "permessage-deflate" + fresh + fifteen + alsoFresh + alsoFifteen},
		{name: "one of three offers", offer: offeredAnything + fresh + nine + ", " + offeredAnything + fresh + ", " + offeredAnything, answer: "permessage-deflate" + fresh + alsoFresh},
	} {
		p.text, p.message = true, jsonText
		list = append(list, eachSize(fmt.Sprintf("13.%d", i+1), p)...)
	}
	return list
}

// eachSize is a case for each size. Of 1,000 messages as many are sent as 16 KiB have,
// but at least two, of which the second may refer to the first, and at most twenty.
func eachSize(id string, x compressed) (list []compressed) {
	name := x.name
	for i, s := range deflateSizes {
		x.id, x.size, x.fragment, x.count = fmt.Sprintf("%s.%d", id, i+1), s.size, s.fragment, scaled(1000, min(20, max(2, 16<<10/s.size)))
		x.name = fmt.Sprintf("%s, %d of %d", name, x.count, s.size)
		if s.fragment > 0 {
			x.name += fmt.Sprintf(" in fragments of %d", s.fragment)
		}
		list = append(list, x)
	}
	return list
}

// compressed are the cases of a section in one mode.
func (to entrance) compressed(mode string, rows []compressed) (cases []conformanceCase) {
	for _, x := range rows {
		cases = append(cases, conformanceCase{x.id + " " + x.name, func(t *testing.T) { x.run(t, to, mode) }})
	}
	return cases
}

// run has a client send messages to a backend that echoes them. In the mode passthrough
// the two agree on compression, otherwise the client and the edge do.
func (x compressed) run(t *testing.T, to entrance, mode string) {
	t.Helper()
	c, b := to.request(t, "/"+mode, "Sec-WebSocket-Extensions: "+x.offer+"\r\n")
	offered, answer := b.req.Header.Get("Sec-WebSocket-Extensions"), ""
	if mode == "passthrough" {
		if answer = x.answer; !sameOffers(offered, x.offer) {
			t.Fatalf("the backend was offered %q, want %q", offered, x.offer)
		}
	}
	b.write([]byte(withExtensions(b.switching(), answer)))
	res, err := http.ReadResponse(c.r, nil)
	must(t, err)
	agreed := res.Header.Get("Sec-WebSocket-Extensions")
	if err := x.acceptable(mode, agreed); res.StatusCode != http.StatusSwitchingProtocols || err != nil {
		t.Fatalf("got %s with %q for %q: %v", res.Status, agreed, x.offer, err)
	}
	heard := make(chan error, 1)
	go func() { heard <- x.echo(b, newDeflation(answer, false)) }()
	if err := x.talk(c, newDeflation(agreed, true)); err != nil {
		t.Errorf("client: %v", err)
	}
	c.Close()
	if err := <-heard; err != nil {
		t.Errorf("backend: %v", err)
	}
}

// sameOffers reports whether two headers offer the same, in whatever order they name the
// parameters of an offer.
func sameOffers(a, b string) bool {
	normal := func(header string) (offers []string) {
		for offer := range strings.SplitSeq(header, ",") {
			params := strings.Split(strings.ReplaceAll(offer, " ", ""), ";")
			slices.Sort(params[1:])
			offers = append(offers, strings.Join(params, ";"))
		}
		return offers
	}
	return slices.Equal(normal(a), normal(b))
}

// withExtensions adds what is agreed on to a 101.
func withExtensions(answer, agreed string) string {
	if agreed == "" {
		return answer
	}
	return strings.TrimSuffix(answer, "\r\n") + "Sec-WebSocket-Extensions: " + agreed + "\r\n\r\n"
}

// acceptable holds what a client is answered against its offer (RFC 7692 §7.1).
func (x compressed) acceptable(mode, agreed string) error {
	terms := parseTerms(agreed)
	switch {
	case mode == "passthrough" && !sameOffers(agreed, x.answer):
		return fmt.Errorf("want %q", x.answer)
	case agreed == "" && x.may, mode == "passthrough":
		return nil
	case terms["permessage-deflate"] == "" || strings.Contains(agreed, ","):
		return fmt.Errorf("want one permessage-deflate")
	}
	for _, offer := range strings.Split(x.offer, ",") {
		o := parseTerms(offer)
		if o["server_no_context_takeover"] != "" && terms["server_no_context_takeover"] == "" {
			continue
		}
		if o["server_max_window_bits"] != "" && (terms["server_max_window_bits"] == "" || windowBits(terms["server_max_window_bits"]) > windowBits(o["server_max_window_bits"])) {
			continue
		}
		return nil
	}
	return fmt.Errorf("it fits no offer")
}

// talk is the client's part.
func (x compressed) talk(r *rawEnd, d *deflation) error {
	for i := range x.count {
		want := x.message(i, x.size)
		if _, err := r.Write(x.frames(want, d, true)); err != nil {
			return err
		}
		got, op, err := r.takeMessage(d)
		if err != nil || op != x.opcode() || !bytes.Equal(got, want) {
			return fmt.Errorf("message %d came back as opcode %d of %d octets, want %d: %v", i, op, len(got), len(want), err)
		}
	}
	if _, err := r.Write(closeBytes(1000, "", true)); err != nil {
		return err
	}
	if err := r.expect([]fr{closeFr(1000, "")}); err != nil {
		return err
	}
	return r.end()
}

// echo is the backend's part.
func (x compressed) echo(r *rawEnd, d *deflation) error {
	defer r.Close()
	for i := range x.count {
		want := x.message(i, x.size)
		got, op, err := r.takeMessage(d)
		if err != nil || op != x.opcode() || !bytes.Equal(got, want) {
			return fmt.Errorf("message %d is opcode %d of %d octets, want %d: %v", i, op, len(got), len(want), err)
		}
		if _, err := r.Write(x.frames(got, d, false)); err != nil {
			return err
		}
	}
	if err := r.expect([]fr{closeFr(1000, "")}); err != nil {
		return err
	}
	if _, err := r.Write(closeBytes(1000, "", false)); err != nil {
		return err
	}
	return r.end()
}

func (x compressed) opcode() ws.OpCode {
	if x.text {
		return ws.OpText
	}
	return ws.OpBinary
}

// frames is a message on the wire.
func (x compressed) frames(message []byte, d *deflation, masked bool) (p []byte) {
	whole := fr{fin: true, op: x.opcode(), body: message}
	if d != nil {
		whole.body = d.deflate(message)
	}
	size := x.fragment
	if size == 0 {
		size = max(1, len(whole.body))
	}
	list := whole.fragments(size)
	if d != nil {
		list[0].rsv = 4
	}
	for _, f := range list {
		p = append(p, f.bytes(masked)...)
	}
	return p
}

// takeMessage reads a message.
func (r *rawEnd) takeMessage(d *deflation) (message []byte, op ws.OpCode, err error) {
	first := fr{}
	for n := 0; ; n++ {
		f, err := r.hear()
		if err != nil {
			return message, op, err
		}
		if n == 0 {
			first, op = f, f.op
		}
		if f.op.IsControl() || n > 0 && (f.op != ws.OpContinuation || f.rsv != 0) || f.rsv&3 != 0 || f.rsv != 0 && d == nil {
			return message, op, fmt.Errorf("frame %d is %v", n, f)
		}
		if message = append(message, f.body...); f.fin {
			break
		}
	}
	if first.rsv != 0 {
		message, err = d.inflate(message)
	}
	return message, op, err
}

// jsonText, picture, wordy, markup and mixture make messages that differ from each other
// but have much in common.
func jsonText(i, size int) []byte {
	return fill(size, func(p *bytes.Buffer, k int) {
		fmt.Fprintf(p, `{"id":%d,"name":"user %d","tags":["a","b","%x"],"score":%d.%d},`, i*1000+k, k%17, k*k, k%100, i%10)
	})
}

func markup(i, size int) []byte {
	return fill(size, func(p *bytes.Buffer, k int) {
		fmt.Fprintf(p, "<tr class=\"row%d\"><td>%d</td><td><a href=\"/items/%d\">item %d</a></td></tr>\n", k%2, i, k*7, k)
	})
}

func wordy(i, size int) []byte {
	words := strings.Fields("the tide comes in and the gate lets it through as far as it goes and then it turns and nobody on the shore has noticed")
	return fill(size, func(p *bytes.Buffer, k int) { p.WriteString(words[(k*k+i)%len(words)] + " ") })
}

func picture(i, size int) []byte {
	return fill(size, func(p *bytes.Buffer, k int) { p.WriteByte(byte(k/3 + i + k*k>>9)) })
}

func mixture(i, size int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), uint64(size)))
	return fill(size, func(p *bytes.Buffer, k int) {
		fmt.Fprintf(p, "%d 0 obj << /Length 256 >> stream\n", k)
		for range 32 {
			fmt.Fprintf(p, "%c", byte(r.Uint32()))
		}
	})
}

// fill repeats more until there are size octets.
func fill(size int, more func(p *bytes.Buffer, k int)) []byte {
	var p bytes.Buffer
	for k := 0; p.Len() < size; k++ {
		more(&p, k)
	}
	return p.Bytes()[:size]
}
