// Package consul is the discovery source that follows one service of Consul.
//
// The path of data, for each datacenter of the configuration:
//
//	watcher (one goroutine)           the goroutine that called Watch
//	blocking query ─► map entries ─►  judge: empty protection ─► debounce ─►
//	   ▲     │ index rules            choose the datacenter ─► diff ─► publish
//	   └─────┘ back-off, rate limit                                  └► snapshot file
//
// # Questions
//
// A watcher asks /v1/health/service with the index of the last answer and waits for
// the next one; it never asks for passing instances only, because then maintenance,
// warning and critical could not be told from deregistration. An index that goes
// backwards, and any error, starts over with index 0; an index of 0 counts as 1. An
// answer is not a change: what is published is the difference. A token bucket bounds
// the rate of questions, jittered exponential back-off that never gives up follows
// errors.
//
// # Meaning
//
//	in Consul                                        discovery.Instance
//	datacenter/node/service id                       ID
//	service address, else node address; port         Addr
//	Weights.Passing, or .Warning while warning       Weight (1 where there are none)
//	_service_maintenance:*, _node_maintenance        Status Maintenance
//	any critical check, serfHealth included          Status Down
//	any warning check                                Up, or Down with PassingOnly
//
// Tags and meta come from whoever registered the service: they are bounded (see
// instances.go) and otherwise copied as they are. An instance without a usable address
// is left out with one line in the log; the others are not affected.
//
// # Trouble
//
// Consul being unreachable says nothing about the service: the last set stays and is
// published again as Stale, until Consul answers. So does a set that came from
// SnapshotFile, one whose answer came from a server that lost its leader for long, and
// one that is held back as described next.
//
// A server that has just started answers from its log while it replays it: with instances
// that left long ago, or with a maintenance that is over. After a failure, an answer whose
// index is behind the last one before is therefore not believed until the index has stood
// for 2 s; a catalog that was lost or restored is believed that much later.
//
// A token without permission looks like a service without instances. Therefore:
//
//   - an answer that loses EmptyProtection.MaxLoss or more of the instances at once (by
//     default: all of them) is doubted for EmptyProtection.Hold. Meanwhile those that
//     vanished stay in the set as they were, and the set is Stale. If Consul still says
//     so when Hold is over, it is believed; an unreachable Consul cannot confirm it. The
//     loss is counted in instances that disappear (10 instances replaced by 10 others
//     lose nothing); one that turns critical has not disappeared. A service that is
//     scaled to zero on purpose therefore keeps its backends for Hold longer, and the
//     edge's own health checks decide about them;
//   - an empty answer that Consul marks as filtered by ACLs never replaces a set, and an
//     answer that is marked so for the first time and lost any instance is doubted like
//     a large loss. (Consul does not mark answers to the anonymous token.)
//   - while an answer is empty or old, the question is repeated every few seconds instead
//     of blocking: the repair of a policy does not wake a blocked query.
//
// # Several datacenters
//
// All of Datacenters are watched. The first of them with an eligible instance (Up,
// weight above 0) is in use; the next one takes over when it has none, and it gets the
// new sessions back as soon as it has one again. The instances of the datacenters that
// are not in use are part of the set with weight 0: they take no new sessions, but
// nobody's session is closed because a datacenter came back. A datacenter that has been
// unreachable for 30 s is passed over while a later one can be reached; if none can, the
// choice stays as it is.
//
// # Invariants
//
//   - New starts nothing; every goroutine ends before Watch returns.
//   - Watch publishes from the goroutine that called it, in order, and never because of
//     an error alone anything but the last set marked Stale.
//   - Trouble is logged once when it begins and once when it ends, counted in between.
//
// The package does not import Prometheus or YAML: [Source.Stats] has the figures.
package consul
