// Package pump is the goroutine engine: it moves the bytes of one session between two
// connections with two goroutines, and is the reference for every other engine.
//
// Each side has a reader. It reads, feeds the relay under the session's mutex, and
// writes what the relay hands out to the other side itself, without the mutex: while a
// peer does not take its bytes, nothing more is read for it, which is all the
// backpressure there is. Frames of the edge's own (a Close) join a short queue behind
// what is being written.
//
// Invariants:
//   - the order of relay calls is the order of bytes on the wire: whoever feeds the
//     relay either becomes the writer of that side at once or queues behind it;
//   - a side has one writer at a time, and a side without a writer has an empty queue;
//   - the mutex is never held over I/O;
//   - a write error ends nothing by itself: the side is read to its end, so that its
//     last words arrive;
//   - memory: one read buffer a side, between [minBufferBytes] and Options.BufferBytes,
//     and in the queue no more than that and a few control frames.
//
// Every goroutine of a session ends when both connections have ended; [Session.Kill]
// ends them at once.
package pump
