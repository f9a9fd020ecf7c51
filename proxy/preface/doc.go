// Package preface reads and writes the header of the PROXY protocol, by which a proxy says
// before everything else on a connection for whom it makes it. Version 1 is a line of text,
// version 2 binary (HAProxy's doc/proxy-protocol.txt).
//
// Invariants:
//
//   - [Receive] takes exactly the header off the connection, and nothing if there is none:
//     what follows is still in the socket, whoever reads on from there;
//   - it holds no more than the longest header that it takes, whatever a peer declares.
//
// The package does not decide who is believed: whoever calls Receive does.
package preface
