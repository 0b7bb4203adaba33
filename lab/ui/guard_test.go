package ui

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"slipway/lab"
)

// serve runs the server of a lab that there is not.
func serve(t *testing.T, o Options) *Server {
	t.Helper()
	t.Setenv(lab.StateDirEnv, t.TempDir())
	if o.Lab == "" {
		o.Lab = "nothing"
	}
	s, err := Listen(t.Context(), "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// raw sends a request as it is written: clients clean paths.
func raw(t *testing.T, s *Server, request string) (status int, header http.Header, body string) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read
	if _, err := io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, r.Header, string(b)
}

func TestOnlyLoopbackIsListenedAt(t *testing.T) {
	for _, a := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80", "localhost:0", "nonsense"} {
		s, err := Listen(t.Context(), a, Options{Lab: "x"})
		var outside *LoopbackError
		if !errors.As(err, &outside) {
			t.Errorf("Listen(%q) = %v, %v; want a LoopbackError", a, s, err)
		}
	}
}

func TestTokensDiffer(t *testing.T) {
	a, b := serve(t, Options{}), serve(t, Options{})
	if a.token == b.token || len(a.token) < 32 {
		t.Errorf("tokens %q and %q: want two different ones of at least 32 characters (24 random bytes)", a.token, b.token)
	}
}

// TestWhatIsRefused asks as others would: each of these has one thing wrong.
func TestWhatIsRefused(t *testing.T) {
	s := serve(t, Options{})
	host, cookie := s.addr.String(), "Cookie: "+s.cookie()+"="+s.token
	for name, tt := range map[string]struct {
		line string
		head []string
		want int
	}{
		"no token":                            {"GET /", []string{"Host: " + host}, 401},
		"no token for the API":                {"GET /api/lab", []string{"Host: " + host}, 401},
		"no token for an asset":               {"GET /page.js", []string{"Host: " + host}, 401},
		"wrong token in the address":          {"GET /?token=AAAA", []string{"Host: " + host}, 401},
		"the token with a letter more":        {"GET /?token=" + s.token + "A", []string{"Host: " + host}, 401},
		"an empty token":                      {"GET /?token=", []string{"Host: " + host}, 401},
		"wrong cookie":                        {"GET /", []string{"Host: " + host, "Cookie: " + s.cookie() + "=AAAA"}, 401},
		"another port's cookie":               {"GET /", []string{"Host: " + host, "Cookie: slipway-ui-1=" + s.token}, 401},
		"the token in an API address":         {"GET /api/lab?token=" + s.token, []string{"Host: " + host}, 401},
		"wrong bearer":                        {"GET /api/lab", []string{"Host: " + host, "Authorization: Bearer AAAA"}, 401},
		"a rebound name":                      {"GET /", []string{"Host: evil.example:" + fmt.Sprint(s.addr.Port()), cookie}, 421},
		"a rebound name with the token":       {"GET /?token=" + s.token, []string{"Host: evil.example", cookie}, 421},
		"another port":                        {"GET /", []string{"Host: 127.0.0.1:1", cookie}, 421},
		"another loopback address":            {"GET /", []string{"Host: 127.0.0.2:" + fmt.Sprint(s.addr.Port()), cookie}, 421},
		"a foreign origin":                    {"GET /api/lab", []string{"Host: " + host, cookie, "Origin: http://evil.example"}, 403},
		"a foreign port":                      {"POST /api/trace", []string{"Host: " + host, cookie, "Origin: http://127.0.0.1:1", header + ": 1", "Content-Length: 0"}, 403},
		"an opaque origin":                    {"GET /api/lab", []string{"Host: " + host, cookie, "Origin: null"}, 403},
		"the right host by TLS":               {"GET /api/lab", []string{"Host: " + host, cookie, "Origin: https://" + host}, 403},
		"a page elsewhere on the machine":     {"GET /api/lab", []string{"Host: " + host, cookie, "Sec-Fetch-Site: same-site"}, 403},
		"another site's image":                {"GET /api/lab", []string{"Host: " + host, cookie, "Sec-Fetch-Site: cross-site"}, 403},
		"another site's link":                 {"GET /", []string{"Host: " + host, cookie, "Sec-Fetch-Site: cross-site"}, 403},
		"the API in the address bar":          {"GET /api/lab", []string{"Host: " + host, cookie, "Sec-Fetch-Site: none"}, 403},
		"a form":                              {"POST /api/trace", []string{"Host: " + host, cookie, "Content-Length: 0"}, 403},
		"a path out of the assets":            {"GET /../guard.go", []string{"Host: " + host, cookie}, 404},
		"an encoded path out of them":         {"GET /%2e%2e/guard.go", []string{"Host: " + host, cookie}, 404},
		"a slash that is encoded":             {"GET /..%2fguard.go", []string{"Host: " + host, cookie}, 404},
		"a file of the machine":               {"GET /../../../../etc/passwd", []string{"Host: " + host, cookie}, 404},
		"a backslash":                         {`GET /..%5c..%5cetc%5cpasswd`, []string{"Host: " + host, cookie}, 404},
		"a directory":                         {"GET /.", []string{"Host: " + host, cookie}, 404},
		"a lab out of the state directory":    {"GET /api/lab?lab=../etc", []string{"Host: " + host, cookie}, 404},
		"a place out of the lab":              {"GET /api/tables/..%2f..%2fetc", []string{"Host: " + host, cookie}, 404},
		"an unknown method":                   {"DELETE /api/lab", []string{"Host: " + host, cookie, header + ": 1"}, 405},
		"a lab that there is not":             {"GET /api/lab", []string{"Host: " + host, cookie}, 404},
		"nothing wrong: the page":             {"GET /", []string{"Host: " + host, cookie}, 200},
		"nothing wrong: by localhost":         {"GET /", []string{"Host: localhost:" + fmt.Sprint(s.addr.Port()), cookie, "Sec-Fetch-Site: none"}, 200},
		"nothing wrong: a program":            {"GET /page.js", []string{"Host: " + host, "Authorization: Bearer " + s.token}, 200},
		"nothing wrong: the page's own":       {"GET /style.css", []string{"Host: " + host, cookie, "Sec-Fetch-Site: same-origin", "Origin: http://" + host}, 200},
		"nothing wrong: colours of a drawing": {"GET /drawing.css", []string{"Host: " + host, cookie}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			got, head, body := raw(t, s, tt.line+" HTTP/1.1\n"+strings.Join(tt.head, "\n")+"\nConnection: close\n\n")
			if got != tt.want && (tt.want != 404 || got != 307 && got != 301) {
				t.Errorf("%s: status %d, want %d\n%s", tt.line, got, tt.want, body)
			}
			if got != 200 && (strings.Contains(body, s.token) || strings.Contains(body, "root:") || strings.Contains(body, "package ui")) {
				t.Errorf("%s: the refusal tells too much: %s", tt.line, body)
			}
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "script-src 'self'"} {
				if got != 301 && got != 307 && got != 405 && !strings.Contains(head.Get("Content-Security-Policy"), want) {
					t.Errorf("%s: Content-Security-Policy %q lacks %q", tt.line, head.Get("Content-Security-Policy"), want)
				}
			}
			if p := head.Get("Content-Security-Policy"); strings.Contains(p, "unsafe") || strings.Contains(p, "http") {
				t.Errorf("Content-Security-Policy %q lets in more than the server's own files", p)
			}
		})
	}
}

// TestTokenBecomesACookie: the address bar and the history lose the token.
func TestTokenBecomesACookie(t *testing.T) {
	s := serve(t, Options{})
	got, head, _ := raw(t, s, "GET /?token="+s.token+" HTTP/1.1\nHost: "+s.addr.String()+"\nSec-Fetch-Site: none\nConnection: close\n\n")
	if got != http.StatusSeeOther || head.Get("Location") != "/" {
		t.Errorf("status %d to %q, want 303 to /", got, head.Get("Location"))
	}
	c := head.Get("Set-Cookie")
	for _, want := range []string{s.cookie() + "=" + s.token, "HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(c, want) {
			t.Errorf("Set-Cookie %q lacks %q", c, want)
		}
	}
}

// TestRequestsAreBounded: nobody fills the server's memory.
func TestRequestsAreBounded(t *testing.T) {
	s := serve(t, Options{})
	body := `{"from":"` + strings.Repeat("a", maxBody) + `"}`
	got, _, _ := raw(t, s, fmt.Sprintf("POST /api/trace HTTP/1.1\nHost: %s\nAuthorization: Bearer %s\n%s: 1\nContent-Length: %d\nConnection: close\n\n%s", s.addr, s.token, header, len(body), body))
	if got != http.StatusBadRequest {
		t.Errorf("a body of %d bytes: status %d, want 400", len(body), got)
	}
}

// TestOnlyLooking: what makes, changes or takes down a lab is refused unless it
// was allowed; then it is the scenario's turn to say that there is none.
func TestOnlyLooking(t *testing.T) {
	for allowed, want := range map[bool]int{false: http.StatusForbidden, true: http.StatusNotFound} {
		s := serve(t, Options{AllowChange: allowed})
		for _, action := range []string{"start", "step", "solve", "reset"} {
			got, _, body := raw(t, s, fmt.Sprintf("POST /api/scenarios/no-such/%s HTTP/1.1\nHost: %s\nAuthorization: Bearer %s\n%s: 1\nContent-Length: 2\nConnection: close\n\n{}", action, s.addr, s.token, header))
			if got != want {
				t.Errorf("%s with changes allowed %v: status %d, want %d: %s", action, allowed, got, want, body)
			}
		}
	}
}
