package consul

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// replies is a misbehaviour that answers everything the same way.
func replies(status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("X-Consul-Index", "99")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

func stalls(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return true
}

// faults are the ways an agent fails. None of them may change the set, and each ends
// as soon as the agent behaves again.
var faults = []struct {
	name  string
	fault func(http.ResponseWriter, *http.Request) bool
	log   string // part of the one line that is logged
}{
	{"500", replies(500, "No cluster leader"), "No cluster leader"},
	{"503", replies(503, ""), "503"},
	{"429", replies(429, "rate limit exceeded, try again later"), "429"},
	{"403", replies(403, "ACL not found"), "ACL not found"},
	{"404", replies(404, "page not found"), "404"},
	{"empty body", replies(200, ""), "EOF"},
	{"truncated", replies(200, `[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Po`), "unexpected EOF"},
	{"no JSON", replies(200, "<html>captive portal</html>"), "invalid character"},
	{"another type", replies(200, `{"a":1}`), "cannot unmarshal"},
	{"redirect", func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "http://elsewhere.test/", http.StatusFound)
		return true
	}, "302"},
	{"too large", func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = fmt.Fprintf(w, `[{"Node":{"Node":"%s"}}]`, strings.Repeat("x", 70000))
		return true
	}, "too large"},
	{"hangs up", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "EOF"},
	{"stalls before the answer", stalls, "no answer within"},
	{"stalls within the answer", func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.WriteString(w, `[{"Node":`)
		w.(http.Flusher).Flush()
		return stalls(w, r)
	}, "no answer within"},
}

func smallAnswers(s *Source) {
	var err error
	if s.client, err = newClient(endpoint{scheme: "http", host: "consul.test"}, s.transport, 64<<10); err != nil {
		panic(err)
	}
}

func TestFaultsKeepTheSet(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.set("", entry("a"), entry("b"))
				w := f.watch(Config{}, smallAnswers)
				expect(t, "before", w.last(), "dc1/n/a*1:up", "dc1/n/b*1:up")

				f.set("", entry("c"))
				f.fault(tt.fault)
				time.Sleep(10 * time.Minute) // longer than any stall
				expect(t, "during", w.last(), "dc1/n/c*1:up", "stale")
				stats := w.Stats()
				if !stats.Stale || stats.Errors < 2 {
					t.Errorf("stats during the fault: %+v", stats)
				}

				f.fault(nil)
				time.Sleep(time.Minute)
				expect(t, "after", w.last(), "dc1/n/c*1:up")
				if n := len(w.all()); n != 4 {
					t.Errorf("%d publishes, want first, change, stale, fresh", n)
				}
				if stats := w.Stats(); stats.Stale {
					t.Errorf("stats after the fault: %+v", stats)
				}
				begun := w.logs.FilterMessage("consul cannot be asked, keeping the last set").All()
				if len(begun) != 1 || !strings.Contains(fmt.Sprint(begun[0].ContextMap()["error"]), tt.log) {
					t.Errorf("logged %v, want one line with %q", begun, tt.log)
				}
				ended := w.logs.FilterMessage("consul answers again").All()
				if len(ended) != 1 || ended[0].ContextMap()["after"].(time.Duration) < time.Minute {
					t.Errorf("logged %v, want one line with how long it lasted", ended)
				}
			})
		})
	}
}

func TestFaultsAtTheStartPublishNothing(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.set("", entry("a"))
				f.fault(tt.fault)
				w := f.watch(Config{}, smallAnswers)
				time.Sleep(10 * time.Minute)
				if got := w.last(); got != nil {
					t.Fatalf("published %v without an answer", shape(got))
				}
				if !w.Stats().Stale {
					t.Error("Stats does not say that it is stale")
				}
				f.fault(nil)
				time.Sleep(30 * time.Second)
				expect(t, "after", w.last(), "dc1/n/a*1:up")
			})
		})
	}
}

func TestConnectionRefusedIsRetriedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		f.mu.Lock()
		f.down = true
		f.mu.Unlock()
		w := f.watch(Config{})
		time.Sleep(time.Hour)
		synctest.Wait()
		// The first pauses are short, then each is between half of 15s and all of it.
		if n := w.Stats().Errors; n < 240 || n > 500 {
			t.Errorf("%d tries in an hour, want a capped back-off", n)
		}
		f.mu.Lock()
		f.down = false
		f.mu.Unlock()
		time.Sleep(15 * time.Second)
		expect(t, "after an hour", w.last(), "dc1/n/a*1:up")
	})
}

func TestBackoffDoublesAndIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backoff{min: 200 * time.Millisecond, max: 15 * time.Second}
		for round := range 2 {
			for _, whole := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000} {
				start := time.Now()
				b.pause(t.Context(), t.Context())
				whole *= time.Millisecond
				if took := time.Since(start); took < whole/2 || took > whole {
					t.Errorf("round %d: pause of %v, want %v to %v", round, took, whole/2, whole)
				}
			}
			b.reset()
		}
	})
}

func TestQueryThatBlocksTooLongIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{Wait: 16 * time.Minute / 4})
		w.last()
		f.mu.Lock()
		f.misbehave = func(rw http.ResponseWriter, r *http.Request) bool {
			return r.URL.Query().Has("index") && stalls(rw, r)
		}
		f.mu.Unlock()
		f.set("", entry("b")) // answers the query that blocks; the next one stalls
		expect(t, "change", w.last(), "dc1/n/b*1:up")

		limit := 4*time.Minute + 15*time.Second + defaultPace.answer
		time.Sleep(limit - time.Second)
		if e := w.Stats().Errors; e != 0 {
			t.Fatalf("given up before wait and its sixteenth were over")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if e := w.Stats().Errors; e != 1 {
			t.Errorf("%d errors after %v, want 1", e, limit)
		}
	})
}

func TestOldAnswerIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{})
		expect(t, "fresh", w.last(), "dc1/n/a*1:up")
		f.change("", func(s *fakeSet) { s.header.Set("X-Consul-LastContact", "31000") })
		expect(t, "leader lost", w.last(), "dc1/n/a*1:up", "stale")
		if n := w.count("consul answers from a server that lost its leader: the set may be old"); n != 1 {
			t.Errorf("%d lines", n)
		}
		// No query blocks for long now: the leader's return changes no index.
		f.mu.Lock()
		f.at("").header.Del("X-Consul-LastContact")
		f.mu.Unlock()
		time.Sleep(defaultPace.recheck + time.Second)
		expect(t, "leader back", w.last(), "dc1/n/a*1:up")
	})
}
