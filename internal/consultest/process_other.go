//go:build !linux

package consultest

import "syscall"

// dieWithParent has nothing to offer here: an agent may outlive a test that panics.
func dieWithParent() *syscall.SysProcAttr { return nil }
