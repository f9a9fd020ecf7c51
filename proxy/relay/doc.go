// Package relay is the protocol of one session, without I/O: bytes of one side go in,
// bytes for both sides come out, and it says when and how the session is over.
//
// A [Relay] reads frame headers in place and forwards payload as the same bytes, the
// client's mask included: the upstream leg is masked anyway, so nothing is unmasked or
// copied. Only what has to be looked at whole is held until it is whole: a header that
// was cut (14 bytes) and a control frame (139 bytes). Everything else passes on as it
// comes.
//
// # Path of the data
//
// The engine that owns the sockets calls [Relay.Begin] once; [Relay.Feed] with what it read,
// and writes the [Buffers] that come back; [Relay.End] when a side has ended; [Relay.Close]
// when the edge ends the session; [Relay.Tick] when the time of [Relay.Deadline] has come.
// After each call it asks [Relay.Shut] whether a side gets nothing more, and [Relay.Done]
// whether the session is over; after Feed also [Relay.Held], whether something was left for
// later, and [Relay.Rearm].
//
// A client that does not take what it is sent may have it kept by the relay, as frames
// ([Relay.Block], [Relay.Queue], [Relay.Take]), so that some of it can be passed by or
// dropped. That is the engine's to begin, and off with Options of backpressure.
//
// # Policies
//
// What a policy has to remember is in one struct that is allocated in Begin when any of
// them is on. Times that were put off by what came meanwhile, such as the next Ping, are
// only looked at when Tick comes: no timer is set anew for each frame.
//
// # How a session ends
//
//	open ── Close from a side ──────────► forwarded as it came; its answer goes back
//	open ── side breaks the protocol ───► Close to both, with the codes of Error and Ending
//	open ── backend ends without Close ─► Close 1012 to the client
//	open ── client ends without Close ──► end of stream to the backend, no invented Close
//	open ── Close by the edge ──────────► Close to the client; what it still says goes to
//	                                      the backend until it answers; then Close to that
//
// A Close of ours goes out at a boundary: between frames of that direction when a rule
// was broken, between messages when the edge ends the session. A side that does not
// finish within Options.CloseTimeout is given up; [Relay.Progress] defers that while
// bytes still move.
//
// # Invariants
//
//   - a relay does no I/O, takes no lock and reads no clock: time is an argument, a
//     monotonic duration since any fixed point;
//   - it allocates nothing in steady state;
//   - the bytes sent to a side are a sequence of whole frames, but for the last one of a
//     side whose peer vanished or broke a rule inside it;
//   - a side gets at most one Close, and nothing behind it;
//   - the result does not depend on where the input is cut, but for rules that the payload
//     of a frame can break (UTF-8, a rate of bytes): there it depends on whether the frame's
//     beginning had gone on already. Then no Close fits behind it, and that side gets the
//     end of its stream instead.
//
// A relay belongs to one engine and is not safe for concurrent use.
package relay
