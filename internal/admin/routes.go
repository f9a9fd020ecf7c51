package admin

import (
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// methods are the handlers of one path by method.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http leaves the body out
	}
	if h := m[method]; h != nil {
		h(w, r)
		return
	}
	var allow []string
	for name := range m {
		allow = append(allow, name)
		if name == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(allow, ", "))
	writeError(w, http.StatusMethodNotAllowed, "method not allowed")
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(LivezPath, methods{http.MethodGet: s.livez})
	mux.Handle(ReadyzPath, methods{http.MethodGet: s.readyz})
	if s.opts.Metrics != nil {
		mux.Handle(MetricsPath, methods{http.MethodGet: s.opts.Metrics.ServeHTTP})
	}
	mux.Handle(StatusPath, methods{http.MethodGet: s.status})
	mux.Handle(PoolsPath, methods{http.MethodGet: s.pools})
	// An id may contain slashes, escaped or not, so it is all the rest of the path.
	mux.HandleFunc(PoolsPath+"/{pool}/backends/{id...}", s.backendOrAction)
	mux.Handle(PoolsPath+"/{pool}"+rebalanceAction, methods{http.MethodPost: s.rebalance})
	mux.Handle(sessionsPath, methods{http.MethodGet: s.sessions})
	mux.Handle(sessionsPath+"/{id}", methods{http.MethodGet: s.session, http.MethodDelete: s.closeSession})
	mux.Handle(ReloadPath, methods{http.MethodPost: s.reload})
	mux.HandleFunc("/", notFound)
	mux.HandleFunc(PoolsPath+"/{pool}/backends", notFound) // else a redirect to the same with a slash
	return s.admit(mux)
}

// admit passes on to next the requests that may be answered.
func (s *Server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if refusal := s.guard(r); refusal != "" {
			writeError(w, http.StatusForbidden, refusal)
			return
		}
		if s.token != nil && !isProbe(r) {
			if err := s.token.check(r); err != nil {
				s.refuseToken(w, r, err)
				return
			}
		}
		if !clean(r.URL.EscapedPath()) {
			notFound(w, r) // the mux would redirect
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) refuseToken(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errUnauthorized) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="tidegate"`)
		writeError(w, http.StatusUnauthorized, err.Error())
		return
	}
	// The answer goes to somebody unknown: no paths in it.
	s.log.Error("reading the admin token", zap.Error(err), zap.String("remote", r.RemoteAddr))
	writeError(w, http.StatusServiceUnavailable, "the edge cannot read its admin token")
}

// clean reports whether p has no empty, "." or ".." segments.
func clean(p string) bool {
	return p == "/" || strings.HasPrefix(p, "/") && path.Clean(p) == strings.TrimSuffix(p, "/")
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeError(w, http.StatusNotFound, "there is nothing at this path")
}
