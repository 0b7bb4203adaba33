package images_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/echo"
)

// container is the echo server in a namespace of its own, as in a pod.
type container struct {
	*testing.T
	ns     *netns.NS
	client *http.Client
}

func start(t *testing.T, env []string, args ...string) *container {
	t.Helper()
	testnet.Need(t, testnet.Root)
	b, err := components.Build(t.Context(), "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &container{T: t, ns: testnet.NewNS(t)}
	cmd := exec.CommandContext(t.Context(), b.Path("echo"), args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := c.ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("echo, told to end: %v", err)
		}
	})
	c.client = &http.Client{Transport: &http.Transport{DialContext: c.dial}}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

func (c *container) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	derr := c.ns.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return nil
	})
	if derr != nil {
		return nil, derr
	}
	return conn, err
}

// get asks until the server is there.
func (c *container) get(port int, accept string) (*http.Response, string) {
	c.Helper()
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		req, err := http.NewRequestWithContext(c.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/path?q=1", port), nil)
		if err != nil {
			c.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := c.client.Do(req)
		if err != nil {
			if time.Since(begun) > 10*time.Second {
				c.Fatalf("port %d: %v", port, err)
			}
			continue
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			c.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp, string(raw)
	}
}

// A container answers as the lab's own pods do: the same JSON, the same text.
func TestContainerAnswersAsPods(t *testing.T) {
	c := start(t, []string{"POD_NAME=web-0", "POD_NAMESPACE=shop", "NODE_NAME=node01"}, "9090")
	_, raw := c.get(9090, "application/json")
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.DisallowUnknownFields() // it says nothing that pods do not
	var a echo.Answer
	if err := dec.Decode(&a); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if a.Pod != "web-0" || a.Namespace != "shop" || a.Node != "node01" || a.URL != "/path?q=1" || a.Method != "GET" ||
		a.Address.String() != "127.0.0.1:9090" || a.Source.Addr().String() != "127.0.0.1" || len(a.Headers) == 0 {
		t.Errorf("the answer is %+v", a)
	}
	_, text := c.get(9090, "*/*")
	for _, line := range []string{"pod:       web-0\n", "namespace: shop\n", "node:      node01\n", "address:   127.0.0.1:9090\n", "\nGET /path?q=1 HTTP/1.1\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("the text has no line %q:\n%s", line, text)
		}
	}
}

// A stand-in serves what images mostly serve, and what it is told, and says in
// each answer what it is not.
func TestStandInSaysSo(t *testing.T) {
	c := start(t, []string{images.StandInEnv + "=nginx:1.27", "PORT=7000"}, "-listen=:5678", "-text=hello")
	for _, port := range []int{80, 8080, 7000, 5678} {
		resp, text := c.get(port, "*/*")
		if got := resp.Header.Get("X-Slipway-Stand-In"); got != "for nginx:1.27" || !strings.Contains(text, "stand-in for the image nginx:1.27") {
			t.Errorf("port %d: header %q and\n%s", port, got, text)
		}
	}
}

// Datagrams come back from the address that they were sent to.
func TestContainerEchoesDatagrams(t *testing.T) {
	c := start(t, nil, "9090")
	c.get(9090, "*/*")
	conn, err := c.dial(t.Context(), "udp", "127.0.0.2:9090")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a datagram socket
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, err := conn.Read(buf) // connected: from another address it would not arrive
	if err != nil || string(buf[:n]) != "hello" {
		t.Errorf("came back: %q, %v", buf[:n], err)
	}
}
