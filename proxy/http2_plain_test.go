package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestHTTP2Plain has requests that open no WebSocket beside one that does, on one connection.
func TestHTTP2Plain(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	echo := echoHandler()
	settings := withHTTP2(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			echo.ServeHTTP(w, r)
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			for s := range next {
				io.WriteString(w, s)
				w.(http.Flusher).Flush()
			}
		case "/cut":
			io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("Connection", "close") // with the edge, not with the client
			w.Header().Set("Trailer", "X-Sum")
			fmt.Fprintf(w, "%s %s %s %d %v %s", r.Method, r.RequestURI, r.Proto, len(b), r.Trailer, r.Header["X-Forwarded-Proto"])
			w.Header().Set("X-Sum", "1")
		}
	})))
	e := startEdge(t, settings)
	c := e.dialHTTP2()
	s := c.open("/ws", nil)
	ask := func(method, path, body string) (*http.Response, string, error) {
		r := request(t, method, "https://edge.test"+path, strings.NewReader(body))
		if body != "" {
			r.Trailer = http.Header{"X-End": {"a"}}
			r.ContentLength = -1
		}
		res, err := c.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		return res, string(b), err
	}
	big := strings.Repeat("x", 1<<20)
	for range 3 {
		res, body, err := ask("POST", "/post?a", big)
		if want := "POST /post?a HTTP/1.1 1048576 map[X-End:[a]] [https]"; err != nil || body != want || res.Trailer.Get("X-Sum") != "1" {
			t.Fatalf("got %q, %v, %v, want %q", body, res.Trailer, err, want)
		}
	}
	if _, body, err := ask("GET", "/cut", ""); err == nil {
		t.Errorf("an answer that was cut came as a whole: %q", body)
	}
	events, err := c.RoundTrip(request(t, "GET", "https://edge.test/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	settings.Listeners = append([]ListenerSettings(nil), settings.Listeners...)
	settings.Listeners[0].Limits.MaxSessions = 1000 // the connection is left alone
	e.apply(settings)
	for _, want := range []string{"data: 1\n\n", "data: 2\n\n"} {
		next <- want
		got := make([]byte, len(want))
		if _, err := io.ReadFull(events.Body, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	s.send(clientFrame(1, "still here"))
	s.wantText("still here")
	close(next)
	if _, err := io.ReadAll(events.Body); err != nil {
		t.Error(err)
	}
}

// TestHTTP2BodyTimeout ends a body that stands still, but not one for which its backend is not
// ready.
func TestHTTP2BodyTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 400 * time.Millisecond
	var read atomic.Int64
	settings := withHTTP2(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			<-time.After(3 * timeout)
		}
		n, _ := io.Copy(io.Discard, r.Body)
		read.Store(n)
	})))
	settings.Listeners[0].Limits.RequestBodyTimeout = timeout
	e := startEdge(t, settings)
	c := e.dialHTTP2()
	const size = 16 << 20 // more than the buffers on the way take
	res, err := c.RoundTrip(request(t, "POST", "https://edge.test/busy", io.LimitReader(zeros{}, size)))
	if err != nil || res.StatusCode != 200 || read.Load() != size {
		t.Fatalf("got %v, %v, and the backend %d bytes", res, err, read.Load())
	}
	out, in := io.Pipe()
	go io.WriteString(in, "some")
	defer in.Close()
	res, err = c.RoundTrip(request(t, "POST", "https://edge.test/", out))
	if err != nil || res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %v, %v", res, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestHTTP2PlainMalformed are requests that HTTP/2 has other words for.
func TestHTTP2PlainMalformed(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	e := startEdge(t, withHTTP2(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) { seen.Add(1) }))))
	fine := []string{":method", "GET", ":scheme", "https", ":authority", "edge.test", ":path", "/"}
	without := func(name string, more ...string) (fields []string) {
		for i := 0; i < len(fine); i += 2 {
			if fine[i] != name {
				fields = append(fields, fine[i:i+2]...)
			}
		}
		return append(fields, more...)
	}
	for name, tt := range map[string]struct {
		fields []string
		want   string // a status, or the frame that ends the stream or the connection
	}{
		"fine":                       {fine, "200"},
		"transfer-encoding":          {without("", "transfer-encoding", "chunked"), "400"},
		"connection":                 {without("", "connection", "x-a"), "400"},
		"keep-alive":                 {without("", "keep-alive", "1"), "400"},
		"proxy-connection":           {without("", "proxy-connection", "close"), "400"},
		"upgrade":                    {without("", "upgrade", "websocket"), "400"},
		"te other than trailers":     {without("", "te", "gzip"), "400"},
		"no path":                    {without(":path"), "RST_STREAM"},
		"empty path":                 {without(":path", ":path", ""), "RST_STREAM"},
		"path without a slash":       {without(":path", ":path", "a"), "RST_STREAM"},
		"path with dot segments":     {without(":path", ":path", "/a/../b"), "400"},
		"path with a space":          {without(":path", ":path", "/a b"), "200"}, // and is written anew
		"two paths":                  {without("", ":path", "/b"), "RST_STREAM"},
		"pseudo-header behind":       {without(":path", "x-a", "1", ":path", "/"), "RST_STREAM"},
		"pseudo-header of an answer": {without("", ":status", "200"), "RST_STREAM"},
		"unknown pseudo-header":      {without("", ":foo", "1"), "RST_STREAM"},
		"no method":                  {without(":method"), "RST_STREAM"},
		"no scheme":                  {without(":scheme"), "RST_STREAM"},
		"name in capitals":           {without("", "X-A", "1"), "RST_STREAM"},
		"name with a space":          {without("", "x a", "1"), "RST_STREAM"},
		"empty name":                 {without("", "", "1"), "RST_STREAM"},
		"NUL in a value":             {without("", "x-a", "a\x00b"), "RST_STREAM"},
		"line end in a value":        {without("", "x-a", "a\r\ncontent-length: 5"), "RST_STREAM"},
		"line feed in a value":       {without("", "x-a", "a\nb"), "RST_STREAM"},
		"line end in the path":       {without(":path", ":path", "/a HTTP/1.1\r\nx: y"), "RST_STREAM"},
		"line end in the authority":  {without(":authority", ":authority", "a\r\nb"), "RST_STREAM"},
		"authority with a path":      {without(":authority", ":authority", "a/b"), "RST_STREAM"},
		"length of what has no body": {without("", "content-length", "5"), "400"},
		"two lengths":                {without("", "content-length", "0", "content-length", "1"), "400"},
		"length that is none":        {without("", "content-length", "x"), "400"},
		"CONNECT":                    {[]string{":method", "CONNECT", ":authority", "edge.test:443"}, "400"},
		"method that is no token":    {without(":method", ":method", "G T"), "400"},
		"trailer that is no header":  {without("", "trailer", "a b"), "400"},
		"query with a space":         {without(":path", ":path", "/?a HTTP/1.0"), "400"},
		"TRACE":                      {without(":method", ":method", "TRACE"), "405"},
	} {
		t.Run(name, func(t *testing.T) {
			f := e.frames()
			before := seen.Load()
			got := f.request(true, tt.fields...)
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if n := seen.Load() - before; n != 0 && tt.want != "200" {
				t.Errorf("a backend got it")
			}
		})
	}
}

// TestHTTP2StuckAnswer gives up a client that takes nothing of an answer, and nobody else on its
// connection, whether its backend drains or not.
func TestHTTP2StuckAnswer(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"text/plain", "text/event-stream"} {
		settings := withHTTP2(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			if r.URL.Path == "/" {
				io.CopyN(w, zeros{}, 1<<20)
			}
		})))
		settings.Routes[0].WebSocket.WriteTimeout = 300 * time.Millisecond
		e := startEdge(t, settings)
		f := e.frames()
		if got := f.request(true, ":method", "GET", ":scheme", "https", ":authority", "edge.test", ":path", "/"); got != "200" {
			t.Fatal(got)
		}
		for { // the window of the stream is never opened
			if x, ok := f.next().(*http2.RSTStreamFrame); ok {
				if x.StreamID != 1 {
					t.Errorf("stream %d was reset", x.StreamID)
				}
				break
			}
		}
		e.eventually("nothing is left of it", func() bool { return e.load() == 0 && e.Totals().Requests == 0 })
		if got := f.request(true, ":method", "GET", ":scheme", "https", ":authority", "edge.test", ":path", "/next"); got != "200" {
			t.Errorf("%s: the next request got %s", kind, got)
		}
	}
}

// TestHTTP2PlainAtTheEnd refuses requests on a connection that a WebSocket holds while the edge
// ends.
func TestHTTP2PlainAtTheEnd(t *testing.T) {
	t.Parallel()
	e := startEdge(t, withHTTP2(t, defaults(echoBackend(t))))
	c := e.dialHTTP2()
	s := c.open("/ws", nil)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan bool)
	go func() {
		e.Shutdown(ctx, 24*time.Hour, 24*time.Hour)
		close(over)
	}()
	e.eventually("the edge is ending", e.Stopping)
	res, err := c.RoundTrip(request(t, "GET", "https://edge.test/", nil))
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %v, %v", res, err)
	}
	s.echo("still here")
	cancel()
	<-over
}

// TestHTTP2StoppedUploads fill their windows; the connection's has room for another stream.
func TestHTTP2StoppedUploads(t *testing.T) {
	t.Parallel()
	free := make(chan bool)
	e := startEdge(t, withHTTP2(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stopped" {
			<-free
		}
		io.Copy(io.Discard, r.Body)
	}))))
	defer close(free)
	c := e.dialHTTP2()
	var sent [3]atomic.Int64
	for i := range sent {
		body := io.TeeReader(io.LimitReader(zeros{}, 64<<20), counter{&sent[i]})
		go c.RoundTrip(request(t, "POST", "https://edge.test/stopped", body))
	}
	e.eventually("all have stopped", func() bool {
		before := [3]int64{sent[0].Load(), sent[1].Load(), sent[2].Load()}
		<-time.After(200 * time.Millisecond)
		return min(before[0], before[1], before[2]) > 0 && before == [3]int64{sent[0].Load(), sent[1].Load(), sent[2].Load()}
	})
	res, err := c.RoundTrip(request(t, "POST", "https://edge.test/", io.LimitReader(zeros{}, 1<<20)))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("got %v, %v", res, err)
	}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// TestHTTP2EmptyBody has a body of trailers only.
func TestHTTP2EmptyBody(t *testing.T) {
	t.Parallel()
	e := startEdge(t, withHTTP2(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Trailer.Get("X-End") != "a" {
			w.WriteHeader(http.StatusTeapot)
		}
	}))))
	f := e.frames()
	encode := func(fields ...string) []byte {
		f.block.Reset()
		for i := 0; i < len(fields); i += 2 {
			f.coder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return f.block.Bytes()
	}
	head := encode(":method", "POST", ":scheme", "https", ":authority", "edge.test", ":path", "/", "trailer", "x-end")
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	end := encode("x-end", "a")
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: end, EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	for {
		if x, ok := f.next().(*http2.MetaHeadersFrame); ok {
			if got := x.PseudoValue("status"); got != "200" {
				t.Errorf("got %s", got)
			}
			return
		}
	}
}
