package test

// fragmentCases are messages in fragments, what may stand between those and what may not
// (RFC 6455 §5.4, §5.5).
func fragmentCases() []exchange {
	two := []fr{textFr("one ").begun(), lastFr("two")}
	pinged := []fr{textFr("one ").begun(), pingFr("ping"), lastFr("two")}
	five := []fr{textFr("one ").begun(), moreFr("two "), pingFr("first"), moreFr("three "), moreFr("four "), pingFr("second"), lastFr("five")}
	lonely := []fr{lastFr("no continuation"), textFr(hello)}
	open := []fr{moreFr("no continuation"), textFr(hello)}
	return []exchange{
		{id: "5.1", name: "Ping in two fragments", bad: []fr{pingFr("one").begun(), lastFr("two")}, code: 1002},
		{id: "5.2", name: "Pong in two fragments", bad: []fr{pongFr("one").begun(), lastFr("two")}, code: 1002},
		{id: "5.3", name: "text in two fragments", good: two},
		{id: "5.4", name: "text in two fragments, frame-wise", good: two, chop: frameWise},
		{id: "5.5", name: "text in two fragments, octet-wise", good: two, chop: 1},
		{id: "5.6", name: "Ping between two fragments", good: pinged},
		{id: "5.7", name: "Ping between two fragments, frame-wise", good: pinged, chop: frameWise},
		{id: "5.8", name: "Ping between two fragments, octet-wise", good: pinged, chop: 1},
		{id: "5.9", name: "end of nothing, then a text", bad: lonely, code: 1002},
		{id: "5.10", name: "end of nothing, then a text, frame-wise", bad: lonely, code: 1002, chop: frameWise},
		{id: "5.11", name: "end of nothing, then a text, octet-wise", bad: lonely, code: 1002, chop: 1},
		{id: "5.12", name: "continuation of nothing, then a text", bad: open, code: 1002},
		{id: "5.13", name: "continuation of nothing, then a text, frame-wise", bad: open, code: 1002, chop: frameWise},
		{id: "5.14", name: "continuation of nothing, then a text, octet-wise", bad: open, code: 1002, chop: 1},
		{id: "5.15", name: "text in two fragments and a continuation of nothing, at once", good: two, bad: []fr{moreFr("three"), textFr("four")}, code: 1002, oneGo: true},
		{id: "5.16", name: "continuation of nothing before each fragmented text", code: 1002,
			bad: []fr{moreFr("none"), textFr("one").begun(), lastFr("two"), moreFr("none"), textFr("one").begun(), lastFr("two")}},
		{id: "5.17", name: "end of nothing before each fragmented text", code: 1002,
			bad: []fr{lastFr("none"), textFr("one").begun(), lastFr("two"), lastFr("none"), textFr("one").begun(), lastFr("two")}},
		{id: "5.18", name: "text within a text", good: []fr{textFr("one").begun()}, bad: []fr{textFr("two")}, code: 1002},
		{id: "5.19", name: "Pings among five fragments", good: five},
		{id: "5.20", name: "Pings among five fragments, frame-wise", good: five, chop: frameWise},

		{name: "Pings among five fragments, octet-wise", good: five, chop: 1},
		{name: "Pings among five fragments, each awaited", good: five, lockstep: true},
		{name: "Pong between two fragments", good: []fr{binaryFr("one").begun(), pongFr("unasked"), lastFr("two")}},
		{name: "Close in two fragments", bad: []fr{closeFr(1000, "").begun(), lastFr("")}, code: 1002},
		{name: "Close in two fragments, of which one octet is sent", bad: []fr{closeFr(1000, "").begun()}, code: 1002, held: butFirst},
		{name: "text within a text at once", good: []fr{textFr("one").begun()}, bad: []fr{textFr("two")}, code: 1002, oneGo: true},
		{name: "binary within a text", good: []fr{textFr("one").begun()}, bad: []fr{binaryFr("two")}, code: 1002},
		{name: "text within a binary, behind a Ping", good: []fr{binaryFr("one").begun(), pingFr("p")}, bad: []fr{textFr("two").begun()}, code: 1002},
		{name: "binary within a binary, octet-wise", good: []fr{binaryFr("one").begun()}, bad: []fr{binaryFr("two")}, code: 1002, chop: 1},
		{name: "Ping in two fragments within a text", good: []fr{textFr("one").begun()}, bad: []fr{pingFr("p").begun(), lastFr("two")}, code: 1002},
		{name: "empty fragments", good: []fr{textFr("").begun(), moreFr(""), moreFr(""), lastFr("")}},
		{name: "a hundred fragments of one octet, octet-wise", good: binaryFr(blob(100)).fragments(1), chop: 1},
		{name: "continuation behind the end", good: two, bad: []fr{lastFr("three")}, code: 1002},
		{name: "messages in fragments, one behind the other", good: append(append(binaryFr(blob(300)).fragments(125), textFr(prose(300)).fragments(126)...), two...)},
	}
}
