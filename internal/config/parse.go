package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxFileBytes bounds what is parsed. It is far above any real configuration.
const maxFileBytes = 8 << 20

// parseYAML returns the root value of the one document in data, or nil after it has
// reported why there is none.
func parseYAML(r *report, data []byte) *yaml.Node {
	if len(data) > maxFileBytes {
		r.failAt(mark{1, 1}, "", "the file is larger than %d MiB", maxFileBytes>>20)
		return nil
	}
	if at, ok := firstUnreadable(data); !ok {
		r.failAt(at, "", "the file must be UTF-8 text without control characters")
		return nil
	}
	documents, err := loadNodes(data)
	if err != nil {
		at, message := translate(err)
		r.failAt(at, "", "%s", message)
		return nil
	}
	if len(documents) > 1 {
		r.failAt(markOf(documents[1]), "", "a second YAML document starts here; the file must hold one")
		return nil
	}
	if len(documents) == 0 || len(documents[0].Content) == 0 || isEmptyDocument(documents[0].Content[0]) {
		r.failAt(mark{1, 1}, "", "the file is empty; it needs at least listeners, routes and pools")
		return nil
	}
	return documents[0].Content[0]
}

// loadNodes reads up to two documents: the second one is only there to be refused.
func loadNodes(data []byte) (documents []*yaml.Node, err error) {
	// The parser panics on what it takes for an error of its own, in corners of its
	// handling of comments for example. To whoever wrote the file that is no
	// different from a syntax error.
	defer func() {
		if p := recover(); p != nil {
			documents, err = nil, fmt.Errorf("parsing YAML: %v", p)
		}
	}()
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for len(documents) < 2 {
		var node yaml.Node
		switch err := loader.Load(&node); {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return nil, err
		}
		documents = append(documents, &node)
	}
	return documents, nil
}

// isEmptyDocument tells "---" and comments alone from a document with content.
func isEmptyDocument(root *yaml.Node) bool {
	return root.Kind == yaml.ScalarNode && root.Value == "" && root.ShortTag() == "!!null"
}

// firstUnreadable finds the first character that YAML 1.2 §5.1 does not allow. The
// parser refuses them too, but cannot say where they are.
func firstUnreadable(data []byte) (mark, bool) {
	at := mark{1, 1}
	for len(data) > 0 {
		c, size := utf8.DecodeRune(data)
		switch {
		case c == utf8.RuneError && size == 1, c < ' ' && c != '\t' && c != '\n' && c != '\r',
			0x7f <= c && c < 0xa0 && c != 0x85, c == 0xfffe, c == 0xffff:
			return at, false
		case c == '\n':
			at = mark{at.line + 1, 0}
		}
		at.col++
		data = data[size:]
	}
	return mark{}, true
}

// plainWords replaces what the parser says about mistakes that people often make.
var plainWords = map[string]string{
	"mapping values are not allowed in this context":         `a ":" cannot stand here: put the value in quotes, or check the indentation of the line`,
	"did not find expected key":                              "this line is not indented like the one that it belongs to",
	"did not find expected '-' indicator":                    "this line is not indented like the list that it belongs to",
	"did not find expected node content":                     "a value is missing here",
	"did not find expected ',' or ']'":                       `expected "," or "]" (inside [ ] and { } a value with ${…} needs quotes)`,
	"did not find expected ',' or '}'":                       `expected "," or "}" (inside [ ] and { } a value with ${…} needs quotes)`,
	"found character that cannot start any token":            "a value cannot start with this character: put it in quotes, and indent with spaces, not tabs",
	"found a tab character that violates indentation":        "indent with spaces, not tabs",
	"found unexpected end of stream":                         "the closing quote is missing",
	"could not find expected ':'":                            `expected ":" after the key`,
	"found unknown escape character":                         `unknown escape behind "\" (single quotes take text as it is)`,
	"did not find expected <document start>":                 "text behind the end of the document",
	"block sequence entries are not allowed in this context": `a list cannot start on the line of its key`,
}

// translate turns an error of the YAML library into a position and a message.
func translate(err error) (mark, string) {
	e, ok := errors.AsType[*yaml.LoadError](err)
	if !ok || e.Mark.Line < 1 {
		return mark{1, 1}, "invalid YAML: " + oneLine(err.Error())
	}
	message := oneLine(e.Message)
	if plain, ok := plainWords[message]; ok {
		message = plain
	}
	at := mark{e.Mark.Line, max(e.Mark.Column, 1)}
	if e.ContextMark.Line > 0 && e.ContextMark.Line != e.Mark.Line {
		message += fmt.Sprintf(" (%s that starts at %d:%d)",
			oneLine(e.ContextMsg), e.ContextMark.Line, max(e.ContextMark.Column, 1))
	}
	return at, "invalid YAML: " + message
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func markOf(n *yaml.Node) mark { return mark{max(n.Line, 1), max(n.Column, 1)} }
