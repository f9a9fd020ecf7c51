// Package histogram counts durations in fixed buckets without a lock.
//
// It exists so that the packages on the path of a session (proxy and below) can
// keep distributions without importing a metrics system: they call
// [Histogram.Observe], and whoever exports them reads a [Snapshot].
//
// Invariants:
//   - Observe allocates nothing, takes no lock, and may be called from any number of
//     goroutines;
//   - the buckets of a snapshot are cumulative and never decrease, and Count is
//     their total, even while observations go on;
//   - Sum may lag behind Count, or run ahead of it, by the observations that are
//     being made at the moment of the snapshot.
//
// The package imports the standard library only.
package histogram
