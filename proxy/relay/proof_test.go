package relay

import (
	"bytes"
	"fmt"
	"testing"
)

func terminated(o *Options) {
	o.Compression, o.MaxBuffered = Compression{Mode: Terminate, MinBytes: 1000, Level: 1}, 1000
}

// Wherever a compressed message is cut, its end is the end of a message: the backend is
// asked, left behind it, and in doubt about it.
func TestMoveAfterCompressed(t *testing.T) {
	p := compressed(text(Client, string(deflated(t, bytes.Repeat([]byte("hello "), 20)))))
	for cut := range len(p) {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			g := newMoveRig(t, terminated)
			g.feed(Client, p[:cut])
			g.feed(Client, p[cut:])
			if g.pol.proof.due != g.now+proofPause {
				t.Errorf("the backend is asked at %v", g.pol.proof.due)
			}
			g.feed(Client, p[:cut])
			g.move()
			g.feed(Client, p[cut:])
			if g.moving().phase != asked {
				t.Fatal("the backend is not asked")
			}
			want := uint64(2)
			if cut < 6 {
				want = 1 // its header had not come
			}
			g.end(Backend)
			if g.doubt != want {
				t.Errorf("%d messages in doubt, want %d", g.doubt, want)
			}
		})
	}
}

// A message that is being inflated when the backend is lost is in doubt once.
func TestDoubtWhileInflating(t *testing.T) {
	g := newMoveRig(t, func(o *Options) { terminated(o); o.ValidateUTF8 = false })
	g.rig.feed(Client, compressed(text(Client, string(deflated(t, bytes.Repeat([]byte("x"), 300<<10))))))
	if !g.inflating() {
		t.Fatal("it is through")
	}
	g.end(Backend)
	g.move()
	g.say(Client, "a")
	if g.doubt != 1 || g.frames(g.sent[Backend]) != "text:a" {
		t.Errorf("%d messages in doubt, the next backend got %s", g.doubt, g.frames(g.sent[Backend]))
	}
}
