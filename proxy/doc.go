// Package proxy is the edge: it accepts connections, matches requests to routes, picks a
// backend, makes the upstream handshake, and runs sessions until they end.
//
// # One connection
//
//	accept ─ limits ─ PROXY header ─ TLS ─ request head ─ route ─ checks ─ pick ─ dial ─
//	upstream handshake (retries only here) ─ hijack ─ 101 ─ session on an engine ─ end
//
// A [Server] outlives every configuration. A configuration becomes a generation:
// [Server.Prepare] does everything that can fail (sockets, certificates, policies) and
// [Next.Commit] swaps it in. A listener is known by its address and a pool by its name;
// what is unchanged is used again: the socket, the certificate store, the discovery
// watchers, and the live state of backends in the pool's registry.
//
// A session is handshaking in the HTTP handler and becomes a [Session] when both
// handshakes are done:
//
//	handshaking ──► open ──► closing ──► closed
//	     │                                 ▲
//	     └── refused (an HTTP answer)      └── also straight from open, when a side vanishes
//
// # Invariants
//
//   - nothing is written to a client before the upstream handshake is complete, but for an
//     HTTP answer that ends the matter; nothing but frames is written after the hijack;
//   - a pick is paid back exactly once: Release when no session came of it, else Open
//     and, at the end, Close;
//   - a session holds the values that it opened with, never the generation;
//   - a backend that is drained has one drain, which lasts until nobody wants it any more; its
//     goroutine lives as long as sessions are left, and Shutdown stops it before it closes
//     what is left by its own pace;
//   - on a sticky route the policy picks only for requests without a key: those with one, and
//     sessions that move, go where the key says, so that all of a client's meet;
//   - a pool that is rebalanced has one rebalancer; it touches no session of a backend that
//     drains, closes none that can be moved, and Shutdown stops it first;
//   - a fault of one listener, pool or session is confined to it.
//
// The package knows neither YAML, nor Prometheus, nor the admin API: settings are plain
// values, and counters are read by whoever shows them.
package proxy
