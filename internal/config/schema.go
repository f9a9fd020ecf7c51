package config

import (
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"time"
)

// field is one key of a mapping, read from the struct tags (see file.go).
type field struct {
	key      string
	index    []int
	required bool
	noEmpty  bool
	unique   bool
	scalar   scalarRule
}

// schemas caches schemaOf by type.
var schemas sync.Map

// schemaOf returns the keys that a mapping for t can have, in the order of t's fields.
func schemaOf(t reflect.Type) []field {
	if known, ok := schemas.Load(t); ok {
		return known.([]field)
	}
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, ok := f.Tag.Lookup("key")
		if !ok {
			continue
		}
		fields = append(fields, field{
			key:      key,
			index:    f.Index,
			required: f.Tag.Get("required") == "true",
			noEmpty:  f.Tag.Get("noempty") == "true" || f.Tag.Get("required") == "true",
			unique:   f.Tag.Get("unique") == "true",
			scalar: scalarRule{
				noun:  key,
				as:    f.Tag.Get("as"),
				oneof: words(f.Tag.Get("oneof")),
				limit: f.Tag.Get("range"),
			},
		})
	}
	schemas.Store(t, fields)
	return fields
}

func words(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// keysOf returns the keys of t, those of later versions included.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range schemaOf(t) {
		keys = append(keys, f.key)
	}
	return append(keys, laterKeys[t]...)
}

// places maps each key to where mappings have it, such as "pools[].upstream"; ""
// is the top of the file.
var places = sync.OnceValue(func() map[string][]string {
	all := map[string][]string{}
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for _, f := range schemaOf(t) {
			all[f.key] = append(all[f.key], path)
			below, inner := join(path, f.key), t.FieldByIndex(f.index).Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				if inner.Kind() == reflect.Slice {
					below += "[]"
				}
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && !isScalar(inner) {
				walk(inner, below)
			}
		}
		for _, key := range laterKeys[t] {
			all[key] = append(all[key], path)
		}
	}
	walk(reflect.TypeFor[File](), "")
	return all
})

// elsewhere returns the one place that has key, if there is just one.
func elsewhere(key string) (place string, ok bool) {
	at := places()[key]
	if len(at) != 1 {
		return "", false
	}
	if at[0] == "" {
		return "the top level of the file", true
	}
	return at[0], true
}

var (
	typeDuration   = reflect.TypeFor[time.Duration]()
	typePrefix     = reflect.TypeFor[netip.Prefix]()
	typeAddr       = reflect.TypeFor[netip.Addr]()
	typeHashSource = reflect.TypeFor[HashSource]()
	typeMemorySize = reflect.TypeFor[MemorySize]()
)

// isScalar reports whether values of t are written as one scalar.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		return t == typePrefix || t == typeAddr || t == typeHashSource || t == typeMemorySize
	case reflect.Slice, reflect.Map, reflect.Pointer:
		return false
	}
	return true
}
