// Package tls keeps what the edge needs to speak TLS: certificates and their
// keys, the CAs of clients, session ticket keys, the client side toward
// backends, and what an event loop needs to protect records without a goroutine.
// Handshakes are always crypto/tls's, imported as cryptotls; this package exports
// no name that crypto/tls exports.
//
// # Path of data
//
//	files ──read, hash──▶ parts ──parse──▶ content ──one atomic swap──▶ handshakes
//
// A [Store] serves one listener. Each file, or pair of files that only make
// sense together, is a part. A reload reads every part and compares a hash of
// what it read with the hash of what is in force; only a part whose bytes
// differ is parsed. File times are not consulted: they lie after a symlink swap
// (Kubernetes, certbot), after `cp -p` and for two writes within one clock tick.
//
// # Invariants
//
//   - [Store.ServerConfig] is one *cryptotls.Config for the life of the store.
//     Whatever changes is reached through its callbacks, so neither the
//     listener nor an open connection notices a reload.
//   - A handshake takes no lock of ours and touches no file: it loads one
//     pointer to immutable content.
//   - A part whose new bytes are unusable keeps what it had; the other parts
//     are taken. A certificate and its key are one part: while only one of the
//     two has been replaced, the old pair stays in force.
//   - Tickets are sealed and opened by the store, through WrapSession and
//     UnwrapSession, and not by the Config of a connection. A Config that was
//     cloned for one connection therefore resumes sessions like the original.
//   - No goroutine starts here. [Store.Watch] runs in its caller's.
//
// # Records
//
//	            ┌─ TLS 1.3, http/1.1 ─▶ Layer ──┐
//	Accept ─────┤                               ├─▶ Connection ──Detach──▶ Codec
//	            └─ else, and Connect ─▶ Stdlib ─┘   (a net.Conn)      (no I/O)
//
// [Store.Accept] and [Connect] make a handshake and return a [Connection]: a net.Conn
// from which net/http reads the request. [Connection.Detach] ends that and leaves a
// [Codec], which an event loop feeds with what it reads.
//
//   - crypto/tls is given one record at a time. So it holds none that it has not
//     opened when its connection is taken out of its hands.
//   - A [Layer] begins with the traffic secrets of the handshake, which crypto/tls
//     tells the KeyLogWriter of a Config that is this connection's alone. It reads
//     from record 0 on. The number of its first own record is that of the records
//     which open with its key among those that the handshake has sent (tickets). Where
//     these do not add up, crypto/tls goes on.
//   - A key and a record number protect one record. A Layer is neither copied nor
//     shared: Detach hands it over.
//   - Whatever the peer does, what is opened is a prefix of what it sealed.
//   - A Layer is at least as strict as crypto/tls: it accepts nothing that
//     crypto/tls refuses, and answers with the same alert save where RFC 8446 names
//     another one. FuzzLayerAgainstCryptoTLS holds it to that.
//
// # What is negotiated
//
// TLS 1.2 and 1.3, with crypto/tls's own choice of curves (hybrid post-quantum
// key exchange included) and of TLS 1.3 suites. The suites of TLS 1.2 are cut
// down to those with ECDHE and an AEAD: crypto/tls would still accept AES-CBC
// with SHA-1, which RFC 9113 appendix A forbids for HTTP/2. Within these
// crypto/tls orders by what the hardware of both ends does fast.
//
// # Client certificates and resumption
//
// A resumed session shows no certificate again; the ticket carries the chain
// that was verified when the session began. crypto/tls (since Go 1.26) accepts
// such a ticket only while every certificate of that chain is within its dates
// and its root is one of the CAs in force, and else falls back to a full
// handshake. The CAs in force are those of the last good reload, so a CA that
// was taken out of the file ends resumption with its certificates at once; open
// connections stay open. The same holds for tickets of another edge that shares
// the ticket keys. There is no revocation list: to shut out one certificate, its
// CA has to go.
//
// The package must not log, start goroutines, or know YAML, metrics or HTTP.
package tls
