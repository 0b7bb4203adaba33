package ui

import (
	"embed"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"slipway/lab/traceview"
)

// dist is the front end as `make ui` built it.
//
//go:embed all:dist
var dist embed.FS

// types are the content types of what is in dist; the machine's own table of
// types is not asked.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml", ".json": "application/json", ".txt": "text/plain; charset=utf-8",
}

// getAsset serves an embedded file: those that are there, under their very
// names, and no others.
func getAsset(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = "index.html"
	}
	if !fs.ValidPath(name) {
		fail(w, http.StatusNotFound, "there is no such file")
		return
	}
	b, err := dist.ReadFile(path.Join("dist", name))
	if err != nil {
		fail(w, http.StatusNotFound, "there is no such file")
		return
	}
	kind := types[path.Ext(name)]
	if kind == "" {
		kind = mime.FormatMediaType("application/octet-stream", nil)
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(b) // who asked may have gone
}

// getDrawingCSS serves the colours and classes of a trace's drawing.
func (s *Server) getDrawingCSS(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", types[".css"])
	_, _ = w.Write([]byte(traceview.DrawingCSS()))
}
