package load

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/gobwas/ws"
)

// clientWorker is what the sessions of one worker of a run share. All but its atomics
// belong to the worker.
type clientWorker struct {
	*worker
	o       *Options
	layout  *layout
	op      ws.OpCode // of messages
	head    []byte    // of a message's frame, without mask
	tally   *tally
	scratch []byte
	random  *rand.PCG
	clients []*client

	begun             bool
	from, until       int64 // the measured time
	sentAll, answered uint64
	abandoned         uint64 // unanswered on connections that ended
	open, failed      int
	ended, through    int // connections; through: see client.through

	// Published before the worker waits.
	pubSent, pubAnswered, pubAbandoned       atomic.Uint64
	pubOpen, pubFailed, pubEnded, pubThrough atomic.Int64
}

func (w *clientWorker) publish() {
	w.pubSent.Store(w.sentAll)
	w.pubAnswered.Store(w.answered)
	w.pubAbandoned.Store(w.abandoned)
	w.pubOpen.Store(int64(w.open))
	w.pubFailed.Store(int64(w.failed))
	w.pubEnded.Store(int64(w.ended))
	w.pubThrough.Store(int64(w.through))
}

// mask is a fresh mask; RFC 6455 wants it unpredictable for the sake of proxies that do
// not know WebSocket, which a load test does not attack.
func (w *clientWorker) mask() (m [4]byte) {
	r := w.random.Uint64()
	return [4]byte{byte(r), byte(r >> 8), byte(r >> 16), byte(r >> 24)}
}

// measured tells whether a time is one of those that are reported.
func (w *clientWorker) measured(at int64) bool { return w.begun && at >= w.from && at < w.until }
