// Package engine says what an engine of sessions is given and gives back. There are two:
// package pump, with goroutines, and package evented, on event loops; both drive the same
// relay, and the tests of package enginetest hold both to the same behaviour.
package engine

import (
	"time"

	"github.com/tidegate/tidegate/proxy/relay"
)

// Options are what the sessions of a route have in common. They are shared and never
// changed.
type Options struct {
	Relay relay.Options
	// Tally counts what the sessions pass on. It is not nil.
	Tally *Tally
	// BufferBytes bounds what is held for each direction; 0 leaves it to the engine.
	BufferBytes int
	// Memory is told what the sessions hold; nil is nobody.
	Memory *Memory
	// WriteTimeout is how long a side may take no byte before it counts as dead; 0 is
	// for ever.
	WriteTimeout time.Duration
}

// Observer is told what happens to a session.
type Observer interface {
	// Closing is called once, when the session has begun to end. It must not block or call
	// the session.
	Closing()
	// Lost is called when the backend has left a session whose client is kept for another
	// one: Move, or CancelMove, is to come. It must not block or call the session.
	Lost(Loss)
	// Moved is called when a move is over. It must not block or call the session.
	Moved(Moved)
	// Ponged is told how long the backend took for the Pong to a Ping of the edge's own. It
	// must not block or call the session.
	Ponged(time.Duration)
	// Done is called once, when both connections are closed, on a goroutine that may
	// block.
	Done(Result)
}

// Loss is what there is to know of a backend that was lost.
type Loss struct {
	// Doubt is how many messages of the client it may or may not have dealt with.
	Doubt uint64
	// Why is gone, closed, or how the engine found out, as in relay.Verdict.
	Why string
}

// Moved is how a move ended.
type Moved struct {
	// Result is relay.MoveDone or why the session was not moved.
	Result string
	// Doubt is that of the loss, also where another backend was on its way already.
	Doubt uint64
}

// Result is how a session ended.
type Result struct {
	relay.Verdict
	// Counts are what came from each side.
	Counts [2]relay.Count
	// ClientErr and BackendErr are what ended each connection, if it was not an orderly
	// end of stream. os.ErrDeadlineExceeded is a write without progress.
	ClientErr, BackendErr error
}

// Session is one running session. Its methods may be called from anywhere. Each engine's
// has, beside these, a Move, which hands it a connection to another backend in the engine's
// own form and owns that from then on; Observer.Moved says what came of it.
type Session interface {
	// Close ends the session on behalf of the edge, in order. It does not wait.
	Close(relay.Ending)
	// Shed ends the session on behalf of the edge to get back the memory that it holds:
	// what waits for the client is dropped, as far as it has not begun with it. It does not
	// wait.
	Shed(relay.Ending)
	// CancelMove gives up a move that can still be given up, or ends a session that waits
	// for another backend. result is for Observer.Moved. It does not wait.
	CancelMove(result string)
	// Kill closes both connections as they stand. It does not wait.
	Kill()
	// Counts returns what has come from each side so far, also after the end. It may wait
	// for a turn of the session's loop.
	Counts() [2]relay.Count
	// Held returns how many bytes the session holds buffered. It may wait for a turn of the
	// session's loop.
	Held() int
}
