package tls

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// content is everything that a store has loaded. Once published it is never
// changed; a reload builds the next one out of it.
type content struct {
	pairs     []part[*keyPair]     // in the order of the settings
	clientCAs part[*x509.CertPool] // zero unless client certificates are asked for
	tickets   []part[ticketKey]    // in the order of the settings, empty for automatic keys

	// Built from the parts above, and only when these change.
	names     *nameIndex
	ticketing *cryptotls.Config // holds the ticket keys, and is used for nothing else
	forClient *cryptotls.Config // what GetConfigForClient returns, or nil
}

// part is one thing that is loaded from files: the value in force, the content
// that it came from, and what is wrong with the content that lies there now.
type part[T any] struct {
	value   T
	digest  digest // zero: never loaded
	failure error
}

// refresh returns the part as its files say now. Content that cannot be used
// keeps the value and sets failure.
func (p part[T]) refresh(read readFunc, files []string, parse func([][]byte) (T, error)) part[T] {
	for attempt := 0; ; attempt++ {
		contents, sum, err := readFiles(read, files)
		if err == nil && sum == p.digest {
			return part[T]{value: p.value, digest: p.digest}
		}
		var value T
		if err == nil {
			value, err = parse(contents)
		}
		if err == nil {
			return part[T]{value: value, digest: sum}
		}
		// The files may have been caught half way through a replacement (the
		// certificate read before it, the key after it). Look once more before
		// alarming anybody; a slower replacement succeeds at the next reload.
		if attempt > 0 {
			return part[T]{value: p.value, digest: p.digest, failure: err}
		}
	}
}

// load reads all files and returns the content that follows old. It changes
// nothing that old holds and reuses whatever did not change.
func (s *Store) load(old *content) *content {
	next := &content{
		pairs:     slices.Clone(old.pairs),
		tickets:   slices.Clone(old.tickets),
		clientCAs: old.clientCAs,
		names:     old.names, ticketing: old.ticketing, forClient: old.forClient,
	}
	for i, files := range s.settings.Certificates {
		next.pairs[i] = old.pairs[i].refresh(s.read, files.list(), func(contents [][]byte) (*keyPair, error) {
			return parseKeyPair(files, contents[0], contents[1])
		})
	}
	for i, file := range s.settings.TicketKeyFiles {
		next.tickets[i] = old.tickets[i].refresh(s.read, []string{file}, func(contents [][]byte) (ticketKey, error) {
			return parseTicketKey(file, contents[0])
		})
	}
	if file := s.settings.ClientCAFile; file != "" {
		next.clientCAs = old.clientCAs.refresh(s.read, []string{file}, func(contents [][]byte) (*x509.CertPool, error) {
			return parseCAs(file, contents[0])
		})
	}
	s.build(old, next)
	return next
}

// build derives what follows from the parts of next. If a part was never loaded,
// NewStore gives up anyway.
func (s *Store) build(old, next *content) {
	loaded := func(failure error) bool { return failure != nil }
	if old.names == nil && slices.ContainsFunc(next.failures(), loaded) {
		return
	}
	if old.names == nil || !sameParts(old.pairs, next.pairs) {
		next.names = newNameIndex(next.pairs)
	}
	if old.ticketing == nil || !sameParts(old.tickets, next.tickets) {
		next.ticketing = newTicketing(next.tickets)
	}
	if s.settings.ClientAuth != ClientAuthNone && (old.forClient == nil || old.clientCAs.digest != next.clientCAs.digest) {
		next.forClient = s.newConfig()
		next.forClient.ClientAuth = s.settings.ClientAuth.cryptotls()
		next.forClient.ClientCAs = next.clientCAs.value
	}
}

func sameParts[T any](a, b []part[T]) bool {
	return slices.EqualFunc(a, b, func(a, b part[T]) bool { return a.digest == b.digest })
}

func (c *content) sameAs(other *content) bool {
	return sameParts(c.pairs, other.pairs) && sameParts(c.tickets, other.tickets) && c.clientCAs.digest == other.clientCAs.digest
}

// failures returns one entry for each part, always in the same order, nil where
// all is well.
func (c *content) failures() []error {
	var failures []error
	for _, p := range c.pairs {
		failures = append(failures, p.failure)
	}
	for _, p := range c.tickets {
		failures = append(failures, p.failure)
	}
	return append(failures, c.clientCAs.failure)
}

// Reload reads all files and takes over those whose content changed. changed
// says whether anything did. err joins a [*FileError] for each file that cannot
// be used as it is now; what it held before stays in force, and all other files
// are taken nevertheless. Connections that are open notice nothing.
//
// It reads files and may take as long as the file system does; handshakes do not
// wait for it.
func (s *Store) Reload() (changed bool, err error) {
	old, next := s.reload()
	if err := errors.Join(next.failures()...); err != nil {
		return !next.sameAs(old), fmt.Errorf("reloading TLS files: %w", err)
	}
	return !next.sameAs(old), nil
}

// reload publishes the next content and returns it with the one that it
// replaced. Instead of a lock that would be held while files are read, a reload
// that was overtaken by another one starts again: what it read may be older.
func (s *Store) reload() (old, next *content) {
	for {
		old = s.current.Load()
		next = s.load(old)
		if s.current.CompareAndSwap(old, next) {
			return old, next
		}
	}
}

// Watch reloads once every interval until ctx is done, then returns. It calls
// report, in its own goroutine, when something changed (changed) or a file became
// unusable or unusable in another way (err, of those files only); a failure that
// stays as it was is not repeated, and neither is one that [Store.Reload]
// returned already. interval must be positive; 10 s is a good one.
func (s *Store) Watch(ctx context.Context, interval time.Duration, report func(changed bool, err error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		old, next := s.reload()
		changed, err := !next.sameAs(old), newFailures(old, next)
		if changed || err != nil {
			report(changed, err)
		}
	}
}

// newFailures joins the failures of next that old did not have in the same words.
func newFailures(old, next *content) error {
	before, now := old.failures(), next.failures()
	for i := range now {
		if now[i] != nil && before[i] != nil && now[i].Error() == before[i].Error() {
			now[i] = nil
		}
	}
	if err := errors.Join(now...); err != nil {
		return fmt.Errorf("reloading TLS files: %w", err)
	}
	return nil
}
