package balance

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// pointsPerWeight and maxPoints size the ring. With p points the share of a backend
// is off by 1/√p typically: 9 % for a weight of 1, less for more. A ring whose weights
// add up to more than maxPoints/pointsPerWeight has half as many points per weight,
// or a quarter, and so on until it fits, at least one each. The step to the next power
// of two moves about half of the hashes; between two steps nothing but what changed
// moves any.
const (
	pointsPerWeight = 128
	maxPoints       = 1 << 20
)

// ring is the circle of hashes with the points of the entrants on it. Point i of an
// entrant is the XXH64 of its ID, a zero byte, and i as 32 bits, low byte first; a
// hash belongs to the first point at or after it. Where a point lies depends on
// nothing else, so a weight that grows adds points and one that shrinks takes the last
// ones away. All of this never changes between versions: edges of different versions
// must agree.
type ring struct {
	points []point // sorted
	// starts[b] is the first point whose hash has the top bits b or more: an index
	// that makes a lookup and the sort take constant time per point.
	starts []uint32
	shift  int // of a hash to its top bits
}

type point struct {
	hash  uint64
	owner uint32 // index of an entrant
}

func newRing(entrants []entrant) ring {
	counts, total := pointCounts(entrants)
	points := make([]point, 0, total)
	var name []byte
	for owner, count := range counts {
		name = append(append(name[:0], entrants[owner].backend.ID...), 0, 0, 0, 0, 0)
		for i := range count {
			binary.LittleEndian.PutUint32(name[len(name)-4:], uint32(i))
			points = append(points, point{xxhash.Sum64(name), uint32(owner)})
		}
	}
	return sortPoints(points)
}

// after returns the index of the first point at or after hash. The ring must have one.
func (r *ring) after(hash uint64) int {
	i := int(r.starts[hash>>r.shift])
	for i < len(r.points) && r.points[i].hash < hash {
		i++
	}
	if i == len(r.points) {
		return 0
	}
	return i
}

// pointCounts returns how many points each entrant has, and their sum.
func pointCounts(entrants []entrant) (counts []uint64, total uint64) {
	counts = make([]uint64, len(entrants))
	for halvings := 0; ; halvings++ {
		total = 0
		for i := range entrants {
			counts[i] = max(1, entrants[i].share*pointsPerWeight>>halvings)
			total += counts[i]
		}
		if total <= max(maxPoints, uint64(len(entrants))) {
			return counts, total
		}
	}
}

// sortPoints builds the ring of points. Hashes are spread evenly, so points go to as
// many buckets as there are points, by their top bits, and then only few share one.
func sortPoints(points []point) ring {
	width := bits.Len(uint(len(points)))
	r := ring{points: make([]point, len(points)), starts: make([]uint32, 1<<width+1), shift: 64 - width}
	for _, p := range points {
		r.starts[p.hash>>r.shift+1]++
	}
	for b := range 1 << width {
		r.starts[b+1] += r.starts[b]
	}
	filled := slices.Clone(r.starts)
	for _, p := range points {
		bucket := p.hash >> r.shift
		r.points[filled[bucket]] = p
		filled[bucket]++
	}
	for b := range 1 << width {
		// Of two points in the same place the one of the lower ID comes first.
		slices.SortFunc(r.points[r.starts[b]:r.starts[b+1]], func(a, b point) int {
			return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.owner, b.owner))
		})
	}
	return r
}
