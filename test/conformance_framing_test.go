package test

import (
	"fmt"
	"strings"
)

// hello is the payload of most small messages.
const hello = "good day to you"

// framingCases send a message whose length is at the borders of the three forms that a
// length has (RFC 6455 §5.2).
func framingCases() (list []exchange) {
	for i, kind := range []string{"text", "binary"} {
		message := func(n int) fr {
			if kind == "text" {
				return textFr(prose(n))
			}
			return binaryFr(blob(n))
		}
		for j, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
			list = append(list, exchange{id: fmt.Sprintf("1.%d.%d", i+1, j+1), name: fmt.Sprintf("%s of %d", kind, n), good: []fr{message(n)}})
		}
		list = append(list,
			exchange{id: fmt.Sprintf("1.%d.8", i+1), name: kind + " of 65536 in writes of 997", good: []fr{message(65536)}, chop: 997},
			exchange{name: kind + " of every small length, octet-wise", good: []fr{message(0), message(1), message(125), message(126), message(127)}, chop: 1},
			exchange{name: kind + " of every form in one write", good: []fr{message(65536), message(0), message(126), message(65535), message(125)}},
		)
	}
	return list
}

// pingCases are Pings and Pongs. The edge is no end: both go through, and the other end
// answers (RFC 6455 §5.5.2, §5.5.3).
func pingCases() []exchange {
	ten := func() (list []fr) {
		for i := range 10 {
			list = append(list, pingFr(fmt.Sprintf("ping number %d", i)))
		}
		return list
	}()
	return []exchange{
		{id: "2.1", name: "empty Ping", good: []fr{pingFr("")}},
		{id: "2.2", name: "Ping with text", good: []fr{pingFr(hello)}},
		{id: "2.3", name: "Ping with what is not UTF-8", good: []fr{pingFr("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")}},
		{id: "2.4", name: "Ping of 125", good: []fr{pingFr(blob(125))}},
		{id: "2.5", name: "Ping of 126", bad: []fr{pingFr(blob(126))}, code: 1002},
		{id: "2.6", name: "Ping of 125, octet-wise", good: []fr{pingFr(blob(125))}, chop: 1},
		{id: "2.7", name: "empty Pong that nobody asked for", good: []fr{pongFr("")}},
		{id: "2.8", name: "Pong with text that nobody asked for", good: []fr{pongFr("here I am")}},
		{id: "2.9", name: "Pong that nobody asked for, then a Ping", good: []fr{pongFr("here I am"), pingFr("are you?")}},
		{id: "2.10", name: "ten Pings", good: ten},
		{id: "2.11", name: "ten Pings, octet-wise", good: ten, chop: 1},
		{name: "Pong of 125", good: []fr{pongFr(blob(125))}},
		{name: "Pong of 126", bad: []fr{pongFr(blob(126))}, code: 1002},
		{name: "Pong of 65536", bad: []fr{pongFr(blob(65536))}, code: 1002},
		{name: "Ping of 126, of which only the length is sent", bad: []fr{pingFr(blob(126))}, code: 1002, held: 126},
		{name: "the same Ping twice between messages", good: []fr{textFr(hello), pingFr("x"), binaryFr(hello), pingFr("x"), textFr("")}},
	}
}

// reservedBitCases set bits that no extension has claimed (RFC 6455 §5.2).
func reservedBitCases() []exchange {
	list := []exchange{
		{id: "3.1", name: "RSV3 on a text", bad: []fr{textFr(hello).reserved(1)}, code: 1002},
		{id: "3.2", name: "RSV2 on the second text", good: []fr{textFr(hello)}, bad: []fr{textFr(hello).reserved(2), pingFr("")}, code: 1002},
		{id: "3.3", name: "RSV2 and 3 on the second text, frame-wise", good: []fr{textFr(hello)}, bad: []fr{textFr(hello).reserved(3), pingFr("")}, code: 1002, chop: frameWise},
		{id: "3.4", name: "RSV1 on the second text, octet-wise", good: []fr{textFr(hello)}, bad: []fr{textFr(hello).reserved(4), pingFr("")}, code: 1002, chop: 1},
		{id: "3.5", name: "RSV1 and 3 on a binary", bad: []fr{binaryFr(blob(8)).reserved(5)}, code: 1002},
		{id: "3.6", name: "RSV1 and 2 on a Ping", bad: []fr{pingFr(hello).reserved(6)}, code: 1002},
		{id: "3.7", name: "every RSV on a Close", bad: []fr{closeBodyFr("").reserved(7)}, code: 1002},
		{name: "RSV1 on a continuation", good: []fr{textFr("a").begun()}, bad: []fr{lastFr("b").reserved(4)}, code: 1002},
		{name: "RSV1 on a text right behind another", good: []fr{textFr(hello)}, bad: []fr{textFr(hello).reserved(4)}, code: 1002, oneGo: true},
	}
	for bits := byte(1); bits < 8; bits++ {
		for _, f := range []fr{textFr("x"), binaryFr("x"), pingFr("x"), pongFr("x"), closeFr(1000, "")} {
			name := strings.Fields(f.String())[0]
			list = append(list, exchange{name: fmt.Sprintf("RSV %03b on a %s, one octet", bits, name), bad: []fr{f.reserved(bits)}, code: 1002, held: butFirst})
		}
	}
	return list
}

// reservedOpcodeCases use opcodes that have no meaning yet (RFC 6455 §5.2).
func reservedOpcodeCases() (list []exchange) {
	for i, first := range []byte{3, 11} {
		for j := range byte(5) {
			op := first + j
			x := exchange{id: fmt.Sprintf("4.%d.%d", i+1, j+1), name: fmt.Sprintf("opcode %d", op), code: 1002}
			body := ""
			if j%2 == 1 || j == 4 {
				body = "with a payload"
			}
			x.bad = []fr{textFr(body).opcode(op)}
			if j >= 2 {
				x.name += " behind a text"
				x.good, x.bad = []fr{textFr(hello)}, append(x.bad, pingFr(""))
			}
			if j == 4 {
				x.name += ", octet-wise"
				x.chop = 1
			}
			list = append(list, x)
		}
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		list = append(list,
			exchange{name: fmt.Sprintf("opcode %d between fragments", op), good: []fr{textFr("a").begun()}, bad: []fr{textFr("").opcode(op), lastFr("b")}, code: 1002},
			exchange{name: fmt.Sprintf("opcode %d, one octet", op), bad: []fr{textFr(hello).opcode(op)}, code: 1002, held: butFirst},
		)
	}
	return list
}
