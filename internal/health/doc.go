// Package health finds out which backends of a pool are fit to take new sessions.
//
// It owns the marks Failing, Outlier, Warming and Panicking of package balance: it probes
// backends (active), hears how handshakes and sessions fare (passive), warms backends that
// are new or back (slow start), and has all of a pool used when too few are left (panic). It
// ends no session, picks no backend and knows no discovery but what a set says.
//
// There is one [Monitor] for each pool. Whoever owns the pool gives it settings and sets,
// tells it of handshakes and sessions, and runs it:
//
//	Update ──► members ──► Run: probers, one a backend ──► verdict ─┐
//	Connected, HandshakeFailed, Opened, Ended ──► rows of failures ─┴─► marks ──► picks
//
// Invariants:
//   - A mark follows from what is known of the backend under the monitor's lock. A backend
//     that has left the set, or that has another address now, has none of them left, and what
//     is said of it late counts for nothing.
//   - No lock is held while a probe runs, a callback is called or a line is logged.
//   - A probe waits for nothing but its own backend.
//   - Run starts every goroutine there is and returns when they have ended. While nobody is
//     ejected or warming, and without probes, it sleeps.
//   - What the client or the edge has caused is never counted against a backend.
package health
