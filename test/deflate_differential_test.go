package test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// TestDeflateDifferential: what two ends in the hands of gorilla hear of each other is the
// same through an edge that ends compression as it is without one: texts of all sizes,
// compressed at all levels or not, in one piece or many, both ways at once.
func TestDeflateDifferential(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	count := scaled(5000, 200)
	server := newRecital(t, seed+1, count)
	direct := server.recite(t, "ws://"+server.addr+"/", seed)
	eachEngine(t, func(t *testing.T, program string) {
		server := newRecital(t, seed+1, count)
		e := startProgram(t, program, []string{"GOGC=100"}, fmt.Sprintf(strings.Replace(deflateMemoryConfig,
			`"127.0.0.1:0"}`, `"127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}`, 1), "terminate", server.addr))
		through := server.recite(t, "wss://"+e.addr("ws")+"/", seed)
		for side, want := range direct {
			if !slices.Equal(through[side], want) || len(want) != count {
				t.Errorf("the %s heard %d messages, and without an edge %d, or others", side, len(through[side]), len(want))
			}
		}
	})
}

// digest stands for a message.
type digest [sha256.Size]byte

// recital is a server of one connection at a time, to which both ends say what they were
// made for while they listen.
type recital struct {
	addr  string
	count int
	heard chan []digest
}

func newRecital(t *testing.T, seed uint64, count int) *recital {
	r := &recital{count: count, heard: make(chan []digest, 1)}
	up := gorilla.Upgrader{EnableCompression: true, WriteBufferSize: 512}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, err := up.Upgrade(w, req, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		heard, err := r.perform(c, seed)
		if err != nil {
			t.Errorf("server: %v", err)
		}
		r.heard <- heard
	}))
	t.Cleanup(srv.Close)
	r.addr = srv.Listener.Addr().String()
	return r
}

// recite is the client's part; it returns what each side heard.
func (r *recital) recite(t *testing.T, url string, seed uint64) map[string][]digest {
	t.Helper()
	dial := gorilla.Dialer{EnableCompression: true, TLSClientConfig: insecure(), HandshakeTimeout: soon, WriteBufferSize: 512}
	c, res, err := dial.Dial(url, nil)
	must(t, err)
	defer c.Close()
	if answer := res.Header.Get("Sec-WebSocket-Extensions"); !strings.HasPrefix(answer, "permessage-deflate") {
		t.Errorf("the client was answered %q", answer)
	}
	heard, err := r.perform(c, seed)
	if err != nil {
		t.Errorf("client: %v", err)
	}
	select {
	case by := <-r.heard:
		return map[string][]digest{"client": heard, "server": by}
	case <-time.After(soon):
		t.Fatal("the server is not through")
		return nil
	}
}

// perform says everything and listens to as much.
func (r *recital) perform(c *gorilla.Conn, seed uint64) (heard []digest, err error) {
	said := make(chan error, 1)
	go func() {
		random := rand.New(rand.NewPCG(seed, 0))
		for i := range r.count {
			if err := sayAnyhow(c, random, i); err != nil {
				said <- fmt.Errorf("message %d: %w", i, err)
				return
			}
		}
		said <- nil
	}()
	c.SetReadDeadline(time.Now().Add(3 * soon))
	for i := range r.count {
		kind, p, err := c.ReadMessage()
		if err != nil || kind != gorilla.TextMessage {
			return heard, fmt.Errorf("after %d messages: kind %d, %w", i, kind, err)
		}
		heard = append(heard, sha256.Sum256(p))
	}
	return heard, <-said
}

// sayAnyhow says a text of up to 200,000 bytes, mostly a short one.
func sayAnyhow(c *gorilla.Conn, random *rand.Rand, i int) error {
	size := int(math.Exp(random.Float64()*math.Log(200_000))) - 1
	p := chat(i, size)
	if random.IntN(4) == 0 {
		p = stiff(size)
	}
	c.EnableWriteCompression(random.IntN(8) > 0)
	if err := c.SetCompressionLevel(1 + random.IntN(9)); err != nil {
		return err
	}
	w, err := c.NextWriter(gorilla.TextMessage)
	if err != nil {
		return err
	}
	for piece := 1 + random.IntN(size+1); len(p) > 0; {
		n := min(piece, len(p))
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return w.Close()
}
