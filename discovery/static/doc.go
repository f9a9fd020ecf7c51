// Package static is the discovery source for backends that are written down in the
// configuration.
//
// It owns nothing: it publishes the list it was given once and then waits, because a
// changed list arrives with a reload, as another source. What it publishes is never
// stale and has no index.
package static
