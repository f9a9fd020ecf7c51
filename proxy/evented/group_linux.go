package evented

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/loop"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Codec turns the bytes of a connection into plaintext and back; package tls has those
// for TLS. It is used from the session's loop only.
type Codec interface {
	// Open takes wire bytes; see tls.Codec.
	Open(in, scratch, reply []byte) (plain []byte, used int, replyOut []byte, again bool, err error)
	// Seal appends to dst the records that hold segs.
	Seal(dst []byte, segs [][]byte) ([]byte, error)
	// CloseNotify appends the end of our direction.
	CloseNotify(dst []byte) []byte
}

// Leg is one connection of a session on its way to a loop.
type Leg struct {
	// FD is a non-blocking stream socket that nobody else uses.
	FD int
	// Codec is nil for plain connections.
	Codec Codec
	// Wire are bytes that were read from the socket and not opened, Plain bytes that were
	// opened and not used; both come before what the socket has.
	Wire, Plain []byte
}

// Group runs sessions on event loops.
type Group struct {
	loops  *loop.Group
	shared []*shared  // by loop
	mu     sync.Mutex // guards runs
	runs   bool
	ended  chan struct{} // closed when the loops have
}

// shared is what the sessions of one loop use in turn.
type shared struct {
	group     *Group
	loop      *loop.Loop
	out, back relay.Buffers
	plain     []byte // for codecs that do not work in place
	wire      []byte
	reply     []byte
}

// New makes a group of n loops, which tells memory, if it is not nil, what buffers take.
// It does not run yet.
func New(n int, memory *engine.Memory) (*Group, error) {
	loops, err := loop.NewGroup(n)
	if err != nil {
		return nil, fmt.Errorf("making event loops: %w", err)
	}
	loops.OnBuffered = memory.Add
	g := &Group{loops: loops, ended: make(chan struct{})}
	for i := range loops.Loops() {
		g.shared = append(g.shared, &shared{group: g, loop: loops.Loop(i), plain: make([]byte, loop.ScratchBytes)})
	}
	return g, nil
}

// Run runs the loops until ctx is done and ends the sessions that are left.
func (g *Group) Run(ctx context.Context) {
	g.mu.Lock()
	g.runs = true
	g.mu.Unlock()
	g.loops.Run(ctx)
	close(g.ended)
}

// on runs f, which only reads, on a loop and waits for it: for a turn of the loop. Before
// the loops run, and after all have ended, which it waits for if one has, nobody changes
// what is theirs, and f runs on the caller's goroutine.
func (g *Group) on(i int, f func()) {
	g.mu.Lock()
	if !g.runs {
		defer g.mu.Unlock()
		f()
		return
	}
	g.mu.Unlock()
	done := make(chan struct{})
	if g.loops.Loop(i).Post(func() { f(); close(done) }) != nil {
		<-g.ended
		f()
		return
	}
	<-done
}

// Sum returns what each tally has counted.
func (g *Group) Sum(tallies []*engine.Tally) []relay.Traffic {
	sums := make([]relay.Traffic, len(tallies))
	for i := range g.shared {
		g.on(i, func() {
			for k, t := range tallies {
				t.AddLoop(i, &sums[k])
			}
		})
	}
	for k, t := range tallies {
		t.AddRest(&sums[k])
	}
	return sums
}

// Counts returns what has come from each side of each session so far, with one turn of each
// loop. Sessions of other engines are asked one by one.
func (g *Group) Counts(sessions []engine.Session) [][2]relay.Count {
	return ask(g, sessions, (*Session).counted, engine.Session.Counts)
}

// Held returns how many bytes each session holds buffered, as Counts does.
func (g *Group) Held(sessions []engine.Session) []int {
	return ask(g, sessions, (*Session).held, engine.Session.Held)
}

// askAtOnce is how many sessions are asked in one turn of their loop.
const askAtOnce = 10_000

// ask asks each session something: those of the group on their loops, others as others.
func ask[T any](g *Group, sessions []engine.Session, own func(*Session) T, others func(engine.Session) T) []T {
	answers := make([]T, len(sessions))
	byLoop := make([][]int, len(g.shared))
	for k, s := range sessions {
		if s, ok := s.(*Session); ok {
			i := s.loop().Index()
			byLoop[i] = append(byLoop[i], k)
			continue
		}
		answers[k] = others(s)
	}
	for i, mine := range byLoop {
		for part := range slices.Chunk(mine, askAtOnce) {
			g.on(i, func() {
				for _, k := range part {
					answers[k] = own(sessions[k].(*Session))
				}
			})
		}
	}
	return answers
}

// Start begins a session. It owns the descriptors from then on, whatever it returns.
func (g *Group) Start(opt *engine.Options, obs engine.Observer, client, backend Leg) (engine.Session, error) {
	l := g.loops.Pick()
	shared := g.shared[l.Index()]
	s := &Session{shared: shared, relay: relay.New(&opt.Relay, opt.Tally.OfLoop(l.Index())), opt: opt, obs: obs}
	s.legs[relay.Client].codec, s.legs[relay.Backend].codec = client.Codec, backend.Codec
	l.Reserve(2)
	err := l.Post(func() { s.begin(client, backend) })
	if err != nil {
		l.Reserve(-2)
		unix.Close(client.FD)
		unix.Close(backend.FD)
		return nil, err
	}
	return s, nil
}

// errNoLoop is the result of a session whose connections the loop could not take.
var errNoLoop = errors.New("the event loop did not take the connection")
