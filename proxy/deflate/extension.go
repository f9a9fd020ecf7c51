package deflate

import (
	"errors"
	"fmt"
	"strings"
)

// ErrSyntax is a Sec-WebSocket-Extensions header that breaks the grammar of RFC 6455
// §9.1. Who receives one fails the handshake.
var ErrSyntax = errors.New("malformed Sec-WebSocket-Extensions (RFC 6455 §9.1)")

// param is a parameter of an extension; valued tells "a" from "a=b".
type param struct {
	name, value string
	valued      bool
}

// maxParams is how many parameters of an extension are kept. There are four, so that the
// fifth is unknown or comes twice, and what follows changes nothing.
const maxParams = 5

// extensions calls each for the extensions that the lines of a header list, in order.
// Several lines are one list. The params are reused when each returns.
func extensions(lines []string, each func(name string, params []param)) error {
	var room [maxParams]param
	for _, line := range lines {
		s := scanner{rest: line}
		for !s.end() {
			if s.take(',') {
				continue // an empty element is none (RFC 2616 §2.1)
			}
			name, params, ok := s.extension(room[:0])
			if !ok || !s.end() && !s.take(',') {
				return fmt.Errorf("%w: at byte %d of a line", ErrSyntax, len(line)-len(s.rest))
			}
			each(name, params)
		}
	}
	return nil
}

// scanner reads a line of the header from the left. Space between tokens means nothing
// (RFC 2616 §2.1, implied *LWS); what takes something skips the space behind it.
type scanner struct{ rest string }

func (s *scanner) space() { s.rest = strings.TrimLeft(s.rest, " \t") }

// end skips leading space and reports whether nothing follows.
func (s *scanner) end() bool {
	s.space()
	return s.rest == ""
}

// take takes c if it is next.
func (s *scanner) take(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	s.space()
	return true
}

func (s *scanner) extension(room []param) (name string, params []param, ok bool) {
	params = room
	if name, ok = s.token(); !ok {
		return
	}
	for s.take(';') {
		var p param
		if p.name, ok = s.token(); !ok {
			return
		}
		if p.valued = s.take('='); p.valued {
			if p.value, ok = s.value(); !ok {
				return
			}
		}
		if len(params) < maxParams {
			params = append(params, p)
		}
	}
	return name, params, true
}

func (s *scanner) token() (token string, ok bool) {
	n := 0
	for n < len(s.rest) && isTokenByte(s.rest[n]) {
		n++
	}
	token, s.rest = s.rest[:n], s.rest[n:]
	s.space()
	return token, n > 0
}

// value reads a token or a quoted string; what is quoted must be a token too.
func (s *scanner) value() (value string, ok bool) {
	if s.rest == "" || s.rest[0] != '"' {
		return s.token()
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		c := s.rest[i]
		if c == '"' {
			s.rest = s.rest[i+1:]
			s.space()
			return b.String(), b.Len() > 0
		}
		if c == '\\' {
			if i++; i == len(s.rest) {
				break
			}
			c = s.rest[i]
		}
		if !isTokenByte(c) {
			break
		}
		b.WriteByte(c)
	}
	return "", false
}

// isTokenByte says what a token is made of (RFC 2616 §2.2).
func isTokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
