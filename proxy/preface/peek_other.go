//go:build !unix

package preface

import (
	"errors"
	"net"
)

// socket is the wire of a TCP connection, of which nothing can be looked at ahead here.
type socket struct{ *net.TCPConn }

func (socket) peek([]byte, int) (int, error) { return 0, errors.ErrUnsupported }
