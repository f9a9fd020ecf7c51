package load

import (
	"time"

	"github.com/gobwas/ws"
)

// client is the client end of one connection.
type client struct {
	w     *clientWorker
	link  *link
	index int // among all connections of the run: the stamp's connection

	in       frameReader
	message  messageReader
	strange  bool // the message that comes is of another type than ours
	order    order
	sent     uint64
	schedule schedule // of messages, or of pings
	first    int64    // when the first message is due, without a rate
	pings    uint64
	got      uint64 // messages of ours, each once
	backlog  bool   // the socket was full when something was due

	through   bool // all that was due before the end of the measured time is sent, in push mode: has come
	closing   bool // our Close is sent
	closeCode int  // of the peer's Close; 0: none yet
	down      bool
}

// isThrough notes that nothing more is due.
func (c *client) isThrough() {
	if !c.through {
		c.through = true
		c.w.through++
	}
}

func (c *client) opened() {
	c.w.open++
	c.w.clients = append(c.w.clients, c)
	if c.w.begun { // never: all are opened before
		c.link.end()
	}
}

// start begins to send.
func (c *client) start(start int64) {
	o := c.w.o
	switch {
	case o.Mode == Push:
	case o.Mode == Echo && o.Rate > 0:
		c.schedule = newSchedule(start, o.Rate, c.index, o.Connections)
		c.link.wakeAt(c.schedule.at(0))
	case o.Mode == Echo || o.Size > 0:
		c.first = start
		c.link.wakeAt(start)
	}
	if o.Ping > 0 {
		rate := float64(o.Connections) / o.Ping.Seconds()
		c.schedule = newSchedule(start, rate, c.index, o.Connections)
		if c.schedule.at(0) >= c.w.until {
			c.isThrough()
		}
		if o.Size == 0 {
			c.link.wakeAt(c.schedule.at(0))
		}
	}
}

func (c *client) fire(at int64) {
	o := c.w.o
	switch {
	case c.closeCode != 0:
		c.link.end() // the server should have
	case c.closing:
	case c.link.blocked():
		c.backlog = true // drained goes on
	case o.Mode == Echo && o.Rate > 0:
		c.sendDue(at)
	case o.Size > 0 && c.sent == 0:
		c.sendNow(c.first, at)
		if o.Ping > 0 {
			c.link.wakeAt(c.schedule.at(0))
		}
	case o.Ping > 0:
		c.ping(at)
	}
}

func (c *client) drained() {
	if c.backlog {
		c.fire(now())
	}
}

// batch bounds what is written at once, for the sake of the other connections.
const batch = 64 << 10

// sendDue sends what the schedule wants sent by now.
func (c *client) sendDue(at int64) {
	b := c.w.scratch[:0]
	for {
		due := c.schedule.at(c.sent)
		if due >= c.w.until {
			c.isThrough()
			break
		}
		if due > at || len(b) >= batch {
			c.backlog = c.backlog && due <= at
			c.link.wakeAt(due)
			break
		}
		b = c.append(b, due, at-due)
	}
	c.w.scratch = b
	c.link.write(b)
}

// sendNow sends a message that is due without a schedule.
func (c *client) sendNow(due, at int64) {
	c.w.scratch = c.append(c.w.scratch[:0], due, at-due)
	c.link.write(c.w.scratch)
}

// append makes the next message.
func (c *client) append(b []byte, due, late int64) []byte {
	w := c.w
	if w.measured(due) {
		w.tally.sent++
		w.tally.bytesSent += uint64(len(w.layout.filler))
		switch {
		case late <= tolerance:
		case c.backlog:
			w.tally.held++
		default:
			w.tally.late++
			w.tally.worstLate = max(w.tally.worstLate, late)
		}
	}
	mask := w.mask()
	b = append(append(b, w.head...), mask[:]...)
	b, at := extend(b, len(w.layout.filler))
	w.layout.put(b[at:], stamp{connection: uint64(c.index), sequence: c.sent, due: due})
	ws.Cipher(b[at:], mask, 0)
	c.sent++
	w.sentAll++
	return b
}

// extend makes b longer by n bytes and returns where they begin.
func extend(b []byte, n int) ([]byte, int) {
	at := len(b)
	if cap(b)-at < n {
		b = append(b, make([]byte, n)...)
	}
	return b[:at+n], at
}

// ping sends the pings that are due; a late one stands for those before it.
func (c *client) ping(at int64) {
	due := c.schedule.at(c.pings)
	for c.schedule.at(c.pings+1) <= at {
		c.pings++
	}
	if due < c.w.until {
		var b [stampSize]byte
		payload := newPing(&b, due)
		mask := c.w.mask()
		c.w.scratch = appendControl(c.w.scratch[:0], ws.OpPing, payload, &mask)
		c.link.write(c.w.scratch)
		if c.w.measured(due) {
			c.w.tally.pingsSent++
		}
	}
	c.pings++
	if c.schedule.at(c.pings) >= c.w.until {
		c.isThrough()
	}
	c.link.wakeAt(c.schedule.at(c.pings))
}

func (c *client) received(p []byte) error {
	err := c.in.feed(p, c)
	if err != nil && !c.down {
		c.w.scratch = appendControl(c.w.scratch[:0], ws.OpClose, ws.NewCloseFrameBody(ws.StatusProtocolError, ""), c.newMask())
		c.link.write(c.w.scratch)
	}
	return err
}

func (c *client) newMask() *[4]byte {
	m := c.w.mask()
	return &m
}

func (c *client) frameBegins(h ws.Header) {
	if h.OpCode != ws.OpContinuation {
		c.strange = h.OpCode != c.w.op
	}
}

func (c *client) framePayload(p []byte) { c.message.add(c.w.layout, p) }

func (c *client) frameEnds(h ws.Header) {
	if !h.Fin {
		return
	}
	s, ok := c.message.end(c.w.layout)
	switch {
	case !ok || c.strange:
		c.w.tally.unexpected++
		return
	case s.connection != uint64(c.index):
		c.w.tally.misdelivered++
		return
	}
	c.answer(s)
}

// answer takes a message of the run.
func (c *client) answer(s stamp) {
	w := c.w
	at, day := clocks()
	due := s.due
	if w.o.Mode == Push { // the backend's clock is the time of day
		due = at - (day - s.due)
		if w.begun && due >= w.until {
			c.isThrough()
		}
	}
	first := c.order.see(s.sequence)
	if first {
		c.got++
		w.answered++
		if w.measured(at) {
			w.tally.inTime++
		}
	}
	if first && w.measured(due) {
		w.tally.received++
		w.tally.bytesRcvd += uint64(len(w.layout.filler))
		if w.o.Mode != Idle {
			record(w.tally.latency, at-due)
		}
		if w.o.Mode == Push {
			w.tally.sent++
			w.tally.bytesSent += uint64(len(w.layout.filler))
			if s.late > tolerance {
				w.tally.late++
				w.tally.worstLate = max(w.tally.worstLate, s.late)
			}
		}
	}
	if first && w.o.Mode == Echo && w.o.Rate == 0 && !c.closing && at < w.until {
		c.sendNow(at, at)
	}
}

func (c *client) control(op ws.OpCode, payload []byte) {
	switch op {
	case ws.OpPing:
		if c.closing {
			return
		}
		c.w.scratch = appendControl(c.w.scratch[:0], ws.OpPong, payload, c.newMask())
		c.link.write(c.w.scratch)
	case ws.OpPong:
		c.pong(payload)
	case ws.OpClose:
		c.closed(payload)
	}
}

func (c *client) pong(payload []byte) {
	due, ok := pingTime(payload)
	if !ok || !c.w.measured(due) {
		return // not one of ours
	}
	c.w.tally.pingsAnswer++
	record(c.w.tally.latency, now()-due)
}

// lingering is how long a server has to end the TCP connection after the Closes.
const lingering = int64(time.Second)

// closed takes the peer's Close. The server ends the TCP connection, RFC 6455 §7.1.1.
func (c *client) closed(payload []byte) {
	if c.closeCode != 0 {
		return
	}
	c.closeCode = closeCode(payload)
	c.link.wakeAt(now() + lingering)
	if !c.closing {
		c.closing = true
		c.w.scratch = appendControl(c.w.scratch[:0], ws.OpClose, payload, c.newMask())
		c.link.write(c.w.scratch)
	}
}

// shut starts the closing handshake.
func (c *client) shut() {
	if c.closing || c.down {
		return
	}
	c.closing = true
	c.link.wakeAt(never)
	c.w.scratch = appendControl(c.w.scratch[:0], ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""), c.newMask())
	c.link.write(c.w.scratch)
	c.w.check(c.link)
}

func (c *client) ended(err error) {
	w := c.w
	w.open--
	w.ended++
	c.down = true
	if c.through {
		w.through--
	}
	if c.sent > c.got {
		w.abandoned += c.sent - c.got
	}
	if c.closeCode == 0 {
		c.closeCode = int(ws.StatusAbnormalClosure)
		if kind := openKind(err); kind != "" {
			w.failed++
			w.tally.faults.add(kind, err)
		}
	}
	w.tally.closes[c.closeCode]++
	if w.o.Mode != Push {
		w.tally.lost += c.order.lost(c.sent)
	} else {
		w.tally.lost += c.order.lost(0)
	}
	w.tally.doubled += c.order.doubled
	w.tally.reordered += c.order.reordered
}
