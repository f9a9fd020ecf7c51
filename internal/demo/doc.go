// Package demo is what `tidegate demo` puts behind and beside an edge: app servers that
// echo and chat, and a page to try them.
//
// The app servers are separate HTTP servers on ports of their own. They share a [Hub] in
// memory, as real ones would share a message broker, so that what one participant says
// reaches those on the other servers. Each message is a JSON object in a text frame:
//
//	client → app   {"type": "echo"|"chat", "text": "…"}
//	app → client   {"type": "welcome", "app": "app-1"}
//	               {"type": "echo"|"chat", "text": "…", "from": "…", "app": "app-1"}
//
// where app is the server that answers, and from the server that took a chat message and
// the participant's number there.
package demo
