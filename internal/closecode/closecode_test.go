package closecode

import "testing"

func TestSendable(t *testing.T) {
	for first, last := range map[int]int{0: 999, 1004: 1006, 1015: 2999, 5000: 70000} {
		for code := first; code <= last; code++ {
			if Sendable(code) {
				t.Errorf("%d may be sent", code)
			}
		}
	}
	for first, last := range map[int]int{1000: 1003, 1007: 1014, 3000: 4999} {
		for code := first; code <= last; code++ {
			if !Sendable(code) {
				t.Errorf("%d may not be sent", code)
			}
		}
	}
}
