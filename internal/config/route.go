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
	// Sticky is nil where every request goes where the pool's policy says.
	Sticky *Sticky `key:"sticky"`
}

// Sticky says what keeps the requests of a client, or of a group of them, with one backend:
// just one of Cookie, Header and Hash.
type Sticky struct {
	// Cookie is one that the edge sets, nil if something else of the request counts.
	Cookie *StickyCookie `key:"cookie"`
	// Header is the canonical name of a request header; Hash is a part of the request, as
	// hash_on of a pool.
	Header string     `key:"header"`
	Hash   HashSource `key:"hash" as:"hash_source"`
	// Strict refuses requests whose backend takes none; they do not go to another one.
	Strict bool `key:"strict"`
}

// StickyCookie is the edge's cookie.
type StickyCookie struct {
	Name string `key:"name" required:"true"`
	// MaxAge is how long it counts; 0 is as long as the browser runs. Browsers keep none for
	// longer than 400 days.
	MaxAge   time.Duration `key:"max_age" range:"0|1s..9600h"`
	Secure   bool          `key:"secure"`
	SameSite string        `key:"same_site" oneof:"lax,strict,none"`
	// SecretFile holds the key that signs it.
	SecretFile string `key:"secret_file" as:"file" required:"true"`
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
	// MaxFragments bounds the frames of a message, MessageTimeout the time that a side may
	// take to finish one.
	MaxFragments   int           `key:"max_fragments"`
	MessageTimeout time.Duration `key:"message_timeout"`
	// ControlFramesPerSecond bounds Pings and Pongs of either side.
	ControlFramesPerSecond int `key:"control_frames_per_second"`
	// MessagesPerSecond and BytesPerSecond bound what a client sends. A burst of 0 is one
	// second's worth.
	MessagesPerSecond int   `key:"messages_per_second"`
	MessageBurst      int   `key:"message_burst"`
	BytesPerSecond    int64 `key:"bytes_per_second" as:"bytes"`
	ByteBurst         int64 `key:"byte_burst" as:"bytes"`
	// RateAction is what happens to a client beyond them: close or delay.
	RateAction string `key:"rate_action" oneof:"close,delay"`
	// Ping is which sides the edge pings: client, backend, both or none. PingInterval is
	// the longest silence before a Ping, a quarter more for a side that pings by itself,
	// PongTimeout how long the side may then stay silent.
	Ping         string        `key:"ping" oneof:"client,backend,both,none"`
	PingInterval time.Duration `key:"ping_interval" range:"0|100ms..24h"`
	PongTimeout  time.Duration `key:"pong_timeout" range:"0|100ms..24h"`
	// IdleTimeout ends sessions without data frames, MaxAge those that are as old, or
	// younger by up to MaxAgeJitter, a share from 0 to 1.
	IdleTimeout  time.Duration `key:"idle_timeout"`
	MaxAge       time.Duration `key:"max_age"`
	MaxAgeJitter float64       `key:"max_age_jitter" as:"percent"`
	// CloseTimeout is how long a Close waits for its answer.
	CloseTimeout time.Duration `key:"close_timeout"`
	// Compression is strip: no extension offer reaches the backend; passthrough:
	// permessage-deflate is between client and backend; terminate: it is between client and
	// edge.
	Compression string  `key:"compression" oneof:"strip,passthrough,terminate"`
	Deflate     Deflate `key:"deflate"`
	// ValidateUTF8 checks text messages that are not compressed.
	ValidateUTF8 bool `key:"validate_utf8"`
	// SlowConsumer is what happens to a client for which more than MaxBuffered waits, and
	// SlowConsumerCode the code of the Close.
	SlowConsumer     string `key:"slow_consumer" oneof:"backpressure,close,drop_oldest"`
	SlowConsumerCode int    `key:"slow_consumer_code" range:"1000..4999"`
	// MaxBuffered is the number of bytes held per direction before reading stops.
	MaxBuffered int64 `key:"max_buffered" as:"bytes"`
	// WriteTimeout is how long writing to a side may make no progress.
	WriteTimeout time.Duration `key:"write_timeout"`
}

// Deflate is how the edge compresses where Compression is terminate.
type Deflate struct {
	// MinSize is the least payload of a message that is compressed.
	MinSize int64 `key:"min_size" as:"bytes"`
	// MaxInflated bounds what a message of a client inflates to.
	MaxInflated int64 `key:"max_inflated" as:"bytes"`
	// Level is from 1, fast, to 9, small.
	Level int `key:"level" range:"1..9"`
}
