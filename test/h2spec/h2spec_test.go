// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package h2spec

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/message"
)

const tool = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"

// TestServer wants every case of the strict suite to pass.
func TestServer(t *testing.T) {
	dir := t.TempDir()
	install := exec.Command("go", "install", tool)
	install.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("%s cannot be built here: %v\n%s", tool, err, out)
	}
	host, port, err := net.SplitHostPort(serve(t))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "h2spec"), "--strict", "-h", host, "-p", port, "-o", "5").CombinedOutput()
	report := string(out)
	if err != nil || !strings.Contains(report, " 0 skipped, 0 failed") {
		t.Fatalf("h2spec: %v\n%s", err, report)
	}
	t.Log(report[strings.LastIndex(strings.TrimSpace(report), "\n")+1:])
}

// serve answers on a port of its own until the test ends, and returns its address.
func serve(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go http2.NewServer(nc, http2.ServerDefaults(), answer).Serve(nil)
		}
	}()
	return l.Addr().String()
}

func answer(s *http2.ServerStream) {
	if _, err := io.Copy(io.Discard, s); err != nil {
		return
	}
	resp := message.Response{Status: 200}
	resp.Header.Add("content-type", "text/plain")
	if s.WriteHead(&resp, false) != nil {
		return
	}
	if _, err := s.Write([]byte("a body that is longer than a few bytes")); err == nil {
		_ = s.Finish(nil)
	}
}
