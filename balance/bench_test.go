package balance

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

var benchSizes = []int{3, 100, 1000}

func eachBench(b *testing.B, bench func(b *testing.B, policy Policy, set *Set)) {
	for _, o := range variants {
		for _, n := range benchSizes {
			b.Run(fmt.Sprintf("%s/factor=%v/backends=%d", o.Policy, o.LoadFactor, n), func(b *testing.B) {
				b.ReportAllocs()
				bench(b, mustPolicy(b, o), equalWeights(n))
			})
		}
	}
}

// BenchmarkPick is one pick and the end of its session, on one goroutine.
func BenchmarkPick(b *testing.B) {
	eachBench(b, func(b *testing.B, policy Policy, set *Set) {
		p := policy(set)
		hash := rand.Uint64()
		for b.Loop() {
			hash += 0x9e3779b97f4a7c15
			backend, err := p.Pick(Request{Hash: hash, Hashed: true})
			if err != nil {
				b.Fatal(err)
			}
			backend.Live.Open()
			backend.Live.Close()
		}
	})
}

// BenchmarkPickParallel is the same on all processors at once.
func BenchmarkPickParallel(b *testing.B) {
	eachBench(b, func(b *testing.B, policy Policy, set *Set) {
		p := policy(set)
		b.RunParallel(func(pb *testing.PB) {
			hash := rand.Uint64()
			for pb.Next() {
				hash += 0x9e3779b97f4a7c15
				backend, err := p.Pick(Request{Hash: hash, Hashed: true})
				if err != nil {
					b.Error(err)
					return
				}
				backend.Live.Open()
				backend.Live.Close()
			}
		})
	})
}

// BenchmarkPickMostlyDown is a pick when nine of ten backends are down.
func BenchmarkPickMostlyDown(b *testing.B) {
	eachBench(b, func(b *testing.B, policy Policy, set *Set) {
		for i, backend := range set.Backends() {
			if i%10 != 0 {
				backend.Live.setState(StateDown)
			}
		}
		p := policy(set)
		hash := rand.Uint64()
		for b.Loop() {
			hash += 0x9e3779b97f4a7c15
			backend, err := p.Pick(Request{Hash: hash, Hashed: true})
			if err != nil {
				b.Fatal(err)
			}
			backend.Live.Release()
		}
	})
}

// BenchmarkBuild is what each change of a set costs.
func BenchmarkBuild(b *testing.B) {
	eachBench(b, func(b *testing.B, policy Policy, set *Set) {
		for b.Loop() {
			policy(set)
		}
	})
}

// BenchmarkBuildWithOddWeights is the worst case of the sequence and of the ring.
func BenchmarkBuildWithOddWeights(b *testing.B) {
	weights := make([]int, 1000)
	for i := range weights {
		weights[i] = 1 + i*13%997
	}
	set := weighted(weights...)
	for _, name := range []string{"round_robin", "consistent_hash"} {
		b.Run(name, func(b *testing.B) {
			policy := mustPolicy(b, Options{Policy: name})
			for b.Loop() {
				policy(set)
			}
		})
	}
}
