package config

import "time"

// Route is a match and the pool that serves what it matches.
type Route struct {
	// Name is unique among the routes.
	Name  string `key:"name" required:"true"`
	Match Match  `key:"match"`
	// Pool is the name of a pool of the same file.
	Pool string `key:"pool" required:"true"`
	// Headers change the upstream request.
	Headers HeaderEdits `key:"headers"`
	// Origins are the accepted values of the Origin header as browsers write them
	// (scheme and host in lower case, no default port), or "null". Empty: any.
	Origins   []string  `key:"origins" unique:"true" noempty:"true"`
	WebSocket WebSocket `key:"websocket"`
}

// Match says which requests are a route's. All of its conditions must hold.
type Match struct {
	// Hosts are names in lower case without port, IP addresses without brackets, or
	// wildcards (*.example.org). Empty: any host.
	Hosts []string `key:"hosts" noempty:"true"`
	// Path is a prefix of whole segments of the decoded path. It starts with a slash
	// and does not end with one, "/" itself aside, which is any path.
	Path string `key:"path" required:"true"`
	// Headers are values that must be there, under canonical names.
	Headers map[string]string `key:"headers"`
	// Protocol is any, websocket or http.
	Protocol string `key:"protocol" oneof:"any,websocket,http"`
}

// HeaderEdits change the headers of the upstream request. Names are canonical and no
// name stands in both.
type HeaderEdits struct {
	Set    map[string]string `key:"set"`
	Remove []string          `key:"remove"`
}

// WebSocket are the policies of a route's sessions. They last for the life of a
// session, whatever is reloaded. 0 is no limit.
type WebSocket struct {
	// MaxFrameSize and MaxMessageSize are payload bytes. If neither is 0, a frame is
	// at most a message.
	MaxFrameSize   int64 `key:"max_frame_size" as:"bytes"`
	MaxMessageSize int64 `key:"max_message_size" as:"bytes"`
	// CloseTimeout is how long a Close waits for its answer.
	CloseTimeout time.Duration `key:"close_timeout"`
	// Compression is strip: no extension offer reaches the backend.
	Compression string `key:"compression" oneof:"strip" later:"passthrough,terminate"`
	// MaxBuffered is the number of bytes held per direction before reading stops.
	MaxBuffered int64 `key:"max_buffered" as:"bytes"`
	// WriteTimeout is how long writing to a side may make no progress.
	WriteTimeout time.Duration `key:"write_timeout"`
}
