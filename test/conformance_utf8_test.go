package test

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// kosme is Greek text with characters of two and three octets.
const kosme = "κ\u1f79σμε"

// utf8Cases are texts, as RFC 6455 §8.1 has them judged. From 6.5 on they follow Markus
// Kuhn's table of what a decoder has to accept and to refuse.
func utf8Cases() []exchange {
	const greeting = "Hello-µ@ßöäüàá-UTF-8!!"
	const surrogate = kosme + "\xed\xa0\x80" + "edited"  // octet 12 is wrong
	const beyond = kosme + "\xf4\x90\x80\x80" + "edited" // so is it here: U+110000
	list := []exchange{
		{id: "6.1.1", name: "empty", good: []fr{textFr("")}},
		{id: "6.1.2", name: "three empty fragments", good: []fr{textFr("").begun(), moreFr(""), lastFr("")}},
		{id: "6.1.3", name: "text between empty fragments", good: []fr{textFr("").begun(), moreFr("in the middle"), lastFr("")}},
		{id: "6.2.1", name: "text", good: []fr{textFr(greeting)}},
		{id: "6.2.2", name: "fragments that end with a character", good: textFr(greeting).fragments(len("Hello-µ@ßöä"))},
		{id: "6.2.3", name: "fragments of one octet", good: textFr(greeting).fragments(1)},
		{id: "6.2.4", name: "Greek in fragments of one octet", good: textFr(kosme).fragments(1)},
		invalid("6.3.1", "a surrogate", surrogate, len(surrogate)),
		invalid("6.3.2", "a surrogate in fragments of one octet", surrogate, 1),
		{id: "6.4.1", name: "second of three fragments is wrong", good: []fr{textFr(kosme).begun()}, bad: []fr{moreFr("\xf4\x90\x80\x80")}},
		{id: "6.4.2", name: "first octet of the second fragment is wrong", good: []fr{textFr(kosme + "\xf4").begun()}, bad: []fr{moreFr("\x90")}},
		{id: "6.4.3", name: "second of three writes is wrong", bad: []fr{textFr(beyond)}, held: len("edited")},
		{id: "6.4.4", name: "first octet of the second write is wrong", bad: []fr{textFr(beyond)}, held: len("\x80\x80edited")},
	}
	for i := range list {
		if list[i].bad != nil {
			list[i].inPayload, list[i].code = true, 1007
		}
	}
	for i, family := range utf8Families() {
		for j, p := range family.sequences {
			id, name := fmt.Sprintf("6.%d.%d", 5+i, j+1), fmt.Sprintf("%s: % x", family.name, p)
			if name = name[:min(len(name), 80)]; utf8.ValidString(p) != family.valid(p) {
				panic(name)
			}
			if utf8.ValidString(p) {
				list = append(list, exchange{id: id, name: name, good: []fr{textFr(p)}},
					exchange{name: name + " in fragments of one octet", good: textFr(p).fragments(1)})
				continue
			}
			list = append(list, invalid(id, name, p, len(p)), invalid("", name+" in fragments of one octet", p, 1))
			// A binary message may be anything.
			list = append(list, exchange{name: name + " as binary", good: []fr{binaryFr(p)}})
		}
	}
	return list
}

// invalid is a text that is not UTF-8, in fragments of n octets. Those before the one
// with the octet that shows it are good, and what is behind that octet is never sent.
func invalid(id, name, p string, n int) exchange {
	wrong := firstWrong(p)
	all := textFr(p).fragments(n)
	k := min(wrong/n, len(all)-1)
	x := exchange{id: id, name: name, good: all[:k], bad: all[k : k+1], code: 1007, inPayload: true}
	x.held = max(0, len(all[k].body)-(wrong-k*n)-1)
	return x
}

// firstWrong is the index of the first octet of p with which no text begins, or the
// length of p if only its end is wrong.
func firstWrong(p string) int {
	for n := range len(p) {
		rest := p[:n+1]
		for rest != "" && utf8.FullRuneInString(rest) {
			r, size := utf8.DecodeRuneInString(rest)
			if r == utf8.RuneError && size == 1 {
				return n
			}
			rest = rest[size:]
		}
	}
	return len(p)
}

// utf8Family is a part of the table.
type utf8Family struct {
	name      string
	valid     func(p string) bool
	sequences []string
}

func always(string) bool { return true }
func never(string) bool  { return false }

// utf8Families are the parts of the table in its order.
func utf8Families() []utf8Family {
	var prefixes []string
	for n := range len(kosme) {
		prefixes = append(prefixes, kosme[:n+1])
	}
	whole := func(p string) bool { return strings.Contains(" 2 5 7 9 11 ", fmt.Sprintf(" %d ", len(p))) }
	cut := []string{"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf"}
	return []utf8Family{
		{"correct", always, []string{"hello\u0024world", "hello\u00a2world", "hello\u20acworld", "hello\U00024b62world", kosme}},
		{"prefix", whole, prefixes},
		{"first of its length", always, []string{"\x00", "\u0080", "\u0800", "\U00010000"}},
		{"first of 5 and 6", never, []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
		{"last of its length", always, []string{"\x7f", "\u07ff", "\uffff", "\U0010ffff"}},
		{"last of 4, 5 and 6", never, []string{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
		{"border", func(p string) bool { return p != "\xf4\x90\x80\x80" }, []string{"\ud7ff", "\ue000", "\ufffd", "\U0010ffff", "\xf4\x90\x80\x80"}},
		{"continuation without a start", never, []string{"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80",
			"\x80\xbf\x80\xbf\x80\xbf", octets(0x80, 0xbe, "")}},
		{"start without continuation", never, []string{octets(0xc0, 0xde, " "), octets(0xe0, 0xee, " "), octets(0xf0, 0xf6, " "), octets(0xf8, 0xfa, " "), octets(0xfc, 0xfc, " ")}},
		{"last octet is missing", never, cut},
		{"all that miss their last octet", never, []string{strings.Join(cut, "")}},
		{"octets that never occur", never, []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
		{"overlong slash", never, []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
		{"longest overlong", never, []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
		{"overlong NUL", never, []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
		{"surrogate", never, surrogates},
		{"pair of surrogates", never, pairs()},
		{"noncharacter", always, noncharacters()},
		{"special", always, []string{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"}},
	}
}

// octets are those from first to last, each with something behind it.
func octets(first, last byte, behind string) string {
	var p strings.Builder
	for b := int(first); b <= int(last); b++ {
		p.WriteByte(byte(b))
		p.WriteString(behind)
	}
	return p.String()
}

// surrogates are the borders of UTF-16's halves: U+D800, DB7F, DB80, DBFF, DC00, DF80,
// DFFF.
var surrogates = []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}

func pairs() (list []string) {
	for _, high := range surrogates[:4] {
		for _, low := range []string{surrogates[4], surrogates[6]} {
			list = append(list, high+low)
		}
	}
	return list
}

// noncharacters are the last two code points of each plane, which text may contain.
func noncharacters() (list []string) {
	for plane := range rune(17) {
		list = append(list, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return list
}
