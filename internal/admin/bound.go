package admin

import (
	"maps"
	"slices"
	"unicode/utf8"
)

// How much text of others goes into an answer. Consul itself bounds metadata to 64
// keys of 128 and values of 512 bytes, so what is valid there is never cut; the
// others have no bound of their own.
const (
	maxTags      = 64
	maxTagBytes  = 256
	maxMetaKeys  = 64
	maxMetaKey   = 128
	maxMetaValue = 512
	maxTextBytes = 2048 // a host, a path
)

// bound cuts what others chose and makes absent lists empty ones. Tags and Meta may be
// shared with the edge: they are replaced, never changed.
func (b *Backend) bound() {
	if b.Failures == nil {
		b.Failures = map[string]uint64{}
	}
	tags := make([]string, 0, min(len(b.Tags), maxTags))
	for _, tag := range b.Tags[:cap(tags)] {
		tags = append(tags, cut(tag, maxTagBytes))
	}
	b.Tags = tags
	keys := slices.Sorted(maps.Keys(b.Meta))
	meta := make(map[string]string, min(len(keys), maxMetaKeys))
	for _, key := range keys[:min(len(keys), maxMetaKeys)] {
		meta[cut(key, maxMetaKey)] = cut(b.Meta[key], maxMetaValue)
	}
	b.Meta = meta
}

// bound cuts what the client chose.
func (s *Session) bound() {
	s.Subprotocol = cut(s.Subprotocol, maxTextBytes)
	s.Host = cut(s.Host, maxTextBytes)
	s.Path = cut(s.Path, maxTextBytes)
	s.RequestID = cut(s.RequestID, maxTextBytes)
}

// cut returns at most limit bytes of s and an ellipsis for the rest, without cutting a
// rune.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// notNil turns a nil slice, which JSON shows as null, into an empty one.
func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
