package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/tidegate/tidegate/proxy/deflate"
)

// refusal is an HTTP answer instead of a session. Result is the short cause for the
// metric handshakes_total.
type refusal struct {
	status int
	result string
	text   string
	header http.Header
}

func (e *refusal) Error() string { return e.text }

func refuse(status int, result, format string, args ...any) *refusal {
	return &refusal{status: status, result: result, text: fmt.Sprintf(format, args...)}
}

func (e *refusal) with(name, value string) *refusal {
	if e.header == nil {
		e.header = http.Header{}
	}
	e.header.Set(name, value)
	return e
}

// later asks for another try after some seconds, spread so that the clients of one
// moment do not come back in one moment.
func (e *refusal) later() *refusal {
	return e.with("Retry-After", strconv.Itoa(1+rand.IntN(5)))
}

func malformed(format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, "malformed", format, args...)
}

// upgradeRequired is the answer to what is not, or not quite, a WebSocket request (RFC
// 9110 §15.5.22, RFC 6455 §4.4).
func upgradeRequired(text string) *refusal {
	return refuse(http.StatusUpgradeRequired, "upgrade_required", "%s", text).
		with("Upgrade", "websocket").with("Connection", "Upgrade").with("Sec-WebSocket-Version", "13")
}

// asksWebSocket reports whether r means to open a WebSocket, well or badly.
func asksWebSocket(r *http.Request) bool {
	return streamOf(r) != nil || hasToken(r.Header["Upgrade"], "websocket") || len(r.Header["Sec-Websocket-Key"]) > 0
}

func hasToken(lines []string, token string) bool {
	return slices.ContainsFunc(tokens(lines), func(t string) bool { return strings.EqualFold(t, token) })
}

// opening is what the edge needs of a client's opening handshake.
type opening struct {
	key       string
	protocols []string
	offers    deflate.Offers // of permessage-deflate, where the route has a use for them
}

// checkOpening holds a client's handshake against RFC 6455 §4.1 and §4.2.1, or, over HTTP/2,
// RFC 8441.
func checkOpening(r *http.Request) (opening, *refusal) {
	if s := streamOf(r); s != nil {
		return checkConnect(r, s)
	}
	h := r.Header
	keys := h["Sec-Websocket-Key"]
	versions := h["Sec-Websocket-Version"]
	switch {
	case r.ProtoMajor == 2:
		return opening{}, malformed("a WebSocket handshake over HTTP/2 is a CONNECT with :protocol")
	case r.Method != http.MethodGet:
		return opening{}, malformed("a WebSocket handshake is a GET, not a %s", r.Method)
	case !r.ProtoAtLeast(1, 1):
		return opening{}, malformed("a WebSocket handshake needs HTTP/1.1")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return opening{}, malformed("a WebSocket handshake has no body")
	case !hasToken(h["Upgrade"], "websocket"):
		return opening{}, malformed("the Upgrade header does not name websocket")
	case !hasToken(h["Connection"], "upgrade"):
		return opening{}, malformed("the Connection header does not name Upgrade")
	case len(keys) != 1:
		return opening{}, malformed("%d Sec-WebSocket-Key headers, want one", len(keys))
	case !validKey(keys[0]):
		return opening{}, malformed("Sec-WebSocket-Key is not 16 bytes in base64")
	case len(versions) != 1 || strings.TrimSpace(versions[0]) != "13":
		return opening{}, upgradeRequired("the WebSocket version here is 13")
	}
	protocols, ref := offeredProtocols(h)
	return opening{key: keys[0], protocols: protocols}, ref
}

// offeredProtocols are the subprotocols that a client speaks.
func offeredProtocols(h http.Header) ([]string, *refusal) {
	protocols := tokens(h["Sec-Websocket-Protocol"])
	for i, p := range protocols {
		if !httpguts.ValidHeaderFieldName(p) {
			return nil, malformed("Sec-WebSocket-Protocol is no list of tokens")
		}
		if slices.Contains(protocols[:i], p) {
			return nil, malformed("Sec-WebSocket-Protocol names a protocol twice")
		}
	}
	return protocols, nil
}

func validKey(key string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(key)
	return err == nil && len(b) == 16
}

// acceptKey is the Sec-WebSocket-Accept of a key (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h[:])
}

// checkPath refuses paths that mean something else to whoever resolves them: a route
// for /ws must not let /ws/../admin through.
func checkPath(r *http.Request) *refusal {
	if r.URL.Path == "" || r.URL.Path[0] != '/' {
		return malformed("the request target is no path")
	}
	if strings.Contains(r.URL.RawQuery, " ") { // HTTP/2 lets it through, and it goes on in a line of HTTP/1
		return malformed("the query has a space")
	}
	for seg := range strings.SplitSeq(r.URL.Path, "/") {
		if seg == "." || seg == ".." {
			return malformed("the path has dot segments")
		}
	}
	return nil
}

// checkAnswer holds a backend's 101 against what was asked for (RFC 6455 §4.1): the
// chosen subprotocol was offered, and so is an extension that it accepts: offered are those
// that the edge has passed on. It returns the subprotocol and the extension's header.
func checkAnswer(res *http.Response, o opening, offered deflate.Offers) (subprotocol, extension string, err error) {
	h := res.Header
	accepts, protocols := h["Sec-Websocket-Accept"], h["Sec-Websocket-Protocol"]
	switch {
	case !hasToken(h["Upgrade"], "websocket"):
		return "", "", badAnswer("its Upgrade header does not name websocket")
	case !hasToken(h["Connection"], "upgrade"):
		return "", "", badAnswer("its Connection header does not name Upgrade")
	case len(accepts) != 1 || strings.TrimSpace(accepts[0]) != acceptKey(o.key):
		return "", "", badAnswer("its Sec-WebSocket-Accept is not that of the key")
	case len(offered) == 0 && len(tokens(h["Sec-Websocket-Extensions"])) > 0:
		return "", "", badAnswer("it accepted an extension that was not offered")
	case len(protocols) > 1:
		return "", "", badAnswer("it chose more than one subprotocol")
	case len(protocols) == 1:
		subprotocol = strings.TrimSpace(protocols[0])
		if !slices.Contains(o.protocols, subprotocol) {
			return "", "", badAnswer("it chose a subprotocol that was not offered")
		}
	}
	extension, _, err = offered.CheckAnswer(h["Sec-Websocket-Extensions"])
	if err != nil {
		return "", "", badAnswer(err.Error())
	}
	return subprotocol, extension, nil
}

// badAnswer is a backend's 101 that breaks RFC 6455.
type badAnswer string

func (e badAnswer) Error() string { return "the backend's handshake is wrong: " + string(e) }
