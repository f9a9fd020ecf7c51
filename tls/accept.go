package tls

import (
	"context"
	"crypto/fips140"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
)

// Engine chooses who protects the records of a connection.
type Engine uint8

const (
	// EngineAuto lets a [Layer] take over where it can.
	EngineAuto Engine = iota

	// EngineStdlib leaves all of TLS to crypto/tls.
	EngineStdlib
)

// String returns the word of the configuration file.
func (e Engine) String() string {
	switch e {
	case EngineAuto:
		return "auto"
	case EngineStdlib:
		return "stdlib"
	}
	return fmt.Sprintf("Engine(%d)", uint8(e))
}

// Accept makes the handshake of a server over conn, with the content in force. The
// end of ctx closes conn and so ends the handshake; on any other error conn is left to
// the caller to close.
//
// Afterwards conn is the [Connection]'s. With EngineAuto its records are a [Layer]'s if
// TLS 1.3 was agreed on, with ALPN http/1.1 or none, outside FIPS mode; else, and
// with EngineStdlib, they remain crypto/tls's.
func (s *Store) Accept(ctx context.Context, conn net.Conn, engine Engine) (*Connection, error) {
	t := &transport{conn: conn}
	if engine == EngineAuto && !fips140.Enabled() {
		t.takeover = new(takeover)
	}
	std := cryptotls.Server(t, s.accepting)
	if err := std.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("making a TLS handshake: %w", err)
	}
	c := &Connection{conn: conn, std: std, transport: t}
	if taken := t.takeover; taken != nil {
		c.takeOver(taken)
		*taken = takeover{} // secrets, too
	}
	t.takeover = nil
	return c, nil
}

// Connect makes the handshake of a client over conn. It treats ctx and conn as
// [Store.Accept] does. config is not changed, and needs a ServerName unless
// it skips verification. Records remain crypto/tls's.
func Connect(ctx context.Context, conn net.Conn, config *cryptotls.Config) (*Connection, error) {
	if !config.DynamicRecordSizingDisabled {
		config = config.Clone()
		config.DynamicRecordSizingDisabled = true
	}
	t := &transport{conn: conn}
	std := cryptotls.Client(t, config)
	if err := std.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("making a TLS handshake: %w", err)
	}
	return &Connection{conn: conn, std: std, transport: t}, nil
}

// newAccepting returns the Config of all handshakes of Accept. The Config that a
// handshake goes on with after the ClientHello is a clone for this connection alone
// of what the store's own would be, so that it can write its secrets to a place of
// this connection.
func (s *Store) newAccepting() *cryptotls.Config {
	config := s.config.Clone()
	config.GetConfigForClient = func(hello *cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
		base := s.config
		if base.GetConfigForClient != nil {
			chosen, err := base.GetConfigForClient(hello)
			if err != nil {
				return nil, err
			}
			if chosen != nil {
				base = chosen
			}
		}
		own := base.Clone()
		own.DynamicRecordSizingDisabled = true
		t := hello.Conn.(*transport)
		if t.takeover != nil && slices.Contains(hello.SupportedVersions, cryptotls.VersionTLS13) {
			own.KeyLogWriter = &t.takeover.secrets
		}
		return own, nil
	}
	return config
}

// takeOver puts a Layer in the place of crypto/tls if that is possible. It does so
// before any application data was written or read.
func (c *Connection) takeOver(taken *takeover) {
	state := c.std.ConnectionState()
	http1 := state.NegotiatedProtocol == "" || state.NegotiatedProtocol == "http/1.1"
	if state.Version != cryptotls.VersionTLS13 || !http1 || c.transport.record != 0 {
		return
	}
	layer, err := taken.layer(&state)
	if err != nil {
		return // crypto/tls is as able to go on as before
	}
	c.layer, c.wire = layer, c.transport.wire
	c.std, c.transport.wire = nil, recordBuffer{}
	c.transport = nil
}

// errSent means that what crypto/tls has written is not what was expected.
var errSent = errors.New("records of a handshake do not add up")

// layer returns the layer of a server that goes on where the handshake has ended.
//
// The client's first record after its Finished has the number 0: crypto/tls was given
// one record at a time, and its handshake ends with that of the Finished. The server
// may have sent tickets under its application keys already, in any number of
// records. How many is seen from what it sent: a record opens with a key and
// a number exactly if it was sealed with these, and numbers start at 0.
func (t *takeover) layer(state *cryptotls.ConnectionState) (*Layer, error) {
	s := &t.secrets
	l, err := newLayer(state, false, s.client[:s.clientLen], s.server[:s.serverLen], 0)
	if err != nil {
		return nil, err
	}
	for sent := t.sent; len(sent) > 0; {
		if len(sent) < recordHeaderBytes || len(sent) < recordHeaderBytes+bodyBytes(sent) {
			return nil, fmt.Errorf("%w: half a record was sent", errSent)
		}
		size := recordHeaderBytes + bodyBytes(sent)
		if sent[0] == typeApplicationData {
			_, _, err := l.write.open(sent[:size])
			if err != nil && l.write.seq > 0 {
				return nil, fmt.Errorf("%w: one follows those of the application keys", errSent)
			}
		}
		sent = sent[size:]
	}
	return l, nil
}
