package loop

import (
	"time"
	_ "unsafe" // for linkname
)

// yieldEvery is how long a busy loop may keep its processor without a word to the runtime,
// whose monitor takes a goroutine off after 10 ms, by a signal.
const yieldEvery = 4 * time.Millisecond

// goyield lets the goroutines that wait for this processor run, and then the caller: what
// runtime.Gosched does, but that one queues the caller for all processors and wakes a
// thread to fetch it. The runtime keeps the symbol for users outside; see the comment there.
//
//go:linkname goyield runtime.goyield
func goyield()

// yield lets others of this processor run, if the loop is busy and it is time to.
func (l *Loop) yield() {
	if l.pace < busyPace && l.now-l.yielded >= yieldEvery {
		l.yielded = l.now
		goyield()
	}
}
