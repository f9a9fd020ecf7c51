package deflate

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/flate"
)

// tail is the length of the empty stored block that a message ends with, and its
// complement. It is not sent (RFC 7692 §7.2.1).
const (
	tail      = "\x00\x00\xff\xff"
	tailBytes = len(tail)
)

const maxLevel = 9

// Compressor compresses messages one after another, each with an empty window at its
// start. Between messages it holds nothing. The zero value has level 1 and a window of
// 32 KiB. A Compressor must not be copied while a message is under way.
type Compressor struct {
	w    *writer
	kind kind
}

// NewCompressor returns a Compressor of a level, 1 (fast) to 9 (small), whose window is 8
// to 15 bits wide, or 15 for 0, as in Params.ServerMaxWindowBits. A window below 15 bits
// has a level of its own, about that of level 5. Other values are a mistake of the caller:
// it panics.
func NewCompressor(level int, windowBits uint8) Compressor {
	switch {
	case level < 1 || level > maxLevel || windowBits != 0 && windowBits < minWindowBits || windowBits > maxWindowBits:
		panic(fmt.Sprintf("deflate: no level %d with a window of %d bits", level, windowBits))
	case windowBits == 0 || windowBits == maxWindowBits:
		return Compressor{kind: kind(level - 1)}
	}
	return Compressor{kind: maxLevel + kind(windowBits-minWindowBits)}
}

// Write compresses the next bytes of a message, appends to dst what has come out, if
// anything, and returns it. p is not kept and must not lie in the spare room of dst. Until Finish or Abandon the message holds a
// writer of the pool (see the package comment for its size).
func (c *Compressor) Write(dst, p []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	if c.w == nil {
		c.w = c.kind.get()
	}
	c.w.out = dst
	c.w.fl.Write(p) // its only errors are those of writer.Write
	return c.w.take()
}

// Finish ends the message: it appends the rest of it to dst, without the tail that the
// other side adds (RFC 7692 §7.2.1), and returns it. A message without bytes is a single
// 0 (§7.2.3.6).
func (c *Compressor) Finish(dst []byte) []byte {
	if c.w == nil {
		return append(dst, 0)
	}
	c.w.out = dst
	c.w.fl.Flush()
	dst = c.w.take()
	c.Abandon()
	return dst[:len(dst)-tailBytes]
}

// Abandon gives up the message that is under way, if any.
func (c *Compressor) Abandon() {
	if c.w != nil {
		writers[c.kind].Put(c.w)
		c.w = nil
	}
}

// kind is a level with the full window, or else a smaller window.
type kind uint8

// writers are the idle writers of each kind.
var writers [maxLevel + maxWindowBits - minWindowBits]sync.Pool

// writer is a flate.Writer and where its output goes.
type writer struct {
	fl  *flate.Writer
	out []byte
}

func (k kind) get() *writer {
	w, _ := writers[k].Get().(*writer)
	if w == nil {
		return newWriter(k)
	}
	w.fl.Reset(w)
	return w
}

func newWriter(k kind) *writer {
	w := new(writer)
	var err error
	if k < maxLevel {
		w.fl, err = flate.NewWriter(w, int(k)+1)
	} else {
		w.fl, err = flate.NewWriterWindow(w, 1<<(k-maxLevel+minWindowBits))
	}
	if err != nil {
		panic(err) // NewCompressor makes no other kinds
	}
	return w
}

// Write takes what the flate.Writer has compressed.
func (w *writer) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// take returns the output, which is the caller's: an idle writer must not hold it.
func (w *writer) take() []byte {
	out := w.out
	w.out = nil
	return out
}
