package test

import (
	"fmt"
	"os"
	"slices"
)

// inFull reports whether the numbers of the case list are used as they stand, as in a
// soak. Otherwise those that take long are scaled down, no case is left out.
func inFull() bool { return os.Getenv("TIDEGATE_SOAK") != "" }

// scaled is n, or if that is less and not all of it is wanted, less.
func scaled(n, less int) int {
	if inFull() {
		return n
	}
	return min(n, less)
}

// kinds are the two kinds of messages; a text has characters of every length, so that
// they end anywhere in fragments and writes.
var kinds = []struct {
	name    string
	message func(n int) fr
}{{"text", func(n int) fr { return textFr(prose(n)) }}, {"binary", func(n int) fr { return binaryFr(blob(n)) }}}

// sizeCases are large messages, large messages in many pieces, and many messages.
func sizeCases() (list []exchange) {
	const kib, mib = 1 << 10, 1 << 20
	for k, kind := range kinds {
		for i, n := range []int{64 * kib, 256 * kib, mib, 4 * mib, 8 * mib, 16 * mib} {
			if kind.name == "text" { // which is looked at octet by octet: of the large ones a quarter
				n = scaled(n, max(mib, n/4))
			}
			list = append(list, exchange{id: fmt.Sprintf("9.%d.%d", 1+k, i+1), name: fmt.Sprintf("%s of %d", kind.name, n), good: []fr{kind.message(n)}})
		}
		// Of 4 MiB, as much as fits into 1,024 fragments, and 1 MiB or two fragments at most.
		for i, size := range []int{64, 256, kib, 4 * kib, 16 * kib, 64 * kib, 256 * kib, mib, 4 * mib} {
			n := scaled(4*mib, min(1024*size, max(mib, 2*size)))
			list = append(list, exchange{id: fmt.Sprintf("9.%d.%d", 3+k, i+1), name: fmt.Sprintf("%s of %d in fragments of %d", kind.name, n, size), good: kind.message(n).fragments(size)})
		}
		// Of 1 MiB, as much as fits into 512 writes.
		for i, size := range []int{64, 128, 256, 512, kib, 2 * kib} {
			n := scaled(mib, 512*size)
			list = append(list, exchange{id: fmt.Sprintf("9.%d.%d", 5+k, i+1), name: fmt.Sprintf("%s of %d in writes of %d", kind.name, n, size), good: []fr{kind.message(n)}, chop: size})
		}
		// Of 1,000 messages, each of which waits for the echo of the one before, 100.
		for i, size := range []int{0, 16, 64, 256, kib, 4 * kib} {
			n := scaled(1000, 100)
			list = append(list, exchange{id: fmt.Sprintf("9.%d.%d", 7+k, i+1), name: fmt.Sprintf("%d %s messages of %d", n, kind.name, size),
				good: slices.Repeat([]fr{kind.message(size)}, n), lockstep: true})
		}
	}
	return append(list,
		exchange{name: "frame over max_message_size", bad: []fr{binaryFr(blob(16*mib + 1))}, code: 1009, held: 16*mib + 1},
		exchange{name: "fragments over max_message_size", good: []fr{binaryFr(blob(8 * mib)).begun(), moreFr(blob(8 * mib))}, bad: []fr{lastFr("x")}, code: 1009},
	)
}

// autoFragmentCases are messages as an end sends them that never makes a frame larger
// than some size.
func autoFragmentCases() []exchange {
	return []exchange{
		{id: "10.1.1", name: "text of 65536 in fragments of 1300", good: textFr(prose(65536)).fragments(1300)},
		{name: "text of 65536 in fragments of 1300, octet-wise", good: textFr(prose(scaled(65536, 8192))).fragments(1300), chop: 1},
		{name: "binary of 65000 in fragments of 1300", good: binaryFr(blob(65000)).fragments(1300)},
	}
}
