package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// View is what a monitor has to say at one time.
type View struct {
	// Panic says that all backends are used because too few are healthy.
	Panic bool
	// Reasons say, by the id of the backend and in a few words, why it is ejected or gets
	// fewer sessions. Others have none. They may hold text of the backend's: untrusted.
	Reasons map[string]string
}

// View returns what there is to show.
func (m *Monitor) View() View {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	v := View{Panic: m.panic, Reasons: map[string]string{}}
	for _, x := range m.members {
		if reason := x.reason(now); reason != "" {
			v.Reasons[x.backend.ID] = reason
		}
	}
	return v
}

func (x *member) reason(now time.Time) string {
	var all []string
	if x.verdict.failing {
		all = append(all, x.verdict.reason())
	}
	if x.record.outlier {
		all = append(all, x.record.why+"; back in "+max(0, x.record.until.Sub(now)).Round(time.Second).String())
	}
	if len(all) == 0 && !x.warming.IsZero() {
		return fmt.Sprintf("slow start: %.0f%% of its share", 100*x.backend.Live.Warmth())
	}
	return strings.Join(all, "; ")
}

// ownFaults are errors of a dial for which the edge's own system is to blame.
var ownFaults = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE}

// Own reports whether an error is the edge's own: it has no descriptor, port or memory left
// for a connection. Such an error says nothing of the backend.
func Own(err error) bool {
	for _, fault := range ownFaults {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// maxReason bounds the text of an error, which may be the backend's.
const maxReason = 120

// brief is an error in a few words.
func brief(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case err == nil:
		return "unknown"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.As(err, &errno):
		return errno.Error()
	}
	text := err.Error()
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}
