// Package evented is the event-loop engine: sessions whose two connections live on one
// loop of package loop (Linux only).
//
// # Path of the data
//
//	loop: bytes read ─► Codec.Open, where the leg has TLS ─► relay.Feed ─► Codec.Seal ─►
//	loop: write to the other connection at once; what it does not take waits in its queue,
//	      and nothing more is read from this side until that is gone
//
// # Invariants
//
//   - a session belongs to one loop; all of its fields are touched there only. Close,
//     Kill and Counts come in through the loop's mailbox; what has been counted may also be
//     read once all loops have ended;
//   - an idle session holds no buffer, no goroutine and no timer that is set;
//   - the bytes of a relay call are written before the next call: what is shared by the
//     sessions of a loop (scratch, Buffers) is never kept;
//   - a side that takes nothing more is read to its end, so that its last words arrive;
//   - Observer.Done runs on a goroutine of its own: it may log, and a loop never waits.
package evented
