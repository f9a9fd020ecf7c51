// Package load drives WebSocket servers and proxies with many connections and measures
// what comes back, and is the backend that answers it. `tidegate bench` and the programs
// of bench/ are made of it.
//
// [Run] is the client end, [Server] the other one. Both keep their connections on a few
// workers:
//
//	dial, TLS, upgrade (goroutines) → worker: read → frames → session → write
//	                                    ↑ due times (a heap)
//
// A [worker] is one goroutine that owns its sessions; what happens to a session happens
// there, so sessions have no locks. Beneath it is an engine: epoll on Linux, and
// goroutines around net.Conn elsewhere, with the same tests for both.
//
// What a message carries: the number of its connection, its sequence number there, and
// the time at which it was to be sent. So each answer tells what it is an answer to, and
// lost, doubled, reordered and misdelivered messages show.
//
// Invariants:
//   - at a fixed rate the latency of a message counts from the time at which the
//     schedule wanted it sent, whatever held it up (no coordinated omission). What the
//     generator itself was late is reported apart;
//   - sending and receiving a message allocates nothing;
//   - memory does not grow with what a slow peer leaves unread: a message whose time has
//     come waits as a number, not as bytes;
//   - no goroutine outlives Run or Serve.
//
// The package has a frame reader of its own, because what is measured must not check
// itself. It imports nothing of the rest of Tidegate.
package load
