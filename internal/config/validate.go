package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// validator checks what no single value can show, in a file whose values have been
// decoded as far as possible. It also brings values into their one form (lower case
// hosts, canonical header names) and fills in defaults that depend on others.
type validator struct {
	*report
	file *File
	env  func(string) (string, bool)
	read func(string) ([]byte, error)
}

func (v *validator) validate() {
	v.validateAdmin()
	v.validateShutdown()
	v.validateListeners()
	v.validatePools()
	v.validateRoutes()
	v.validateTies()
	v.validateCookies()
}

func (v *validator) validateAdmin() {
	const path = "admin.address"
	if v.usable(path) {
		if err := checkAdminAddress(v.file.Admin.Address); err != nil {
			v.fail(path, "%s", err)
		}
	}
	v.checkToken("admin.token_file", v.file.Admin.TokenFile)
}

func checkAdminAddress(address string) error {
	socket, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		_, _, err := splitAddress(address)
		return err
	}
	if !filepath.IsAbs(socket) || strings.HasPrefix(socket, "//") {
		return fmt.Errorf("%s must be unix: and an absolute path, such as unix:/run/tidegate.sock", quote(address))
	}
	return nil
}

func (v *validator) validateShutdown() {
	s := v.file.Shutdown
	if s.Deadline != 0 {
		v.notLonger("shutdown", "drain_window", s.DrainWindow, "deadline", s.Deadline)
	}
}

// notLonger reports a duration that is longer than the one that it belongs into. The
// one that the YAML has is where the report points.
func (v *validator) notLonger(path, name string, d time.Duration, boundName string, bound time.Duration) {
	at, boundAt := join(path, name), join(path, boundName)
	if d <= bound || !v.usable(at) || !v.usable(boundAt) {
		return
	}
	if !v.given(at) {
		at = boundAt
	}
	v.add(at, "%s %s%s is longer than %s %s%s", name, plainDuration(d), v.byDefault(join(path, name)),
		boundName, plainDuration(bound), v.byDefault(boundAt))
}

// byDefault says behind a value where it is from, if it is not from the YAML.
func (v *validator) byDefault(path string) string {
	if v.given(path) {
		return ""
	}
	return " (the default)"
}

// plainDuration is d without the zeros that String leaves at its end.
func plainDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// longestName bounds names, which become labels of metrics.
const longestName = 128

// checkName checks the form of a name. Names stand in URLs, in POOL/BACKEND on the
// command line and in tables; extra lists what is allowed besides letters, digits,
// dot, hyphen and underscore.
func (v *validator) checkName(path, name, extra string) {
	if name == "" || !v.usable(path) {
		return
	}
	if len(name) > longestName {
		v.fail(path, "%s is longer than %d bytes", quote(name), longestName)
		return
	}
	for _, c := range name {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("._-"+extra, c) {
			v.fail(path, "%s contains %q; letters, digits and . _ - are allowed", quote(name), c)
			return
		}
	}
}

// names finds what is called the same. Its zero value is ready to use.
type names struct {
	what  string // listener, route, …
	first map[string]string
}

// add reports name at path if it was added before. Empty names were reported already.
func (n *names) add(v *validator, path, name string) {
	if name == "" {
		return
	}
	if before, ok := n.first[name]; ok {
		v.add(path, "duplicate %s %s, which is %s at %s already", n.what, quote(name), before, v.at(before))
		return
	}
	if n.first == nil {
		n.first = map[string]string{}
	}
	n.first[name] = path
}
