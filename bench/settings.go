package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed configs
var configs embed.FS

// maxSessions is what the proxies are told; each session takes two descriptors of 20,000.
const maxSessions = 9600

// setting is one way to run one proxy.
type setting struct {
	proxy    string // direct | haproxy | nginx | caddy | tidegate: what the report compares
	name     string
	template string
	// of the templates
	BufSize                        int
	EdgeTriggered, Splice, NoDelay bool
	Buffering                      bool
	WebSocket                      string // policies of the route, empty: the defaults
	// binary is run instead of Tidegate's.
	binary string
	// where says for which measures a setting is worth trying; nil: all.
	where func(*measure) bool
}

// large are measures whose messages do not fit into default buffers.
func large(m *measure) bool { return m.size() >= 16<<10 }

func small(m *measure) bool { return m.kind == perMessage && m.load.Size == 64 }

func busy(m *measure) bool { return m.memory == nil }

// plainOnly is for what TLS rules out.
func plainOnly(m *measure) bool { return !m.secure && m.size() > 0 }

// plainHTTP is for measures without WebSocket.
func plainHTTP(m *measure) bool { return m.requests != nil }

// settings are all ways, each proxy's plain one first.
func settings() []*setting {
	return []*setting{
		{proxy: "direct", name: "direct"},
		{proxy: "haproxy", name: "haproxy", template: "haproxy.cfg"},
		{proxy: "haproxy", name: "haproxy, 32 KiB buffers", template: "haproxy.cfg", BufSize: 32 << 10, where: large},
		{proxy: "haproxy", name: "haproxy, splice-auto", template: "haproxy.cfg", Splice: true, where: plainOnly},
		{proxy: "haproxy", name: "haproxy, edge-triggered", template: "haproxy.cfg", EdgeTriggered: true, where: busy},
		{proxy: "haproxy", name: "haproxy, http-no-delay", template: "haproxy.cfg", NoDelay: true, where: small},
		{proxy: "nginx", name: "nginx", template: "nginx.conf"},
		{proxy: "nginx", name: "nginx, 32 KiB buffers", template: "nginx.conf", BufSize: 32 << 10, where: large},
		{proxy: "nginx", name: "nginx, proxy_buffering", template: "nginx.conf", Buffering: true, where: plainHTTP},
		{proxy: "caddy", name: "caddy", template: "Caddyfile", where: plainHTTP},
		{proxy: "tidegate", name: "tidegate", template: "tidegate.yaml"},
	}
}

// variant tells whether s is another way than the proxy's plain one.
func (s *setting) variant() bool { return s.name != s.proxy }

// ends are where a proxy's configuration leads from and to.
type ends struct {
	Plain, Secure, Admin, Backend string // addresses
	Dir                           string // of the certificate
	MaxSessions                   int
}

// proxy is a running proxy, or for "direct" the backend itself.
type proxy struct {
	*process
	*setting
	plain, secure string // addresses
}

// startProxy writes the configuration of s and runs it before a backend. The caller stops
// it.
func (b *bench) startProxy(ctx context.Context, s *setting, to backend) (p *proxy, err error) {
	if s.proxy == "direct" {
		return &proxy{setting: s, plain: to.plain, secure: to.secure}, nil
	}
	dir, err := os.MkdirTemp(b.dir, s.proxy+"-")
	if err != nil {
		return nil, err
	}
	p = &proxy{setting: s}
	v := struct {
		*setting
		ends
	}{s, ends{Backend: to.plain, Dir: b.dir, MaxSessions: maxSessions}}
	if s.Splice { // takes two descriptors more for the pipe
		v.MaxSessions = maxSessions / 2
	}
	for _, addr := range []*string{&v.Plain, &v.Secure, &v.Admin} {
		if *addr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	if s.proxy == "nginx" { // writes beside its configuration
		v.Dir = dir
		for _, f := range []string{"cert.pem", "key.pem"} {
			if err := os.Symlink(filepath.Join(b.dir, f), filepath.Join(dir, f)); err != nil {
				return nil, err
			}
		}
	}
	p.plain, p.secure = v.Plain, v.Secure
	config := filepath.Join(dir, s.template)
	text, err := render(s.template, v)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	args := map[string][]string{
		"haproxy":  {b.o.haproxy, "-db", "-f", config},
		"nginx":    {b.o.nginx, "-p", dir, "-c", config},
		"caddy":    {b.o.caddy, "run", "--adapter", "caddyfile", "--config", config},
		"tidegate": {cmp.Or(s.binary, b.o.tidegate), "run", "--config", config},
	}[s.proxy]
	if p.process, err = start(s.name, b.o.proxyCore, args...); err != nil {
		return nil, err
	}
	if err := p.ready(ctx, p.plain, p.secure); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *proxy) end() {
	if p.process != nil {
		p.stop()
	}
}

func render(name string, v any) ([]byte, error) {
	t, err := template.New(name+".tmpl").Funcs(template.FuncMap{"port": port}).ParseFS(configs, "configs/"+name+".tmpl")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return nil, fmt.Errorf("making %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// port is the port of an address.
func port(addr string) (string, error) {
	_, port, err := net.SplitHostPort(addr)
	return port, err
}
