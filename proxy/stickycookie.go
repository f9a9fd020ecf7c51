package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// StickyCookie is the cookie that keeps clients with their backends. It is always HttpOnly and
// for all paths.
type StickyCookie struct {
	Name string
	// MaxAge is how long a browser keeps it, in whole seconds, and how long it counts. It is
	// renewed once half of that has passed. 0 is for as long as the browser runs.
	MaxAge   time.Duration
	Secure   bool
	SameSite http.SameSite
	// Secret signs it. Edges with the same one accept each other's.
	Secret []byte
}

// ticket is what a cookie says.
type ticket struct {
	key     [16]byte // random
	backend uint64   // balance.HashString of its ID
	issued  int64    // Unix seconds, 40 bits of which are kept
}

// hash is what backends are picked by.
func (t *ticket) hash() uint64 { return balance.HashString(string(t.key[:])) }

// A value is a version and, in base64 for URLs, the key, the masked backend, the time and the
// tag. The tag is the first 16 bytes (RFC 2104 §5) of the HMAC-SHA256 of the other three in the
// clear. The mask is made of the tag, as in a synthetic IV (RFC 5297): whoever has a few cookies
// is not to find out by trying addresses which backends there are, or who has the same one.
const (
	ticketVersion = "1"
	keyAt         = 0
	backendAt     = 16
	issuedAt      = 24
	tagAt         = 29
	ticketBytes   = 45
	ticketLen     = len(ticketVersion) + ticketBytes/3*4
)

// Labels keep what is made with the secret apart.
const (
	tagLabel  = "tidegate sticky cookie 1 tag\n"
	maskLabel = "tidegate sticky cookie 1 mask\n"
)

func (c *StickyCookie) mac(label string, content []byte) []byte {
	mac := hmac.New(sha256.New, c.Secret)
	mac.Write([]byte(label))
	mac.Write(content)
	return mac.Sum(nil)
}

// mask hides the backend in raw, or shows it again.
func (c *StickyCookie) mask(raw []byte) {
	mask := c.mac(maskLabel, raw[tagAt:ticketBytes])
	for i := range raw[backendAt:issuedAt] {
		raw[backendAt+i] ^= mask[i]
	}
}

// value is what the cookie has for a ticket.
func (c *StickyCookie) value(t ticket) string {
	var raw [ticketBytes]byte
	var issued [8]byte
	copy(raw[keyAt:], t.key[:])
	binary.BigEndian.PutUint64(raw[backendAt:], t.backend)
	binary.BigEndian.PutUint64(issued[:], uint64(t.issued))
	copy(raw[issuedAt:], issued[3:])
	copy(raw[tagAt:], c.mac(tagLabel, raw[:tagAt]))
	c.mask(raw[:])
	return ticketVersion + base64.RawURLEncoding.EncodeToString(raw[:])
}

// parse reads a value; ok is false for one that was not made with this secret.
func (c *StickyCookie) parse(value string) (t ticket, ok bool) {
	text, ok := strings.CutPrefix(value, ticketVersion)
	if !ok || len(value) != ticketLen {
		return ticket{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) != ticketBytes {
		return ticket{}, false
	}
	c.mask(raw)
	if !hmac.Equal(c.mac(tagLabel, raw[:tagAt])[:ticketBytes-tagAt], raw[tagAt:]) {
		return ticket{}, false
	}
	var issued [8]byte
	copy(issued[3:], raw[issuedAt:tagAt])
	t.backend, t.issued = binary.BigEndian.Uint64(raw[backendAt:]), int64(binary.BigEndian.Uint64(issued[:]))
	copy(t.key[:], raw[keyAt:])
	return t, true
}

// find returns what the first cookie that counts says, and whether it is time to renew that.
func (c *StickyCookie) find(lines []string, now time.Time) (t ticket, renew, ok bool) {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(pair, "=")
			if strings.TrimSpace(name) != c.Name {
				continue
			}
			t, ok := c.parse(strings.Trim(strings.TrimSpace(value), `"`))
			age, most := now.Unix()-t.issued, int64(c.MaxAge/time.Second)
			if ok && (most == 0 || age <= most) {
				return t, most > 0 && age > most/2, true
			}
		}
	}
	return ticket{}, false, false
}

// issue is the Set-Cookie of a ticket.
func (c *StickyCookie) issue(t ticket) string {
	cookie := http.Cookie{Name: c.Name, Value: c.value(t), Path: "/", MaxAge: int(c.MaxAge / time.Second),
		HttpOnly: true, Secure: c.Secure, SameSite: c.SameSite}
	return cookie.String()
}

// stripCookie takes all cookies of a name out of a header and leaves the others as they are.
func stripCookie(header http.Header, name string) {
	if len(header["Cookie"]) == 0 {
		return
	}
	kept := header["Cookie"][:0:0]
	for _, line := range header["Cookie"] {
		if line, some := withoutCookie(line, name); some {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(header, "Cookie")
		return
	}
	header["Cookie"] = kept
}

// withoutCookie returns a line of the header Cookie without the cookies of a name, and whether
// there is anything left of it.
func withoutCookie(line, name string) (rest string, some bool) {
	if !strings.Contains(line, name) {
		return line, true
	}
	var kept []string
	found := false
	for pair := range strings.SplitSeq(line, ";") {
		if key, _, _ := strings.Cut(pair, "="); strings.TrimSpace(key) == name {
			found = true
			continue
		}
		kept = append(kept, pair)
	}
	if !found {
		return line, true
	}
	rest = strings.TrimLeft(strings.Join(kept, ";"), " \t")
	return rest, rest != ""
}
