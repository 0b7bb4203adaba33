package scenario

import "testing"

// TestOrder: the lessons are numbered from 1 on, and each leads to the next.
func TestOrder(t *testing.T) {
	lessons, err := Lessons()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range lessons {
		if l.Order != i+1 {
			t.Errorf("%s has order %d and is lesson %d", l.Name, l.Order, i+1)
		}
		next, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		if last := i == len(lessons)-1; last != (next == nil) || !last && next != lessons[i+1] && next.Name != lessons[i+1].Name {
			t.Errorf("after %s comes %v", l.Name, next)
		}
	}
}
