package admin

import (
	"net/url"
	"strconv"
	"strings"
)

// Paths of the API. Those with an id are made by BackendPath, SessionPath and
// SessionsPath.
const (
	LivezPath   = "/livez"
	ReadyzPath  = "/readyz"
	MetricsPath = "/metrics"
	StatusPath  = "/api/v1/status"
	PoolsPath   = "/api/v1/pools"
	ReloadPath  = "/api/v1/reload"

	sessionsPath = "/api/v1/sessions"
)

// BackendPath is the path of one backend, whatever its id contains.
func BackendPath(pool, id string) string {
	return PoolsPath + "/" + segment(pool) + "/backends/" + segment(id)
}

// DrainPath is the path that drains a backend by POST.
func DrainPath(pool, id string) string { return BackendPath(pool, id) + drainAction }

// UndrainPath is the path that ends that by POST.
func UndrainPath(pool, id string) string { return BackendPath(pool, id) + undrainAction }

// RebalancePath is the path that rebalances a pool by POST.
func RebalancePath(pool string) string { return PoolsPath + "/" + segment(pool) + rebalanceAction }

// Actions stand behind the name of a pool or the id of a backend.
const (
	rebalanceAction = "/rebalance"

	drainAction   = "/drain"
	undrainAction = "/undrain"
)

// SessionPath is the path of one session.
func SessionPath(id string) string { return sessionsPath + "/" + segment(id) }

// ClosePath is the path that closes a session by DELETE; code 0 is left out, as is an
// empty reason.
func ClosePath(id string, code int, reason string) string {
	v := url.Values{}
	if code != 0 {
		v.Set("code", strconv.Itoa(code))
	}
	return withQuery(SessionPath(id), set(v, "reason", reason))
}

// SessionsPath is the path of one page of sessions.
func SessionsPath(q SessionQuery) string {
	v := url.Values{}
	set(v, "pool", q.Pool)
	set(v, "backend", q.Backend)
	set(v, "route", q.Route)
	if q.IP.IsValid() {
		v.Set("ip", q.IP.String())
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return withQuery(sessionsPath, set(v, "cursor", q.Cursor))
}

func set(v url.Values, name, value string) url.Values {
	if value != "" {
		v.Set(name, value)
	}
	return v
}

func withQuery(path string, v url.Values) string {
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// segment escapes s as one segment of a path. "." and ".." would be taken for steps.
func segment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}
