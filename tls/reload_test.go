package tls

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// serialOf says which certificate a server serves now.
func (s *server) serial(t *testing.T, name string) string {
	t.Helper()
	state, _ := s.visit(t, clientOf(name))
	return state.PeerCertificates[0].SerialNumber.String()
}

func (i issued) serial() string { return i.leaf.SerialNumber.String() }

func reload(t *testing.T, store *Store, wantChanged bool, wantErrors ...string) {
	t.Helper()
	changed, err := store.Reload()
	checkReport(t, report{changed, err}, report{changed: wantChanged}, wantErrors...)
}

func checkReport(t *testing.T, got, want report, wantErrors ...string) {
	t.Helper()
	if got.changed != want.changed {
		t.Errorf("changed: %v, want %v (%v)", got.changed, want.changed, got.err)
	}
	if (got.err != nil) != (len(wantErrors) > 0) {
		t.Errorf("error: %v, want %q", got.err, wantErrors)
	}
	for _, words := range wantErrors {
		if got.err == nil || !strings.Contains(got.err.Error(), words) {
			t.Errorf("error %v does not say %q", got.err, words)
		}
	}
}

func TestReloadServesTheNewCertificate(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	first, second, kept := ca.names(t, "a.test"), ca.names(t, "a.test", "more.test"), ca.names(t, "kept.test")
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", first), dir.pair(t, "kept", kept)}})
	server := serve(t, store.ServerConfig())

	open, err := server.dial(t, clientOf("a.test"))
	must(t, err)
	<-server.accepted
	keptBefore := store.current.Load().pairs[1].value
	reload(t, store, false)
	dir.pair(t, "a", second)
	if server.serial(t, "a.test") != first.serial() {
		t.Error("served before it was loaded")
	}
	reload(t, store, true)
	reload(t, store, false)
	if server.serial(t, "a.test") != second.serial() || server.serial(t, "more.test") != second.serial() {
		t.Error("the new certificate is not served")
	}
	if server.serial(t, "kept.test") != kept.serial() || store.current.Load().pairs[1].value != keptBefore {
		t.Error("the other certificate was touched")
	}
	if names := store.Certificates()[0].DNSNames; len(names) != 2 {
		t.Errorf("Certificates still says %v", names)
	}
	must(t, ping(open))
	if open.ConnectionState().PeerCertificates[0].SerialNumber.String() != first.serial() {
		t.Error("the open connection has changed")
	}
}

// A clone of the Config, as net/http makes one, stays current.
func TestCloneStaysCurrent(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))}})
	server := serve(t, store.ServerConfig().Clone())
	second := ca.names(t, "a.test")
	dir.pair(t, "a", second)
	reload(t, store, true)
	if server.serial(t, "a.test") != second.serial() {
		t.Error("the clone serves the old certificate")
	}
}

func TestReloadKeepsWhatTheNewFileBreaks(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, files KeyPairFiles)
		says  string
	}{
		"garbage":     {func(t *testing.T, f KeyPairFiles) { must(t, os.WriteFile(f.CertFile, []byte("garbage"), 0o600)) }, "holds no certificate"},
		"empty":       {func(t *testing.T, f KeyPairFiles) { must(t, os.Truncate(f.CertFile, 0)) }, "holds no certificate"},
		"cut short":   {func(t *testing.T, f KeyPairFiles) { must(t, os.Truncate(f.CertFile, 200)) }, "cut short"},
		"removed":     {func(t *testing.T, f KeyPairFiles) { must(t, os.Remove(f.KeyFile)) }, "no such file"},
		"foreign key": {func(t *testing.T, f KeyPairFiles) { must(t, os.WriteFile(f.KeyFile, ca.names(t, "b").keyPEM, 0o600)) }, "does not match"},
	} {
		t.Run(name, func(t *testing.T) {
			first, other := ca.names(t, "a.test"), ca.names(t, "other.test")
			files := dir.pair(t, "a", first)
			store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{files, dir.pair(t, "other", other)}})
			server := serve(t, store.ServerConfig())
			c.spoil(t, files)
			otherNew := ca.names(t, "other.test")
			dir.pair(t, "other", otherNew)

			reload(t, store, true, c.says, filepath.Base(files.CertFile[:len(files.CertFile)-3]))
			if server.serial(t, "a.test") != first.serial() {
				t.Error("the old certificate is gone")
			}
			if server.serial(t, "other.test") != otherNew.serial() {
				t.Error("the other certificate was not taken")
			}
			reload(t, store, false, c.says) // an explicit reload repeats it
			dir.pair(t, "a", first)         // healed by what is in force already
			reload(t, store, false)
		})
	}
}

func TestPairReplacedInTwoSteps(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	first, second := ca.names(t, "a.test"), ca.names(t, "a.test")
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", first)}})
	server := serve(t, store.ServerConfig())
	dir.write(t, "a.crt", second.certPEM)
	reload(t, store, false, "a.crt", "a.key", "does not match")
	if server.serial(t, "a.test") != first.serial() {
		t.Error("half of a pair was taken")
	}
	dir.write(t, "a.key", second.keyPEM)
	reload(t, store, true)
	if server.serial(t, "a.test") != second.serial() {
		t.Error("the whole pair was not taken")
	}
}

// Both files are replaced between the read of the certificate and that of the key.
func TestPairReplacedWhileItIsRead(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	files := dir.pair(t, "a", ca.names(t, "a.test"))
	second := ca.names(t, "a.test")
	var once sync.Once
	armed := false
	store, err := newStore(ServerSettings{Certificates: []KeyPairFiles{files}}, func(file string) ([]byte, error) {
		if armed && file == files.KeyFile {
			once.Do(func() { dir.pair(t, "a", second) })
		}
		return readFile(file)
	})
	must(t, err)
	armed = true
	reload(t, store, true)
	if store.Certificates()[0].NotAfter != second.leaf.NotAfter {
		t.Error("the new pair was not taken")
	}
}

// A reload that was overtaken by a later one must not put older content back.
func TestOvertakenReloadStartsAgain(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	files := dir.pair(t, "a", ca.names(t, "first.test"))
	var store *Store
	overtake := func() {}
	store, err := newStore(ServerSettings{Certificates: []KeyPairFiles{files}}, func(file string) ([]byte, error) {
		data, err := readFile(file)
		if file == files.KeyFile {
			now := overtake
			overtake = func() {}
			now()
		}
		return data, err
	})
	must(t, err)
	dir.pair(t, "a", ca.names(t, "second.test"))
	overtake = func() { // the outer reload has read "second" by now
		dir.pair(t, "a", ca.names(t, "third.test"))
		reload(t, store, true)
	}
	reload(t, store, false)
	if name := store.Certificates()[0].Name; name != "third.test" {
		t.Errorf("in force is %s, want third.test", name)
	}
}

// Kubernetes: FILE → ..data/FILE, ..data → a directory that is swapped by rename;
// certbot: live/FILE → archive/FILEn.
func TestSymlinkSwap(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	first, second := ca.names(t, "a.test"), ca.names(t, "a.test")
	for version, pair := range map[string]issued{"v1": first, "v2": second} {
		must(t, os.Mkdir(dir.path(version), 0o700))
		folder(dir.path(version)).pair(t, "tls", pair)
		// Times and sizes say nothing: only the content differs.
		for _, name := range []string{"tls.crt", "tls.key"} {
			must(t, os.Chtimes(filepath.Join(dir.path(version), name), time.Unix(1, 0), time.Unix(1, 0)))
		}
	}
	must(t, os.Symlink("v1", dir.path("..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		must(t, os.Symlink(filepath.Join("..data", name), dir.path(name)))
	}
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{{dir.path("tls.crt"), dir.path("tls.key")}}})
	server := serve(t, store.ServerConfig())
	reload(t, store, false)
	must(t, os.Symlink("v2", dir.path("..data_tmp")))
	must(t, os.Rename(dir.path("..data_tmp"), dir.path("..data")))
	reload(t, store, true)
	if server.serial(t, "a.test") != second.serial() {
		t.Error("the swapped certificate is not served")
	}
}

func TestReloadUnderHandshakes(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	settings := ServerSettings{
		Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))},
		ClientAuth:   ClientAuthOptional, ClientCAFile: dir.write(t, "ca.pem", ca.pem),
		TicketKeyFiles: []string{dir.write(t, "k", []byte(strings.Repeat("key 0 ", 8)))},
	}
	store := mustStore(t, settings)
	server := serve(t, store.ServerConfig())
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			client := clientOf("a.test")
			client.ClientSessionCache = cryptotls.NewLRUClientSessionCache(1)
			for range 20 {
				conn, err := cryptotls.Dial("tcp", server.addr, client)
				if err == nil {
					err = errors.Join(ping(conn), conn.Close())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		work.Go(func() {
			for range 10 {
				if _, err := store.Reload(); err != nil {
					t.Error(err)
				}
				store.Certificates()
			}
		})
	}
	for i := range 10 {
		replace(t, settings.TicketKeyFiles[0], []byte(strings.Repeat(fmt.Sprintf("key %d ", i), 8)))
		replace(t, settings.ClientCAFile, append([]byte(fmt.Sprintf("%d\n", i)), ca.pem...))
	}
	work.Wait()
}

// replace swaps a file in one step.
func replace(t *testing.T, file string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(file+".new", content, 0o600))
	must(t, os.Rename(file+".new", file))
}

type report struct {
	changed bool
	err     error
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newAuthority(t, "ca"), newFolder(t)
		first, second := ca.names(t, "a.test"), ca.names(t, "b.test")
		store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{
			dir.pair(t, "a", first), dir.pair(t, "b", first),
		}})
		reports := make(chan report, 100)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			store.Watch(ctx, 10*time.Second, func(changed bool, err error) { reports <- report{changed, err} })
		}()
		time.Sleep(time.Second) // the bubble's clock: between two rounds
		next := func(rounds int) []report {
			time.Sleep(time.Duration(rounds) * 10 * time.Second)
			synctest.Wait()
			var got []report
			for len(reports) > 0 {
				got = append(got, <-reports)
			}
			return got
		}
		one := func(step string, got []report, want report, wantErrors ...string) {
			t.Helper()
			if len(got) != 1 {
				t.Fatalf("%s: %d reports, want 1: %v", step, len(got), got)
			}
			checkReport(t, got[0], want, wantErrors...)
		}
		none := func(step string, got []report) {
			t.Helper()
			if len(got) != 0 {
				t.Errorf("%s: reported %v", step, got)
			}
		}

		none("nothing happens", next(3))
		dir.pair(t, "a", second)
		one("a new pair", next(3), report{changed: true})
		if got := store.Certificates()[0].Name; got != "b.test" {
			t.Errorf("in force is %s", got)
		}
		dir.write(t, "a.crt", []byte("garbage"))
		one("a broken file, three rounds", next(3), report{}, "a.crt", "holds no certificate")
		must(t, os.Remove(dir.path("a.crt")))
		one("broken in another way", next(3), report{}, "a.crt", "no such file")
		dir.pair(t, "b", second)
		one("another file while one is broken", next(3), report{changed: true})
		dir.write(t, "b.key", first.keyPEM)
		one("a second broken file", next(3), report{}, "b.key")
		dir.pair(t, "a", first)
		one("the first is whole again", next(3), report{changed: true})
		dir.pair(t, "b", second)
		none("the second is back to what is in force", next(3))
		dir.write(t, "b.key", first.keyPEM)
		one("and is broken again", next(3), report{}, "b.key")
		dir.write(t, "a.key", second.keyPEM)
		if _, err := store.Reload(); err == nil {
			t.Error("Reload saw nothing")
		}
		none("what Reload has said already", next(3))

		cancel()
		<-done
		dir.pair(t, "a", second)
		none("after the end", next(3))
	})
}
