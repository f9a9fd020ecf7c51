package load

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// A message starts with a stamp: the connection (24 bits) and its sequence number there
// (40 bits), and when it was to be sent, in nanoseconds of the sender's clock; in push
// mode also how much later than that the backend sent it. The rest is filler, the same
// in all messages of a run. In text messages the stamp is written in hexadecimal.
const (
	stampSize     = 16
	pushStampSize = 24

	sequenceBits   = 40
	maxConnections = 1 << (64 - sequenceBits)
)

type stamp struct {
	connection uint64
	sequence   uint64
	due        int64 // ns
	late       int64 // ns, push only
}

// layout is how the messages of a run are made. It is not changed and shared by all.
type layout struct {
	stamp  int // bytes of the stamp before hexadecimal
	text   bool
	filler []byte // as long as a message; the stamp covers its start
}

// fillerSeed makes all fillers of a size alike: the backend's and the generator's.
const fillerSeed = 20

func newLayout(mode Mode, size int, text bool) *layout {
	l := &layout{stamp: stampSize, text: text, filler: make([]byte, size)}
	if mode == Push {
		l.stamp = pushStampSize
	}
	random := rand.New(rand.NewPCG(fillerSeed, fillerSeed))
	for i := range l.filler {
		if l.filler[i] = byte(random.Uint32()); text {
			l.filler[i] = 'a' + l.filler[i]%26
		}
	}
	return l
}

// head is the length of the stamp as sent.
func (l *layout) head() int {
	if l.text {
		return 2 * l.stamp
	}
	return l.stamp
}

// put writes a message into b, which has its length.
func (l *layout) put(b []byte, s stamp) {
	var raw [pushStampSize]byte
	binary.BigEndian.PutUint64(raw[0:], s.connection<<sequenceBits|s.sequence&(1<<sequenceBits-1))
	binary.BigEndian.PutUint64(raw[8:], uint64(s.due))
	binary.BigEndian.PutUint64(raw[16:], uint64(s.late))
	head := l.head()
	if l.text {
		hex.Encode(b[:head], raw[:l.stamp])
	} else {
		copy(b, raw[:l.stamp])
	}
	copy(b[head:], l.filler[head:])
}

// messageReader takes a message in pieces and tells whether it is one of the run's.
type messageReader struct {
	head  [2 * pushStampSize]byte
	n     int // bytes so far
	wrong bool
}

// add takes the next piece of a message.
func (r *messageReader) add(l *layout, p []byte) {
	if head := l.head(); r.n < head {
		k := copy(r.head[r.n:head], p)
		r.n += k
		p = p[k:]
	}
	if len(p) == 0 || r.wrong {
		r.n += len(p)
		return
	}
	end := r.n + len(p)
	r.wrong = end > len(l.filler) || !bytes.Equal(p, l.filler[r.n:end])
	r.n = end
}

// end finishes a message; ok says whether it has the size and the content of the run's.
func (r *messageReader) end(l *layout) (s stamp, ok bool) {
	ok = !r.wrong && r.n == len(l.filler) && r.n >= l.head()
	raw := r.head[:l.head()]
	if l.text && ok {
		var plain [pushStampSize]byte
		if _, err := hex.Decode(plain[:], raw); err != nil {
			ok = false
		}
		raw = plain[:l.stamp]
	}
	*r = messageReader{head: r.head}
	if !ok {
		return stamp{}, false
	}
	first := binary.BigEndian.Uint64(raw)
	s = stamp{
		connection: first >> sequenceBits,
		sequence:   first & (1<<sequenceBits - 1),
		due:        int64(binary.BigEndian.Uint64(raw[8:])),
	}
	if l.stamp == pushStampSize {
		s.late = int64(binary.BigEndian.Uint64(raw[16:]))
	}
	return s, true
}
