package consul

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// guarded refuses every token but one.
func guarded(token string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Consul-Token") == token {
			return false
		}
		return replies(403, "ACL not found")(w, r)
	}
}

func TestNewTokenEndsTheBackoff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "old\n")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		f.fault(guarded("new"))
		w := f.watch(Config{TokenFile: file}, func(s *Source) {
			s.pace.backoffMin, s.pace.backoffMax = time.Hour, time.Hour
		})
		if got := w.last(); got != nil {
			t.Fatalf("published %v with a token that is refused", shape(got))
		}
		// A token is usually replaced by a rename.
		write(t, file+".new", "new")
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(defaultPace.tokenPoll)
		expect(t, "new token", w.last(), "dc1/n/a*1:up")
	})
}

// A new token may need a moment to reach the server that answers.
func TestNewTokenStartsTheBackoffOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "old")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		f.fault(guarded("nobody's"))
		w := f.watch(Config{TokenFile: file}, func(s *Source) {
			s.pace.backoffMin, s.pace.backoffMax = time.Second, 24*time.Hour
		})
		// Between two looks at the file, so that which one sees the change is certain.
		time.Sleep(24*time.Hour + defaultPace.tokenPoll/2)
		write(t, file, "new")
		time.Sleep(defaultPace.tokenPoll * 3 / 4)
		synctest.Wait()
		f.fault(guarded("new"))
		time.Sleep(time.Second)
		expect(t, "second try of the new token", w.last(), "dc1/n/a*1:up")
	})
}

func TestNewTokenCancelsTheQueryThatBlocks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "one")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{TokenFile: file})
		w.last()
		write(t, file, "two")
		time.Sleep(defaultPace.tokenPoll)
		synctest.Wait()
		seen := f.seen()
		if len(seen) != 4 {
			t.Fatalf("%d queries, want two with each token", len(seen))
		}
		if r := seen[2]; r.Header.Get("X-Consul-Token") != "two" || r.URL.Query().Has("index") {
			t.Errorf("asked %v with token %q", r.URL, r.Header.Get("X-Consul-Token"))
		}
		if e := w.Stats().Errors; e != 0 {
			t.Errorf("the change counted as %d errors", e)
		}
	})
}

func TestUnreadableTokenFileKeepsTheToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "one")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{TokenFile: file})
		w.last()
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		write(t, file, "\n")
		time.Sleep(time.Minute)
		f.set("", entry("b"))
		expect(t, "still followed", w.last(), "dc1/n/b*1:up")
		if n := w.count("consul token file cannot be read, keeping the last token"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
		write(t, file, "two")
		time.Sleep(defaultPace.tokenPoll)
		synctest.Wait()
		seen := f.seen()
		if token := seen[len(seen)-1].Header.Get("X-Consul-Token"); token != "two" {
			t.Errorf("token %q after the file came back", token)
		}
	})
}
