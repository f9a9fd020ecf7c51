package config

import (
	"bytes"

	"github.com/tidegate/tidegate/internal/closecode"
)

// minSecretBytes is the least that a key for HMAC-SHA256 may have here.
const minSecretBytes = 16

// Migrates reports whether sessions of the pool can move to another backend.
func (p *Pool) Migrates() bool { return p.Migrate != nil && p.Migrate.Enabled }

func (v *validator) validateMigrate(path string, m *Migrate) {
	for i, code := range m.OnCloseCodes {
		if at := element(join(path, "on_close_codes"), i); v.usable(at) && !closecode.Sendable(code) {
			v.fail(at, "%d is no code that may be sent: want %s", code, closecode.Ranges)
		}
	}
	if at := join(path, "timeout"); m.Timeout == 0 && v.usable(at) {
		v.add(at, "timeout must be more than 0: a session cannot wait for ever")
	} else {
		v.notLonger(path, "settle", m.Settle, "timeout", m.Timeout)
	}
	if at := join(path, "max_buffered"); m.MaxBuffered == 0 && v.usable(at) {
		v.add(at, "max_buffered must be more than 0: what a client says during a move is kept")
	}
	if at := join(path, "replay_discard_replies"); m.ReplayDiscardReplies > 0 && m.ReplayOpeningMessages == 0 && v.usable(at) && v.usable(join(path, "replay_opening_messages")) {
		v.add(at, "replay_discard_replies does nothing without replay_opening_messages")
	}
	v.checkSecret(path, m)
}

// checkSecret checks the key of the reattach headers. A block that is switched off needs
// none.
func (v *validator) checkSecret(path string, m *Migrate) {
	at := join(path, "secret_file")
	switch {
	case !v.usable(at):
	case m.SecretFile == "" && m.Enabled && v.usable(path):
		v.add(path, "migrate needs secret_file, whose content signs the reattach headers (to make one: openssl rand -hex -out migrate.key 32)")
	case m.SecretFile != "":
		if data, ok := v.content(at, m.SecretFile); ok && len(bytes.TrimSpace(data)) < minSecretBytes {
			v.fail(at, "%s has less than %d bytes (to make one: openssl rand -hex -out migrate.key 32)", quoteFile(m.SecretFile), minSecretBytes)
		}
	}
}

// checkMovable refuses a route whose compression ties its sessions to their backends.
func (v *validator) checkMovable(path string, r *Route) {
	at := join(path, "websocket.compression")
	if r.WebSocket.Compression != "passthrough" || !v.usable(at) {
		return
	}
	for i := range v.file.Pools {
		if p := &v.file.Pools[i]; p.Name == r.Pool && p.Migrates() {
			v.add(at, "compression: passthrough contradicts %s: client and backend share a compression window (use strip or terminate)", join(element("pools", i), "migrate"))
		}
	}
}
