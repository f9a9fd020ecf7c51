package balance

import (
	"sync/atomic"

	"github.com/tidegate/tidegate/discovery"
)

// Backend is one backend as one set knows it. It is immutable. Two backends of
// different sets are the same one if their Live is the same pointer.
type Backend struct {
	discovery.Instance
	// Live is the state that outlives the set. It is never nil in a set.
	Live *Live
}

// State says whether a backend takes new sessions, and if not, why. It follows from what
// discovery, the operator and the health checks say of the backend, see [Mark]: the
// weightiest of them gives it its name.
type State uint32

const (
	// StateUp takes new sessions.
	StateUp State = iota
	// StateSlowStart takes new sessions, and is to get fewer of them for a while.
	StateSlowStart
	// StateDraining takes none; those that it has leave at a pace.
	StateDraining
	// StateEjected takes none, unless too few others are left: health checks took it out.
	StateEjected
	// StateDown takes none: discovery says that it does not work.
	StateDown
	// StateRemoved takes none: discovery does not know it any more.
	StateRemoved

	numStates
)

var stateNames = [numStates]string{"up", "slow_start", "draining", "ejected", "down", "removed"}

// String returns the word that the API and the metrics use.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "unknown"
}

// Mark is what somebody other than discovery has found out or decided about a backend.
// Marks are set apart from each other, so that nobody undoes another's decision, and stay
// while sets come and go.
type Mark uint64

const (
	// Drained: an operator had the backend drained.
	Drained Mark = 1 << (iota + markShift)
	// Failing: active probes do not get the answer that they want.
	Failing
	// Outlier: what happened to its sessions is out of line.
	Outlier
	// Warming: it is new, or back, and gets fewer sessions than its weight says.
	Warming
	// Panicking: so few are left in the pool that neither Failing nor Outlier counts.
	Panicking
)

// FailureKind is what went wrong with a backend, as counted by [Live.Fail].
type FailureKind uint8

const (
	// FailureConnect is a connection that was refused, reset or unreachable.
	FailureConnect FailureKind = iota
	// FailureTimeout is no connection or no answer in time.
	FailureTimeout
	// FailureTLS is a failed TLS handshake.
	FailureTLS
	// FailureHandshake is an answer that is no valid WebSocket handshake.
	FailureHandshake
	// FailureStatus is an answer with a 5xx status.
	FailureStatus
	// FailureAborted is a session that the backend ended without a Close frame.
	FailureAborted
	// FailureEarlyDeath is a session that the backend closed soon after it had opened.
	FailureEarlyDeath
	// FailureViolation is a session in which the backend broke the protocol.
	FailureViolation
	// FailureInternal is a session that the backend closed with 1011.
	FailureInternal
	// FailureProbe is a probe of a health check that did not pass.
	FailureProbe

	// NumFailureKinds is how many kinds there are; they count from 0.
	NumFailureKinds
)

var failureNames = [NumFailureKinds]string{"connect", "timeout", "tls", "handshake", "status", "aborted",
	"early_death", "violation", "internal_error", "probe"}

// String returns the value of the metric's label kind.
func (k FailureKind) String() string {
	if k < NumFailureKinds {
		return failureNames[k]
	}
	return "unknown"
}

// Live is the live state of a backend. All methods may be called from any goroutine
// and take no lock. The zero value is a backend that is up and idle. A Live must not
// be copied.
//
// [Picker.Pick] places one reservation on the backend that it returns, and the
// caller ends it with exactly one call of Open or Release; after Open, Close follows
// when the session ends. Ending what was not begun panics, as with a
// sync.WaitGroup: a count that is wrong would mislead every later pick.
type Live struct {
	word     atomic.Uint64 // state and counts, see word
	picks    atomic.Uint64
	cold     atomic.Uint32 // 65536ths of its share that it does without, see Warm
	failures [NumFailureKinds]atomic.Uint64
	// What policies measure, each written by its method; at first nothing.
	bandwidth pair          // bytes per second, and of how many sessions
	report    atomic.Uint64 // of its load, see Report
	handshake peaking       // how long it takes for one
	pong      peaking
	// A multiple of 128 bytes keeps neighbours apart also where the processor fetches cache
	// lines in pairs or has lines of 128 bytes.
	_ [120]byte
}

// Open turns a reservation into a session.
func (l *Live) Open() {
	for {
		w := word(l.word.Load())
		if w.inFlight() == 0 {
			panic("balance: Open without a reservation")
		}
		if l.swap(w, w-oneInFlight+oneSession) {
			return
		}
	}
}

// Release ends a reservation whose dial failed or was given up.
func (l *Live) Release() {
	for {
		w := word(l.word.Load())
		if w.inFlight() == 0 {
			panic("balance: Release without a reservation")
		}
		if l.swap(w, w-oneInFlight) {
			return
		}
	}
}

// Close ends a session that was opened.
func (l *Live) Close() {
	for {
		w := word(l.word.Load())
		if w.sessions() == 0 {
			panic("balance: Close without an open session")
		}
		if l.swap(w, w-oneSession) {
			return
		}
	}
}

// Sessions returns the number of open sessions.
func (l *Live) Sessions() int64 { return word(l.word.Load()).sessions() }

// InFlight returns the number of reservations that are neither opened nor released.
func (l *Live) InFlight() int64 { return word(l.word.Load()).inFlight() }

// Load returns sessions plus in flight, both of the same moment.
func (l *Live) Load() int64 { return word(l.word.Load()).load() }

// Picks returns how many reservations were ever placed.
func (l *Live) Picks() uint64 { return l.picks.Load() }

// State returns the present state.
func (l *Live) State() State { return word(l.word.Load()).state() }

// Set sets a mark, or takes it away, and reports whether that changed anything. Each mark
// has one party that sets it.
func (l *Live) Set(m Mark, on bool) (changed bool) {
	for {
		w := word(l.word.Load())
		if w.has(m) == on {
			return false
		}
		if l.swap(w, w^word(m)) {
			return true
		}
	}
}

// Has reports whether a mark is set.
func (l *Live) Has(m Mark) bool { return word(l.word.Load()).has(m) }

// Warm says which share of the sessions that its weight stands for the backend is to get,
// above 0 and up to 1. Below 1 it is Warming.
func (l *Live) Warm(share float64) {
	l.cold.Store(uint32((1 - share) * (1 << 16)))
	l.Set(Warming, share < 1)
}

// Warmth returns the share that Warm has set, at first 1.
func (l *Live) Warmth() float64 { return 1 - float64(l.cold.Load())/(1<<16) }

// Eligible reports whether the backend takes new sessions.
func (l *Live) Eligible() bool { return word(l.word.Load()).eligible() }

// Fail counts one failure. It changes nothing else: what follows from failures is
// the business of health. It panics on a kind that does not exist.
func (l *Live) Fail(kind FailureKind) { l.failures[kind].Add(1) }

// Failures returns how many failures of one kind were counted. It panics on a kind
// that does not exist.
func (l *Live) Failures(kind FailureKind) uint64 { return l.failures[kind].Load() }

// stand writes what discovery says.
func (l *Live) stand(to standing) {
	for {
		w := word(l.word.Load())
		if l.swap(w, w&^(standingMask<<standingShift)|word(to)<<standingShift) {
			return
		}
	}
}

// reserveBelow places one reservation unless the backend takes no new sessions or its load
// has reached the limit, which is countMask at most.
func (l *Live) reserveBelow(limit int64) bool {
	for {
		w := word(l.word.Load())
		if !w.takes(limit) {
			return false
		}
		if l.swap(w, w+oneInFlight) {
			l.picks.Add(1)
			return true
		}
	}
}

// reserveAt is reserveBelow, but only while the load is what the caller decided on.
func (l *Live) reserveAt(load int64) bool {
	for {
		w := word(l.word.Load())
		if w.load() != load || !w.takes(countMask) {
			return false
		}
		if l.swap(w, w+oneInFlight) {
			l.picks.Add(1)
			return true
		}
	}
}

func (l *Live) swap(from, to word) bool { return l.word.CompareAndSwap(uint64(from), uint64(to)) }

// word packs what must change or be read as one: from the lowest bit 28 bits of
// reservations in flight, 28 of sessions, 2 of what discovery says, 5 of marks.
type word uint64

const (
	countBits     = 28
	countMask     = 1<<countBits - 1
	standingShift = 2 * countBits
	standingMask  = 3
	markShift     = standingShift + 2

	oneInFlight word = 1
	oneSession  word = 1 << countBits
)

// standing is what discovery says of a backend.
type standing uint8

const (
	present standing = iota
	maintained
	broken
	removed
)

func (w word) inFlight() int64    { return int64(w & countMask) }
func (w word) sessions() int64    { return int64(w >> countBits & countMask) }
func (w word) load() int64        { return w.inFlight() + w.sessions() }
func (w word) standing() standing { return standing(w >> standingShift & standingMask) }
func (w word) has(m Mark) bool    { return w&word(m) != 0 }

func (w word) state() State {
	switch standing := w.standing(); {
	case standing == removed:
		return StateRemoved
	case standing == maintained || w.has(Drained):
		return StateDraining
	case standing == broken:
		return StateDown
	case w.has(Failing | Outlier):
		return StateEjected
	case w.has(Warming):
		return StateSlowStart
	}
	return StateUp
}

func (w word) eligible() bool {
	const shut, sick = standingMask<<standingShift | word(Drained), word(Failing | Outlier)
	return w&(shut|sick) == 0 || w&shut == 0 && w.has(Panicking)
}

// takes reports whether one more is taken on under a limit of the load. The limit is
// countMask at most, so that neither count can run into its neighbour.
func (w word) takes(limit int64) bool { return w.load() < limit && w.eligible() }
