package proxy

import (
	"net/netip"
	"testing"
)

// TestClientInLog: every line about a client has the connection's other end and, beside
// it, whom a trusted proxy names.
func TestClientInLog(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, ip string
		trusted  []netip.Prefix
	}{
		{"behind a trusted proxy", "203.0.113.7", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		{"that says so of itself", "127.0.0.1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settings := defaults(echoBackend(t))
			settings.Listeners[0].TrustedProxies = tt.trusted
			settings.Routes[0].Path = "/ws"
			e := startEdge(t, settings)
			c := e.open("/ws", "X-Forwarded-For: 203.0.113.7")
			local := c.LocalAddr().String()
			c.Close()
			e.idle()
			for _, message := range []string{"session opened", "session ended"} {
				lines := e.logs.FilterMessage(message).All()
				if len(lines) != 1 {
					t.Fatalf("%d lines %q", len(lines), message)
				}
				if got := lines[0].ContextMap(); got["client"] != local || got["client_ip"] != tt.ip {
					t.Errorf("%s: client %v, client_ip %v, want %s, %s", message, got["client"], got["client_ip"], local, tt.ip)
				}
			}
			e.ask(upgradeRequest("/other", "X-Forwarded-For: 203.0.113.7"))
			if got := e.logs.FilterMessage("refused").All(); len(got) != 1 || got[0].ContextMap()["client_ip"] != tt.ip {
				t.Errorf("refused: %v, want client_ip %s", got, tt.ip)
			}
		})
	}
}
