package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/gobwas/ws"
)

// exchange is what one end of a session says to another that echoes: first frames that
// are good, and then, in some, frames that break a rule. Each end may be the one that
// speaks. Without a Close among the frames a good exchange ends with Close 1000.
type exchange struct {
	id   string // in the case list; "" if it is not of that list
	name string

	good []fr
	bad  []fr // begins with what breaks the rule; what is behind it counts for nothing
	code int  // of the Close that bad gets

	chop     int  // bytes a write; 0 is all at once, frameWise a write for each frame
	oneGo    bool // bad follows good at once, not after the echoes
	lockstep bool // each frame waits for the echo of the one before
	held     int  // octets at the end of bad that are never sent: the breach shows without them
	// inPayload says that bad is wrong in what it carries. The octets before may have gone
	// on by then, and a Close fits only between frames.
	inPayload bool
}

const (
	frameWise = -1 // the chop of a write for each frame
	butFirst  = -1 // holds all behind the first octet
)

// title names the exchange in a test's output.
func (x exchange) title() string {
	if x.id == "" {
		return x.name
	}
	return x.id + " " + x.name
}

// run has one end speak and the other echo, and holds what both got against the exchange.
func (x exchange) run(t *testing.T, talker, echo *rawEnd) {
	t.Helper()
	heard := make(chan account, 1)
	go func() { heard <- echo.echo(x.pings()) }()
	if err := x.talk(talker); err != nil {
		t.Errorf("the %s, which speaks: %v", talker.who(), err)
	}
	talker.Close()
	if err := x.judge(<-heard, echo.client); err != nil {
		t.Errorf("the %s, which echoes: %v", echo.who(), err)
	}
}

// pings are the payloads of the script's own Pings: others are the edge's.
func (x exchange) pings() map[string]bool {
	own := map[string]bool{}
	for _, f := range slices.Concat(x.good, x.bad) {
		if f.op == ws.OpPing {
			own[string(f.body)] = true
		}
	}
	return own
}

// heeded are the good frames that reach the other end: none behind a Close.
func (x exchange) heeded() []fr {
	if i := slices.IndexFunc(x.good, func(f fr) bool { return f.op == ws.OpClose }); i >= 0 {
		return x.good[:i+1]
	}
	return x.good
}

// talk is the part of the end that speaks.
func (x exchange) talk(r *rawEnd) error {
	good, answers := x.good, answersTo(x.heeded())
	if x.lockstep {
		for _, f := range good {
			if err := x.write(r, []fr{f}, 0); err != nil {
				return err
			}
			if err := r.expect(answersTo([]fr{f})); err != nil {
				return err
			}
		}
		good, answers = nil, nil
	}
	if x.oneGo {
		good = slices.Concat(good, x.bad)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- x.write(r, good, 0) }()
	if x.oneGo {
		return r.expectRefusal(answers, x.code)
	}
	if err := r.expect(answers); err != nil {
		return err
	}
	if err := <-wrote; err != nil {
		return err
	}
	if x.bad != nil {
		go x.write(r, x.bad, x.held) // the edge need not read all of it
		return r.expectRefusal(nil, x.code)
	}
	if len(x.heeded()) == 0 || x.heeded()[len(x.heeded())-1].op != ws.OpClose {
		if err := x.write(r, []fr{closeFr(1000, "")}, 0); err != nil {
			return err
		}
		if err := r.expect([]fr{closeFr(1000, "")}); err != nil {
			return err
		}
	}
	return r.end()
}

// write sends frames but for some last octets of them, in pieces as the exchange has it.
func (x exchange) write(r *rawEnd, frames []fr, held int) error {
	var all []byte
	for i, f := range frames {
		all = append(all, f.bytes(r.client)...)
		if x.chop == frameWise && i < len(frames)-1 {
			if _, err := r.Write(all); err != nil {
				return err
			}
			all = all[:0]
		}
	}
	if held == butFirst {
		held = len(all) - 1
	}
	all = all[:len(all)-held]
	size := x.chop
	if size <= 0 {
		size = max(1, len(all))
	}
	for piece := range slices.Chunk(all, size) {
		if _, err := r.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// expect reads exactly these frames.
func (r *rawEnd) expect(want []fr) error {
	for i, w := range want {
		got, err := r.hear()
		if err != nil {
			return fmt.Errorf("instead of frame %d of %d, %v: %w", i, len(want), w, err)
		}
		if !got.equal(w) {
			return fmt.Errorf("frame %d of %d is %v, want %v", i, len(want), got, w)
		}
	}
	return nil
}

// expectRefusal reads as many of the answers as come, then a Close and the end.
func (r *rawEnd) expectRefusal(answers []fr, code int) error {
	for i := 0; ; i++ {
		got, err := r.hear()
		switch {
		case err != nil:
			return fmt.Errorf("instead of Close %d: %w", code, err)
		case got.op == ws.OpClose:
			if c, _ := ws.ParseCloseFrameData(got.body); int(c) != code || !got.fin || got.rsv != 0 {
				return fmt.Errorf("got %v, want Close %d", got, code)
			}
			return r.end()
		case i >= len(answers) || !got.equal(answers[i]):
			return fmt.Errorf("got %v before Close %d, frame %d", got, code, i)
		}
	}
}

// hear is take at the end that speaks: Pings that come to it are the edge's.
func (r *rawEnd) hear() (fr, error) {
	for {
		f, _, err := r.take()
		if err != nil || f.op != ws.OpPing {
			return f, err
		}
		answer, _ := f.answer()
		r.Write(answer.bytes(r.client))
	}
}

// end is the orderly end of an end that has had its Close: a backend ends its stream
// first, a client waits for that.
func (r *rawEnd) end() error {
	if !r.client {
		r.Conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	rest, err := io.ReadAll(r.r)
	if len(rest) > 0 || err != nil {
		return fmt.Errorf("behind the Close: %d bytes % .40x, %v", len(rest), rest, err)
	}
	return nil
}

// account is what an end that echoes was sent.
type account struct {
	frames  []fr
	partial *fr   // a frame that was not completed
	err     error // of the end; nil if it was one
}

// echo answers frames until the end: data as it came, Pings with Pongs, a Close with the
// same. own are the payloads of the Pings that count.
func (r *rawEnd) echo(own map[string]bool) (a account) {
	defer r.Close()
	var out []byte
	for {
		f, begun, err := r.take()
		if err != nil {
			if begun {
				a.partial = &f
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || !begun && err != io.EOF {
				a.err = err
			}
			return a
		}
		if answer, ok := f.answer(); ok {
			out = append(out, answer.bytes(r.client)...)
		}
		if r.r.Buffered() == 0 || f.op == ws.OpClose || len(out) > 1<<16 {
			r.Write(out) // whoever speaks misses what did not get through
			out = out[:0]
		}
		if f.op == ws.OpPing && !own[string(f.body)] {
			continue
		}
		a.frames = append(a.frames, f)
		if f.op == ws.OpClose {
			a.err = r.end()
			return a
		}
	}
}

// judge holds what the end that echoes was sent against the exchange.
func (x exchange) judge(a account, client bool) error {
	if a.err != nil {
		return fmt.Errorf("after %d frames: %w", len(a.frames), a.err)
	}
	want := x.heeded()
	if len(a.frames) < len(want) {
		return fmt.Errorf("got %d frames, want %d", len(a.frames), len(want))
	}
	for i, w := range want {
		if !a.frames[i].equal(w) {
			return fmt.Errorf("frame %d of %d is %v, want %v", i, len(want), a.frames[i], w)
		}
	}
	rest, last := a.frames[len(want):], closeFr(1000, "")
	if x.bad != nil {
		last = closeFr(map[bool]int{true: 1011, false: 1001}[client], "")
	} else if len(want) > 0 && want[len(want)-1].op == ws.OpClose {
		last = want[len(want)-1]
		rest = a.frames[len(want)-1:]
	}
	if x.inPayload && a.partial != nil && len(rest) == 0 {
		return x.begins(*a.partial) // and no Close fits
	}
	if len(rest) != 1 || !rest[0].equal(last) || a.partial != nil {
		return fmt.Errorf("behind the good frames: %v and part of %v, want %v", rest, a.partial, last)
	}
	return nil
}

// begins reports what is wrong with part of a frame that went on before it was known to
// be bad: it has the frame's header and payload up to, at most, the octet that is wrong.
func (x exchange) begins(part fr) error {
	b := x.bad[0]
	if part.op == b.op && part.fin == b.fin && part.rsv == 0 && len(part.body) <= firstWrong(string(b.body)) && bytes.HasPrefix(b.body, part.body) {
		return nil
	}
	return fmt.Errorf("got part of a frame, %v, of what begins %v", part, b)
}
