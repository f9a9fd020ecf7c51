package config

import (
	"crypto/sha256"
	"time"
)

// The struct tags of this file and of listener.go, route.go and pool.go are the schema:
//
//	key       the name in the YAML; a field without one is not read from it
//	required  "true": the key must be there and not empty
//	oneof     the accepted values of a string (of each element, for a list)
//	as        how text becomes the value, where the Go type does not say it:
//	          bytes, percent, memory, tls_version, file, hash_source
//	range     "LOW..HIGH" in the notation of the value; "0|" before it allows 0 as well
//	unique    "true": a list that may not repeat an element
//	noempty   "true": if the list is given it must have an element
//
// Every type sets its own defaults in defaults.go.

// File is a configuration that is valid. It is not changed after [Load] or [Parse]
// returned it, and may be shared between goroutines.
type File struct {
	// Name is the file name that was given to Load or Parse.
	Name string
	// Digest is the SHA-256 of the YAML as it was read, before any expansion. The
	// content of referenced files is not part of it.
	Digest [sha256.Size]byte

	Log      Log      `key:"log"`
	Admin    Admin    `key:"admin"`
	Shutdown Shutdown `key:"shutdown"`
	Memory   Memory   `key:"memory"`

	// Listeners, Routes and Pools have at least one element each.
	Listeners []Listener `key:"listeners" required:"true"`
	Routes    []Route    `key:"routes" required:"true"`
	Pools     []Pool     `key:"pools" required:"true"`
}

// Log is what is logged and how.
type Log struct {
	// Level is the least severity that is written: debug, info, warn or error.
	Level string `key:"level" oneof:"debug,info,warn,error"`
	// Format is json or console.
	Format string `key:"format" oneof:"json,console"`
}

// Admin is the address of the admin API and of the metrics.
type Admin struct {
	// Address is host:port, or unix: and an absolute path.
	Address string `key:"address" required:"true"`
	// TokenFile holds the bearer token that callers must send; empty: none.
	TokenFile string `key:"token_file" as:"file"`
}

// Memory bounds what sessions hold together.
type Memory struct {
	// MaxBuffered is for all buffered bytes of the process; zero is no limit.
	MaxBuffered MemorySize `key:"max_buffered" as:"memory"`
}

// MemorySize is a number of bytes, or a share of the memory of the machine or cgroup,
// from 0 to 1.
type MemorySize struct {
	Bytes int64
	Share float64
}

// Shutdown is the pace of closing sessions on SIGTERM.
type Shutdown struct {
	// DrainWindow is the time over which sessions are closed; 0 closes all at once.
	DrainWindow time.Duration `key:"drain_window"`
	// Deadline is when the process exits whatever is left, counted from the signal.
	// 0 is no deadline; otherwise it is at least DrainWindow.
	Deadline time.Duration `key:"deadline"`
}
