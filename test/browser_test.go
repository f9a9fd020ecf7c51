package test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestBrowser opens the page of the demo in Chromium, and three participants on three
// app servers talk to each other.
func TestBrowser(t *testing.T) {
	p := openDemo(t)

	p.wait("three participants on three app servers", func() bool {
		apps := evaluate[[]string](p, `[...document.querySelectorAll("section")].map((s) => s.dataset.app || "")`)
		slices.Sort(apps)
		return slices.Equal(apps, []string{"app-1", "app-2", "app-3"})
	})

	p.say(1, "chat", "hello everybody")
	for i := 1; i <= 3; i++ {
		p.waitLine(i, "Participant 1: hello everybody — said via "+p.app(1)+" #1")
	}

	p.say(2, "echo", "hello me")
	p.waitLine(2, "Participant 2: hello me — echoed by "+p.app(2))
	p.say(2, "chat", "that was an echo") // what comes behind it has come
	for i := 1; i <= 3; i++ {
		p.waitLine(i, "Participant 2: that was an echo — said via "+p.app(2)+" #1")
		if i != 2 && strings.Contains(strings.Join(p.lines(i), "\n"), "hello me") {
			t.Errorf("participant %d got the echo: %q", i, p.lines(i))
		}
	}

	p.click("section:nth-of-type(3) .close")
	p.waitLine(3, "closed with 1000")
	p.waitBadge(3, "closed", "closed 1000")
	p.click("section:nth-of-type(3) .close") // it connects again
	p.waitBadge(3, "open", "app-")
	p.say(3, "chat", "back again")
	for i := 1; i <= 3; i++ {
		p.waitLine(i, "Participant 3: back again")
	}

	p.click("#add")
	p.waitBadge(4, "open", "app-")

	p.demo.signal(syscall.SIGTERM)
	for i := 1; i <= 4; i++ {
		p.waitLine(i, "closed with 1001: shutdown")
	}
	p.demo.waitExit()
	if p.demo.err != nil {
		t.Errorf("exit: %v", p.demo.err)
	}
}

// page is the page of a demo in a browser.
type page struct {
	t    *testing.T
	ctx  context.Context
	demo *demo
}

// openDemo starts a demo and opens its page.
func openDemo(t *testing.T) *page {
	t.Helper()
	d := startDemo(t, []string{binary})
	p := &page{t, openBrowser(t), d}
	p.do(chromedp.Navigate("https://localhost:" + d.port + "/"))
	return p
}

// openBrowser starts a browser, which ends with the test. Without one the test is skipped,
// or fails if CI is set.
func openBrowser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		missing(t, "no Chromium")
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.Headless, chromedp.NoFirstRun,
		chromedp.Flag("no-sandbox", true), chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("ignore-certificate-errors", true))
	t.Cleanup(cancel) // waits for the end of the browser and of its files
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

func (p *page) do(a chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, a); err != nil {
		p.t.Fatalf("%v\n%s", err, p.demo.output())
	}
}

func (p *page) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// say types a text into the box of a participant, from 1, and presses a button.
func (p *page) say(participant int, kind, text string) {
	p.t.Helper()
	section := fmt.Sprintf("section:nth-of-type(%d) ", participant)
	p.do(chromedp.SendKeys(chromedp.CSS(section+"input"), text))
	p.click(section + "button[value=" + kind + "]")
}

// evaluate is the value of a JavaScript expression. The page's policy forbids eval in the
// page itself, so that it cannot be waited for there.
func evaluate[T any](p *page, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", expression, err, p.demo.output())
	}
	return v
}

// wait polls until cond holds.
func (p *page) wait(what string, cond func() bool) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(soon)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("not so within %v: %s\n%s\n%s", soon, what, evaluate[string](p, "document.body.innerText"), p.demo.output())
		}
	}
}

func (p *page) app(participant int) string {
	return evaluate[string](p, fmt.Sprintf(`document.querySelectorAll("section")[%d].dataset.app`, participant-1))
}

// lines are what a participant has read.
func (p *page) lines(participant int) []string {
	return evaluate[[]string](p, fmt.Sprintf(`[...document.querySelectorAll("section")[%d].querySelectorAll("li")].map((li) => li.textContent)`, participant-1))
}

// waitLine waits for a line that begins with text.
func (p *page) waitLine(participant int, text string) {
	p.t.Helper()
	p.wait(fmt.Sprintf("participant %d reads %q", participant, text), func() bool {
		return slices.ContainsFunc(p.lines(participant), func(l string) bool { return strings.HasPrefix(l, text) })
	})
}

// waitBadge waits for a state, and a text that the badge begins with.
func (p *page) waitBadge(participant int, state, text string) {
	p.t.Helper()
	p.wait(fmt.Sprintf("participant %d is %s: %s", participant, state, text), func() bool {
		badge := evaluate[[]string](p, fmt.Sprintf(`(() => { const b = document.querySelectorAll("section")[%d].querySelector(".app"); return [b.dataset.state, b.textContent]; })()`, participant-1))
		return badge[0] == state && strings.HasPrefix(badge[1], text)
	})
}
