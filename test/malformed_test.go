package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// malformed is a request, or some, that two readers of the same bytes could take for different
// things, or that is none. NAME in it stands for a word of its own, by which the backend's record
// knows it.
type malformed struct {
	name, request string
	status        int
	sees          string // of a request that is repaired: what the backend must see of it, in one piece
	hides         string // and what it must not
	ends          bool   // the client sends no more than that, and ends its direction
}

// smuggled follows a request whose end is in doubt. No backend may see it.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

func plainPost(headers, body string) string {
	return "POST /NAME HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" + body
}

func chunkedPost(body string) string { return plainPost("Transfer-Encoding: chunked\r\n", body) }

func withHeaders(headers string) string {
	return "GET /NAME HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n"
}

func bareLine(l string) string { return l + "\r\nHost: x\r\n\r\n" }

// malformedLengths are about where a request ends.
var malformedLengths = []malformed{
	{name: "length and coding", request: plainPost("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nX"+smuggled), status: 400},
	{name: "coding and length", request: plainPost("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nX"+smuggled), status: 400},
	{name: "length 0 and coding", request: plainPost("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+smuggled), status: 400},
	{name: "length and coding in other letters", request: plainPost("content-LENGTH: 3\r\ntransfer-ENCODING: Chunked\r\n", "0\r\n\r\n"+smuggled), status: 400},
	{name: "length and folded coding", request: plainPost("Content-Length: 3\r\nTransfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"+smuggled), status: 400},
	{name: "length and coding, bare line feeds", request: strings.ReplaceAll(plainPost("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", ""), "\r\n", "\n") + "0\r\n\r\n" + smuggled, status: 400},
	{name: "length, coding and a GET", request: withHeaders("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + smuggled, status: 400},
	{name: "two lengths", request: plainPost("Content-Length: 1\r\nContent-Length: 2\r\n", "xx"), status: 400},
	{name: "two lengths in one line", request: plainPost("Content-Length: 1, 2\r\n", "xx"), status: 400},
	{name: "one length twice in one line", request: plainPost("Content-Length: 2, 2\r\n", "xx"), status: 400},
	{name: "one length twice", request: plainPost("Content-Length: 2\r\nContent-Length: 2\r\n", "xx"), status: 200, sees: "\r\nContent-Length: 2\r\n", hides: "2, 2"},
	{name: "negative length", request: plainPost("Content-Length: -1\r\n", "x"), status: 400},
	{name: "length with a sign", request: plainPost("Content-Length: +1\r\n", "x"), status: 400},
	{name: "hexadecimal length", request: plainPost("Content-Length: 0x1\r\n", "x"), status: 400},
	{name: "length and letters", request: plainPost("Content-Length: 1a\r\n", "x"), status: 400},
	{name: "length with a space inside", request: plainPost("Content-Length: 1 1\r\n", "x"), status: 400},
	{name: "length with a fraction", request: plainPost("Content-Length: 1.0\r\n", "x"), status: 400},
	{name: "length with an exponent", request: plainPost("Content-Length: 1e1\r\n", "x"), status: 400},
	{name: "length in quotes", request: plainPost("Content-Length: \"1\"\r\n", "x"), status: 400},
	{name: "length in other digits", request: plainPost("Content-Length: \u0661\r\n", "x"), status: 400},
	{name: "length of many digits", request: plainPost("Content-Length: 99999999999999999999\r\n", "x"), status: 400},
	{name: "length of 2^63", request: plainPost("Content-Length: 9223372036854775808\r\n", "x"), status: 400},
	{name: "empty length", request: plainPost("Content-Length: \r\n", smuggled), status: 400},
	{name: "length with leading zeros", request: plainPost("Content-Length: 0001\r\n", "x"), status: 200, sees: "\r\nContent-Length: 1\r\n"},
	{name: "length with a vertical tab", request: plainPost("Content-Length: \v1\r\n", "x"), status: 400},
	{name: "length that is not reached", request: plainPost("Content-Length: 10\r\n", "short"), ends: true},

	{name: "coding identity", request: plainPost("Transfer-Encoding: identity\r\n", smuggled), status: 501},
	{name: "coding gzip", request: plainPost("Transfer-Encoding: gzip\r\n", smuggled), status: 501},
	{name: "codings gzip, chunked", request: plainPost("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), status: 501},
	{name: "codings chunked, identity", request: plainPost("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"+smuggled), status: 501},
	{name: "codings chunked, chunked", request: plainPost("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), status: 501},
	{name: "coding twice", request: plainPost("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), status: 501},
	{name: "two codings", request: plainPost("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"+smuggled), status: 501},
	{name: "coding that ends in chunked", request: plainPost("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"+smuggled), status: 501},
	{name: "coding with a parameter", request: plainPost("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), status: 501},
	{name: "coding with a vertical tab", request: plainPost("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"+smuggled), status: 400},
	{name: "coding in quotes", request: plainPost("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"+smuggled), status: 501},
	{name: "empty coding", request: plainPost("Transfer-Encoding:\r\n", smuggled), status: 501},
	{name: "coding with a space before the colon", request: plainPost("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"+smuggled), status: 400},
	{name: "coding with a tab before the colon", request: plainPost("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"+smuggled), status: 400},
	{name: "coding behind a line that is folded", request: plainPost("X: a\r\n\tTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), status: 200, sees: "\r\nX: a Transfer-Encoding: chunked\r\n"},
	{name: "coding in HTTP/1.0", request: "POST /NAME HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, status: 400},
	{name: "coding and length in HTTP/1.0", request: "POST /NAME HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", status: 400},
}

// malformedChunks are chunked bodies.
var malformedChunks = []malformed{
	{name: "size that is none", request: chunkedPost("z\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "negative size", request: chunkedPost("-1\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "size with a sign", request: chunkedPost("+5\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "size with 0x", request: chunkedPost("0x5\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "size over 64 bits", request: chunkedPost("10000000000000005\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "empty size", request: chunkedPost("\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "size with a space before", request: chunkedPost(" 5\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "size and NUL", request: chunkedPost("5\x00\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "size that a line feed ends", request: chunkedPost("5\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "extension that a line feed ends", request: chunkedPost("5;a\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "extension with a carriage return", request: chunkedPost("5;a\rb\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "extension without an end", request: chunkedPost("5;" + strings.Repeat("a", 64<<10) + "\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "chunk longer than its size", request: chunkedPost("2\r\nhello\r\n0\r\n\r\n"), status: 400},
	{name: "chunk without its line end", request: chunkedPost("5\r\nhello0\r\n\r\n"), status: 400},
	{name: "chunk that a line feed ends", request: chunkedPost("5\r\nhello\n0\r\n\r\n"), status: 400},
	{name: "trailer that is none", request: chunkedPost("5\r\nhello\r\n0\r\nno colon\r\n\r\n"), status: 400},
	{name: "trailer with NUL", request: chunkedPost("5\r\nhello\r\n0\r\nX: \x00\r\n\r\n"), status: 400},
	{name: "trailer announced that is none", request: plainPost("Transfer-Encoding: chunked\r\nTrailer: a b\r\n", "0\r\n\r\n"), status: 400},
	{name: "extension", request: chunkedPost("5;a=b\r\nhello\r\n0;c\r\n\r\n"), status: 200, sees: "\r\n\r\n5\r\nhello\r\n0\r\n", hides: "a=b"},
	{name: "trailer with a length", request: chunkedPost("5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n"), status: 200, sees: "\r\n0\r\n\r\n", hides: "Content-Length"},
	{name: "size with zeros", request: chunkedPost("0005\r\nhello\r\n000\r\n\r\n"), status: 200, sees: "\r\n\r\n5\r\nhello\r\n0\r\n"},
	{name: "chunks without an end", request: chunkedPost("5\r\nhello\r\n"), ends: true},
	{name: "half a chunk", request: chunkedPost("5\r\nhel"), ends: true},
}

// malformedHeads are heads whose grammar is wrong.
var malformedHeads = []malformed{
	{name: "NUL in a value", request: withHeaders("X: a\x00b\r\n"), status: 400},
	{name: "NUL in a name", request: withHeaders("X\x00: a\r\n"), status: 400},
	{name: "NUL in the target", request: bareLine("GET /NAME\x00 HTTP/1.1"), status: 400},
	{name: "NUL in the method", request: bareLine("G\x00ET /NAME HTTP/1.1"), status: 400},
	{name: "carriage return in a value", request: withHeaders("X: a\rTransfer-Encoding: chunked\r\n"), status: 400},
	{name: "carriage return in a name", request: withHeaders("X\rY: a\r\n"), status: 400},
	{name: "carriage returns end lines", request: "GET /NAME HTTP/1.1\rHost: x\r\r" + smuggled, status: 400},
	{name: "control character in a value", request: withHeaders("X: a\x01b\r\n"), status: 400},
	{name: "DEL in a value", request: withHeaders("X: a\x7fb\r\n"), status: 400},
	{name: "line without a colon", request: withHeaders("no colon\r\n"), status: 400},
	{name: "line of one letter", request: withHeaders("x\r\n"), status: 400},
	{name: "empty name", request: withHeaders(": a\r\n"), status: 400},
	{name: "space in a name", request: withHeaders("X Y: a\r\n"), status: 400},
	{name: "space before the colon", request: withHeaders("X : a\r\n"), status: 400},
	{name: "parenthesis in a name", request: withHeaders("X(Y): a\r\n"), status: 400},
	{name: "at sign in a name", request: withHeaders("X@Y: a\r\n"), status: 400},
	{name: "slash in a name", request: withHeaders("X/Y: a\r\n"), status: 400},
	{name: "other letters in a name", request: withHeaders("X\xe9: a\r\n"), status: 400},
	{name: "first header begins with a space", request: "GET /NAME HTTP/1.1\r\n Host: x\r\n\r\n", status: 400},
	{name: "folded value", request: withHeaders("X: a\r\n b\r\n\t c\r\n"), status: 200, sees: "\r\nX: a b c\r\n"},
	{name: "bare line feeds", request: "GET /NAME HTTP/1.1\nHost: x\nX: a\n\n", status: 200, sees: "\r\nX: a\r\n"},
	{name: "some bare line feeds", request: "GET /NAME HTTP/1.1\r\nHost: x\nX: a\r\n\n", status: 200, sees: "\r\nX: a\r\n"},
	{name: "other letters in a value", request: withHeaders("X: caf\xe9\r\n"), status: 200, sees: "\r\nX: caf\xe9\r\n"},
	{name: "spaces around a value", request: withHeaders("X: \t a \t\r\n"), status: 200, sees: "\r\nX: a\r\n"},

	{name: "no Host", request: "GET /NAME HTTP/1.1\r\n\r\n", status: 400},
	{name: "two Hosts", request: "GET /NAME HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", status: 400},
	{name: "one Host twice", request: "GET /NAME HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", status: 400},
	{name: "Host with a space", request: "GET /NAME HTTP/1.1\r\nHost: x y\r\n\r\n", status: 400},
	{name: "Host with NUL", request: "GET /NAME HTTP/1.1\r\nHost: x\x00\r\n\r\n", status: 400},
	{name: "Host with a line of its own behind", request: "GET /NAME HTTP/1.1\r\nHost: x\r\n\ty\r\n\r\n", status: 400},
	{name: "target of another host", request: "GET http://y.test/NAME HTTP/1.1\r\nHost: x\r\n\r\n", status: 200, sees: "\r\nHost: y.test\r\n", hides: "Host: x\r\n"},

	{name: "two spaces in the request line", request: bareLine("GET  /NAME HTTP/1.1"), status: 400},
	{name: "space in the target", request: bareLine("GET /NAME x HTTP/1.1"), status: 400},
	{name: "tab in the target", request: bareLine("GET /NAME\tx HTTP/1.1"), status: 400},
	{name: "no version", request: bareLine("GET /NAME"), status: 400},
	{name: "no target", request: bareLine("GET HTTP/1.1"), status: 400},
	{name: "no method", request: bareLine(" /NAME HTTP/1.1"), status: 400},
	{name: "version in small letters", request: bareLine("GET /NAME http/1.1"), status: 400},
	{name: "version without a minor", request: bareLine("GET /NAME HTTP/1"), status: 400},
	{name: "version 1.10", request: bareLine("GET /NAME HTTP/1.10"), status: 400},
	{name: "version 01.1", request: bareLine("GET /NAME HTTP/01.1"), status: 400},
	{name: "version with a space", request: bareLine("GET /NAME HTTP/ 1.1"), status: 400},
	{name: "version 2.0", request: bareLine("GET /NAME HTTP/2.0"), status: 505},
	{name: "version 9.9", request: bareLine("GET /NAME HTTP/9.9"), status: 505},
	{name: "preface of HTTP/2", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 400},
	{name: "method that is no token", request: bareLine("G@T /NAME HTTP/1.1"), status: 400},
	{name: "method with a colon", request: bareLine("GET: /NAME HTTP/1.1"), status: 400},
	{name: "another protocol", request: "EHLO NAME\r\n\r\n", status: 400},
	{name: "TLS where there is none", request: "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", status: 400},
	{name: "PROXY header from nobody", request: "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + withHeaders(""), status: 400},

	{name: "target without a slash", request: bareLine("GET NAME HTTP/1.1"), status: 400},
	{name: "target with dot segments", request: bareLine("GET /a/../NAME HTTP/1.1"), status: 400},
	{name: "target with encoded dot segments", request: bareLine("GET /a/%2e%2E/NAME HTTP/1.1"), status: 400},
	{name: "target with dot segments and encoded slashes", request: bareLine("GET /a%2f..%2fNAME HTTP/1.1"), status: 400},
	{name: "target with a bad escape", request: bareLine("GET /NAME%zz HTTP/1.1"), status: 400},
	{name: "target with half an escape", request: bareLine("GET /NAME% HTTP/1.1"), status: 400},
	{name: "target that is an asterisk", request: bareLine("GET * HTTP/1.1"), status: 400},
	{name: "OPTIONS of an asterisk", request: bareLine("OPTIONS * HTTP/1.1"), status: 400},
	{name: "target with DEL", request: bareLine("GET /NAME\x7f HTTP/1.1"), status: 400},
	{name: "target with half a bracket", request: bareLine("GET http://[::1/NAME HTTP/1.1"), status: 400},
	{name: "CONNECT", request: "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n" + smuggled, status: 400},
	{name: "CONNECT of a path", request: bareLine("CONNECT /NAME HTTP/1.1"), status: 400},
	{name: "TRACE", request: bareLine("TRACE /NAME HTTP/1.1"), status: 405},

	{name: "large header", request: withHeaders("X: " + strings.Repeat("a", 20<<10) + "\r\n"), status: 431},
	{name: "many headers", request: withHeaders(strings.Repeat("X: a\r\n", 4<<10)), status: 431},
	{name: "large target", request: bareLine("GET /NAME" + strings.Repeat("a", 20<<10) + " HTTP/1.1"), status: 431},
}

const openingHeaders = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// malformedHops are about what is of one connection.
var malformedHops = []malformed{
	{name: "upgrade to h2c", request: withHeaders("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), status: 400},
	{name: "upgrade to h2c, without Connection", request: withHeaders("Upgrade: h2c\r\n"), status: 400},
	{name: "upgrade to websocket or h2c", request: "POST /NAME HTTP/1.1\r\nHost: x\r\nUpgrade: h2c, websocket\r\n" + openingHeaders + "\r\n", status: 400},
	{name: "upgrade by POST", request: "POST /NAME HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n" + openingHeaders + "\r\n", status: 400},
	{name: "upgrade in HTTP/1.0", request: "GET /NAME HTTP/1.0\r\nHost: x\r\nUpgrade: websocket\r\n" + openingHeaders + "\r\n", status: 400},
	{name: "upgrade with a body", request: withHeaders("Upgrade: websocket\r\n"+openingHeaders+"Content-Length: 45\r\n") + smuggled, status: 400},
	{name: "upgrade with a chunked body", request: withHeaders("Upgrade: websocket\r\n"+openingHeaders+"Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", status: 400},
	{name: "upgrade without Connection", request: withHeaders("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), status: 400},
	{name: "upgrade with two keys", request: withHeaders("Upgrade: websocket\r\n" + openingHeaders + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), status: 400},
	{name: "upgrade to what nobody knows", request: withHeaders("Connection: Upgrade\r\nUpgrade: foo/2\r\n"), status: 200, sees: "GET /NAME ", hides: "Upgrade"},
	{name: "Connection names a header", request: withHeaders("Connection: X-Secret, close\r\nX-Secret: a\r\n"), status: 200, sees: "GET /NAME ", hides: "X-Secret"},
	{name: "Connection names what the edge sets", request: withHeaders("Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.2.3.4\r\n"), status: 200, sees: "\r\nX-Forwarded-For: 127.0.0.1\r\n"},
	{name: "Connection names the length", request: plainPost("Connection: Content-Length\r\nContent-Length: 2\r\n", "xx"), status: 200, sees: "\r\nContent-Length: 2\r\n"},
	{name: "Connection names the coding", request: plainPost("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n"), status: 200, sees: "\r\n\r\n1\r\nx\r\n0\r\n"},
	{name: "Connection names Host", request: withHeaders("Connection: Host\r\n"), status: 200, sees: "\r\nHost: x\r\n"},
	{name: "headers of one connection", request: withHeaders("Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nProxy-Authorization: a\r\n"), status: 200, sees: "GET /NAME ", hides: "Keep-Alive: 5"},
	{name: "forged forwarding", request: withHeaders("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: y\r\nForwarded: for=1.2.3.4\r\nTidegate-Session: forged\r\n"), status: 200, sees: "\r\nX-Forwarded-For: 127.0.0.1\r\n", hides: "forged"},
	{name: "expectation of something else", request: plainPost("Expect: 200-ok\r\nContent-Length: 1\r\n", "x"), status: 417},
}

// TestMalformedRequests is what becomes of requests that could mean two things, or nothing.
func TestMalformedRequests(t *testing.T) {
	b := newStrictBackend(t)
	e := start(t, strings.ReplaceAll(hasty, "BACKENDS", fmt.Sprintf("{address: %q}", b.addr())))
	seen := 0
	for _, part := range [][]malformed{malformedLengths, malformedChunks, malformedHeads, malformedHops} {
		for _, tt := range part {
			seen++
			name := fmt.Sprintf("case-%d", seen)
			t.Run(tt.name, func(t *testing.T) { tt.try(t, e.addr("ws"), name, b) })
		}
	}
	if seen < 100 {
		t.Errorf("only %d requests were tried", seen)
	}
	if got := b.having("/smuggled"); got != "" {
		t.Errorf("a backend got a request that nobody sent:\n%s", got)
	}
	if got := b.wrong(); got != "" {
		t.Errorf("a backend got what is not in the one form of HTTP:\n%s", got)
	}
}

// try sends the request and looks at both ends.
func (m malformed) try(t *testing.T, addr, name string, b *strictBackend) {
	c := dialRaw(t, addr, false)
	// It may be refused before it was sent.
	io.WriteString(c, strings.ReplaceAll(m.request, "NAME", name))
	if m.ends {
		c.Conn.(*net.TCPConn).CloseWrite()
	}
	res, err := http.ReadResponse(c.r, nil)
	switch {
	case m.ends && err == nil && res.StatusCode < 400:
		t.Errorf("half a request got %s", res.Status)
	case m.ends:
	case err != nil:
		t.Fatalf("no answer: %v", err)
	case res.StatusCode != m.status:
		body, _ := io.ReadAll(res.Body)
		t.Errorf("got %s (%.200s), want %d", res.Status, bytes.TrimSpace(body), m.status)
	}
	got := b.having("/" + name)
	switch {
	case m.status != 200 && got != "" && !m.cut(got):
		t.Errorf("the backend got\n%s", got)
	case m.status == 200 && !strings.Contains(got, strings.ReplaceAll(m.sees, "NAME", name)):
		t.Errorf("the backend got\n%q, want %q in it", got, m.sees)
	case m.status == 200 && m.hides != "" && strings.Contains(got, m.hides):
		t.Errorf("the backend got %q in\n%q", m.hides, got)
	}
	if res != nil && res.StatusCode >= 400 && res.Close {
		// Nothing behind it is read.
		io.Copy(io.Discard, res.Body)
		if res, err := http.ReadResponse(c.r, nil); err == nil {
			t.Errorf("a second answer came: %s", res.Status)
		}
	}
}

// cut reports whether what the backend has got is no whole request, so that it cannot take it
// for one.
func (m malformed) cut(got string) bool {
	return strings.HasSuffix(got, incomplete)
}

// incomplete marks requests that end before their end.
const incomplete = "\n(incomplete)"

// strictBackend answers 200 to requests in the one form of HTTP/1.1 that cannot be read in two
// ways, and records them byte by byte.
type strictBackend struct {
	ln   net.Listener
	mu   sync.Mutex
	got  []string
	errs []string
}

func newStrictBackend(t *testing.T) *strictBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &strictBackend{ln: ln}
	var conns sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { b.serve(c) })
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done; conns.Wait() })
	return b
}

func (b *strictBackend) addr() string { return b.ln.Addr().String() }

func (b *strictBackend) having(part string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.got {
		if head, _, _ := strings.Cut(r, "\r\n"); strings.Contains(head+" ", part+" ") {
			return r
		}
	}
	return ""
}

func (b *strictBackend) wrong() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.errs, "\n")
}

func (b *strictBackend) serve(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(4 * soon))
	in := bufio.NewReader(c)
	for {
		var raw bytes.Buffer
		whole := b.read(in, &raw)
		if raw.Len() == 0 {
			return
		}
		record := raw.String()
		if !whole {
			record += incomplete
		}
		b.mu.Lock()
		b.got = append(b.got, record)
		b.mu.Unlock()
		if !whole {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// read reads one request and reports whether all of it came.
func (b *strictBackend) read(in *bufio.Reader, raw *bytes.Buffer) (whole bool) {
	header := textproto.MIMEHeader{}
	for first := true; ; first = false {
		line, err := in.ReadString('\n')
		raw.WriteString(line)
		if err != nil {
			return false
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		if !ok || strings.ContainsAny(text, "\r\x00") {
			b.complain("line %q", line)
		}
		if text == "" {
			break
		}
		name, value, ok := strings.Cut(text, ": ")
		switch {
		case first && !strings.HasSuffix(text, " HTTP/1.1"):
			b.complain("request line %q", text)
		case !first && !ok:
			b.complain("header %q", text)
		case !first:
			header.Add(name, value)
		}
	}
	lengths, codings := header["Content-Length"], header["Transfer-Encoding"]
	if len(lengths)+len(codings) > 1 || len(codings) == 1 && codings[0] != "chunked" {
		b.complain("lengths %q and codings %q", lengths, codings)
	}
	body := io.TeeReader(in, raw)
	switch {
	case len(codings) > 0:
		// One byte at a time, so that nothing of the next request is taken.
		_, err := io.Copy(io.Discard, httputil.NewChunkedReader(bufio.NewReaderSize(&byByte{body}, 16)))
		if err != nil {
			return false
		}
		for { // trailers
			line, err := in.ReadString('\n')
			raw.WriteString(line)
			if err != nil || line == "\r\n" {
				return err == nil
			}
		}
	case len(lengths) > 0:
		var n int64
		if _, err := fmt.Sscanf(lengths[0], "%d", &n); err != nil || fmt.Sprint(n) != lengths[0] {
			b.complain("length %q", lengths[0])
		}
		_, err := io.CopyN(io.Discard, body, n)
		return err == nil
	}
	return true
}

func (b *strictBackend) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs = append(b.errs, fmt.Sprintf(format, args...))
}

// byByte reads single bytes.
type byByte struct{ r io.Reader }

func (b *byByte) Read(p []byte) (int, error) { return b.r.Read(p[:min(1, len(p))]) }
