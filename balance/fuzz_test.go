package balance

import (
	"slices"
	"testing"

	"github.com/tidegate/tidegate/discovery"
)

// model is what the fuzzer believes about one pool.
type model struct {
	t        *testing.T
	registry *Registry
	pickers  []modelPicker // the last few, as old generations keep them
	flying   []*Backend    // reservations
	sessions []*Backend
	tried    []*Backend
}

type modelPicker struct {
	set    *Set
	picker Picker
}

// FuzzPool drives a pool with sets, states, picks by present and old pickers, and ends
// of sessions, and holds every result against the model.
func FuzzPool(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{0, 0, 3, 1, 0, 1, 2, 0, 2, 0, 0, 2, 1, 0, 3, 0, 4, 0, 5, 0})
	f.Add([]byte("\x00\x03\xff\xaa\x55\x02\x02\x02\x06\x02\x06\x02\x01\x77\x00\x00\x00\x02\x02\x03\x05\x05"))
	f.Add([]byte{0, 1, 255, 18, 19, 20, 21, 22, 33, 18, 2, 2, 16, 2, 18, 3, 52, 3, 58, 1, 9, 2, 18, 5, 0, 2, 147, 2, 180})
	f.Add([]byte{0, 2, 255, 17, 34, 51, 68, 2, 9, 2, 8, 1, 3, 2, 7, 3, 3, 0, 6, 15, 1, 2, 3, 4, 2, 1, 2, 2, 5, 0, 4, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		m := &model{t: t, registry: NewRegistry()}
		next := func() byte {
			if len(ops) == 0 {
				return 0
			}
			b := ops[0]
			ops = ops[1:]
			return b
		}
		for len(ops) > 0 {
			switch next() % 7 {
			case 0:
				m.update(next)
			case 1:
				m.transition(next())
			case 2, 3:
				m.pick(next())
			case 4:
				m.end(&m.flying, next(), func(b *Backend) { b.Live.Open(); m.sessions = append(m.sessions, b) })
			case 5:
				m.end(&m.flying, next(), func(b *Backend) { b.Live.Release(); m.tried = append(m.tried, b) })
			case 6:
				m.end(&m.sessions, next(), func(b *Backend) { b.Live.Close() })
			}
			m.check()
		}
	})
}

// update makes a set of up to eight backends: which ones is a mask, then a byte of
// weight and status for each.
func (m *model) update(next func() byte) {
	options := variants[int(next())%len(variants)]
	mask := next()
	var list []discovery.Instance
	for i := range 8 {
		if mask>>i&1 == 0 {
			continue
		}
		b := next()
		in := instance(string(rune('h'-i)), int(b&15)-1)
		in.Status = discovery.Status(max(0, int(b>>4&3)-1))
		list = append(list, in)
	}
	set := m.registry.Update(list)
	if set.Len() != len(list) || !slices.IsSorted(idsOf(set.Backends())) {
		m.t.Fatalf("%d instances became %v", len(list), idsOf(set.Backends()))
	}
	policy, err := New(options)
	if err != nil {
		m.t.Fatal(err)
	}
	m.pickers = append(m.pickers, modelPicker{set, policy(set)})
	if len(m.pickers) > 3 {
		m.pickers = m.pickers[1:]
	}
	m.tried = nil
}

func (m *model) transition(b byte) {
	all := m.registry.Backends()
	if len(all) == 0 {
		return
	}
	l := all[int(b>>4)%len(all)].Live
	mark, on := []Mark{Drained, Failing, Outlier, Warming, Panicking}[b%5], b&8 != 0
	before := l.Has(mark)
	if changed := l.Set(mark, on); changed != (before != on) || l.Has(mark) != on {
		m.t.Fatalf("mark %x: was %v, set %v changed %v", mark, before, on, changed)
	}
}

func (m *model) pick(b byte) {
	if len(m.pickers) == 0 {
		return
	}
	p := m.pickers[int(b)%len(m.pickers)]
	r := Request{Hash: uint64(b) * 0x9e3779b97f4a7c15, Hashed: b&64 != 0}
	if b&128 != 0 {
		r.Tried = m.tried
	}
	if b&16 != 0 {
		r.Sticky, r.Preferred = Sticky, HashString(string(rune('a'+b>>1&7)))
		if b&32 != 0 {
			m.pickStrictly(p, r)
			return
		}
	}
	eligible, untried := 0, 0
	for _, c := range p.set.Backends() {
		if c.Weight > 0 && c.Live.Eligible() {
			eligible++
			if !slices.ContainsFunc(r.Tried, func(o *Backend) bool { return o.Live == c.Live }) {
				untried++
			}
		}
	}
	got, err := p.picker.Pick(r)
	switch {
	case eligible == 0:
		if err != ErrNoBackend || got != nil {
			m.t.Fatalf("none eligible: %v, %v", got, err)
		}
	case untried == 0:
		if err != ErrAllTried || got != nil {
			m.t.Fatalf("all tried: %v, %v", got, err)
		}
	case err != nil:
		m.t.Fatalf("%d eligible and untried: %v", untried, err)
	case !slices.Contains(p.set.Backends(), got), got.Weight <= 0, !got.Live.Eligible(),
		slices.ContainsFunc(r.Tried, func(o *Backend) bool { return o.Live == got.Live }):
		m.t.Fatalf("picked %+v, %v", got.Instance, got.Live.State())
	default:
		m.flying = append(m.flying, got)
	}
}

// pickStrictly picks for a request that has one backend only: the preferred one, if the set has
// that.
func (m *model) pickStrictly(p modelPicker, r Request) {
	r.Sticky = StrictlySticky
	got, err := p.picker.Pick(r)
	for _, c := range p.set.Backends() {
		if HashString(c.ID) != r.Preferred {
			continue
		}
		takes := c.Weight > 0 && c.Live.Eligible()
		tried := slices.ContainsFunc(r.Tried, func(o *Backend) bool { return o.Live == c.Live })
		if takes && !tried && got != c || !takes && err != ErrNoBackend || takes && tried && err != ErrAllTried {
			m.t.Fatalf("%s, takes sessions %v, tried %v: %v, %v", c.ID, takes, tried, got, err)
		}
	}
	switch {
	case err == nil:
		m.flying = append(m.flying, got)
	case got != nil || err != ErrNoBackend && err != ErrAllTried:
		m.t.Fatalf("%v, %v", got, err)
	}
}

func (m *model) end(of *[]*Backend, b byte, how func(*Backend)) {
	if len(*of) == 0 {
		return
	}
	i := int(b) % len(*of)
	one := (*of)[i]
	*of = slices.Delete(*of, i, i+1)
	how(one)
}

// check holds the counts against the model, and that whatever has load is listed, and of what is
// removed nothing else but what is drained.
func (m *model) check() {
	sessions, flying := map[*Live]int64{}, map[*Live]int64{}
	for _, b := range m.sessions {
		sessions[b.Live]++
	}
	for _, b := range m.flying {
		flying[b.Live]++
	}
	listed := m.registry.Backends()
	if !slices.IsSorted(idsOf(listed)) || len(slices.Compact(idsOf(listed))) != len(listed) {
		m.t.Fatalf("listed: %v", idsOf(listed))
	}
	for _, b := range listed {
		if b.Live.Sessions() != sessions[b.Live] || b.Live.InFlight() != flying[b.Live] {
			m.t.Fatalf("%s: %d sessions, %d in flight; want %d, %d", b.ID,
				b.Live.Sessions(), b.Live.InFlight(), sessions[b.Live], flying[b.Live])
		}
		if b.Live.State() == StateRemoved && b.Live.Load() == 0 && !b.Live.Has(Drained) {
			m.t.Fatalf("%s is removed, idle, not drained and still listed", b.ID)
		}
		delete(sessions, b.Live)
		delete(flying, b.Live)
	}
	if len(sessions)+len(flying) > 0 {
		m.t.Fatalf("%d backends with load are not listed", len(sessions)+len(flying))
	}
}

// FuzzSmoothSequence holds the sequence against nginx's own algorithm.
func FuzzSmoothSequence(f *testing.F) {
	f.Add([]byte{5, 1, 1})
	f.Add([]byte{255, 1, 254, 1, 254})
	f.Add([]byte{7, 7, 7, 3, 3, 1, 7})
	f.Fuzz(func(t *testing.T, given []byte) {
		if len(given) > 40 {
			return
		}
		weights := make([]uint64, 0, len(given))
		for _, w := range given {
			weights = append(weights, max(1, uint64(w)))
		}
		if got, want := smoothSequence(weights), nginxSequence(weights); !slices.Equal(got, want) {
			t.Fatalf("weights %v: %v, want %v", weights, got, want)
		}
	})
}
