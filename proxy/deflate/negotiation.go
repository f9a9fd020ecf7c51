package deflate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Name is the registered name of the extension (RFC 7692 §7). Browsers and libraries
// compare it byte by byte, and so do we.
const Name = "permessage-deflate"

const (
	minWindowBits = 8
	maxWindowBits = 15
)

// maxOffers is how many offers of a client are kept, the ones that it prefers. Clients
// send one or two.
const maxOffers = 16

// ErrAnswer is a server's answer that no offer allows (RFC 7692 §5.1, §7.1). Who receives
// one fails the handshake.
var ErrAnswer = errors.New("wrong answer to the extension offers (RFC 7692 §7.1)")

// Params are the parameters that a server has accepted (RFC 7692 §7.1). The zero value
// says nothing of them: windows of 32 KiB that outlive the messages.
type Params struct {
	// ServerNoContextTakeover: each message of the server starts with an empty window
	// (§7.1.1.1).
	ServerNoContextTakeover bool
	// ClientNoContextTakeover: the same for the client's messages (§7.1.1.2).
	ClientNoContextTakeover bool
	// ServerMaxWindowBits is the base-2 logarithm of the server's window in bytes, 8 to
	// 15. 0 is not said: 15 (§7.1.2.1).
	ServerMaxWindowBits uint8
	// ClientMaxWindowBits is the same for the client's window (§7.1.2.2).
	ClientMaxWindowBits uint8
}

// The names of the parameters.
const (
	serverNoContextTakeover = "server_no_context_takeover"
	clientNoContextTakeover = "client_no_context_takeover"
	serverMaxWindowBits     = "server_max_window_bits"
	clientMaxWindowBits     = "client_max_window_bits"
)

// String is the extension with its parameters, as in a header.
func (p Params) String() string { return offer{Params: p}.String() }

// offer is a valid offer of a client. What differs from Params: client_max_window_bits may
// stand without a value, which lets the server name any (§7.1.2.2).
type offer struct {
	Params
	anyClientWindow bool
}

func (o offer) String() string {
	var b strings.Builder
	b.WriteString(Name)
	flag := func(name string, on bool) {
		if on {
			b.WriteString("; " + name)
		}
	}
	bits := func(name string, v uint8) {
		if v != 0 {
			b.WriteString("; " + name + "=" + strconv.Itoa(int(v)))
		}
	}
	flag(serverNoContextTakeover, o.ServerNoContextTakeover)
	flag(clientNoContextTakeover, o.ClientNoContextTakeover)
	bits(serverMaxWindowBits, o.ServerMaxWindowBits)
	bits(clientMaxWindowBits, o.ClientMaxWindowBits)
	flag(clientMaxWindowBits, o.anyClientWindow)
	return b.String()
}

// allows reports whether p answers the offer (§7.1.1, §7.1.2). What the offer asks of the
// server's own messages is due, and the server may promise it unasked. What it says of the
// client's is a hint, but client_max_window_bits must not come unasked.
func (o offer) allows(p Params) bool {
	switch {
	case o.ServerNoContextTakeover && !p.ServerNoContextTakeover:
		return false
	case o.ServerMaxWindowBits != 0 && (p.ServerMaxWindowBits == 0 || p.ServerMaxWindowBits > o.ServerMaxWindowBits):
		return false
	}
	return p.ClientMaxWindowBits == 0 || o.ClientMaxWindowBits != 0 || o.anyClientWindow
}

// parse reads the parameters of an offer or an answer. It reports false when one is
// unknown, comes twice or has no business with its value: such an offer is declined, such
// an answer fails the handshake (§7.1).
func parse(params []param) (o offer, ok bool) {
	for _, p := range params {
		switch p.name {
		case serverNoContextTakeover:
			ok = !p.valued && !o.ServerNoContextTakeover
			o.ServerNoContextTakeover = true
		case clientNoContextTakeover:
			ok = !p.valued && !o.ClientNoContextTakeover
			o.ClientNoContextTakeover = true
		case serverMaxWindowBits:
			first := o.ServerMaxWindowBits == 0
			o.ServerMaxWindowBits, ok = windowBits(p.value)
			ok = ok && first
		case clientMaxWindowBits:
			first := o.ClientMaxWindowBits == 0 && !o.anyClientWindow
			if o.anyClientWindow, ok = !p.valued, true; p.valued {
				o.ClientMaxWindowBits, ok = windowBits(p.value)
			}
			ok = ok && first
		default:
			ok = false
		}
		if !ok {
			return offer{}, false
		}
	}
	return o, true
}

// windowBits reads 8 to 15 without leading zeros (§7.1.2).
func windowBits(value string) (bits uint8, ok bool) {
	v, err := strconv.ParseUint(value, 10, 8)
	ok = err == nil && minWindowBits <= v && v <= maxWindowBits && value[0] != '0'
	return uint8(v), ok
}

// Offers are the permessage-deflate offers of a client that a server may accept, in the
// order in which the client prefers them. None is the zero value. Offers are not changed
// once they are parsed.
type Offers []offer

// ParseOffers reads the lines of a client's Sec-WebSocket-Extensions. Offers of other
// extensions are left out, and those that a server has to decline: with a parameter that
// is unknown, comes twice or has a wrong value (RFC 7692 §7.1). The error is ErrSyntax.
func ParseOffers(lines []string) (Offers, error) {
	var list Offers
	err := extensions(lines, func(name string, params []param) {
		if name != Name || len(list) == maxOffers {
			return
		}
		if o, ok := parse(params); ok {
			list = append(list, o)
		}
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// String is the header that makes the same offers to a backend; empty when there are none.
func (list Offers) String() string {
	var b strings.Builder
	for i, o := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(o.String())
	}
	return b.String()
}

// CheckAnswer holds the Sec-WebSocket-Extensions lines of a backend's 101 against the
// offers that were made to it with String (RFC 7692 §5.1, §7.1). It returns the header for
// the client's 101, in our spelling; empty, with no error, when the backend accepts no
// offer. The error is ErrSyntax or ErrAnswer.
func (list Offers) CheckAnswer(lines []string) (answer string, p Params, err error) {
	count, wrong := 0, ""
	err = extensions(lines, func(name string, params []param) {
		o, ok := parse(params)
		p = o.Params
		switch count++; {
		case count > 1:
			wrong = "more than one extension"
		case name != Name:
			wrong = "an extension that was not offered"
		case !ok || o.anyClientWindow: // a value is optional in offers only (§7.1.2.2)
			wrong = "an invalid parameter"
		case !list.allow(p):
			wrong = "parameters that no offer allows"
		}
	})
	if err != nil {
		return "", Params{}, err
	}
	if wrong != "" {
		return "", Params{}, fmt.Errorf("%w: %s", ErrAnswer, wrong)
	}
	if count == 0 {
		return "", Params{}, nil
	}
	return p.String(), p, nil
}

func (list Offers) allow(p Params) bool {
	for _, o := range list {
		if o.allows(p) {
			return true
		}
	}
	return false
}

// Accept answers as the server: with the offer that the client prefers, the header for the
// 101 and what it says. ok is false when there is none.
//
// The edge keeps no window between messages, so it always promises
// server_no_context_takeover and asks for client_no_context_takeover; an answer may hold
// both whatever the offer says (RFC 7692 §7.1.1). A window that the client limits is the
// one that it gets (§7.1.2.1): a Compressor can keep within each of them. The client's own
// window is left to it, because an Inflater has 32 KiB for every message.
func (list Offers) Accept() (answer string, p Params, ok bool) {
	if len(list) == 0 {
		return "", Params{}, false
	}
	p = Params{ServerNoContextTakeover: true, ClientNoContextTakeover: true, ServerMaxWindowBits: list[0].ServerMaxWindowBits}
	return p.String(), p, true
}
