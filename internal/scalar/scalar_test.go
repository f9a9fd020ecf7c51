package scalar

import (
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "0/s": 0, "10/s": 10, "20/m": 20.0 / 60, "36/h": 0.01, "0.5/s": 0.5, "1e3/s": 1000, "1000000/s": 1e6,
	} {
		if got, err := Rate(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":          `"" is not a rate such as 10/s or 20/m`,
		"fast":      `"fast" is not a rate such as 10/s or 20/m`,
		"/s":        `"/s" is not a rate such as 10/s or 20/m`,
		"0x10/s":    `"0x10/s" is not a rate such as 10/s or 20/m`,
		"inf/s":     `"inf/s" is not a rate such as 10/s or 20/m`,
		"nan/s":     `"nan/s" is not a rate such as 10/s or 20/m`,
		"10":        `"10" has no unit (did you mean "10/s"?)`,
		"10/d":      `"10/d" has an unknown unit (s, m and h are known)`,
		"10/":       `"10/" has an unknown unit (s, m and h are known)`,
		"-1/s":      `"-1/s" must not be negative`,
		"-1":        `"-1" must not be negative`,
		"1000001/s": `"1000001/s" is out of range (0, or 0.001/h to 1000000/s)`,
		"1e-9/h":    `"1e-9/h" is out of range (0, or 0.001/h to 1000000/s)`,
	} {
		if _, err := Rate(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "0s": 0, "1m30s": 90 * time.Second} {
		if got, err := Duration(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"030": `"030" has no unit (did you mean "30s"?)`,
		"-5s": `"-5s" must not be negative`,
		"1w":  `"1w" is not a duration such as 500ms, 30s or 1m30s`,
		"":    `"" is not a duration such as 500ms, 30s or 1m30s`,
	} {
		if _, err := Duration(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestQuoteCuts(t *testing.T) {
	if got := Quote(strings.Repeat("é", 100)); got != `"`+strings.Repeat("é", 64)+`…"` {
		t.Errorf("got %s", got)
	}
}
