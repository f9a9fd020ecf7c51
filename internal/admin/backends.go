package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/internal/scalar"
)

// DrainRequest is the body of a drain. An empty field is left to the configuration.
type DrainRequest struct {
	Rate     string `json:"rate,omitempty"`   // such as 10/s
	Window   string `json:"window,omitempty"` // such as 30s, as is the deadline
	Deadline string `json:"deadline,omitempty"`
}

// backendOrAction is a backend by GET, or by POST what is done to it: an action behind its
// id. An id may end like one: by GET it is all of the path, and its own slashes escaped are
// none of an action's.
func (s *Server) backendOrAction(w http.ResponseWriter, r *http.Request) {
	m := methods{http.MethodGet: s.backend}
	for action, do := range map[string]func(http.ResponseWriter, *http.Request, string){drainAction: s.drain, undrainAction: s.undrain} {
		if id, ok := strings.CutSuffix(r.PathValue("id"), action); ok && id != "" && strings.HasSuffix(r.URL.EscapedPath(), action) {
			m[http.MethodPost] = func(w http.ResponseWriter, r *http.Request) { do(w, r, id) }
		}
	}
	m.ServeHTTP(w, r)
}

func (s *Server) backend(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	s.answerBackend(w, r.PathValue("pool"), r.PathValue("id"))
}

// answerBackend answers with a backend as it stands.
func (s *Server) answerBackend(w http.ResponseWriter, pool, id string) {
	err := ErrNoPool
	for _, p := range s.opts.Edge.Pools() {
		if p.Name != pool {
			continue
		}
		err = ErrNoBackend
		for _, b := range p.Backends {
			if b.ID == id {
				b.bound()
				writeJSON(w, http.StatusOK, b)
				return
			}
		}
	}
	writeError(w, statusOf(err), err.Error())
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request, id string) {
	_, err := parameters(r)
	var pace Pace
	if err == nil {
		pace, err = paceOf(r.Body)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	s.act(w, r, "drain", id, func(pool string) error { return s.opts.Edge.Drain(pool, id, pace) })
}

func (s *Server) undrain(w http.ResponseWriter, r *http.Request, id string) {
	if _, err := parameters(r); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	s.act(w, r, "undrain", id, func(pool string) error { return s.opts.Edge.Undrain(pool, id) })
}

// act does something to a backend and answers with what became of it.
func (s *Server) act(w http.ResponseWriter, r *http.Request, what, id string, do func(pool string) error) {
	pool := r.PathValue("pool")
	if err := do(pool); err != nil {
		writeError(w, statusOf(err), err.Error())
		return
	}
	s.log.Info(what+" asked for through the admin API", zap.String("pool", pool), zap.String("backend", id), zap.String("remote", r.RemoteAddr))
	s.answerBackend(w, pool, id)
}

// maxBodyBytes bounds the body of a request.
const maxBodyBytes = 4096

// paceOf reads the body of a drain: nothing, or an object with rate, window and deadline,
// which are texts as in the configuration, or numbers: sessions a second, and seconds.
func paceOf(body io.Reader) (p Pace, err error) {
	b, err := io.ReadAll(io.LimitReader(body, maxBodyBytes+1))
	switch {
	case err != nil:
		return p, fmt.Errorf("reading the body: %w", err)
	case len(b) > maxBodyBytes:
		return p, fmt.Errorf("the body is longer than %d bytes", maxBodyBytes)
	case len(bytes.TrimSpace(b)) == 0:
		return p, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil || fields == nil {
		return p, errors.New("the body is no JSON object")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch text, number, err := textOf(fields[name]); {
		case name != "rate" && name != "window" && name != "deadline":
			return p, fmt.Errorf("unknown field %s: rate, window and deadline are known", scalar.Quote(name))
		case err != nil:
			return p, fmt.Errorf("%s: %w", name, err)
		default:
			if err := p.set(name, text, number); err != nil {
				return p, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return p, nil
}

// textOf is what a value says as text, if it is a text or a number.
func textOf(raw json.RawMessage) (text string, number bool, err error) {
	if raw[0] == '"' {
		err = json.Unmarshal(raw, &text)
		return text, false, err
	}
	if raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return "", false, errors.New("it is neither a text nor a number")
	}
	return string(raw), true, nil
}

func (p *Pace) set(name, text string, number bool) error {
	if name == "rate" {
		perSecond, err := rate(text, number)
		p.Rate = &perSecond
		return err
	}
	d, err := duration(text, number)
	if name == "window" {
		p.Window = &d
	} else {
		p.Deadline = &d
	}
	return err
}

func rate(text string, number bool) (float64, error) {
	if !number {
		return scalar.Rate(text)
	}
	n, err := positive(text)
	if err != nil {
		return 0, err
	}
	return n, scalar.CheckRate(n, text)
}

func duration(text string, number bool) (time.Duration, error) {
	if !number {
		return scalar.Duration(text)
	}
	n, err := positive(text)
	if err == nil && n > math.MaxInt64/float64(2*time.Second) {
		err = fmt.Errorf("%s is out of range", text)
	}
	if err != nil {
		return 0, err
	}
	return time.Duration(n * float64(time.Second)), nil
}

func positive(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is out of range", text)
	case n < 0:
		return 0, fmt.Errorf("%s must not be negative", text)
	}
	return n, nil
}
