// Package admin is the HTTP API through which a running edge is watched and driven,
// and a client of it.
//
// It owns the socket, who may talk to it, the paths and the JSON. What the edge is
// and does stays behind the interface [Edge], declared here and implemented where
// the process is wired together. A request goes
//
//	socket → Host and Origin → token → path and method → parameters → Edge → JSON
//
// and a step that refuses ends it with {"error": "..."}; nothing is asked of the edge
// before all of it has been checked.
//
// # Who may talk to it
//
// The API closes sessions and shows addresses of clients, and it usually listens on
// loopback, where every web page in a browser on the same machine can reach it. So:
//
//   - the Host must be localhost, an IP address or the host in the configured
//     address: a page whose DNS name was pointed here (DNS rebinding) names itself
//     and is refused. Requests over a unix socket may carry any Host;
//   - a request with an Origin must have the API's own, and Sec-Fetch-Site, which
//     browsers send, must be same-origin or none;
//   - with a token file every request needs "Authorization: Bearer <token>", except
//     /livez and /readyz, which load balancers and orchestrators ask and which say
//     nothing but whether. The file is read again for each request, so a new token
//     holds at once, and one that cannot be read lets nobody in;
//   - a unix socket is its owner's only (mode 0600).
//
// The package holds no state of the edge, and everything that it prints and that
// others chose (tags, metadata, paths) is bounded in size and escaped.
package admin
