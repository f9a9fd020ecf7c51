package config

import (
	"path/filepath"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v4"
)

// maxAliased bounds how many values are decoded through aliases, so that a short file
// cannot describe a huge configuration.
const maxAliased = 50_000

// decoder fills Go values from YAML nodes. It reports what does not fit and goes on.
type decoder struct {
	*report
	dir     string // of the YAML file, for relative file names
	env     func(string) (string, bool)
	aliased int
}

// value is a node at its place in the structure.
type value struct {
	node *yaml.Node
	path string
	// at is the position of the node, or of the alias through which it is used.
	at      mark
	inAlias bool
}

// child is the value of n inside v.
func (v value) child(n *yaml.Node, path string) value {
	c := value{node: n, path: path, at: markOf(n), inAlias: v.inAlias}
	if v.inAlias {
		c.at = v.at
	}
	return c
}

// markOf is the position of a key inside v.
func (v value) markOf(key *yaml.Node) mark {
	if v.inAlias {
		return v.at
	}
	return markOf(key)
}

// decode puts v into dst by the type of dst.
func (d *decoder) decode(v value, dst reflect.Value, f field) {
	d.marks[v.path] = v.at
	v, ok := d.resolve(v)
	if !ok {
		return
	}
	switch t := dst.Type(); {
	case isScalar(t):
		d.decodeScalar(v, dst, f.scalar)
	case t.Kind() == reflect.Pointer:
		fresh := reflect.New(t.Elem())
		applyDefaults(fresh.Elem())
		d.decode(v, fresh.Elem(), f)
		dst.Set(fresh)
	case t.Kind() == reflect.Struct:
		d.decodeStruct(v, dst)
	case t.Kind() == reflect.Slice:
		d.decodeList(v, dst, f)
	case t.Kind() == reflect.Map:
		d.decodeMap(v, dst, f)
	}
}

// resolve follows an alias and refuses what no value may be.
func (d *decoder) resolve(v value) (value, bool) {
	for v.node.Kind == yaml.AliasNode {
		v.node, v.inAlias = v.node.Alias, true
	}
	if v.inAlias {
		if d.aliased++; d.aliased > maxAliased {
			if d.aliased == maxAliased+1 {
				d.fail(v.path, "more than %d values come from aliases", maxAliased)
			}
			d.broken[v.path] = true
			return v, false
		}
	}
	if v.node.Style&yaml.TaggedStyle != 0 {
		d.fail(v.path, "tags such as %s are not supported", quote(v.node.Tag))
		return v, false
	}
	return v, true
}

// kindOf names what a node is in messages.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.ShortTag() == "!!null" {
		return "nothing"
	}
	return quote(n.Value)
}

// want reports whether v is of the given kind; if not it says what was expected.
func (d *decoder) want(v value, kind yaml.Kind, what string) bool {
	if v.node.Kind == kind && (kind != yaml.ScalarNode || v.node.ShortTag() != "!!null") {
		return true
	}
	found, hint := kindOf(v.node), ""
	switch {
	case found == "nothing":
		hint = " (give it a value or leave it out)"
	case kind == yaml.SequenceNode && v.node.Kind == yaml.ScalarNode:
		hint = " (write [" + found + "])"
	}
	d.fail(v.path, "expected %s, found %s%s", what, found, hint)
	return false
}

func (d *decoder) decodeStruct(v value, dst reflect.Value) {
	if !d.want(v, yaml.MappingNode, "a mapping") {
		return
	}
	fields := schemaOf(dst.Type())
	seen := map[string]bool{}
	understood := d.eachKey(v, func(key, node *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
		if i < 0 {
			meant := d.unknownKey(v, key, dst.Type())
			seen[meant] = true // it is misspelt, not missing
			return
		}
		seen[key.Value] = true
		f := fields[i]
		path := join(v.path, f.key)
		target := dst.FieldByIndex(f.index)
		d.decode(v.child(node, path), target, f)
		if f.required && d.usable(path) && target.Kind() == reflect.String && target.Len() == 0 {
			d.fail(path, "must not be empty")
		}
	})
	for _, f := range fields {
		if understood && f.required && !seen[f.key] && dst.FieldByIndex(f.index).IsZero() {
			d.fail(join(v.path, f.key), "required, but missing")
		}
	}
}

// eachKey calls do for the keys of a mapping that can be looked at any further. It
// returns false if the mapping wants keys from elsewhere, so that none can be called
// missing.
func (d *decoder) eachKey(v value, do func(key, node *yaml.Node)) (understood bool) {
	understood = true
	first := map[string]mark{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, node := v.node.Content[i], v.node.Content[i+1]
		at := v.markOf(key)
		previous, repeated := first[key.Value]
		switch {
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			understood = false
			d.failAt(at, v.path, "merge keys (<<) are not supported; an alias can stand for a whole value")
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" || key.Style&yaml.TaggedStyle != 0:
			d.failAt(at, v.path, "a key must be plain text")
		case repeated:
			d.failAt(at, v.path, "duplicate key %s, which is at %s already", quote(key.Value), previous)
		default:
			first[key.Value] = at
			do(key, node)
		}
	}
	return understood
}

// unknownKey reports a key that t does not have and returns the one that was meant, as
// far as that can be told.
func (d *decoder) unknownKey(v value, key *yaml.Node, t reflect.Type) (meant string) {
	at := v.markOf(key)
	if isLaterKey(t, key.Value) {
		d.failAt(at, v.path, "%s", notYet("key", key.Value))
		return ""
	}
	hint := ""
	if place, ok := elsewhere(key.Value); ok {
		hint = ` (it belongs in ` + place + `)`
	}
	if meant = suggest(key.Value, keysOf(t)); meant != "" {
		hint = ` (did you mean "` + meant + `"?)`
	}
	d.failAt(at, v.path, "unknown key %s%s", quote(key.Value), hint)
	return meant
}

func (d *decoder) decodeList(v value, dst reflect.Value, f field) {
	if !d.want(v, yaml.SequenceNode, "a list") {
		return
	}
	if f.noEmpty && len(v.node.Content) == 0 {
		d.fail(v.path, "needs at least one element")
		return
	}
	elements := reflect.MakeSlice(dst.Type(), len(v.node.Content), len(v.node.Content))
	for i, node := range v.node.Content {
		e := elements.Index(i)
		applyDefaults(e)
		path := element(v.path, i)
		d.decode(v.child(node, path), e, f)
		if e.Kind() == reflect.String && e.Len() == 0 && d.usable(path) {
			d.fail(path, "must not be empty")
		}
	}
	dst.Set(elements)
	if f.unique && d.usable(v.path) {
		d.refuseRepeats(v.path, dst)
	}
}

// refuseRepeats reports elements of a list that stand in it before.
func (d *decoder) refuseRepeats(path string, list reflect.Value) {
	first := map[any]int{}
	for i := range list.Len() {
		e := list.Index(i).Interface()
		if before, ok := first[e]; ok {
			d.add(element(path, i), "repeats %s", element(path, before))
			continue
		}
		first[e] = i
	}
}

// decodeMap decodes a mapping whose keys are the user's own. All of those are header
// names.
func (d *decoder) decodeMap(v value, dst reflect.Value, f field) {
	if !d.want(v, yaml.MappingNode, "a mapping") {
		return
	}
	entries := reflect.MakeMap(dst.Type())
	d.eachKey(v, func(key, node *yaml.Node) {
		if !isToken(key.Value) {
			d.failAt(v.markOf(key), v.path, "%s is not a valid header name", quote(key.Value))
			return
		}
		path := join(v.path, key.Value)
		e := reflect.New(dst.Type().Elem()).Elem()
		d.decode(v.child(node, path), e, f)
		entries.SetMapIndex(reflect.ValueOf(key.Value), e)
	})
	dst.Set(entries)
}

// decodeScalar decodes one scalar. Quotes do not matter where text is as good as a
// number, as in 30s and "30s"; they do for true and 5, unless a variable is expanded.
func (d *decoder) decodeScalar(v value, dst reflect.Value, rule scalarRule) {
	what := rule.expects(dst.Type())
	if !d.want(v, yaml.ScalarNode, what) {
		return
	}
	text, expanded, err := expand(v.node.Value, d.env)
	if err != nil {
		d.fail(v.path, "%s", err)
		return
	}
	quoted := v.node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if quoted && !expanded && rule.isBare(dst.Type()) {
		d.fail(v.path, "expected %s, found the text %s (leave the quotes out)", what, quote(text))
		return
	}
	got, err := rule.convert(text, dst.Type())
	if err != nil {
		d.fail(v.path, "%s", err)
		return
	}
	if rule.as == "file" && text != "" && !filepath.IsAbs(text) {
		got = filepath.Join(d.dir, text)
	}
	dst.Set(reflect.ValueOf(got).Convert(dst.Type()))
}
