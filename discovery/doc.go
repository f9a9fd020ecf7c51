// Package discovery says who the backends of a pool are.
//
// A [Source] watches one place where instances are announced (a Consul service, a
// list in the configuration) and publishes full, immutable [Snapshot]s; the latest
// one wins. A source knows nothing of sessions, balancing or health checks of the
// edge: it reports what the place says, and package balance gives it meaning.
//
// Invariants:
//   - a snapshot that was published is never changed, and neither is anything it
//     points to; it may be shared between goroutines without a lock;
//   - instances are sorted by ID, and an ID stands in a snapshot once;
//   - a source that loses its place keeps what it published last and publishes it
//     again with Stale set; it does not publish an empty set because of an error.
//
// The package imports the standard library only.
package discovery
