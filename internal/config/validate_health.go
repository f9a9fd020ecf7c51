package config

import (
	"fmt"
	"strings"
)

const defaultProbePath = "/healthz"

func (v *validator) validateHealth(path string, h *Health) {
	if h.Active != nil {
		v.validateActive(join(path, "active"), h.Active)
	}
	p, at := h.Passive, join(path, "passive")
	off := v.usable(join(at, "consecutive_failures")) && p.ConsecutiveFailures == 0
	for _, key := range []string{"ejection_time", "max_ejected"} {
		if name := join(at, key); off && v.usable(name) && v.given(name) {
			v.add(name, "%s does nothing with consecutive_failures 0", key)
		}
	}
	threshold := join(at, "panic_threshold")
	if off && h.Active == nil && p.PanicThreshold > 0 && v.usable(threshold) && v.given(threshold) {
		v.add(threshold, "panic_threshold does nothing with consecutive_failures 0 and without health.active: no backend is ever ejected")
	}
}

func (v *validator) validateActive(path string, a *ActiveHealth) {
	v.notLonger(path, "timeout", a.Timeout, "interval", a.Interval)
	at := join(path, "path")
	if !v.usable(at) || !v.usable(join(path, "type")) {
		return
	}
	if a.Type == "tcp" {
		if a.Path != defaultProbePath {
			v.add(at, "path has no effect with type tcp, only with http and websocket")
		}
		return
	}
	if err := checkProbePath(a.Path); err != nil {
		v.fail(at, "%s", err)
	}
}

// checkProbePath checks a path that may have a query.
func checkProbePath(path string) error {
	bare, query, _ := strings.Cut(path, "?")
	if err := checkPath(bare); err != nil {
		return err
	}
	for _, c := range query {
		if c <= ' ' || c == 0x7f || c == '#' {
			return fmt.Errorf("%s must not contain %q", quote(path), c)
		}
	}
	return nil
}
