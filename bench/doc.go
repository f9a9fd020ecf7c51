// Command bench measures Tidegate, HAProxy, nginx and no proxy at all side by side, and
// Caddy for plain requests, on the machine that it runs on (`make bench`).
//
// It writes the proxies' configurations from the templates in configs, starts each proxy
// on one core and the load generator (itself, package load) and the backend on another,
// and runs every measure with every proxy, round by round, the order turning, so that
// what changes on the machine hits all alike. Reported are medians.
//
//	settings.go   the proxies and their variants
//	measures.go   what is measured, with what load, and what Tidegate is to reach
//	memory.go     idle sessions
//	requests.go   plain HTTP requests, the clients; answers.go, their backend
//	rounds.go     the order of things
//	results.go    samples → medians → ratios
//	markdown.go   the page for docs/benchmarks.md; markdown_requests.go, one section of it
//	merge.go      samples of some measures into those of a whole run
//	process.go    children: pinned, watched, ended by process id
//	setup.go      what must be there: packages, certificate, tidegate, Caddy (caddy/build.sh)
//	machine.go    what the figures were measured on, and how quiet it was
//
// docs/benchmarks.md is made of samples that are kept beside it and of notes on them:
//
//	bin/bench -render docs/benchmarks.json -notes bench/notes.md -out docs/benchmarks.md
//
// New samples of some measures get there so, after a look at them:
//
//	bin/bench -only '^https?-' -results bench/results
//	bin/bench -merge bench/results/DATE.json -into docs/benchmarks.json
//
// After a run with other samples to keep, the notes have to be written again.
//
// Everything goes over loopback. It needs Linux (/proc, taskset).
package main
