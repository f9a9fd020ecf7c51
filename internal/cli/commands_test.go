package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

// TestTables compares what each command prints to text that somebody has looked at.
func TestTables(t *testing.T) {
	healthy := serve(t, admin.Options{Edge: newFakeEdge()})
	empty := serve(t, admin.Options{Edge: &fakeEdge{status: admin.Status{Started: began}}})
	troubled := newFakeEdge()
	troubled.status.Ready, troubled.status.ShuttingDown = false, true
	troubled.status.Config.LastReloadOK = false
	troubled.status.Config.LastReloadError = "a.yaml:3:9: pools[0].name: it is empty\x1b[2J\na.yaml:12:1: routes: two\na.yaml:13:1: three"
	leaving := serve(t, admin.Options{Edge: troubled})
	gone := serve(t, admin.Options{Edge: &fakeEdge{status: admin.Status{Started: began, Ready: true,
		Config: admin.Config{Path: "a.yaml", LastReload: began, LastReloadError: "reading a.yaml: it is gone"}}}})
	builtIn := serve(t, admin.Options{Edge: &fakeEdge{status: admin.Status{Started: began, Ready: true,
		Config: admin.Config{LastReload: began, LastReloadOK: true}}}})
	for _, tt := range []struct {
		golden, admin string
		args          []string
	}{
		{"status.txt", healthy, []string{"status"}},
		{"status-empty.txt", empty, []string{"status"}},
		{"status-leaving.txt", leaving, []string{"status"}},
		{"status-gone.txt", gone, []string{"status"}},
		{"status-built-in.txt", builtIn, []string{"status"}},
		{"pools.txt", healthy, []string{"pools"}},
		{"pools-empty.txt", empty, []string{"pools"}},
		{"sessions.txt", healthy, []string{"sessions"}},
		{"sessions-empty.txt", empty, []string{"sessions"}},
		{"close.txt", healthy, []string{"close", "s1"}},
		{"close-code.txt", healthy, []string{"close", "s1", "--code", "4001", "--reason", "bye"}},
		{"drain.txt", healthy, []string{"drain", "chat/" + hostile, "--rate", "2.5/s"}},
		{"undrain.txt", drainless(t), []string{"undrain", "chat/dc1/node-1/chat-1"}},
		{"rebalance.txt", healthy, []string{"rebalance", "chat"}},
		{"reload.txt", healthy, []string{"reload"}},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			got := run(append(tt.args, "--admin", tt.admin)...)
			if got.code != ExitDone || got.stderr != "" {
				t.Errorf("exit code %d: %s", got.code, got.stderr)
			}
			golden(t, tt.golden, got.stdout)
		})
	}
}

// TestJSON holds --json against what the API answers.
func TestJSON(t *testing.T) {
	address := serve(t, admin.Options{Edge: newFakeEdge()})
	for _, tt := range []struct {
		method, path string
		args         []string
	}{
		{"GET", admin.StatusPath, []string{"status"}},
		{"GET", admin.PoolsPath, []string{"pools"}},
		{"GET", admin.SessionsPath(admin.SessionQuery{}), []string{"sessions"}},
		{"DELETE", admin.ClosePath("s1", 3000, "x"), []string{"close", "s1", "--code=3000", "--reason=x"}},
		{"POST", admin.DrainPath("chat", hostile), []string{"drain", "chat/" + hostile}},
		{"POST", admin.UndrainPath("chat", hostile), []string{"undrain", "chat/" + hostile}},
		{"POST", admin.RebalancePath("a b/" + hostile), []string{"rebalance", "a b/" + hostile}},
		{"POST", admin.ReloadPath, []string{"reload"}},
	} {
		client, err := admin.NewClient(address, "")
		if err != nil {
			t.Fatal(err)
		}
		want, err := client.Call(t.Context(), tt.method, tt.path, nil)
		client.Close()
		if err != nil {
			t.Fatal(err)
		}
		got := run(append(tt.args, "--json", "--admin", address)...)
		if got.code != ExitDone || got.stdout != string(want) || got.stderr != "" {
			t.Errorf("%v: exit code %d, %s\n%s\nwant\n%s", tt.args, got.code, got.stderr, got.stdout, want)
		}
	}
}

func TestUnixSocketAndToken(t *testing.T) {
	dir, err := os.MkdirTemp("", "tg") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	token, wrong := filepath.Join(dir, "token"), filepath.Join(dir, "wrong")
	for file, text := range map[string]string{token: "secret\n", wrong: "guess\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := serve(t, admin.Options{Edge: newFakeEdge(), Address: "unix:" + dir + "/a.sock", TokenFile: token})
	for _, tt := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"--token-file", token}, ExitDone, ""},
		{nil, ExitFailed, "tidegate: the edge at " + address + " wants a token: name its file with --token-file\n"},
		{[]string{"--token-file", wrong}, ExitFailed, "tidegate: the edge at " + address + " refuses the token in " + wrong + "\n"},
		{[]string{"--token-file", dir + "/no"}, ExitFailed, "tidegate: reading the token: stat " + dir + "/no: no such file or directory\n"},
	} {
		got := run(append([]string{"status", "--admin", address}, tt.args...)...)
		if got.code != tt.code || got.stderr != tt.stderr {
			t.Errorf("%v: exit code %d, stderr %q, want %d, %q", tt.args, got.code, got.stderr, tt.code, tt.stderr)
		}
	}
}

// The environment selects the edge, and the flag overrides it.
func TestAdminEnvironment(t *testing.T) {
	address := serve(t, admin.Options{Edge: newFakeEdge()})
	nobody := unused(t)
	t.Setenv(adminEnv, address)
	if got := run("reload"); got.code != ExitDone {
		t.Errorf("by the environment: %+v", got)
	}
	if got := run("reload", "--admin", nobody); got.code != ExitFailed || !strings.Contains(got.stderr, nobody) {
		t.Errorf("the flag is stronger: %+v", got)
	}
	t.Setenv(adminEnv, nobody)
	if got := run("reload", "--admin", address); got.code != ExitDone {
		t.Errorf("the flag is stronger: %+v", got)
	}
	t.Setenv(adminEnv, "")
	var c connection
	cmd := &cobra.Command{Use: "some"}
	c.addFlags(cmd)
	if client, err := c.client(cmd); err != nil || c.address != defaultAdmin {
		t.Errorf("an empty variable selects %q, %v", c.address, err)
	} else {
		client.Close()
	}
}

// unused is an address at which nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestNoEdge(t *testing.T) {
	for _, address := range []string{unused(t), "unix:" + filepath.Join(t.TempDir(), "a.sock")} {
		for _, args := range [][]string{{"status"}, {"pools"}, {"sessions"}, {"close", "s1"}, {"drain", "a/b"}, {"undrain", "a/b"}, {"rebalance", "a"}, {"reload"}, {"status", "--json"}} {
			got := run(append(args, "--admin", address)...)
			want := "tidegate: no edge answers at " + address + " (is it running? --admin or TIDEGATE_ADMIN selects another)\n"
			if got.code != ExitFailed || got.stderr != want || got.stdout != "" {
				t.Errorf("%v: %+v", args, got)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	address := serve(t, admin.Options{Edge: newFakeEdge()})
	for _, tt := range []struct {
		args   []string
		stderr string
	}{
		{[]string{"statsu"}, `unknown command "statsu" for "tidegate" Did you mean this? status (see 'tidegate --help')`},
		{[]string{"status", "chat"}, `unknown command "chat" for "tidegate status" (see 'tidegate status --help')`},
		{[]string{"status", "--nope"}, "unknown flag: --nope (see 'tidegate status --help')"},
		{[]string{"status", "--admin"}, "flag needs an argument: --admin (see 'tidegate status --help')"},
		{[]string{"status", "--admin", "9901"}, `"9901" is not an admin address: want host:port, http://host:port or unix:/path (see 'tidegate status --help')`},
		{[]string{"close"}, "accepts 1 arg(s), received 0 (see 'tidegate close --help')"},
		{[]string{"close", "a", "b"}, "accepts 1 arg(s), received 2 (see 'tidegate close --help')"},
		{[]string{"close", ""}, "SESSION is empty (see 'tidegate close --help')"},
		{[]string{"close", "s1", "--code", "1006"}, "bad close code 1006: want 1000-1003, 1007-1014 or 3000-4999 (see 'tidegate close --help')"},
		{[]string{"close", "s1", "--code", "x"}, `invalid argument "x" for "--code" flag: strconv.ParseInt: parsing "x": invalid syntax (see 'tidegate close --help')`},
		{[]string{"close", "s1", "--reason", strings.Repeat("x", 124)}, "bad close reason: 124 bytes, 123 fit into a Close frame (see 'tidegate close --help')"},
		{[]string{"drain"}, "accepts 1 arg(s), received 0 (see 'tidegate drain --help')"},
		{[]string{"drain", "chat"}, `"chat" is not POOL/BACKEND (see 'tidegate drain --help')`},
		{[]string{"drain", "/b"}, `"/b" is not POOL/BACKEND (see 'tidegate drain --help')`},
		{[]string{"undrain", "chat/"}, `"chat/" is not POOL/BACKEND (see 'tidegate undrain --help')`},
		{[]string{"undrain", "chat/b", "--rate", "1/s"}, "unknown flag: --rate (see 'tidegate undrain --help')"},
		{[]string{"drain", "chat/b", "--rate", "10"}, `--rate: "10" has no unit (did you mean "10/s"?) (see 'tidegate drain --help')`},
		{[]string{"drain", "chat/b", "--window=-1s"}, `--window: "-1s" must not be negative (see 'tidegate drain --help')`},
		{[]string{"drain", "chat/b", "--deadline", "soon"}, `--deadline: "soon" is not a duration such as 500ms, 30s or 1m30s (see 'tidegate drain --help')`},
		{[]string{"rebalance"}, "accepts 1 arg(s), received 0 (see 'tidegate rebalance --help')"},
		{[]string{"rebalance", ""}, "POOL is empty (see 'tidegate rebalance --help')"},
		{[]string{"sessions", "--ip", "localhost"}, `--ip: "localhost" is not an IP address (see 'tidegate sessions --help')`},
		{[]string{"sessions", "--limit", "-1"}, "--limit must not be negative (see 'tidegate sessions --help')"},
	} {
		args := tt.args
		if tt.args[0] != "statsu" && !strings.Contains(strings.Join(args, " "), "--admin") {
			args = append(args, "--admin", address)
		}
		got := run(args...)
		if got.code != ExitUsage || got.stderr != "tidegate: "+tt.stderr+"\n" || got.stdout != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr\n%swant\ntidegate: %s", tt.args, got.code, got.stdout, got.stderr, tt.stderr)
		}
	}
}

func TestRefusals(t *testing.T) {
	edge := newFakeEdge()
	address := serve(t, admin.Options{Edge: edge})
	got := run("close", "gone\x1b[2J", "--admin", address)
	if want := (result{ExitFailed, "", "tidegate: no such session: gone[2J\n"}); got != want {
		t.Errorf("close: %+v", got)
	}

	for args, want := range map[string]string{
		"drain chat/no":                  "no such backend in this pool",
		"undrain chat/no":                "no such backend in this pool",
		"undrain chat/dc1/node-1/chat-1": "this backend is not drained",
		"rebalance rooms":                "the sessions of this pool are where its hash says: they are not rebalanced",
	} {
		got = run(append(strings.Fields(args), "--admin", address)...)
		if want := (result{ExitFailed, "", "tidegate: " + want + "\n"}); got != want {
			t.Errorf("%s: %+v", args, got)
		}
	}

	edge.reload = admin.ErrShuttingDown
	got = run("reload", "--admin", address)
	if want := (result{ExitFailed, "", "tidegate: the edge is shutting down\n"}); got != want {
		t.Errorf("reload: %+v", got)
	}

	edge.reload = admin.ErrNoFile
	got = run("reload", "--admin", address)
	if want := (result{ExitFailed, "", "tidegate: this edge has no configuration file\n"}); got != want {
		t.Errorf("reload: %+v", got)
	}

	edge.reload = &admin.Rejected{Diagnostics: []admin.Diagnostic{
		{File: "a.yaml", Line: 3, Column: 9, Path: "pools[0].name", Message: "it is empty"},
		{File: "a.yaml", Line: 12, Column: 1, Path: "routes", Message: "line one\nline two\x1b[2J"},
	}}
	got = run("reload", "--admin", address)
	want := result{ExitFailed, "", "tidegate: the configuration was rejected: 2 problems\n" +
		"a.yaml:3:9: pools[0].name: it is empty\n" +
		"a.yaml:12:1: routes: line one line two[2J\n"}
	if got != want {
		t.Errorf("reload: %+v", got)
	}

	got = run("reload", "--json", "--admin", address)
	var answer struct{ Diagnostics []admin.Diagnostic }
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || len(answer.Diagnostics) != 2 {
		t.Errorf("reload --json: %v: %s", err, got.stdout)
	}
	if got.code != ExitFailed || got.stderr != "tidegate: the configuration was rejected: 2 problems\n" {
		t.Errorf("reload --json: %+v", got)
	}
}

func TestSessionsPaging(t *testing.T) {
	edge := newFakeEdge()
	edge.sessions = nil
	for i := range 1203 {
		edge.sessions = append(edge.sessions, admin.Session{ID: fmt.Sprintf("s%04d", i)})
	}
	address := serve(t, admin.Options{Edge: edge})
	for _, tt := range []struct {
		limit, listed int
		pages         []int // the limit of each
	}{
		{0, 1203, []int{500, 500, 500}},
		{1, 1, []int{1}},
		{500, 500, []int{500}},
		{501, 501, []int{500, 1}},
		{1203, 1203, []int{500, 500, 203}},
		{5000, 1203, []int{500, 500, 500}},
	} {
		edge.queries = nil
		args := []string{"sessions", "--admin", address, "--limit", fmt.Sprint(tt.limit)}
		got := run(args...)
		lines := strings.Split(strings.TrimSpace(got.stdout), "\n")[1:]
		if got.code != ExitDone || len(lines) != tt.listed {
			t.Errorf("limit %d: exit code %d, %d sessions, want %d", tt.limit, got.code, len(lines), tt.listed)
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, fmt.Sprintf("s%04d ", i)) {
				t.Fatalf("limit %d: line %d is %q", tt.limit, i, line)
			}
		}
		var pages []int
		for _, q := range edge.queries {
			pages = append(pages, q.Limit)
		}
		if diff := cmp.Diff(tt.pages, pages); diff != "" {
			t.Errorf("limit %d: pages\n%s", tt.limit, diff)
		}

		// As JSON it is one document per page, and every session once.
		listed := 0
		for _, doc := range strings.SplitAfter(strings.TrimSpace(run(append(args, "--json")...).stdout), "\n") {
			var page admin.SessionPage
			if err := json.Unmarshal([]byte(doc), &page); err != nil {
				t.Fatal(err)
			}
			listed += len(page.Sessions)
		}
		if listed != tt.listed {
			t.Errorf("limit %d: %d sessions as JSON, want %d", tt.limit, listed, tt.listed)
		}
	}
}

func TestSessionsFilters(t *testing.T) {
	edge := newFakeEdge()
	address := serve(t, admin.Options{Edge: edge})
	got := run("sessions", "--admin", address, "--pool", "a b", "--backend", "dc1/n/c", "--route", "r&s", "--ip", "192.0.2.1", "--limit", "9")
	if got.code != ExitDone {
		t.Fatalf("%+v", got)
	}
	want := []admin.SessionQuery{{Pool: "a b", Backend: "dc1/n/c", Route: "r&s", IP: netip.MustParseAddr("192.0.2.1"), Limit: 9}}
	if diff := cmp.Diff(want, edge.queries, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

// A server that goes round in circles must not keep the command for ever.
func TestSessionsCircle(t *testing.T) {
	edge := newFakeEdge()
	edge.stuck = true
	got := run("sessions", "--admin", serve(t, admin.Options{Edge: edge}))
	if got.code != ExitFailed || got.stderr != "tidegate: the edge answers with the same page of sessions again and again\n" {
		t.Errorf("%+v", got)
	}
}

func TestCloseReachesTheEdge(t *testing.T) {
	edge := newFakeEdge()
	address := serve(t, admin.Options{Edge: edge})
	run("close", "a/b c", "--admin", address)
	run("close", "s1", "--code=4000", "--reason=é & ü", "--admin", address)
	want := []admin.Closing{{ID: "a/b c", Code: 1008}, {ID: "s1", Code: 4000, Reason: "é & ü"}}
	if diff := cmp.Diff(want, edge.closed); diff != "" {
		t.Error(diff)
	}
}

// drainless is an edge that has nothing drained, whatever it is asked to end.
func drainless(t *testing.T) string {
	edge := newFakeEdge()
	return serve(t, admin.Options{Edge: undrained{edge}})
}

type undrained struct{ *fakeEdge }

func (undrained) Undrain(string, string) error { return nil }

func TestDrainReachesTheEdge(t *testing.T) {
	edge := newFakeEdge()
	address := serve(t, admin.Options{Edge: edge})
	run("drain", "chat/dc1/node-1/chat-1", "--admin", address)
	run("drain", "chat/a/drain", "--rate=20/m", "--window=1m30s", "--deadline=0", "--admin", address)
	run("undrain", "chat/a/undrain", "--admin", address)
	want := []string{"drain chat dc1/node-1/chat-1", "drain chat a/drain rate 0.3333333333333333 window 1m30s deadline 0s", "undrain chat a/undrain"}
	if diff := cmp.Diff(want, edge.drains); diff != "" {
		t.Error(diff)
	}
}

// TestRebalancing has a line for every way in which a pool is rebalanced, or is not.
func TestRebalancing(t *testing.T) {
	for want, r := range map[string]admin.Rebalancing{
		"a: no session is to leave its backend":                                             {PerSecond: 10},
		"a is rebalanced: 1 session to go, 10 a second":                                     {Remaining: 1, PerSecond: 10},
		"a is rebalanced: 412 sessions to go, one in 3s":                                    {Remaining: 412, PerSecond: 1.0 / 3},
		"a is rebalanced: 2 sessions to go, waiting for a backend that is new or unhealthy": {Remaining: 2, PerSecond: 10, Waiting: true},
	} {
		if got := rebalancing("a", &r); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}

// TestStanding has a line for every way in which a backend is drained, or is not.
func TestStanding(t *testing.T) {
	for _, tt := range []struct {
		b    admin.Backend
		want string
	}{
		{admin.Backend{ID: "b", State: "up", Sessions: 1}, "a/b is up with 1 session"},
		{admin.Backend{ID: "b", Draining: &admin.Draining{By: "consul"}}, "a/b is drained by consul: 0 sessions left"},
		{admin.Backend{ID: "b", Draining: &admin.Draining{By: "removal", Remaining: 1}}, "a/b is drained by removal: 1 session left, all at once"},
		{admin.Backend{ID: "b", Draining: &admin.Draining{By: "operator", Remaining: 2, PerSecond: 1.0 / 90, Deadline: began}},
			"a/b is drained by operator: 2 sessions left, one in 1m30s, the rest at 2025-06-01T12:00:00Z"},
		{admin.Backend{ID: "b", Draining: &admin.Draining{By: "operator", Remaining: 2000, PerSecond: 33.333}}, "a/b is drained by operator: 2000 sessions left, 33.3 a second"},
		{admin.Backend{ID: "b", Draining: &admin.Draining{By: "operator", Remaining: 2, PerSecond: 5, Waiting: true}},
			"a/b is drained by operator: 2 sessions left, waiting for another backend that takes sessions"},
	} {
		if got := standing("a", &tt.b); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// A result that cannot be written is no success.
func TestStdoutIsGone(t *testing.T) {
	address := serve(t, admin.Options{Edge: newFakeEdge()})
	for _, args := range [][]string{
		{"status"}, {"pools"}, {"sessions"}, {"close", "s1"}, {"drain", "chat/" + hostile}, {"reload"}, {"status", "--json"}, {"sessions", "--json"},
	} {
		var stderr bytes.Buffer
		code := Run(newRoot(), append(args, "--admin", address), brokenPipe{}, &stderr)
		if code != ExitFailed || stderr.String() != "tidegate: broken pipe\n" {
			t.Errorf("%v: exit code %d: %s", args, code, stderr.String())
		}
	}
}
