package test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// tab is an empty page of a headless Chromium in which scripts run.
type tab struct {
	ctx  context.Context
	mu   sync.Mutex
	last int // id of the newest WebSocket
}

// sockets is the page's side: open, send, close and next by the id of a WebSocket.
const sockets = `globalThis.sockets = {
	all: new Map(),
	open(id, url, protocols) {
		const s = { socket: new WebSocket(url, protocols), events: [], wake: () => {} };
		this.all.set(id, s);
		s.socket.binaryType = "arraybuffer";
		const emit = (e) => { s.events.push(e); s.wake(); };
		s.socket.onmessage = ({ data }) => emit(typeof data === "string"
			? { kind: "text", data: new TextEncoder().encode(data).toBase64() }
			: { kind: "binary", data: new Uint8Array(data).toBase64() });
		s.socket.onclose = ({ code, reason }) => emit({ kind: code === 1006 ? "end" : "close", code, reason });
		return new Promise((done) => {
			s.socket.onopen = () => done({ ok: true, extensions: s.socket.extensions, protocol: s.socket.protocol });
			s.socket.onerror = () => done({ ok: false });
		});
	},
	send(id, kind, base64) {
		const bytes = Uint8Array.fromBase64(base64);
		this.all.get(id).socket.send(kind === "text" ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) : bytes);
	},
	close(id, code, reason) { this.all.get(id).socket.close(code, reason); },
	async next(id) {
		const s = this.all.get(id);
		while (s.events.length === 0) await new Promise((done) => { s.wake = done; });
		return s.events.shift();
	},
}; undefined`

// browserLibrary opens a tab.
func browserLibrary(t *testing.T) library {
	t.Helper()
	// A page of loopback: others may not connect to it.
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }))
	t.Cleanup(page.Close)
	return browserAt(t, page.URL)
}

// browserAt opens a tab at a page.
func browserAt(t *testing.T, page string) library {
	t.Helper()
	b := &tab{ctx: openBrowser(t)}
	must(t, chromedp.Do(b.ctx, chromedp.Navigate(page)))
	_, err := run[any](b, sockets)
	must(t, err)
	return library{name: "Chromium", dial: b.dial}
}

// run is the value of an expression, or of the promise that it is.
func run[T any](b *tab, format string, args ...any) (T, error) {
	return chromedp.Run(b.ctx, chromedp.Evaluate[T](fmt.Sprintf(format, args...), chromedp.EvalAwaitPromise))
}

// browserPeer is a WebSocket in the hands of Chromium.
type browserPeer struct {
	link
	b  *tab
	id int
}

func (b *tab) dial(_ context.Context, url string, protocols []string) (peer, error) {
	b.mu.Lock()
	b.last++
	p := &browserPeer{link: newLink(nil, "", ""), b: b, id: b.last}
	b.mu.Unlock()
	got, err := run[struct {
		OK                   bool
		Extensions, Protocol string
	}](b, `sockets.open(%d, %q, [])`, p.id, url)
	if err == nil && !got.OK {
		err = errors.New("the browser could not open " + url)
	}
	if err != nil {
		return nil, err
	}
	if p.extensionz, p.subproto = got.Extensions, got.Protocol; len(protocols) > 0 {
		return nil, errors.New("a tab offers no subprotocols")
	}
	go p.read()
	return p, nil
}

func (p *browserPeer) read() {
	for {
		e, err := run[struct {
			Kind, Reason string
			Data         []byte
			Code         int
		}](p.b, `sockets.next(%d)`, p.id)
		switch {
		case err != nil:
			p.inbox <- event{kind: "end", err: err}
			return
		case e.Kind == "close", e.Kind == "end":
			p.inbox <- event{kind: e.Kind, code: e.Code, reason: e.Reason}
			return
		}
		p.inbox <- event{kind: e.Kind, data: e.Data}
	}
}

func (p *browserPeer) send(kind string, parts ...[]byte) error {
	if len(parts) != 1 {
		return errors.New("a browser sends messages in one piece")
	}
	_, err := run[any](p.b, `sockets.send(%d, %q, %q)`, p.id, kind, base64.StdEncoding.EncodeToString(parts[0]))
	return err
}

func (p *browserPeer) ping(string) error { return errors.New("a page cannot ping") }

func (p *browserPeer) close(code int, reason string) error {
	_, err := run[any](p.b, `sockets.close(%d, %d, %s)`, p.id, code, strconv.Quote(reason))
	return err
}

// cut does what a page can do.
func (p *browserPeer) cut() { run[any](p.b, `sockets.close(%d)`, p.id) }
