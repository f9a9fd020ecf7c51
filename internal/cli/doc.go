// Package cli has the commands that talk to a running edge (status, pools, sessions,
// close, drain, undrain, rebalance, reload) and the rules by which every command of tidegate ends.
//
// A command asks the admin API, package admin, and prints a table, or with --json the
// API's JSON as it came. It goes
//
//	arguments → admin.Client → answer → table on stdout
//
// and [Run] turns what went wrong into an exit code and one line on stderr:
//
//	0  done
//	1  refused or failed
//	2  wrong usage
//
// Invariants:
//   - stdout carries results only, so that it can be piped;
//   - a text that somebody else chose (an id, an address, a message of the server)
//     reaches a terminal without its control characters. JSON is escaped by the API;
//   - an error is one line; only what is a list, such as the diagnostics of a rejected
//     configuration, follows it, one per line.
package cli
