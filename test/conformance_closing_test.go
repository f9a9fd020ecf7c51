package test

import (
	"fmt"
	"strings"
)

// closingCases are Closes, right and wrong ones, and what comes behind a Close, which
// counts for nothing (RFC 6455 §5.5.1, §7.4).
func closingCases() []exchange {
	brokenReason := kosme + "\xed\xa0\x80" + "edited" // a surrogate
	list := []exchange{
		{id: "7.1.1", name: "text, then Close", good: []fr{textFr(hello), closeFr(1000, "")}},
		{id: "7.1.2", name: "two Closes", good: []fr{closeFr(1000, ""), closeBodyFr("")}},
		{id: "7.1.3", name: "Ping behind a Close", good: []fr{closeFr(1000, ""), pingFr("")}},
		{id: "7.1.4", name: "text behind a Close", good: []fr{closeFr(1000, ""), textFr(hello)}},
		{id: "7.1.5", name: "Close between two fragments", good: []fr{textFr("one").begun(), closeFr(1000, ""), lastFr("two")}},
		{id: "7.1.6", name: "256 KiB, text, Close and Ping at once", good: []fr{textFr(prose(256 << 10)), textFr(hello), closeFr(1000, ""), pingFr("")}},
		{id: "7.3.1", name: "Close without a body", good: []fr{closeBodyFr("")}},
		{id: "7.3.2", name: "Close of one octet", bad: []fr{closeBodyFr("a")}, code: 1002},
		{id: "7.3.3", name: "Close with a code", good: []fr{closeFr(1000, "")}},
		{id: "7.3.4", name: "Close with a reason", good: []fr{closeFr(1000, hello)}},
		{id: "7.3.5", name: "Close with a reason of 123", good: []fr{closeFr(1000, strings.Repeat("*", 123))}},
		{id: "7.3.6", name: "Close with a reason of 124", bad: []fr{closeFr(1000, strings.Repeat("*", 124))}, code: 1002},
		{id: "7.5.1", name: "reason that is not UTF-8", bad: []fr{closeFr(1000, brokenReason)}, code: 1007},

		{name: "reason that is not UTF-8, octet-wise", bad: []fr{closeFr(1000, brokenReason)}, code: 1007, chop: 1},
		{name: "reason with half a character", bad: []fr{closeFr(1000, "caf\xc3")}, code: 1007},
		{name: "reason of 122 and half a character", bad: []fr{closeFr(1000, strings.Repeat("*", 122)+"\xc3")}, code: 1007},
		{name: "reason of every kind of character, octet-wise", good: []fr{closeFr(4000, prose(123))}, chop: 1},
		{name: "Close of one octet behind a text at once", good: []fr{textFr(hello)}, bad: []fr{closeBodyFr("\x03")}, code: 1002, oneGo: true},
		{name: "Close without a body, octet-wise", good: []fr{textFr(hello), closeBodyFr("")}, chop: 1},
		{name: "Ping behind a Close, octet-wise", good: []fr{closeFr(1000, ""), pingFr("late"), closeFr(1001, "")}, chop: 1},
		{name: "what is no frame behind a Close", good: []fr{closeFr(1001, "off"), textFr(hello).opcode(15).reserved(7)}},
		{name: "Close within a message, behind a Ping", good: []fr{binaryFr("one").begun(), pingFr("p"), closeFr(3000, "")}},
	}
	valid := func(code int, id string) {
		list = append(list, exchange{id: id, name: fmt.Sprintf("code %d", code), good: []fr{closeFr(code, "")}})
	}
	invalid := func(code int, id string) {
		list = append(list, exchange{id: id, name: fmt.Sprintf("code %d", code), bad: []fr{closeFr(code, "")}, code: 1002})
	}
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		valid(code, fmt.Sprintf("7.7.%d", i+1))
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		invalid(code, fmt.Sprintf("7.9.%d", i+1))
	}
	for i, code := range []int{5000, 65535} { // open in the list, forbidden by RFC 6455 §7.4.2
		invalid(code, fmt.Sprintf("7.13.%d", i+1))
	}
	for _, code := range []int{1012, 1013, 1014, 3001, 4242} { // registered since, or free
		valid(code, "")
	}
	for _, code := range []int{1, 125, 998, 1015, 1017, 1999, 2001, 5001, 9999, 10000, 32768, 65534} {
		invalid(code, "")
	}
	for n := range 124 {
		list = append(list, exchange{name: fmt.Sprintf("reason of %d octets", n), good: []fr{closeFr(1000, prose(n))}})
	}
	return list
}
