// Package balance picks the backend of a pool for a new session.
//
// It owns the live state of backends: how many sessions and dials in flight each
// one has, whether it takes new sessions, what failed. It does not dial, probe,
// drain or read a clock, and it starts no goroutine.
//
// The path of data: a discovery snapshot goes to [Registry.Update], which returns
// the next immutable [Set]; a [Policy] builds a [Picker] for that set; whoever owns
// the pool swaps the picker in with one atomic store. A session calls [Picker.Pick],
// dials what it got, and ends the reservation that comes with it.
//
//	Pick ──► in flight ──Open──► session ──Close──► gone
//	             └──────Release──► gone
//
// Invariants:
//   - A Live belongs to the identity of a backend (discovery.Instance.ID), not to a
//     set or a policy. Weight, tags, address, policy and configuration may change and
//     the backend may leave and return: the counts stay. It is forgotten when it has
//     left and its last session or dial in flight has ended.
//   - What discovery says, the marks of operator and health, and the counts of a backend
//     are one atomic word, so that a reservation is never placed on a backend that has
//     stopped to take sessions: after that was written, no pick of any picker, old or
//     new, lands on it. Nobody overwrites what another party has said.
//   - A backend's limit of sessions is checked in the step that reserves, so that no number
//     of picks at once goes over it.
//   - Sets and pickers are immutable. What changes between two sets (state, counts)
//     is read at the time of the pick, so health can act without a new set.
//   - Pick takes no lock, allocates nothing, and may be called by any goroutine.
//   - A request with a key is answered alike under every policy: by [Request].Preferred, or by
//     the weighted rendezvous hash of the key. What that gives never changes between versions.
//   - A weight of 0 or less takes no new sessions. Weights count relative to each
//     other. They are exact up to 2^30; in a set that has a larger one all are halved
//     until the largest fits, and none falls below 1.
package balance
