package test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// script is a process of Node.js that runs one of the scripts of test/npm: it takes commands
// and reports what happens as lines of JSON.
type script struct {
	mu    sync.Mutex
	stdin io.WriteCloser
}

// startScript runs a script, with an environment, until the test ends. hear gets each line that
// it writes, in order.
func startScript(t *testing.T, hear func(line []byte), env []string, args ...string) *script {
	t.Helper()
	cmd := exec.Command("node", args...)
	cmd.Dir, cmd.Stderr = "npm", os.Stderr
	cmd.Env = append(os.Environ(), env...)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewReaderSize(stdout, 1<<16)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			hear(line)
		}
	}()
	t.Cleanup(func() {
		stdin.Close() // ends it
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", args[0], err)
		}
	})
	return &script{stdin: stdin}
}

// tell gives the script a command.
func (s *script) tell(command map[string]any) error {
	line, err := json.Marshal(command)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.stdin.Write(append(line, '\n'))
	return err
}
