package relay

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// Side names an end of a session.
type Side uint8

const (
	// Client is the side that connected to the edge.
	Client Side = iota
	// Backend is the side that the edge connected to.
	Backend

	numSides
)

// String returns the name of the side in lower case.
func (s Side) String() string {
	return [...]string{"client", "backend"}[s]
}

// Options are what a route sets for its sessions. They are shared by relays and never
// changed.
type Options struct {
	// MaxFrameBytes and MaxMessageBytes bound the payload of a frame and of a message;
	// 0 is no limit. The declared length is enough to refuse.
	MaxFrameBytes, MaxMessageBytes int64
	// MaxFragments bounds the frames of a message; 0 is no limit.
	MaxFragments int
	// MessageTimeout is how long a side may take to finish a message that it has begun;
	// the time in which it is not read does not count. 0 is no limit.
	MessageTimeout time.Duration
	// ControlFrames bounds Pings and Pongs of a side, Messages and Bytes (of payload in
	// data frames) what the client sends. Who goes beyond ControlFrames is closed with
	// 1008. So is who goes beyond the others, unless Delay says that it is not read until
	// there is room.
	ControlFrames, Messages, Bytes Rate
	Delay                          bool
	// ValidateUTF8 holds text that is not compressed against RFC 6455 §8.1.
	ValidateUTF8 bool
	// Ping says which sides the edge pings when they have been silent for PingInterval,
	// or up to a fifth less. A side of which no byte comes for PongTimeout from then on is
	// dead; 0 is never.
	Ping                      [numSides]bool
	PingInterval, PongTimeout time.Duration
	// RTT is told the time between a Ping of the edge's and its Pong. It must not block,
	// and may be nil.
	RTT func(time.Duration)
	// IdleTimeout ends a session without data frames either way, MaxAge one that has been
	// open as long, or less by up to a share of MaxAgeJitter. 0 is never.
	IdleTimeout, MaxAge time.Duration
	MaxAgeJitter        float64
	// SlowConsumer is what happens when more than MaxBuffered bytes wait for the client,
	// SlowConsumerCode the code for it with CloseSlow.
	SlowConsumer     SlowConsumer
	SlowConsumerCode ws.StatusCode
	MaxBuffered      int
	// Compression is what was agreed with the client.
	Compression Compression
	// Migrate lets sessions change their backend; nil is never. It does not go with
	// Passthrough, where backend and client share a window.
	Migrate *MoveOptions
	// CloseTimeout is how long a side may take to answer a Close and to end its stream; 0
	// is no limit.
	CloseTimeout time.Duration
}

// Relay is one session. It is small, since there may be a million of them; use [New], and
// do not copy it once it has been used.
type Relay struct {
	opt    *Options
	counts *Traffic
	ending *ending   // nil while the session is open
	pol    *policies // nil without policies that need it
	in     [numSides]input
	out    [numSides]output
	rearm  bool // pol.wake has come closer
}

// input is what has come from a side.
type input struct {
	left  int64 // payload of the present data frame, whose header went on, that has not come
	size  int64 // of the present message so far
	count Count
	held  *heldFrame // a control frame that was cut, or a data frame that waits for its rate

	dec       frame.Decoder
	code      ws.StatusCode // of its Close
	fragments int32         // of the present message so far
	key       [4]byte       // of the present data frame, where its next byte is
	utf8      frame.UTF8

	stopped bool // Feed did not take all: see Held
	recoded bool // the present message goes on in frames of the edge's own
	drop    bool // the present data frame goes nowhere
	text    bool // the present message is text
	check   bool // and to be valid
	closed  bool // a Close came: nothing counts any more
	broken  bool // the stream lost its place: nothing can be read any more
	ended   bool // end of stream
}

// heldFrame is a frame as far as it is held: all of its header, and of a control frame
// payload up to the capacity.
type heldFrame struct {
	head  ws.Header
	bytes []byte
}

// output is what goes to a side.
type output struct {
	closeSent bool // a Close went to it, ours or its peer's
	ours      bool // and it was ours
	shut      bool // nothing more goes to it
	owed      bool // a Ping of ours waits for a frame to end
	pinged    bool // it has not answered our last Ping
	steady    bool // it sends Pings or Pongs by itself, more or less as often as we would
}

// ending is what a relay knows from the moment on that its session begins to end.
type ending struct {
	verdict  Verdict
	pending  [numSides]pending       // by the side that it is for
	deadline [numSides]time.Duration // of a side; 0: none
}

// pending is a Close of ours that waits for its moment.
type pending struct {
	when   moment
	code   ws.StatusCode
	reason string
}

type moment uint8

const (
	never          moment = iota
	betweenFrames         // as soon as no frame is under way
	betweenMessage        // as soon as no message is under way
	afterPeer             // once the peer has sent its Close or ended
)

// New makes a session with a client and one backend, which counts what it passes on in
// counts. Both arguments must outlive the relay. The session starts with [Relay.Begin].
func New(opt *Options, counts *Traffic) Relay {
	r := Relay{opt: opt, counts: counts}
	r.in[Client].dec.Masked = true
	switch opt.Compression.Mode {
	case Passthrough:
		r.in[Client].dec.RSV, r.in[Backend].dec.RSV = rsv1, rsv1
	case Terminate:
		r.in[Client].dec.RSV = rsv1
	}
	return r
}

func peer(s Side) Side {
	if s == Client {
		return Backend
	}
	return Client
}

// Count is how much one side of a session has sent: messages that were completed, frames
// of all kinds, and bytes of payload in data frames.
type Count struct{ Messages, Frames, Bytes uint64 }

// Count returns how much has come from a side and gone on.
func (r *Relay) Count(from Side) Count { return r.in[from].count }

// Traffic counts what passed, by the side that sent it. Relays that are used in turn may
// share one.
type Traffic [numSides]Counters

// Add adds o to t.
func (t *Traffic) Add(o *Traffic) {
	for side := range t {
		c, o := &t[side], &o[side]
		for i := range c.Frames {
			c.Frames[i] += o.Frames[i]
		}
		for i := range c.Messages {
			c.Messages[i] += o.Messages[i]
		}
		c.Bytes += o.Bytes
		c.Dropped += o.Dropped
	}
}

// Counters count what one side sent. Frames that were dropped because the other side
// had its Close already are not counted.
type Counters struct {
	// Frames by opcode: text, binary, continuation, close, ping, pong.
	Frames [NumOpCodes]uint64
	// Messages that were completed: text, binary.
	Messages [2]uint64
	// Bytes of payload in data frames.
	Bytes uint64
	// Dropped is how many of the messages the other side did not get, see DropOldest.
	Dropped uint64
}

// NumOpCodes is the number of opcodes of RFC 6455; see [OpCodeNames].
const NumOpCodes = 6

// OpCodeNames are the names of the indexes of Counters.Frames; the first two are those
// of Counters.Messages too.
var OpCodeNames = [NumOpCodes]string{"text", "binary", "continuation", "close", "ping", "pong"}

func opIndex(op ws.OpCode) int {
	switch op {
	case ws.OpText:
		return 0
	case ws.OpBinary:
		return 1
	case ws.OpContinuation:
		return 2
	case ws.OpClose:
		return 3
	case ws.OpPing:
		return 4
	}
	return 5
}

// Shut reports whether nothing more will go to a side: once what was handed out is
// written, the engine ends that direction of the connection (shutdown, and close_notify
// under TLS) and goes on reading the other one. After a complete closing handshake the
// backend, being the server, is left to end its connection first (RFC 6455 §7.1.1).
func (r *Relay) Shut(to Side) bool { return r.out[to].shut }

// Closing reports whether the session has begun to end.
func (r *Relay) Closing() bool { return r.ending != nil }

// Done reports whether both sides have ended.
func (r *Relay) Done() bool {
	return r.in[Client].ended && r.in[Backend].ended && (r.moving() == nil || r.pol.move.phase == over)
}

// Verdict returns how the session ended. It is settled once Closing reports true.
func (r *Relay) Verdict() Verdict {
	if r.ending == nil {
		return Verdict{}
	}
	return r.ending.verdict
}
