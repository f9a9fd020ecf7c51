package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"go.uber.org/zap"
)

// okAnswer is what a probe that holds answers.
type okAnswer struct {
	Status string `json:"status"`
}

// Closing is the answer to the closing of a session.
type Closing struct {
	ID     string `json:"id"`
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// Reloaded is the answer to a reload that was applied.
type Reloaded struct {
	Generation uint64 `json:"generation"`
}

// PoolList is the answer to the question for all pools.
type PoolList struct {
	Pools []Pool `json:"pools"`
}

func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, okAnswer{"ok"})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.opts.Edge.Ready(); err != nil {
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, okAnswer{"ok"})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	st := s.opts.Edge.Status()
	st.Listeners, st.Routes = notNil(st.Listeners), notNil(st.Routes)
	writeJSON(w, http.StatusOK, st)
}

func (s *Server) pools(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	pools := notNil(s.opts.Edge.Pools())
	for i := range pools {
		pools[i].Backends = notNil(pools[i].Backends)
		for j := range pools[i].Backends {
			pools[i].Backends[j].bound()
		}
	}
	writeJSON(w, http.StatusOK, PoolList{pools})
}

func (s *Server) rebalance(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	pool := r.PathValue("pool")
	now, err := s.opts.Edge.Rebalance(pool)
	if err != nil {
		writeError(w, statusOf(err), err.Error())
		return
	}
	s.log.Info("rebalance asked for through the admin API", zap.String("pool", pool), zap.Int64("sessions", now.Remaining), zap.String("remote", r.RemoteAddr))
	writeJSON(w, http.StatusOK, now)
}

func (s *Server) sessions(w http.ResponseWriter, r *http.Request) {
	q, err := sessionQuery(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	page, err := s.opts.Edge.Sessions(q)
	if err != nil {
		writeError(w, statusOf(err), err.Error())
		return
	}
	page.Sessions = notNil(page.Sessions)
	for i := range page.Sessions {
		page.Sessions[i].bound()
	}
	writeJSON(w, http.StatusOK, page)
}

func (s *Server) session(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	session, ok := s.opts.Edge.Session(r.PathValue("id"))
	if !ok {
		writeError(w, http.StatusNotFound, ErrNoSession.Error())
		return
	}
	session.bound()
	writeJSON(w, http.StatusOK, session)
}

func (s *Server) closeSession(w http.ResponseWriter, r *http.Request) {
	c, err := closing(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if err := s.opts.Edge.CloseSession(c.ID, c.Code, c.Reason); err != nil {
		writeError(w, statusOf(err), err.Error())
		return
	}
	s.log.Info("session closed through the admin API", zap.String("session", c.ID), zap.Int("code", c.Code),
		zap.String("reason", c.Reason), zap.String("remote", r.RemoteAddr))
	writeJSON(w, http.StatusOK, c)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	s.log.Info("reload asked for through the admin API", zap.String("remote", r.RemoteAddr))
	generation, err := s.opts.Edge.Reload(r.Context())
	if rejected, ok := errors.AsType[*Rejected](err); ok {
		writeJSON(w, http.StatusUnprocessableEntity, errorAnswer{err.Error(), rejected.Diagnostics})
		return
	}
	if err != nil {
		writeError(w, statusOf(err), err.Error())
		return
	}
	writeJSON(w, http.StatusOK, Reloaded{generation})
}

// statusOf is the HTTP status for an error of an Edge.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNoSession), errors.Is(err, ErrNoPool), errors.Is(err, ErrNoBackend):
		return http.StatusNotFound
	case errors.Is(err, ErrBadCode), errors.Is(err, ErrBadReason), errors.Is(err, ErrBadCursor), errors.Is(err, ErrBadPace):
		return http.StatusBadRequest
	case errors.Is(err, ErrNoFile), errors.Is(err, ErrNotDrained), errors.Is(err, ErrMaintained),
		errors.Is(err, ErrHashed), errors.Is(err, ErrUnsettled):
		return http.StatusConflict
	case errors.Is(err, ErrShuttingDown):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// parameters parses the query, of which only the known parameters may be there, once
// each: a misspelt filter must not select everything.
func parameters(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("reading the query: %w", err)
	}
	for name, list := range values {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown query parameter %q", name)
		}
		if len(list) > 1 {
			return nil, fmt.Errorf("query parameter %q stands there %d times", name, len(list))
		}
	}
	return values, nil
}

func sessionQuery(r *http.Request) (SessionQuery, error) {
	values, err := parameters(r, "pool", "backend", "route", "ip", "limit", "cursor")
	if err != nil {
		return SessionQuery{}, err
	}
	q := SessionQuery{
		Pool: values.Get("pool"), Backend: values.Get("backend"), Route: values.Get("route"),
		Limit: DefaultLimit, Cursor: values.Get("cursor"),
	}
	if ip := values.Get("ip"); ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return SessionQuery{}, fmt.Errorf("ip: %q is not an IP address", ip)
		}
		q.IP = addr.Unmap()
	}
	if limit := values.Get("limit"); limit != "" {
		q.Limit, err = strconv.Atoi(limit)
		if err != nil || q.Limit < 1 || q.Limit > MaxLimit {
			return SessionQuery{}, fmt.Errorf("limit: %q is not a number from 1 to %d", limit, MaxLimit)
		}
	}
	return q, nil
}

func closing(r *http.Request) (Closing, error) {
	values, err := parameters(r, "code", "reason")
	if err != nil {
		return Closing{}, err
	}
	c := Closing{ID: r.PathValue("id"), Code: DefaultCloseCode, Reason: values.Get("reason")}
	if code := values.Get("code"); code != "" {
		if c.Code, err = strconv.Atoi(code); err != nil {
			return Closing{}, fmt.Errorf("%w %q: it is not a number", ErrBadCode, code)
		}
	}
	return c, CheckClose(c.Code, c.Reason)
}
