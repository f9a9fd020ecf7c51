//go:build !linux

package tls

import "testing"

// asNobody needs the file system user of a thread, which only Linux has.
func asNobody(t *testing.T) func() {
	t.Skip("run as another user than root: rights cannot be given up for a moment on this system")
	return nil
}
