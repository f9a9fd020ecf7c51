package deflate

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestBuild makes tables of random codes and looks up every symbol, whatever follows it.
func TestBuild(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name     string
		table    []entry
		width    uint
		longest  int
		meanings []entry
		symbols  int
	}{
		{"literals", new(literalTable)[:], literalBits, maxCodeLength, literalEntries[:], 286},
		{"distances", new(distanceTable)[:], distanceBits, maxCodeLength, distanceEntries[:], 30},
		{"lengths", new(lengthTable)[:], lengthBits, lengthBits, lengthEntries[:], maxLengths},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for round := range 3000 {
				lengths := randomCode(random, tt.symbols, tt.longest, round%4)
				if !build(tt.table, tt.width, lengths, tt.meanings) {
					t.Fatalf("%v was refused", lengths)
				}
				var next [maxCodeLength + 1]uint16
				code := uint16(0)
				for n := 1; n <= maxCodeLength; n++ {
					code <<= 1
					next[n] = code
					for _, l := range lengths {
						if int(l) == n {
							code++
						}
					}
				}
				for symbol, n := range lengths {
					if n == 0 {
						continue
					}
					held := uint64(bits.Reverse16(next[n])>>(16-n)) | random.Uint64()<<n
					next[n]++
					e := tt.table[held&(1<<tt.width-1)]
					if e.kind() == link {
						e = tt.table[e.value()+int(held>>tt.width&(1<<e.extra()-1))]
					}
					if want := tt.meanings[symbol] | entry(n); e != want {
						t.Fatalf("symbol %d of %v is %x, want %x", symbol, lengths, e, want)
					}
				}
			}
		})
	}
}

// randomCode returns the lengths of a complete code: leaves of a tree, split at random, of
// how many the symbols get one. The greedy ones split the deepest leaf that they may, which
// makes as many second tables, and as wide ones, as there can be.
func randomCode(random *rand.Rand, symbols, longest, greedy int) []uint8 {
	leaves := []int{0}
	for want := 2 + random.IntN(symbols-1); len(leaves) < want; {
		i := random.IntN(len(leaves))
		for range greedy * 10 {
			if j := random.IntN(len(leaves)); leaves[i] == longest || leaves[j] > leaves[i] && leaves[j] < longest {
				i = j
			}
		}
		if leaves[i] == longest {
			continue
		}
		leaves[i]++
		leaves = append(leaves, leaves[i])
	}
	lengths := make([]uint8, symbols)
	for i, at := range random.Perm(symbols)[:len(leaves)] {
		lengths[at] = uint8(leaves[i])
	}
	return lengths
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		lengths []uint8
		want    bool
	}{
		{nil, true},
		{[]uint8{0, 0, 0}, true},
		{[]uint8{1}, true},
		{[]uint8{0, 1, 0}, true},
		{[]uint8{1, 1}, true},
		{[]uint8{1, 2, 2}, true},
		{[]uint8{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15}, true},
		{[]uint8{2}, false},
		{[]uint8{15}, false},
		{[]uint8{1, 2}, false},
		{[]uint8{2, 2, 2}, false},
		{[]uint8{1, 1, 1}, false},
		{[]uint8{1, 1, 15}, false},
		{[]uint8{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, false},
		{[]uint8{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15, 15}, false},
	} {
		if got := build(new(literalTable)[:], literalBits, tt.lengths, literalEntries[:]); got != tt.want {
			t.Errorf("%v: %v", tt.lengths, got)
		}
	}
}
