//lint:file-ignore SA1019 the server to compare with is the one that the edge is built on

package test

import (
	cryptotls "crypto/tls"
	"encoding/xml"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	tgtls "github.com/tidegate/tidegate/tls"
)

// notConforming are the cases of h2spec that fail, in the HTTP/2 of golang.org/x/net and so in
// the edge.
var notConforming = []string{
	// It ends a connection whose SETTINGS name a setting twice, on purpose: nobody does but
	// for mischief.
	"http2/6.5.3: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE",
	// It answers 400 to what has connection-specific headers, as RFC 9113 §8.1.1 allows; the
	// test is of RFC 7540, which wants a reset.
	"http2/8.1.2.2: Sends a HEADERS frame that contains the connection-specific header field",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"",
}

// TestHTTP2Spec runs the conformance tests h2spec against an edge, and for comparison against
// the server that it is built on. All cases must pass but those of notConforming, which must
// fail: this test is to be told when they no longer do.
func TestHTTP2Spec(t *testing.T) {
	program := h2spec(t)
	e := start(t, withBackends(`
ADMIN
listeners:
  - name: edge
    address: "127.0.0.1:0"
    tls: {certificates: [{cert: CERT, key: KEY}]}
    limits: {handshake_timeout: 0} # it ends connections whose requests are all malformed, which some cases take for success
routes:
  - {name: all, pool: apps}
pools:
  - {name: apps, backends: [BACKENDS]}
`, "127.0.0.1:1"))
	bare := bareHTTP2(t)
	var wg sync.WaitGroup
	for name, addr := range map[string]string{"edge": e.addr("edge"), "x/net": bare} {
		report := filepath.Join(t.TempDir(), "report.xml")
		wg.Go(func() {
			passed, failed, out := runH2spec(t, program, addr, report)
			if passed+len(failed) < 145 {
				t.Errorf("%s: %d cases were run\n%s", name, passed+len(failed), out)
			}
			// Some cases send the frame that is wrong behind a request that is whole enough to be
			// answered: whether the answer comes first is a matter of luck.
			for try := 0; try < 5 && !slices.Equal(failed, notConforming); try++ {
				failed = slices.DeleteFunc(failed, func(c string) bool {
					section, _, _ := strings.Cut(c, ":")
					_, again, _ := runH2spec(t, program, addr, report, section)
					return !slices.Contains(again, c)
				})
			}
			if !slices.Equal(failed, notConforming) {
				t.Errorf("%s: these failed: %q\n%s", name, failed, out)
			}
		})
	}
	wg.Wait()
}

// runH2spec runs the cases of sections, or all, and returns how many passed and which did not.
func runH2spec(t *testing.T, program, addr, report string, sections ...string) (passed int, failed []string, output string) {
	_, port, _ := net.SplitHostPort(addr)
	args := append([]string{"-h", "127.0.0.1", "-p", port, "-t", "-k", "-o", "5", "-j", report}, sections...)
	out, _ := exec.Command(program, args...).CombinedOutput() // its status says that some have failed
	passed, failed = readReport(t, report)
	return passed, failed, string(out)
}

// h2spec is the program that test/h2spec/build.sh builds.
func h2spec(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("h2spec/build.sh").Output()
	if err != nil {
		missing(t, "no h2spec")
	}
	return strings.TrimSpace(string(out))
}

// bareHTTP2 is a server of golang.org/x/net/http2 alone.
func bareHTTP2(t *testing.T) (addr string) {
	t.Helper()
	cert, key, err := tgtls.NewDevelopmentCertificate("localhost", "127.0.0.1")
	must(t, err)
	pair, err := cryptotls.X509KeyPair(cert, key)
	must(t, err)
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "something to say") })}
	must(t, http2.ConfigureServer(server, &http2.Server{MaxReadFrameSize: 16 << 10}))
	ln, err := cryptotls.Listen("tcp", "127.0.0.1:0", server.TLSConfig)
	must(t, err)
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return ln.Addr().String()
}

// readReport returns how many cases passed and which did not, of a report in JUnit's format.
func readReport(t *testing.T, path string) (passed int, failed []string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	var report struct {
		Suites []struct {
			Package string `xml:"package,attr"`
			Cases   []struct {
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b, &report); err != nil {
		t.Error(err)
	}
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			if c.Failure == nil && c.Error == nil {
				passed++
			} else {
				failed = append(failed, s.Package+": "+c.Name)
			}
		}
	}
	return passed, failed
}
