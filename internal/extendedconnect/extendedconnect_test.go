package extendedconnect

import (
	"os"
	"strings"
	"testing"
)

func TestWith(t *testing.T) {
	for _, tt := range []struct{ have, want string }{
		{"", "http2xconnect=1"},
		{"http2debug=1", "http2debug=1,http2xconnect=1"},
		{"http2xconnect=0", "http2xconnect=0"},
		{"http2xconnect=1", "http2xconnect=1"},
		{"gctrace=1,http2xconnect=0,http2debug=1", "gctrace=1,http2xconnect=0,http2debug=1"},
		{"nohttp2xconnect=0", "nohttp2xconnect=0,http2xconnect=1"},
		{"http2xconnect", "http2xconnect,http2xconnect=1"},
	} {
		if got := with(tt.have); got != tt.want {
			t.Errorf("with(%q) = %q, want %q", tt.have, got, tt.want)
		}
	}
}

// TestIsOn: to import the package is enough.
func TestIsOn(t *testing.T) {
	if got := os.Getenv("GODEBUG"); !strings.Contains(got, name) {
		t.Errorf("GODEBUG is %q, without %s", got, name)
	}
}
