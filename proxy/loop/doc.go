// Package loop runs connections on event loops: one goroutine and one epoll instance a
// core own all connections of that core, so that an idle connection costs neither a
// goroutine nor a buffer nor a timer of the runtime (Linux only).
//
// # Path of the data
//
//	epoll ─► read into the loop's scratch ─► Handler.Data ─► Conn.Write of another Conn
//	                                                            │ at once, while its
//	                                                            │ queue is empty
//	EPOLLOUT ─► Conn's queue ─► Handler.Wrote                 └► else its queue
//
// Descriptors are registered once, edge-triggered, for everything. A read that did not
// fill the scratch is the last one of an event, unless the event said that the peer has
// ended. A connection that has more to read than its share waits in a list behind the
// others. What a handler does not take of the scratch (part of a TLS record) is kept
// and presented again in front of what comes next.
//
// # Invariants
//
//   - a Conn, its Handler and its Timers are touched by the goroutine of its loop only;
//     from outside there is [Loop.Post];
//   - a handler never blocks: what it calls here returns at once;
//   - a Conn that is closed gets no more calls, whatever events are still on their way;
//   - bytes that a handler is given are the loop's, and good until it returns;
//   - a queue holds what the socket did not take at once, and nothing else: bounding it
//     is the handler's, by pausing whoever fills it.
//
// While its turns follow each other closely a loop waits by a system call of which the
// runtime does not know, and keeps its processor (docs/decisions/0008): a program has to
// have more of them (GOMAXPROCS) than loops. One that has had little to do for a while parks
// in the runtime's poller (docs/decisions/0012).
//
// The package knows no protocol.
package loop
