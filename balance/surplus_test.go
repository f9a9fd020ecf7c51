package balance

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func burdens(loads ...int64) (all []Burden) {
	for _, n := range loads {
		all = append(all, Burden{Load: n, Weight: 1})
	}
	return all
}

func TestSurplus(t *testing.T) {
	giving := burdens(110, 100, 90)
	giving[0].Giving, giving[2].Giving = true, true
	weighted := func(loads, weights []int64) []Burden {
		all := burdens(loads...)
		for i := range all {
			all[i].Weight = weights[i]
		}
		return all
	}
	for name, c := range map[string]struct {
		all       []Burden
		away      int64
		tolerance float64
		want      []int64
	}{
		"nobody":                              {nil, 0, 1.25, []int64{}},
		"alone":                               {burdens(1000), 0, 1.25, []int64{0}},
		"none has any":                        {burdens(0, 0), 0, 1.25, []int64{0, 0}},
		"all have the same":                   {burdens(7, 7, 7), 0, 1.25, []int64{0, 0, 0}},
		"two have become four":                {burdens(1000, 1000, 0, 0), 0, 1.25, []int64{500, 500, 0, 0}},
		"at the tolerance":                    {burdens(125, 75), 0, 1.25, []int64{0, 0}},
		"over the tolerance":                  {burdens(126, 74), 0, 1.25, []int64{26, 0}},
		"over it, but begun":                  {giving, 0, 1.25, []int64{10, 0, 0}},
		"less than a whole session over":      {burdens(2, 1), 0, 1.25, []int64{0, 0}},
		"a share is rounded up":               {burdens(10, 0, 0), 0, 1.25, []int64{6, 0, 0}},
		"one session":                         {burdens(1, 0, 0), 0, 1.25, []int64{0, 0, 0}},
		"by weight":                           {weighted([]int64{300, 100}, []int64{3, 1}), 0, 1.25, []int64{0, 0}},
		"too much for its weight":             {weighted([]int64{300, 100}, []int64{1, 3}), 0, 1.25, []int64{200, 0}},
		"those that are away count":           {burdens(150, 50), 200, 1.25, []int64{0, 0}},
		"no tolerance":                        {burdens(102, 100, 100), 0, 1, []int64{1, 0, 0}},
		"counts that no product has room for": {weighted([]int64{1 << 40, 0}, []int64{1 << 30, 1 << 30}), 0, 1.25, []int64{1 << 39, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := SharesOf(c.all, c.away).Surplus(c.all, c.tolerance); !slices.Equal(got, c.want) {
				t.Errorf("%v of %+v, want %v", got, c.all, c.want)
			}
		})
	}
}

// FuzzSurplus gives away what there is too much of, a session at a time and to anybody under
// the share: nobody gets more than the share, nobody gives more than the surplus, it comes
// to an end, and then all is within the tolerance and nothing begins again.
func FuzzSurplus(f *testing.F) {
	f.Add(uint64(1), uint8(4), uint16(2000), uint8(25))
	f.Add(uint64(2), uint8(1), uint16(1), uint8(0))
	f.Add(uint64(3), uint8(9), uint16(7), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, most uint16, percent uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		tolerance := 1 + float64(percent)/100
		all := make([]Burden, 1+n%20)
		for i := range all {
			all[i] = Burden{Load: r.Int64N(int64(most) + 1), Weight: 1 + r.Int64N(5)}
			if r.IntN(3) == 0 {
				all[i].Load = 0
			}
		}
		shares := SharesOf(all, 0)
		first := shares.Surplus(all, tolerance)
		for i, gives := range first {
			all[i].Giving = gives > 0
		}
		for from, gives := range first {
			for range gives {
				if now := SharesOf(all, 0).Surplus(all, tolerance); now[from] == 0 {
					t.Fatalf("%d has nothing more to give, %d at first: %+v", from, gives, all)
				}
				var room []int
				for i, b := range all {
					if shares.Under(b.Load, b.Weight) {
						room = append(room, i)
					}
				}
				if len(room) == 0 {
					t.Fatalf("nobody has room: %+v", all)
				}
				to := room[r.IntN(len(room))]
				if all[to].Giving {
					t.Fatalf("%d gives and takes: %+v", to, all)
				}
				all[from].Load, all[to].Load = all[from].Load-1, all[to].Load+1
			}
		}
		for i, b := range all {
			share := float64(shares.total) * float64(b.Weight) / float64(shares.weights)
			if b.Load > shares.Most(b.Weight) && float64(b.Load) > tolerance*share {
				t.Errorf("%d has %d at last, its share is %v", i, b.Load, share)
			}
			all[i].Giving = false
		}
		if again := SharesOf(all, 0).Surplus(all, tolerance); slices.Max(again) > 0 {
			t.Errorf("%v begins again: %+v", again, all)
		}
	})
}
