package config

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
)

// Load reads, decodes and checks the YAML file at path, with the environment of the
// process. The error is a [Diagnostics] if the file could be read, however wrong it
// is, and otherwise says why it could not.
func Load(path string) (*File, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, os.LookupEnv)
}

// Read reads the YAML file at path for [Parse], a little more of it than Parse accepts at
// most. Unlike the files that a configuration names, this one may be a pipe.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	return data, nil
}

// Parse decodes and checks data as the content of a file called name, which need not
// exist: it stands in diagnostics, and relative file names in data are relative to
// its directory. env looks up environment variables; nil has none. Files that data
// names are read to check them. The error is a [Diagnostics].
func Parse(name string, data []byte, env func(string) (string, bool)) (*File, error) {
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	return parse(name, data, env, readRegular)
}

// parse is Parse with a replaceable way to read referenced files.
func parse(name string, data []byte, env func(string) (string, bool), read func(string) ([]byte, error)) (*File, error) {
	r := newReport(name)
	file := &File{Name: name, Digest: sha256.Sum256(data)}
	if root := parseYAML(r, data); root != nil {
		target := reflect.ValueOf(file).Elem()
		applyDefaults(target)
		d := &decoder{report: r, dir: filepath.Dir(name), env: env}
		d.decode(value{node: root, at: markOf(root)}, target, field{})
		v := &validator{report: r, file: file, env: env, read: read}
		v.validate()
	}
	if len(r.diags) > 0 {
		return nil, r.diags.sorted()
	}
	return file, nil
}
