package balance

import (
	"cmp"
	"math"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestRingIsSorted(t *testing.T) {
	for _, weights := range [][]int{{}, {1}, {3, 1, 0, 9}, slices.Repeat([]int{2}, 300)} {
		entrants := entrantsOf(weighted(weights...), 0)
		r := newRing(entrants)
		if !slices.IsSortedFunc(r.points, func(a, b point) int {
			return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.owner, b.owner))
		}) {
			t.Errorf("%v: not sorted", weights)
		}
		counts := make([]int, len(entrants))
		for _, p := range r.points {
			counts[p.owner]++
		}
		for i, n := range counts {
			if n != pointsPerWeight*int(entrants[i].share) {
				t.Errorf("%v: %d points for a weight of %d", weights, n, entrants[i].share)
			}
		}
	}
}

func TestRingLookup(t *testing.T) {
	r := newRing(entrantsOf(weighted(1, 5, 2), 0))
	hashes := []uint64{0, 1, math.MaxUint64, math.MaxUint64 - 1}
	for _, p := range r.points {
		hashes = append(hashes, p.hash-1, p.hash, p.hash+1)
	}
	for _, hash := range hashes {
		want := slices.IndexFunc(r.points, func(p point) bool { return p.hash >= hash })
		if got := r.after(hash); got != max(want, 0) {
			t.Fatalf("after %#x comes %d, want %d", hash, got, max(want, 0))
		}
	}
}

// Two points in one place: the order does not depend on who else is there.
func TestRingPointsInOnePlace(t *testing.T) {
	r := sortPoints([]point{{7 << 60, 2}, {1 << 60, 1}, {7 << 60, 0}, {7 << 60, 1}})
	want := []point{{1 << 60, 1}, {7 << 60, 0}, {7 << 60, 1}, {7 << 60, 2}}
	if diff := gocmp.Diff(want, r.points, gocmp.AllowUnexported(point{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.after(7 << 60); got != 1 {
		t.Errorf("after the place comes %d", got)
	}
}

func TestPointCounts(t *testing.T) {
	full := maxPoints / pointsPerWeight
	for _, c := range []struct {
		name    string
		weights []int
		want    []uint64
	}{
		{"none", nil, []uint64{}},
		{"few", []int{1, 3}, []uint64{128, 384}},
		{"as many as may be", []int{full - 1, 1}, []uint64{maxPoints - 128, 128}},
		{"one more", []int{full, 1}, []uint64{maxPoints / 2, 64}},
		{"at least one each", []int{1 << 30, 1}, []uint64{maxPoints / 2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			counts, total := pointCounts(entrantsOf(weighted(c.weights...), 0))
			if diff := gocmp.Diff(c.want, counts); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			var sum uint64
			for _, n := range counts {
				sum += n
			}
			if total != sum || total > maxPoints {
				t.Errorf("%d points, the sum is %d", total, sum)
			}
		})
	}
}
