package consul

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/discovery"
)

const goodFile = `{"version":1,"service":"web","saved_at":"2026-01-02T03:04:05Z","datacenters":[{"name":"","instances":[
	{"id":"dc1/n/b","address":"10.0.0.2:80","weight":2,"status":"down"},
	{"id":"dc1/n/a","address":"[2001:db8::1]:80","weight":1,"status":"up","node":"n","datacenter":"dc1","tags":["t"],"meta":{"k":"v"}}]}]}`

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestColdStartFromTheFile(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(f *fake)
		after time.Duration
	}{
		{"consul fails at once", func(f *fake) { f.fault(replies(500, "")) }, 0},
		{"consul is down", func(f *fake) { f.down = true }, 0},
		{"consul says nothing", func(f *fake) { f.fault(stalls) }, defaultPace.coldStart},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.json")
			write(t, path, goodFile)
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.set("", entry("c"))
				tt.fault(f)
				w := f.watch(Config{SnapshotFile: path})
				start := time.Now()
				if tt.after > 0 {
					time.Sleep(tt.after - time.Millisecond)
					if got := w.last(); got != nil {
						t.Fatalf("published %v before consul had its time", shape(got))
					}
					time.Sleep(time.Millisecond)
				}
				expect(t, "from the file", w.last(), "dc1/n/a*1:up", "dc1/n/b*2:down", "stale")
				if got := w.last().Instances[0]; !got.Equal(discovery.Instance{ID: "dc1/n/a", Addr: "[2001:db8::1]:80", Weight: 1,
					Node: "n", Datacenter: "dc1", Tags: []string{"t"}, Meta: map[string]string{"k": "v"}}) {
					t.Errorf("restored %+v", got)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("after %v, want %v", took, tt.after)
				}
				if !w.Stats().Stale {
					t.Error("Stats is not stale")
				}
				f.mu.Lock()
				f.down = false
				f.mu.Unlock()
				f.fault(nil)
				time.Sleep(time.Minute)
				expect(t, "consul answers", w.last(), "dc1/n/c*1:up")
			})
		})
	}
}

func TestFileIsNotPublishedIfConsulAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.json")
	write(t, path, goodFile)
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("c"))
		w := f.watch(Config{SnapshotFile: path, EmptyProtection: EmptyProtection{Hold: time.Minute}})
		expect(t, "first", w.last(), "dc1/n/c*1:up")
		if n := len(w.all()); n != 1 {
			t.Errorf("%d publishes", n)
		}
	})
}

// An empty answer right after a start is doubted against what the file knows.
func TestFileProtectsFromAnEmptyFirstAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.json")
	write(t, path, goodFile)
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("")
		w := f.watch(Config{SnapshotFile: path, EmptyProtection: EmptyProtection{Hold: time.Minute}})
		expect(t, "doubted", w.last(), "dc1/n/a*1:up", "dc1/n/b*2:down", "stale")
		time.Sleep(time.Minute)
		expect(t, "confirmed", w.last())
	})
}

func TestFileIsWrittenAfterChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.json")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		config := Config{SnapshotFile: path, Tags: []string{"v1"}, Filter: "x"}
		w := f.watch(config, quick)
		w.last()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode(); mode != 0o600 {
			t.Errorf("mode %v", mode)
		}
		first := saved(t, path)
		if first.Service != "web" || first.Filter != "x" || !slices.Equal(first.Tags, []string{"v1"}) || !first.SavedAt.Equal(time.Now()) {
			t.Errorf("saved %+v", first)
		}

		// What did not change is not written, and changes at most once a second.
		f.wake()
		f.set("", entry("a"))
		w.last()
		time.Sleep(10 * time.Second)
		if got := saved(t, path).SavedAt; !got.Equal(first.SavedAt) {
			t.Error("written again without a change")
		}
		f.set("", entry("a", weight(2)))
		w.last()
		f.set("", entry("a", weight(3)))
		w.last()
		if got := saved(t, path).Datacenters[0].Instances[0].Weight; got != 2 {
			t.Errorf("weight %d at once, want 2", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := saved(t, path).Datacenters[0].Instances[0].Weight; got != 3 {
			t.Errorf("weight %d a second later, want 3", got)
		}
		f.set("", entry("a", weight(4)))
		w.last()
		_ = w.stop()
		if got := saved(t, path).Datacenters[0].Instances[0].Weight; got != 4 {
			t.Errorf("weight %d at the end, want 4", got)
		}

		// It serves the next start.
		f.fault(replies(500, ""))
		again := f.watch(config)
		expect(t, "next start", again.last(), "dc1/n/a*4:up", "stale")
	})
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind %v, %v", left, err)
	}
}

func saved(t *testing.T, path string) savedFile {
	t.Helper()
	s, err := readSnapshotFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFileKeepsEveryDatacenter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.json")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("east", entry("e", in("east")))
		f.set("west", entry("w", in("west"), weight(5)))
		config := Config{SnapshotFile: path, Datacenters: []string{"east", "west"}}
		w := f.watch(config)
		expect(t, "first", w.last(), "east/n/e*1:up", "west/n/w*0:up")
		_ = w.stop()
		f.fault(replies(500, ""))
		expect(t, "next start", f.watch(config).last(), "east/n/e*1:up", "west/n/w*0:up", "stale")
		config.Datacenters = []string{"west"}
		expect(t, "one of them", f.watch(config).last(), "west/n/w*5:up", "stale")
	})
}

func TestFileThatCannotBeUsedIsIgnored(t *testing.T) {
	for name, content := range map[string]string{
		"corrupt":         goodFile[:len(goodFile)/2],
		"empty":           "",
		"another service": strings.Replace(goodFile, `"web"`, `"mail"`, 1),
		"another filter":  strings.Replace(goodFile, `"version":1`, `"version":1,"filter":"x"`, 1),
		"other tags":      strings.Replace(goodFile, `"version":1`, `"version":1,"tags":["x"]`, 1),
		"newer version":   strings.Replace(goodFile, `"version":1`, `"version":2`, 1),
		"no version":      strings.Replace(goodFile, `"version":1,`, ``, 1),
		"two documents":   goodFile + goodFile,
		"bad address":     strings.Replace(goodFile, "10.0.0.2:80", "10.0.0.2", 1),
		"bad host":        strings.Replace(goodFile, "10.0.0.2:80", "a b:80", 1),
		"port 0":          strings.Replace(goodFile, "10.0.0.2:80", "10.0.0.2:0", 1),
		"bad weight":      strings.Replace(goodFile, `"weight":2`, `"weight":-1`, 1),
		"bad status":      strings.Replace(goodFile, `"down"`, `"sideways"`, 1),
		"no id":           strings.Replace(goodFile, `"dc1/n/b"`, `""`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.json")
			write(t, path, content)
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.fault(replies(500, ""))
				f.set("", entry("c"))
				w := f.watch(Config{SnapshotFile: path})
				time.Sleep(time.Minute)
				if got := w.last(); got != nil {
					t.Fatalf("published %v", shape(got))
				}
				if n := w.count("consul snapshot file is ignored"); n != 1 {
					t.Errorf("%d lines, want 1", n)
				}
				f.fault(nil)
				time.Sleep(time.Minute)
				expect(t, "consul answers", w.last(), "dc1/n/c*1:up")
				_ = w.stop()
				if saved(t, path).Service != "web" {
					t.Error("a good set did not replace the file")
				}
			})
		})
	}
}

func TestFileThatCannotBeWrittenIsReportedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{SnapshotFile: filepath.Join(dir, "web.json")}, quick)
		w.last()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			f.set("", entry("a", weight(i+2)))
			w.last()
			time.Sleep(2 * time.Second)
		}
		expect(t, "discovery goes on", w.last(), "dc1/n/a*6:up")
		if n := w.count("consul snapshot file cannot be written"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f.set("", entry("a"))
		w.last()
		if n := w.count("consul snapshot file is written again"); n != 1 {
			t.Errorf("%d lines about its end, want 1", n)
		}
	})
}

// A write that fails midway leaves the old file alone.
func TestFailedWriteKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.json")
	if err := os.Mkdir(path, 0o700); err != nil { // a rename onto it fails
		t.Fatal(err)
	}
	if err := writeSnapshotFile(path, savedFile{Version: fileVersion}); err == nil {
		t.Fatal("no error")
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 || !left[0].IsDir() {
		t.Errorf("left behind %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil || !os.IsNotExist(err) {
		t.Error(fs.ErrNotExist)
	}
}

func FuzzSnapshotFile(f *testing.F) {
	f.Add([]byte(goodFile))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"datacenters":[{"instances":[{"id":"a","address":"[::1%eth0]:1","status":"up"}]}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseSnapshotFile(raw)
		if err != nil {
			return
		}
		for _, d := range s.Datacenters {
			set := d.restore()
			checkInstances(t, set)
			// What was restored can be saved and restored again.
			dc := &datacenter{name: d.Name, accepted: set, log: zap.NewNop()}
			again, err := json.Marshal(savedFile{Version: fileVersion, Datacenters: []savedDatacenter{dc.saved()}})
			if err != nil {
				t.Fatal(err)
			}
			back, err := parseSnapshotFile(again)
			if err != nil {
				t.Fatalf("cannot be read back: %v", err)
			}
			if got := back.Datacenters[0].restore(); !slices.EqualFunc(got, set, discovery.Instance.Equal) {
				t.Fatalf("became %v from %v", got, set)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`[{"Node":{"Node":"n","Datacenter":"d","Address":"10.0.0.1"},"Service":{"ID":"a","Port":80,"Weights":{"Passing":1}}}]`))
	f.Add([]byte(`[null,{},{"Node":{}},{"Service":{}},{"Checks":[null]}]`))
	f.Add([]byte(`[{"Node":{"Node":"n","Address":"::1"},"Service":{"ID":"a","Port":80,"Address":"[fe80::1%25x]","Tags":[""],"Meta":{"":""}},"Checks":[null,{"Status":"?"}]}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(raw, &entries) != nil {
			return
		}
		skipped := 0
		instances := mapEntries(entries, true, func(string, error) { skipped++ })
		if len(instances)+skipped != len(entries) {
			t.Fatalf("%d instances and %d left out of %d entries", len(instances), skipped, len(entries))
		}
		checkInstances(t, instances)
	})
}
