package metrics

import "github.com/prometheus/client_golang/prometheus"

// descs are all descriptions, in the order of their declaration.
var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("tidegate_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
}

var (
	sessionsActive = desc("sessions_active",
		"Live sessions.", "listener", "route")
	handshakesTotal = desc("handshakes_total",
		"WebSocket handshakes by result: ok or a short cause.", "route", "result")
	handshakeDuration = desc("handshake_duration_seconds",
		"Time from a complete request head to the 101.", "route")
	messagesTotal = desc("messages_total",
		"Messages forwarded, by direction (upstream: from the client) and type.", "route", "direction", "type")
	messageBytesTotal = desc("message_bytes_total",
		"Payload bytes of messages forwarded.", "route", "direction")
	framesTotal = desc("frames_total",
		"Frames forwarded, by opcode.", "route", "direction", "opcode")
	closesTotal = desc("closes_total",
		"Ended sessions by close code (none: without a Close) and who began it.", "route", "code", "initiator")
	messagesDroppedTotal = desc("messages_dropped_total",
		"Messages forwarded that slow consumers did not get (slow_consumer: drop_oldest).", "route", "direction")
	sessionEndsTotal = desc("session_ends_total",
		"Ended sessions by whose doing it was and why, in one word.", "route", "by", "cause")
	pingRTT = desc("ping_rtt_seconds",
		"Time between a Ping of the edge's own and its Pong.", "route")
	sessionDuration = desc("session_duration_seconds",
		"How long ended sessions lived.", "route")
	requestsTotal = desc("requests_total",
		"HTTP requests by the status code of the answer, handshakes included.", "route", "code")
	requestsInFlight = desc("requests_in_flight",
		"HTTP requests that are no handshakes and are not over yet, event streams included.")
	bufferedBytes = desc("buffered_bytes",
		"Bytes held for peers that have not taken them yet, and of messages that are not whole.")
	shedTotal = desc("shed_total",
		"Connections and sessions refused or closed because of overload or a limit.", "reason")

	backendSessionsActive = desc("backend_sessions_active",
		"Live sessions of a backend.", "pool", "backend")
	backendState = desc("backend_state",
		"1 for the state that a backend is in, 0 for the others.", "pool", "backend", "state")
	backendPicksTotal = desc("backend_picks_total",
		"How often the balancer chose a backend.", "pool", "backend")
	backendConnectDuration = desc("backend_connect_duration_seconds",
		"Time to connect to a backend, TLS included.", "pool")
	backendFailuresTotal = desc("backend_failures_total",
		"Failed attempts to use a backend, by kind.", "pool", "backend", "kind")

	poolPanic = desc("pool_panic",
		"1 while all backends are used because too few are healthy.", "pool")
	drainRemaining = desc("drain_remaining",
		"Sessions that a backend which is drained still has.", "pool", "backend")
	migrationsTotal = desc("migrations_total",
		"Moves of sessions to another backend by result: ok or a short cause.", "pool", "result")
	messagesInDoubtTotal = desc("messages_in_doubt_total",
		"Messages of clients of which nobody knows whether a backend that was lost has dealt with them.", "pool")
	rebalancedTotal = desc("rebalanced_total",
		"Sessions that were moved, or closed to come again, because their backend had more than its share.", "pool")

	configGeneration = desc("config_generation",
		"Number of the applied configuration.")
	configReloadsTotal = desc("config_reloads_total",
		"Configuration reloads by result: ok or a short cause.", "result")
	configLastReloadSuccess = desc("config_last_reload_success",
		"1 if the last reload was applied, 0 if it was rejected.")
	certificateNotAfter = desc("certificate_not_after_seconds",
		"When a served certificate expires, in seconds since 1970.", "listener", "name")

	consulIndex = desc("consul_index",
		"Last X-Consul-Index seen.", "pool")
	consulLastContact = desc("consul_last_contact_timestamp_seconds",
		"When Consul last answered, in seconds since 1970; 0 for never.", "pool")
	consulErrorsTotal = desc("consul_errors_total",
		"Failed queries of Consul.", "pool")
	discoveryStale = desc("discovery_stale",
		"1 while the set is not known to be current: discovery gets no answer, or doubts it.", "pool")
)
