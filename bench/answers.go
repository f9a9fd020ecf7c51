package main

import (
	"bytes"
	cryptotls "crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync"
)

// answers is the backend of plain HTTP requests: "/N" is answered with N bytes, over
// connections that stay. It is made for this load alone and must cost little, as it shares
// a core with the clients. What it does not expect of a proxy gets a 400.
type answers struct {
	ln      net.Listener
	serving sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil: closed
}

// maxAnswer is the longest answer, in bytes.
const maxAnswer = 64 << 10

// content is what answers consist of; no two of its parts of 256 bytes are alike.
var content = func() []byte {
	b := make([]byte, maxAnswer)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}()

// newAnswers listens on loopback; with a certificate it speaks TLS. The caller closes it.
func newAnswers(config *cryptotls.Config) (*answers, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if config != nil {
		ln = cryptotls.NewListener(ln, config)
	}
	a := &answers{ln: ln, conns: map[net.Conn]struct{}{}}
	a.serving.Go(a.accept)
	return a, nil
}

func (a *answers) addr() string { return a.ln.Addr().String() }

// close ends all connections and waits for their goroutines.
func (a *answers) close() {
	a.ln.Close()
	a.mu.Lock()
	for conn := range a.conns {
		conn.Close()
	}
	a.conns = nil
	a.mu.Unlock()
	a.serving.Wait()
}

func (a *answers) accept() {
	for {
		conn, err := a.ln.Accept()
		if err != nil {
			return // closed; for want of descriptors the clients see why
		}
		a.mu.Lock()
		if a.conns == nil {
			conn.Close()
		} else {
			a.conns[conn] = struct{}{}
			a.serving.Go(func() { a.serve(conn) })
		}
		a.mu.Unlock()
	}
}

func (a *answers) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		a.mu.Lock()
		delete(a.conns, conn)
		a.mu.Unlock()
	}()
	size, answer := -1, []byte(nil)
	r := &headReader{conn: conn, buf: make([]byte, maxHead+maxAnswer)}
	for {
		head, err := r.next()
		if err != nil {
			return // the proxy has no more
		}
		want, err := wanted(head)
		if err == nil {
			_, err = r.body(length(head))
		}
		if err != nil {
			fmt.Fprintf(conn, "HTTP/1.1 400 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", err)
			return
		}
		if want != size { // as good as never: a connection carries one measure
			size, answer = want, answerOf(want)
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// wanted is the number in a request line such as "GET /64 HTTP/1.1".
func wanted(head []byte) (int, error) {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	words := bytes.Fields(line)
	if len(words) != 3 || string(words[2]) != "HTTP/1.1" {
		return 0, fmt.Errorf("request line is %q", line)
	}
	n, err := strconv.Atoi(string(bytes.TrimPrefix(words[1], []byte("/"))))
	if err != nil || n < 0 || n > maxAnswer {
		return 0, fmt.Errorf("no size in %q", words[1])
	}
	if header(head, "Transfer-Encoding") != nil {
		return 0, fmt.Errorf("the request has become chunked")
	}
	return n, nil
}

// answerOf has the headers that most answers have.
func answerOf(size int) []byte {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT\r\nContent-Type: application/octet-stream\r\n"+
		"Cache-Control: no-cache\r\nContent-Length: %d\r\n\r\n", size)
	return append([]byte(head), content[:size]...)
}

// maxHead is the longest head of a request or an answer, in bytes.
const maxHead = 8 << 10

// headReader reads messages with a length from a connection, without allocating. A message
// and its head are valid until the next one.
type headReader struct {
	conn       net.Conn
	buf        []byte
	begin, end int // of what is read and not taken
}

// next reads a head, with its empty line.
func (r *headReader) next() ([]byte, error) {
	r.end = copy(r.buf, r.buf[r.begin:r.end])
	r.begin = 0
	for {
		if i := bytes.Index(r.buf[:r.end], []byte("\r\n\r\n")); i >= 0 {
			r.begin = i + 4
			return r.buf[:r.begin], nil
		}
		if r.end > maxHead {
			return nil, fmt.Errorf("no end of the head in %d bytes", r.end)
		}
		if err := r.more(); err != nil {
			return nil, err
		}
	}
}

// body reads n bytes behind the head.
func (r *headReader) body(n int) ([]byte, error) {
	if n < 0 || r.begin+n > len(r.buf) {
		return nil, fmt.Errorf("a body of %d bytes", n)
	}
	for r.end < r.begin+n {
		if err := r.more(); err != nil {
			return nil, err
		}
	}
	r.begin += n
	return r.buf[r.begin-n : r.begin], nil
}

func (r *headReader) more() error {
	n, err := r.conn.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	return err
}

// header is the value of the first header of that name; nil: there is none.
func header(head []byte, name string) []byte {
	for line := range bytes.Lines(head) {
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.TrimSpace(line[len(name)+1:])
		}
	}
	return nil
}

// length is the Content-Length, 0 without one and -1 if it is none.
func length(head []byte) int {
	value := header(head, "Content-Length")
	if value == nil {
		return 0
	}
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return -1
	}
	return n
}
