package load

import (
	"sync/atomic"

	"github.com/gobwas/ws"
)

// serverWorker is what the peers of one worker share; it belongs to the worker.
type serverWorker struct {
	*worker
	open    *atomic.Int64
	echo    []byte // scratch for what is written
	layouts map[subscription]*layout
	leaving chan<- struct{} // told when the last peer has gone
}

// layout is shared by subscriptions of the same kind.
func (w *serverWorker) layout(s subscription) *layout {
	key := subscription{mode: s.mode, size: s.size, text: s.text}
	if w.layouts[key] == nil {
		w.layouts[key] = newLayout(Push, s.size, s.text)
	}
	return w.layouts[key]
}

// leave closes all peers and tells gone when they have ended.
func (w *serverWorker) leave(gone chan<- struct{}) {
	w.leaving = gone
	for l := range w.links {
		l.s.(*peer).shut()
		w.check(l)
	}
	if len(w.links) == 0 && w.leaving != nil {
		w.leaving = nil
		gone <- struct{}{}
	}
}

// peer is the server's end of one connection.
type peer struct {
	w    *serverWorker
	link *link
	sub  subscription
	in   frameReader
	out  []byte // what a batch of frames answers: w.echo while that is read

	layout   *layout // push
	head     []byte
	sent     uint64
	schedule schedule
	backlog  bool // the socket was full when something was due
	closing  bool // our Close is sent
	closed   bool // the client's has come
}

func newPeer(w *serverWorker, sub subscription) *peer {
	return &peer{w: w, sub: sub, in: frameReader{masked: true}}
}

func (p *peer) opened() {
	p.w.open.Add(1)
	if p.w.leaving != nil {
		p.shut()
		return
	}
	if p.sub.mode != Push {
		return
	}
	op := ws.OpBinary
	if p.sub.text {
		op = ws.OpText
	}
	p.layout, p.head = p.w.layout(p.sub), frameHead(op, p.sub.size, false)
	p.schedule = newSchedule(0, p.sub.rate, 0, 1).from(now(), p.sub.phase)
	p.link.wakeAt(now())
}

// received echoes a whole batch with one write. A frame's payload is echoed as it comes,
// so that the size of a message costs no memory.
func (p *peer) received(b []byte) error {
	p.out = p.w.echo[:0]
	err := p.in.feed(b, p)
	if err != nil && !p.closing {
		p.closing = true
		p.out = appendControl(p.out, ws.OpClose, ws.NewCloseFrameBody(ws.StatusProtocolError, ""), nil)
	}
	p.w.echo = p.out
	p.link.write(p.out)
	p.out = nil
	if err != nil || p.closed {
		p.link.finish() // it is the server that ends the TCP connection, RFC 6455 §7.1.1
		return nil
	}
	p.link.hold(p.link.blocked()) // who does not take answers may not ask more
	return nil
}

func (p *peer) frameBegins(h ws.Header) {
	if p.sub.mode == Echo && !p.closing {
		p.out = appendHeader(p.out, h)
	}
}

func (p *peer) framePayload(b []byte) {
	if p.sub.mode == Echo && !p.closing {
		p.out = append(p.out, b...)
	}
}

func (p *peer) frameEnds(ws.Header) {}

func (p *peer) control(op ws.OpCode, payload []byte) {
	switch {
	case op == ws.OpPing && !p.closing:
		p.out = appendControl(p.out, ws.OpPong, payload, nil)
	case op == ws.OpClose:
		if !p.closing {
			p.out = appendControl(p.out, ws.OpClose, payload, nil)
		}
		p.closing, p.closed = true, true
		p.link.wakeAt(never)
	}
}

func (p *peer) shut() {
	if p.closing {
		return
	}
	p.closing = true
	p.link.wakeAt(never)
	p.w.echo = appendControl(p.w.echo[:0], ws.OpClose, ws.NewCloseFrameBody(ws.StatusGoingAway, ""), nil)
	p.link.write(p.w.echo)
}

func (p *peer) drained() {
	p.link.hold(false)
	if p.backlog {
		p.fire(now())
	}
}

// fire pushes what is due.
func (p *peer) fire(at int64) {
	if p.closing {
		return
	}
	if p.link.blocked() {
		p.backlog = true // drained goes on
		return
	}
	moment, day := clocks()
	clock := day - moment // the time of day is what the other end knows
	b := p.w.echo[:0]
	for len(b) < batch || len(b) == 0 {
		due := at
		if p.sub.rate > 0 {
			due = p.schedule.at(p.sent)
		}
		if due > at {
			p.backlog = false
			break
		}
		late := at - due
		if p.backlog {
			late = 0 // the connection's doing
		}
		b = append(b, p.head...)
		var from int
		b, from = extend(b, p.sub.size)
		p.layout.put(b[from:], stamp{connection: p.sub.id, sequence: p.sent, due: due + clock, late: late})
		p.sent++
	}
	p.w.echo = b
	if p.sub.rate > 0 {
		p.link.wakeAt(p.schedule.at(p.sent)) // perhaps at once, after the others
	} else {
		p.link.wakeAt(at)
	}
	p.link.write(b)
}

func (p *peer) ended(error) {
	p.w.open.Add(-1)
	if len(p.w.links) == 0 && p.w.leaving != nil {
		p.w.leaving <- struct{}{}
		p.w.leaving = nil
	}
}
