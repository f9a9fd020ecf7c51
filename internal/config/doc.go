// Package config turns the one YAML file of an edge into plain Go values, or into a
// complete list of what is wrong with it.
//
// # Path of data
//
//	bytes ─ parse ─> yaml.Node tree ─ decode ─> File + position of every value ─ validate ─> File
//	                      │                         │                                │
//	                      └──────── Diagnostic ─────┴───────── Diagnostic ───────────┘
//
// The struct tags in file.go are the schema: decode walks the node tree and the Go
// types side by side, fills in defaults, expands ${ENV}, converts scalars by the type
// of their field, checks ranges and choices, and remembers under the path of each
// value (pools[0].balance.policy) where it stands. The validate files then check what
// no single value can show, such as references, duplicates, ties between routes,
// contradictions and unusable files, and look up positions by path.
//
// # Invariants
//
//   - A key is either in the schema and does what it promises, or it is an error. Keys
//     that are planned are listed in later.go and are refused with words of their own.
//   - A [File] is handed out only if there was no diagnostic at all. What it holds is
//     valid, has its defaults filled in and is never changed afterwards.
//   - All problems are reported at once, in the order of their positions. A value that
//     could not be decoded causes no further diagnostics.
//   - Every diagnostic has a line and a column of at least 1.
//   - The text of an environment variable is a value, never YAML: it cannot add keys,
//     and ${…} inside it is not expanded again.
//
// # File names in the YAML
//
// A relative file name (certificates, token files, snapshot_file, …) is relative to
// the directory of the YAML file, whatever the working directory is. In a [File] all
// of them are resolved. The same holds for [Parse], whose name need not exist.
//
// The package reads files and the environment; it opens no sockets, starts no
// goroutine and logs nothing. It must not import the packages that it configures.
package config
