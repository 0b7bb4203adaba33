package traceview

import (
	"bytes"
	"os"
	"testing"
)

func TestDump(t *testing.T) {
	dir := os.Getenv("DUMP")
	if dir == "" {
		t.Skip()
	}
	for n, tr := range fixtures() {
		var b bytes.Buffer
		if err := SVG(&b, tr, nil); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(dir+"/"+n+".svg", b.Bytes(), 0o644)
		b.Reset()
		if err := HTML(&b, tr, nil); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(dir+"/"+n+".html", b.Bytes(), 0o644)
		b.Reset()
		if err := Mermaid(&b, tr); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(dir+"/"+n+".mmd", b.Bytes(), 0o644)
		b.Reset()
		if err := DOT(&b, tr, nil); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(dir+"/"+n+".dot", b.Bytes(), 0o644)
	}
}
