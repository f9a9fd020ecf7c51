package consul

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
)

// token is the ACL token in use. A file is polled by content: a rename, a symlink that
// is switched, and a write within one tick of the clock all count.
type token struct {
	file string // "": the value never changes
	log  *zap.Logger

	mu      sync.Mutex
	value   string
	current context.Context // done when value is no longer the current one
	expire  context.CancelFunc
}

// newToken reads the token for the first time. A file must hold one.
func newToken(file string, log *zap.Logger) (*token, error) {
	t := &token{file: file, log: log, value: os.Getenv(api.HTTPTokenEnvName)}
	if file != "" {
		var err error
		if t.value, err = readToken(file); err != nil {
			return nil, fmt.Errorf("token_file: %w", err)
		}
	}
	t.current, t.expire = context.WithCancel(context.Background())
	return t, nil
}

func readToken(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(raw))
	if value == "" {
		return "", errors.New(file + " is empty")
	}
	if strings.ContainsAny(value, "\r\n\x00") {
		return "", errors.New(file + " holds more than one line")
	}
	return value, nil
}

// get returns the token and a context that is done as soon as there is a newer one.
func (t *token) get() (string, context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.value, t.current
}

// follow reads the file again every interval until ctx is done.
func (t *token) follow(ctx context.Context, interval time.Duration) {
	if t.file == "" {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	unreadable := false
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		value, err := readToken(t.file)
		if err != nil {
			if !unreadable {
				t.log.Warn("consul token file cannot be read, keeping the last token", zap.Error(err))
			}
			unreadable = true
			continue
		}
		unreadable = false
		t.set(value)
	}
}

func (t *token) set(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if value == t.value {
		return
	}
	t.log.Info("consul token changed")
	t.value = value
	t.expire()
	t.current, t.expire = context.WithCancel(context.Background())
}
