package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tidegate/tidegate/tls"
)

//go:embed install.sh
var installScript []byte

// install makes sure that the programs are there.
func install(ctx context.Context, programs ...string) error {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("%s missing: install the packages, or run this as root where apt-get is", strings.Join(missing, " and "))
	}
	fmt.Fprintln(os.Stderr, "installing", strings.Join(missing, " and "))
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-s", "--"}, missing...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(installScript), os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("installing %s: %w", strings.Join(missing, " and "), err)
	}
	return nil
}

// writeCertificate writes cert.pem, key.pem and both.pem, ECDSA P-256, into dir.
func writeCertificate(dir string) error {
	cert, key, err := tls.NewDevelopmentCertificate()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600),
		os.WriteFile(filepath.Join(dir, "both.pem"), append(cert, key...), 0o600))
}

// buildTidegate builds the command into dir, as `make build` does, on both cores.
func buildTidegate(ctx context.Context, dir string, o *options) (string, error) {
	path := filepath.Join(dir, "tidegate")
	args := []string{"-c", fmt.Sprintf("%d,%d", o.proxyCore, o.loadCore), "go", "build", "-trimpath", "-o", path}
	if version, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		args = append(args, "-ldflags", "-X main.version="+strings.TrimSpace(string(version)))
	}
	cmd := exec.CommandContext(ctx, "taskset", append(args, "./cmd/tidegate")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building tidegate (run this where go.mod is): %w: %s", err, out)
	}
	return path, nil
}

// buildCaddy builds Caddy, or finds the one that was built before, on both cores.
func buildCaddy(ctx context.Context, o *options) (string, error) {
	cmd := exec.CommandContext(ctx, "taskset", "-c", fmt.Sprintf("%d,%d", o.proxyCore, o.loadCore), "bench/caddy/build.sh")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building caddy (run this where go.mod is, or see -caddy): %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
