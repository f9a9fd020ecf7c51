package consultest

import "syscall"

// dieWithParent has the kernel kill the agent if the test process dies without its
// cleanups, as it does after a panic or a timeout.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
