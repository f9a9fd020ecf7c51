package config

import (
	"fmt"
	"strings"
)

// expand replaces ${NAME} and ${NAME:-default} in the text of one value and turns
// $${ into ${. A default serves for a variable that is unset or empty, as in a shell.
// What comes in is not expanded again. It also says whether a variable was looked up:
// then the value is text of the environment, whatever its quotes in the YAML.
func expand(text string, env func(string) (string, bool)) (out string, expanded bool, err error) {
	if !strings.Contains(text, "${") {
		return text, false, nil
	}
	var b strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			b.WriteString(text)
			return b.String(), expanded, nil
		}
		if i > 0 && text[i-1] == '$' {
			b.WriteString(text[:i-1])
			b.WriteString("${")
			text = text[i+2:]
			continue
		}
		b.WriteString(text[:i])
		reference, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed {
			return "", false, fmt.Errorf("%s has no closing brace (write $${ for a literal ${)", quote(text[i:]))
		}
		value, err := lookUp(reference, env)
		if err != nil {
			return "", false, err
		}
		b.WriteString(value)
		expanded = true
		text = rest
	}
}

// lookUp resolves what stands between the braces.
func lookUp(reference string, env func(string) (string, bool)) (string, error) {
	name, fallback, hasFallback := strings.Cut(reference, ":-")
	if !isEnvName(name) {
		return "", fmt.Errorf("%s is no reference to an environment variable: write ${NAME} or ${NAME:-default}, or $${ for a literal ${",
			quote("${"+reference+"}"))
	}
	value, ok := env(name)
	switch {
	case hasFallback && value == "":
		return fallback, nil
	case !ok:
		return "", fmt.Errorf("environment variable %s is not set (write ${%s:-default} to do without it)", name, name)
	}
	return value, nil
}

// isEnvName reports whether s is a name as POSIX shells accept it.
func isEnvName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
