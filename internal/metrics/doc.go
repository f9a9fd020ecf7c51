// Package metrics shows the edge's counters to Prometheus.
//
// Nothing here counts. The packages that do the work keep plain counters; a [Source]
// gathers them into one [Snapshot] when Prometheus asks, and the collector turns that
// into constant metrics that live as long as the scrape:
//
//	scrape → promhttp → collector → Source.Snapshot() → const metrics
//
// Invariants:
//   - a series exists exactly while the source reports what it is about, so the
//     series of a backend that is gone go with it;
//   - label values are bounded: a client's address, a user, a path or a tag is never
//     one, close codes that applications define are bucketed;
//   - names and ids that are not UTF-8 are shown escaped, and one bad series never
//     costs the rest of the scrape.
//
// Names and labels are those of the contract with the prefix tidegate_; the standard
// go_* and process_* collectors stand beside them without it.
package metrics
