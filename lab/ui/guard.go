package ui

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// policy lets the page use what comes from the server itself, and nothing else.
// Styles may be set by script on an element (CSSOM), but not written into
// markup.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// header is what the page's own requests that do something carry: no form and no
// simple request of another site can set it.
const header = "X-Slipway-UI"

// maxBody bounds what a request may send, bytes.
const maxBody = 64 << 10

// refusal is why a request is not answered.
type refusal struct {
	code int
	why  string
}

// guard refuses what the page itself would not ask.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if no := s.foreign(r); no != nil {
			s.refuse(w, r, no)
			return
		}
		if token := r.URL.Query().Get("token"); r.URL.Path == "/" && token != "" {
			s.enter(w, r, token)
			return
		}
		if !s.known(r) {
			s.refuse(w, r, &refusal{http.StatusUnauthorized, "the token is missing or wrong: open the address that `slipway ui` printed"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	s.o.Log.Debug("refused", "path", r.URL.Path, "host", r.Host, "why", no.why)
	fail(w, no.code, no.why)
}

// foreign finds requests of other sites: those that reach the server by another
// name (DNS rebinding), and those that a browser says were made elsewhere.
func (s *Server) foreign(r *http.Request) *refusal {
	if !s.ownHost(r.Host) {
		return &refusal{http.StatusMisdirectedRequest, fmt.Sprintf("this is not %s", r.Host)}
	}
	if o := r.Header.Get("Origin"); o != "" && (!strings.HasPrefix(o, "http://") || !s.ownHost(strings.TrimPrefix(o, "http://"))) {
		return &refusal{http.StatusForbidden, "requests of other origins are refused"}
	}
	// A browser that says where a request comes from is believed. "none" is a
	// person who typed the address, or the program that opened the browser.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && (site != "none" || r.URL.Path != "/") {
		return &refusal{http.StatusForbidden, "requests from other sites are refused"}
	}
	if r.Method != http.MethodGet && r.Header.Get(header) == "" {
		return &refusal{http.StatusForbidden, "the header " + header + " is missing"}
	}
	return nil
}

// ownHost accepts the listener's own address, and localhost at its port.
func (s *Server) ownHost(host string) bool {
	if a, err := netip.ParseAddrPort(host); err == nil {
		return a == s.addr
	}
	return host == fmt.Sprintf("localhost:%d", s.addr.Port())
}

// cookie is named after the port, as cookies know none: pages of several labs
// may be open at once.
func (s *Server) cookie() string { return fmt.Sprintf("slipway-ui-%d", s.addr.Port()) }

// enter exchanges the token of the printed address for a cookie, and takes it
// out of the address bar and the history.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, token string) {
	if !s.right(token) {
		s.refuse(w, r, &refusal{http.StatusUnauthorized, "the token is wrong: open the address that `slipway ui` printed"})
		return
	}
	http.SetCookie(w, &http.Cookie{Name: s.cookie(), Value: s.token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}) //nolint:gosec // not Secure: loopback without TLS
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// known takes the token from the cookie, or for programs from a header.
func (s *Server) known(r *http.Request) bool {
	if c, err := r.Cookie(s.cookie()); err == nil && s.right(c.Value) {
		return true
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && s.right(token)
}

func (s *Server) right(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 1
}

// changes answers only where changes are allowed.
func (s *Server) changes(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.o.AllowChange {
			fail(w, http.StatusForbidden, "the page may only look: start it with --allow-change")
			return
		}
		next(w, r)
	}
}

// answer writes a value as JSON.
func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // who asked may have gone
}

// fail writes an error as JSON.
func fail(w http.ResponseWriter, code int, why string) {
	b, err := json.Marshal(map[string]string{"error": why})
	if err != nil {
		b = []byte(`{"error":"unknown"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b)
}
