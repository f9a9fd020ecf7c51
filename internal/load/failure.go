package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"syscall"

	"github.com/gobwas/ws"
)

// failure is what went wrong with a connection, with its kind for the report.
type failure struct {
	kind string
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// noFileLeft is the kind of failure of who may open no more files.
const noFileLeft = "dial_no_file_left"

func dialKind(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "dial_refused"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "dial_no_port_left" // or no such source address
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return noFileLeft
	case isTimeout(err):
		return "dial_timeout"
	}
	return "dial"
}

func tlsKind(err error) string {
	_, alert := errors.AsType[tls.AlertError](err)
	_, remote := errors.AsType[*net.OpError](err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case unverified || unknown:
		return "tls_certificate"
	case isTimeout(err):
		return "tls_timeout"
	case errors.Is(err, syscall.ECONNRESET):
		return "tls_reset"
	case errors.Is(err, io.EOF):
		return "tls_end"
	case alert || remote:
		return "tls_alert"
	}
	return "tls"
}

func upgradeKind(err error) string {
	status, refused := errors.AsType[ws.StatusError](err)
	switch {
	case refused:
		return fmt.Sprintf("upgrade_status_%d", int(status))
	case isTimeout(err):
		return "upgrade_timeout"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "upgrade_reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "upgrade_end"
	}
	return "upgrade"
}

// openKind is the kind of what ended an open connection; "" if it is no error but an
// end without a Close, which is counted as 1006.
func openKind(err error) string {
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ""
	case errors.Is(err, ErrProtocol):
		return "protocol"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case isTimeout(err):
		return "timeout"
	}
	return "connection"
}

// faults counts what went wrong by kind, with the first of each as an example.
type faults map[string]*Fault

// Fault is one kind of error of a run.
type Fault struct {
	Kind    string `json:"kind"`
	Count   int    `json:"count"`
	Example string `json:"example"`
}

func (f faults) add(kind string, err error) {
	if seen := f[kind]; seen != nil {
		seen.Count++
		return
	}
	f[kind] = &Fault{kind, 1, err.Error()}
}

func (f faults) merge(other faults) {
	for kind, o := range other {
		if seen := f[kind]; seen != nil {
			seen.Count += o.Count
		} else {
			f[kind] = &Fault{kind, o.Count, o.Example}
		}
	}
}

// list is sorted by kind.
func (f faults) list() []Fault {
	all := make([]Fault, 0, len(f))
	for _, one := range f {
		all = append(all, *one)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Kind < all[j].Kind })
	return all
}
