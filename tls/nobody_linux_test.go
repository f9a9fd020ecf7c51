package tls

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody opens files as a user without rights until the returned function is called.
func asNobody(t *testing.T) func() {
	t.Helper()
	const nobody = 65534
	runtime.LockOSThread()
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	return func() {
		unix.Setfsuid(0)
		runtime.UnlockOSThread()
	}
}
