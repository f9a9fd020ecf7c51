// Package test holds the tests of the whole binary: real sockets, real TLS, a real
// Consul agent, clients of other people, a browser. It has no code of its own.
package test
