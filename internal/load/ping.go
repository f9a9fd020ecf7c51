package load

import "encoding/binary"

// pingMark starts the payload of our Pings, so that no other Pong is taken for theirs.
const pingMark = 0x7469646567617465

func newPing(b *[stampSize]byte, due int64) []byte {
	binary.BigEndian.PutUint64(b[:], pingMark)
	binary.BigEndian.PutUint64(b[8:], uint64(due))
	return b[:]
}

// pingTime is when the Ping that a Pong answers was due.
func pingTime(pong []byte) (due int64, ok bool) {
	if len(pong) != stampSize || binary.BigEndian.Uint64(pong) != pingMark {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(pong[8:])), true
}
