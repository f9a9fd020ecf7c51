// Package docs_test holds the documentation against the code: keys, defaults, metrics,
// examples and links.
package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the top of the checkout.
const root = ".."

// page is one Markdown file.
type page struct {
	name string // relative to the top of the checkout
	text string
}

// pages are all Markdown files that users and contributors read.
func pages(t *testing.T) []page {
	t.Helper()
	var all []page
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md", "test/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			relative, err := filepath.Rel(root, name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, read(t, relative))
		}
	}
	if len(all) < 10 {
		t.Fatalf("found %d pages only", len(all))
	}
	return all
}

func read(t *testing.T, name string) page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return page{name, string(b)}
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns the code blocks in a language.
func (p page) blocks(language string) (texts []string) {
	for _, m := range fence.FindAllStringSubmatch(p.text, -1) {
		if m[1] == language {
			texts = append(texts, m[2])
		}
	}
	return texts
}

// prose is the page without its code blocks.
func (p page) prose() string { return fence.ReplaceAllString(p.text, "") }

// rows returns the cells of every table row whose first cell is one piece of code,
// which is returned without its backticks.
func (p page) rows() (rows [][]string) {
	for line := range strings.SplitSeq(p.prose(), "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if name, ok := code(cells[0]); ok {
			rows = append(rows, append([]string{name}, cells[1:]...))
		}
	}
	return rows
}

// code returns what stands between backticks, if that is all there is.
func code(cell string) (string, bool) {
	inner := strings.TrimSuffix(strings.TrimPrefix(cell, "`"), "`")
	return inner, len(inner) == len(cell)-2 && !strings.Contains(inner, "`")
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the names under which the headings of a page can be linked to.
func (p page) anchors() (names []string) {
	for _, m := range heading.FindAllStringSubmatch(p.prose(), -1) {
		plain := noSlug.ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(plain, " ", "-"))
	}
	return names
}

func TestLinks(t *testing.T) {
	all := pages(t)
	byName := map[string]page{}
	for _, p := range all {
		byName[p.name] = p
	}
	for _, p := range all {
		for _, m := range link.FindAllStringSubmatch(p.prose(), -1) {
			target := m[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			name := p.name
			if file != "" {
				name = filepath.Join(filepath.Dir(p.name), file)
			}
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s: link to %s: %v", p.name, target, err)
				continue
			}
			if anchor == "" {
				continue
			}
			if to, ok := byName[name]; !ok || !slices.Contains(to.anchors(), anchor) {
				t.Errorf("%s: link to %s: there is no such heading", p.name, target)
			}
		}
	}
}

// TestEveryPageIsReachable follows links from the README.
func TestEveryPageIsReachable(t *testing.T) {
	all := pages(t)
	reached := map[string]bool{"README.md": true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !reached[p.name] {
				continue
			}
			for _, m := range link.FindAllStringSubmatch(p.prose(), -1) {
				file, _, _ := strings.Cut(m[1], "#")
				if name := filepath.Join(filepath.Dir(p.name), file); file != "" && !reached[name] {
					reached[name], grown = true, true
				}
			}
		}
	}
	for _, p := range all {
		if !reached[p.name] {
			t.Errorf("no page links to %s", p.name)
		}
	}
}
