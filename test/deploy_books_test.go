package test

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tenure is one connection of an app, as its journal has it.
type tenure struct {
	app             *deployApp
	conn            string
	client, attempt int
	got             []uint64                 // numbers of messages
	late            map[uint64]time.Duration // messages that were not answered, and how old they were
	pushed          uint64                   // before the app's Close
	pushes          []time.Time
	ended           bool
}

// books returns what the apps have written down, by client and in the order of attempts.
func (r *deployRig) books() map[int][]*tenure {
	books := map[int][]*tenure{}
	for _, a := range r.apps {
		for _, x := range a.read(r.t) {
			books[x.client] = append(books[x.client], x)
		}
	}
	for _, list := range books {
		slices.SortStableFunc(list, func(x, y *tenure) int { return x.attempt - y.attempt })
	}
	return books
}

// read reads the app's journal.
func (a *deployApp) read(t *testing.T) map[string]*tenure {
	t.Helper()
	f, err := os.Open(a.journal)
	must(t, err)
	defer f.Close()
	tenures := map[string]*tenure{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		words := strings.Fields(sc.Text())
		numbers := make([]uint64, 0, 2)
		for _, word := range words[2:] {
			n, err := strconv.ParseUint(word, 10, 64)
			must(t, err)
			numbers = append(numbers, n)
		}
		x := tenures[words[1]]
		switch words[0] {
		case "open":
			tenures[words[1]] = &tenure{app: a, conn: words[1], client: int(numbers[0]), attempt: int(numbers[1]), late: map[uint64]time.Duration{}}
		case "got":
			x.got = append(x.got, numbers[0])
		case "push":
			x.pushes = append(x.pushes, time.UnixMilli(int64(numbers[1])))
		case "late":
			x.late[numbers[0]] = time.Duration(numbers[1]) * time.Millisecond
		case "end":
			x.ended, x.pushed = true, numbers[0]
		default:
			t.Fatalf("the journal of %s has %q", a.name, words)
		}
	}
	return tenures
}

// audit is what comparing the clients with the journals says in sum.
type audit struct {
	sent, answers, pushes int
	lost                  int // messages that no app has
	gaps                  int // those of them after which an app has others
	unanswered            int // messages without an answer, though later ones have one, that no app was late with
	late                  int // answers that an app had ready later than it is waited for
	crossed               int // pushes that crossed a Close
	gained                int // connections that sessions have moved to
	codes                 map[int]int
}

// crossing is how old a push may be that a client did not get before its Close. It is sent
// from another side at the same time, so it need not be there; but what is older was lost. A
// machine that lets processes wait is allowed for.
const crossing = 5 * time.Second

// audit compares what the clients say, all of which have ended, with what the apps have
// written down: nothing came twice, nor out of order. settle is that of the pool.
func (r *deployRig) audit(settle time.Duration) audit {
	r.t.Helper()
	books, allowed := r.books(), crossing+3*r.stalled()
	sum := audit{codes: map[int]int{}}
	faults := 0
	fault := func(c *deployClient, format string, args ...any) {
		if faults++; faults <= 10 {
			r.t.Errorf("client %d: "+format, append([]any{c.number}, args...)...)
		}
	}
	for _, c := range r.all() {
		list := books[c.number]
		sum.sent += int(c.sent.Load())
		sum.answers += int(c.reply.Load()) - len(c.missing)
		sum.codes[c.code]++
		if c.wrong != "" {
			fault(c, "%s", c.wrong)
		}
		has := map[uint64]bool{}
		last := uint64(0)
		late := map[uint64]time.Duration{}
		for _, x := range list {
			for _, n := range x.got {
				if n <= last {
					fault(c, "message %d came after message %d, at %s", n, last, x.conn)
				}
				last = max(last, n)
				has[n] = true
			}
			for n, age := range x.late {
				late[n] = age
			}
			if x.attempt > 0 {
				sum.gained++
			}
		}
		// What a client sent when its session had ended without a Close is nobody's.
		known := c.sent.Load()
		if c.code == 0 {
			known = c.reply.Load()
		}
		sum.lost += int(known) - min(len(has), int(known))
		sum.gaps += int(last) - len(has)
		if c.agreed && c.reply.Load() != c.sent.Load() {
			fault(c, "has %d answers of %d in the end", c.reply.Load(), c.sent.Load())
		}
		for _, n := range c.missing {
			if late[n] >= settle {
				sum.late++
			} else {
				sum.unanswered++
			}
		}
		for i, x := range list {
			heard := c.pushes[x.conn]
			sum.pushes += int(heard)
			switch {
			case !x.ended, heard == x.pushed:
			case heard > x.pushed:
				fault(c, "has %d pushes of %s, which sent %d", heard, x.conn, x.pushed)
			case heard == 0 && len(x.got) == 0 && x.attempt > 0: // a move that was given up
			case i < len(list)-1 || c.agreed:
				fault(c, "has %d pushes of %s, which sent %d before its Close", heard, x.conn, x.pushed)
			default:
				sum.crossed += int(x.pushed - heard)
				if lost := x.pushes[heard]; c.at.Sub(lost) > allowed {
					fault(c, "push %d of %s was sent %v before the Close came", heard+1, x.conn, c.at.Sub(lost))
				}
			}
		}
	}
	if faults > 10 {
		r.t.Errorf("and %d more", faults-10)
	}
	r.t.Logf("%+v", sum)
	return sum
}
