// Package deflate is permessage-deflate (RFC 7692) for an intermediary: what a
// Sec-WebSocket-Extensions header offers and answers, and messages compressed and inflated
// one by one.
//
// # Negotiation
//
// [ParseOffers] reads what a client offers. An edge that lets compressed messages pass
// offers the same to the backend with [Offers.String] and holds its answer against that
// with [Offers.CheckAnswer]. An edge that ends compression answers by itself with
// [Offers.Accept]. An offer that must be declined (RFC 7692 §7.1) is left out and fails
// nothing; a header that breaks the grammar (RFC 6455 §9.1) fails the handshake, as does an
// answer that no offer allows.
//
// # Path of the data
//
// To compress, the bytes of a message go through [Compressor.Write], as they come, and
// [Compressor.Finish]; what they append is the payload of frames, the first of which has
// RSV1 set (§6). To inflate, the payload of a whole message goes to [Inflater.Start], and
// [Inflater.Next] fills one buffer after another, so that a caller stops where it wants and
// does other work in between. Each ends by itself, or with Abandon.
//
// # What it costs
//
// Between messages a Compressor holds 16 bytes and an Inflater 8. While a message is under
// way they hold a writer or a stream of a pool:
//
//	level 1                      800 KiB
//	levels 2, 3                1,184 KiB
//	level 4                      928 KiB
//	levels 5, 6                1,056 KiB
//	levels 7, 8                  992 KiB
//	level 9                    1,386 KiB
//	a window below 32 KiB      1,056 KiB
//	inflating                     64 KiB
//
// So whoever has a message in one piece should write and finish it in one go: then an event
// loop holds one writer, and not one for each session whose peer is slow in finishing a
// message. From level 7 on, a writer clears 640 KiB of tables for each message, however
// small.
//
// # Whose code compresses and inflates
//
// Compressing is github.com/klauspost/compress/flate's, which can keep to every window.
// Inflating is our own. The readers of that package (v1.20.3) keep the tables of Huffman
// codes across Reset: an empty code leaves the one before it in force, so that what a
// message inflates to can depend on somebody else's. No reader says whether it has taken
// the tail for what it is, which tells a message that ends from one that was cut, and none
// can stop among blocks that hold nothing.
//
// # Invariants
//
//   - nothing outlives a message: no window is taken over, in either direction
//     (§7.1.1), and what one message held, its codes included, is out of reach of the next;
//   - a Compressor's matches stay in its window, the smallest of 256 bytes included;
//   - memory does not depend on what a message inflates to, and a call of Next lasts no
//     longer than its buffer is long, and 64 blocks;
//   - a message that is cut anywhere is an error, unless what is left is one by itself;
//   - nothing is allocated in steady state, but by appending to what a caller gave.
//
// The package does no I/O, starts no goroutine and reads no clock. Its only locks are those
// of sync.Pool. A Compressor or an Inflater belongs to one goroutine at a time.
package deflate
